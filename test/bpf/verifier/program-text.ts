/**
 * Programs as assembly text, with a few maps to refer to: `r1 = map[fd:1]`.
 *
 *   1 ARRAY of one 48-byte value   2 HASH u64 -> u64    3 HASH u32 -> { lock, u32 }   4 RINGBUF
 *   5 PROG_ARRAY                   6 frozen, "hello"    7 ARRAY_OF_MAPS of 1          8 HASH u32 -> { timer }
 *   9 XSKMAP                       10 SOCKMAP
 */
import { plainRecord } from '../../../src/bpf/btf/record.js';
import { assemble } from '../../../src/bpf/assemble.js';
import { readSlots } from '../../../src/bpf/instruction.js';
import type { Btf } from '../../../src/bpf/btf/btf.js';
import { findKfunc, KFUNCS } from '../../../src/bpf/kfuncs/table.js';
import type { SectionKind } from '../../../src/bpf/object/spec.js';
import { OPCODES, PSEUDO } from '../../../src/bpf/opcodes.js';
import { rawProgram } from '../../../src/bpf/raw-program.js';
import { VerifierError } from '../../../src/bpf/verifier/error.js';
import type {
  ArgumentType,
  Reference,
  VerifiedProgram,
  VerifierInput,
  VerifierMap,
} from '../../../src/bpf/verifier/input.js';
import { verify } from '../../../src/bpf/verifier/verify.js';

const BPF_F_RDONLY_PROG = 1 << 7;
const CALL = 0x85;

function map(type: string, keySize: number, valueSize: number, more: Partial<VerifierMap> = {}) {
  const name = type.toLowerCase();
  return {
    name,
    type,
    keySize,
    valueSize,
    maxEntries: 1,
    flags: 0,
    frozen: false,
    hasBtf: true,
    ...more,
  } satisfies VerifierMap;
}

const ARRAY = map('ARRAY', 4, 48);
const MAPS: Readonly<Record<number, VerifierMap>> = {
  1: ARRAY,
  2: map('HASH', 8, 8),
  3: map('HASH', 4, 8, { record: plainRecord({ bpf_spin_lock: 0 }) }),
  4: map('RINGBUF', 0, 0),
  5: map('PROG_ARRAY', 4, 4),
  6: map('ARRAY', 4, 16, {
    flags: BPF_F_RDONLY_PROG,
    frozen: true,
    contents: new TextEncoder().encode('hello\0 world wide'.slice(0, 16)),
  }),
  7: map('ARRAY_OF_MAPS', 4, 4, { inner: ARRAY }),
  8: map('HASH', 4, 16, { record: plainRecord({ bpf_timer: 0 }) }),
  9: map('XSKMAP', 4, 4),
  10: map('SOCKMAP', 4, 4),
};

export interface TextOptions {
  readonly kind?: SectionKind;
  readonly gpl?: boolean;
  readonly budget?: number;
  readonly deviceBound?: boolean;
  readonly kernelBtf?: Btf;
  /** Arguments of the global functions among the subprograms, by their index. */
  readonly globals?: Readonly<Record<number, readonly ArgumentType[]>>;
}

/** Kernel functions that are not modelled, and one that no kernel has. */
const FOREIGN = ['bpf_not_there', 'bpf_cpumask_create', 'bpf_dynptr_from_skb', 'bpf_ct_release'];
const FOREIGN_BASE = 900;

/** `call bpf_iter_num_next` as assembly has it: by number. */
function withKfuncNumbers(text: string): string {
  return text.replaceAll(/call (bpf_\w+)$/gm, (_, name: string) => {
    return `call kernel-function#${findKfunc(name)?.id ?? FOREIGN_BASE + Math.max(0, FOREIGN.indexOf(name))}`;
  });
}

export function inputOf(text: string, options: TextOptions = {}): VerifierInput {
  const { functions } = rawProgram('test', assemble(withKfuncNumbers(text)));
  return {
    name: 'test',
    kind: options.kind ?? 'xdp',
    xdpAttach: 'device',
    gpl: options.gpl ?? true,
    deviceBound: options.deviceBound ?? false,
    ...(options.kernelBtf ? { kernelBtf: options.kernelBtf } : {}),
    functions: functions.map(({ name, insns }, fn) => {
      const slots = readSlots(insns);
      const references = new Map<number, Reference>();
      const kfuncs = new Map<number, string>();
      for (const [at, slot] of slots.entries()) {
        if (slot.code === CALL && slot.src === PSEUDO.KFUNC_CALL) {
          kfuncs.set(
            at,
            KFUNCS.find(({ id }) => id === slot.imm)?.name ??
              FOREIGN[slot.imm - FOREIGN_BASE] ??
              '',
          );
        }
        if (OPCODES[slot.code]?.kind !== 'ld_imm64') continue;
        const target = MAPS[slot.imm];
        if (!target) continue;
        if (slot.src === PSEUDO.MAP_FD) references.set(at, { kind: 'map', map: target });
        if (slot.src === PSEUDO.MAP_VALUE) {
          const offset = slots[at + 1]?.imm ?? 0;
          references.set(at, { kind: 'value', map: target, offset });
        }
      }
      const global = options.globals?.[fn];
      return { name, slots, lines: [], references, kfuncs, ...(global ? { global } : {}) };
    }),
  };
}

export function verifyText(text: string, options: TextOptions = {}): VerifiedProgram {
  return verify(inputOf(text, options), { budget: options.budget ?? 1_000_000 });
}

/** `EACCES R2 !read_ok`, or `accepted`. */
export function verdict(text: string, options: TextOptions = {}): string {
  try {
    verifyText(text, options);
    return 'accepted';
  } catch (error) {
    if (!(error instanceof VerifierError)) throw error;
    return `${error.errno} ${error.reason}`;
  }
}
