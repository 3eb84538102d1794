/**
 * What the verifier is given and what it gives back: pure data, no machine needed.
 *
 * Usage:
 *   const { functions } = verify(input);
 *   functions[0].accesses.get(3); // 'ctx'
 */
import type { Btf } from '../btf/btf.js';
import type { LocalTypes } from '../btf/local-types.js';
import type { BtfRecord } from '../btf/record.js';
import type { SectionKind, SourceLine } from '../object/spec.js';
import type { Slot } from '../instruction.js';
import type { TracedFunction } from '../traced-function.js';

/** A map as a program sees it. */
export interface VerifierMap {
  readonly name: string;
  /** enum bpf_map_type, by name: `HASH`. */
  readonly type: string;
  readonly keySize: number;
  readonly valueSize: number;
  readonly maxEntries: number;
  /** BPF_F_* of creation. */
  readonly flags: number;
  /** Programs and user space can no longer change it: its contents are constants. */
  readonly frozen: boolean;
  /** The one value of a global data section. */
  readonly contents?: Uint8Array;
  /** The kernel's fields in the value. */
  readonly record?: BtfRecord;
  /** Whether BTF describes the value. */
  readonly hasBtf: boolean;
  /** What lookups in a map of maps give. */
  readonly inner?: VerifierMap;
}

/** What an ld_imm64 stands for; function addresses are in the slots themselves. */
export type Reference =
  | { readonly kind: 'map'; readonly map: VerifierMap }
  | { readonly kind: 'value'; readonly map: VerifierMap; readonly offset: number }
  /** Memory of the kernel or of the loader, e.g. a ksym or kconfig value. */
  | { readonly kind: 'memory'; readonly size: number; readonly readOnly: boolean };

/** What a global function is told about an argument by BTF. */
export type ArgumentType =
  | { readonly kind: 'scalar' }
  | { readonly kind: 'ctx' }
  | { readonly kind: 'memory'; readonly size: number; readonly nonNull: boolean }
  | { readonly kind: 'dynptr' }
  /** A structure of the kernel that is valid for sure. */
  | { readonly kind: 'trusted'; readonly struct: string; readonly nonNull: boolean }
  /** Nothing can be passed: why. */
  | { readonly kind: 'refused'; readonly why: string };

export interface VerifierFunction {
  readonly name: string;
  /** A bpf2bpf call has the callee's index in `off`; a function address in the second slot's. */
  readonly slots: readonly Slot[];
  readonly lines: readonly SourceLine[];
  /** By slot of the ld_imm64. */
  readonly references: ReadonlyMap<number, Reference>;
  /** Names of the kernel functions that it calls, by slot of the call. */
  readonly kfuncs: ReadonlyMap<number, string>;
  /** Names of those whose call the linker made a call of a helper number, by slot: inlined or not there. */
  readonly numbered?: ReadonlyMap<number, string>;
  /** What the kernel does not have though CO-RE relocations need it, by slot of the call that stands there now. */
  readonly poisoned?: ReadonlyMap<number, string>;
  /** Arguments of a global function, which is verified alone. Absent: verified at each call. */
  readonly global?: readonly ArgumentType[];
  /** Whether a global function gives back an integer or enum, as it must. Default: true. */
  readonly returnsScalar?: boolean;
}

export interface VerifierInput {
  readonly name: string;
  readonly kind: SectionKind;
  /** What an XDP program is attached to. */
  readonly xdpAttach: 'device' | 'devmap' | 'cpumap';
  /** Of a tracing program, when it is known. */
  readonly traced?: TracedFunction;
  /** Of an LSM program: what its hook may give. Default: anything. */
  readonly resultRange?: { readonly min: bigint; readonly max: bigint };
  /** License is GPL-compatible. */
  readonly gpl: boolean;
  /** Bound to the device that it will run on. */
  readonly deviceBound: boolean;
  /** The kernel's types, for pointers to its structs. */
  readonly kernelBtf?: Btf;
  /** The program's own types, for objects that it allocates. */
  readonly btf?: Btf;
  readonly types?: LocalTypes;
  /** May sleep: then RCU critical sections are only where it says so. Default: false. */
  readonly sleepable?: boolean;
  /** Main first. */
  readonly functions: readonly VerifierFunction[];
}

export interface VerifyOptions {
  /** Whether the host has helper `id`. Default: all that are known. */
  readonly hasHelper?: (id: number) => boolean;
  /** Most instructions that are walked (BPF_COMPLEXITY_LIMIT_INSNS). Default: 1,000,000. */
  readonly budget?: number;
}

/** What memory an instruction reaches. */
export type AccessKind =
  | 'ctx'
  | 'packet'
  | 'packet_meta'
  | 'map_value'
  | 'map_key'
  | 'stack'
  | 'mem'
  | 'sock'
  | 'xdp_sock'
  /** Through a pointer that the kernel gave: a load must not fault. */
  | 'kernel'
  /** Through one that is valid for sure. */
  | 'trusted'
  /** An object that the program allocated. */
  | 'object';

/** What the loader has to put in front of a call. */
export type CallFixup =
  /** R1 = size, R2 = the record's btf_struct_meta. */
  | { readonly kind: 'new'; readonly size: number; readonly record: BtfRecord | undefined }
  /** R2 = btf_struct_meta */
  | { readonly kind: 'meta'; readonly record: BtfRecord | undefined }
  /** Register = btf_struct_meta, the next = offset of the node. */
  | {
      readonly kind: 'insert';
      readonly register: number;
      readonly record: BtfRecord | undefined;
      readonly offset: number;
    }
  /** R1 = the per-CPU pointer that it points to. */
  | { readonly kind: 'percpu' };

export interface VerifiedFunction {
  /** Loads, stores and atomics, by slot. */
  readonly accesses: ReadonlyMap<number, AccessKind>;
  /** Calls that need more than what the program passes, by slot. */
  readonly calls: ReadonlyMap<number, CallFixup>;
  /** Bytes of stack below R10. */
  readonly stackDepth: number;
  /** Slots that no path reaches. */
  readonly dead: ReadonlySet<number>;
}

export interface VerifiedProgram {
  /** Parallel to the input's. */
  readonly functions: readonly VerifiedFunction[];
  /** Instructions walked. */
  readonly processed: number;
  /** States kept for comparison at the end. */
  readonly states: number;
}
