/**
 * What an object file says, as pure data: programs, functions, maps, global data.
 *
 * Nothing here touches a machine. `parseObject` makes it, `load` brings it to life. The split follows
 * libbpf's open and load phases.
 */
import type { Btf } from '../btf/btf.js';
import type { CoreRelocation } from '../btf/ext.js';
import type { StructOpsSpec } from './struct-ops.js';

/** What a program's section says it is. `unsupported` parses, but does not load. */
export type SectionKind =
  | 'xdp'
  | 'fentry'
  | 'fexit'
  | 'fmod_ret'
  /** Entry and exit in one program (7.3). */
  | 'fsession'
  | 'lsm'
  | 'lsm_cgroup'
  | 'struct_ops'
  /** Takes the place of a function of a program, and is then of that program's kind. */
  | 'freplace'
  | ProbeKind
  | 'tc'
  | 'socket'
  | 'unsupported';

/** Kinds that are called through a trampoline: the context is an array of argument registers. */
const TRAMPOLINE_KINDS: readonly SectionKind[] = [
  'fentry',
  'fexit',
  'fmod_ret',
  'fsession',
  'lsm',
  'lsm_cgroup',
  'struct_ops',
];

export function hasTrampoline(kind: SectionKind): boolean {
  return TRAMPOLINE_KINDS.includes(kind);
}

/** Kinds that are called at probes: the context is struct pt_regs. */
export const PROBE_KINDS = ['kprobe', 'kretprobe', 'kprobe_multi', 'kretprobe_multi'] as const;

export type ProbeKind = (typeof PROBE_KINDS)[number];

export function isProbe(kind: SectionKind): kind is ProbeKind {
  return (PROBE_KINDS as readonly SectionKind[]).includes(kind);
}

/** Where an instruction comes from. */
export interface SourceLine {
  /** First slot of the function that this line holds for. */
  readonly slot: number;
  readonly file: string;
  readonly text: string;
  readonly line: number;
  readonly column: number;
}

/** What a slot refers to. `slot` is relative to the function. */
export type Relocation =
  | { readonly kind: 'map'; readonly slot: number; readonly map: string }
  /** The address `offset` bytes into a data section's map. */
  | { readonly kind: 'data'; readonly slot: number; readonly map: string; readonly offset: number }
  /** A bpf2bpf call. `callee` is an index in `ObjectSpec.functions`. */
  | { readonly kind: 'call'; readonly slot: number; readonly callee: number }
  /** The address of a function: a callback. */
  | { readonly kind: 'function'; readonly slot: number; readonly callee: number }
  /** A kernel symbol: its address, or a call of it. `symbol` is a name in `ObjectSpec.externs`. */
  | { readonly kind: 'extern'; readonly slot: number; readonly symbol: string };

export interface FunctionSpec {
  readonly name: string;
  /** The ELF section it is in. */
  readonly section: string;
  /** Bytes from the start of that section. */
  readonly offset: number;
  /** Its slots as in the file, not relocated. */
  readonly insns: Uint8Array;
  readonly relocations: readonly Relocation[];
  /** Sorted by slot; empty without BTF.ext. */
  readonly lines: readonly SourceLine[];
  /** `offset` here is relative to the function. */
  readonly coreRelocations: readonly CoreRelocation[];
  readonly isStatic: boolean;
  /** BTF id of the func, 0 without BTF. */
  readonly btfId: number;
}

export interface ProgramSpec {
  readonly name: string;
  /** As in the file: `fentry/bpf_fentry_test2`. */
  readonly section: string;
  readonly kind: SectionKind;
  /** The function that a tracing program is attached to. */
  readonly attachTarget?: string;
  /** `xdp.frags`: takes packets of several buffers. */
  readonly frags: boolean;
  /** fentry.s and kin: may sleep. */
  readonly sleepable: boolean;
  /** What an XDP program is attached to: a device, or an entry of a devmap or cpumap. */
  readonly xdpAttach: 'device' | 'devmap' | 'cpumap';
  /** Index in `ObjectSpec.functions`. */
  readonly functionIndex: number;
}

/** A variable of a global data section. */
export interface DataVariable {
  readonly name: string;
  /** Bytes from the start of the section. */
  readonly offset: number;
  readonly size: number;
  /** BTF id of its type, 0 when unknown. */
  readonly type: number;
}

/** A map as the object defines it. Type numbers are not judged before loading. */
export interface MapDefinition {
  readonly name: string;
  /** enum bpf_map_type. */
  readonly type: number;
  readonly keySize: number;
  readonly valueSize: number;
  readonly maxEntries: number;
  readonly flags: number;
  /** Bloom filter: number of hash functions; 0 when not given. */
  readonly mapExtra?: number;
  /** Initial contents of a global data section; the one value of key 0. */
  readonly data?: Uint8Array;
  /** Name of the ELF section of a global data map. */
  readonly section?: string;
  /** The variables of a global data section, by offset. */
  readonly variables?: readonly DataVariable[];
  /** BTF ids of key and value, 0 when unknown. */
  readonly keyType: number;
  readonly valueType: number;
  /** Slots of `.values`: map-in-map and prog_array entries that the object fills in itself. */
  readonly initialValues: readonly { readonly index: number; readonly symbol: string }[];
  /** What the maps of a map-in-map look like. */
  readonly inner?: MapDefinition;
}

/** What the kernel has to provide. */
export interface ExternSpec {
  readonly name: string;
  readonly kind: 'kconfig' | 'ksym' | 'kfunc';
  /** Nothing is there (0) when the kernel has none. */
  readonly weak: boolean;
  /** BTF id of the variable's type or the function's prototype. */
  readonly type: number;
  /** Place in the `.kconfig` map; 0 for others. */
  readonly offset: number;
  readonly size: number;
}

export interface ObjectSpec {
  /** Name without directory and `.o`; empty when not given. */
  readonly name: string;
  readonly license: string;
  readonly programs: readonly ProgramSpec[];
  readonly functions: readonly FunctionSpec[];
  readonly maps: readonly MapDefinition[];
  readonly externs: readonly ExternSpec[];
  /** Variables of `.struct_ops`. Default none. */
  readonly structOps?: readonly StructOpsSpec[];
  readonly btf?: Btf;
  /** What was read but has no effect: `map 'flows': pinning is ignored`. */
  readonly notes: readonly string[];
}
