/**
 * `vectors/kernel/V/jit-corpus.json`: small programs with what a booted kernel made of each: xlated
 * instructions, images, the result of one BPF_PROG_TEST_RUN, the packet after it.
 *
 * One object: kernel, symbols, programs[], failed[] (what that kernel refused; in some files a count).
 * Instructions are as they were loaded, with indexes of the maps in `CORPUS_MAPS` for descriptors; the
 * xlated ones are as BPF_OBJ_GET_INFO_BY_FD gives them: maps by id, bpf2bpf calls by distance.
 */
import { hexToBytes } from '../../../common/bytes.js';
import { makeSlot, readSlots, type Slot } from '../../../bpf/instruction.js';
import { PSEUDO } from '../../../bpf/opcodes.js';
import { VectorRecord } from '../record.js';
import { wordsOf } from './image.js';

const CALL = 0x85;
const TAIL_CALL = 0xf5;
const LD_IMM64 = 0x18;
const BPF_FUNC_TAIL_CALL = 12;

export interface CorpusProgram {
  readonly record: VectorRecord;
  readonly name: string;
  readonly type: 'xdp' | 'socket';
  /** As loaded. */
  readonly slots: readonly Slot[];
  /** Xlated, by function, in the form of `bpf/program.ts`, but with references to maps left in. */
  readonly functions: readonly (readonly Slot[])[];
  /** One image and its address per function. */
  readonly images: readonly (readonly number[])[];
  readonly addresses: readonly bigint[];
}

export interface RefusedProgram {
  readonly record: VectorRecord;
  readonly name: string;
  readonly type: 'xdp' | 'socket';
  readonly slots: readonly Slot[];
  /** Negative. */
  readonly errno: number;
}

export interface Corpus {
  readonly release: string;
  /** Addresses of some kernel functions. */
  readonly symbols: ReadonlyMap<string, bigint>;
  readonly programs: readonly CorpusProgram[];
  readonly refused: readonly RefusedProgram[];
}

/** Whether parsed JSON is such a file. */
export function isJitCorpus(json: unknown): boolean {
  if (typeof json !== 'object' || json === null) return false;
  return ['kernel', 'programs', 'failed', 'map_notes'].every((field) => field in json);
}

/** Throws InputError for a malformed file. */
export function readCorpus(name: string, json: unknown): Corpus {
  const file = new VectorRecord(name, json as Readonly<Record<string, unknown>>);
  return {
    release: file.text('kernel'),
    symbols: new Map(file.entries('symbols').map(([symbol, at]) => [symbol, BigInt(String(at))])),
    programs: file.records('programs').map(readProgram),
    refused: file.records('failed').map((record) => ({
      record,
      name: record.name,
      // loads of the packet's bounds come first in all XDP programs here
      type: 'xdp',
      slots: readSlots(hexToBytes(record.text('insns'))),
      errno: record.number('err'),
    })),
  };
}

function readProgram(record: VectorRecord): CorpusProgram {
  const words = wordsOf(record.text('jited'));
  let at = 0;
  const images = record.numbers('func_lens').map((length) => words.slice(at, (at += length / 4)));
  return {
    record,
    name: record.name,
    type: record.text('type') === 'XDP' ? 'xdp' : 'socket',
    slots: readSlots(hexToBytes(record.text('insns'))),
    functions: splitXlated(readSlots(hexToBytes(record.text('xlated')))),
    images,
    addresses: record.texts('ksyms').map(BigInt),
  };
}

/** Is slot `at` the first of an ld_imm64 that refers to a map or to a value in one? */
export function isMapReference(slots: readonly Slot[], at: number): boolean {
  const slot = slots[at];
  return slot?.code === LD_IMM64 && (slot.src === PSEUDO.MAP_FD || slot.src === PSEUDO.MAP_VALUE);
}

/**
 * Functions of a dumped program: a bpf2bpf call there has the distance to its callee in `off` and the
 * callee's number in `imm`; a tail call is a call of helper 12.
 */
export function splitXlated(slots: readonly Slot[]): Slot[][] {
  const isLocal = ({ code, src }: Slot): boolean => code === CALL && src === PSEUDO.CALL;
  const targets = slots.flatMap((slot, i) => (isLocal(slot) ? [i + 1 + slot.off] : []));
  const starts = [...new Set([0, ...targets])].sort((a, b) => a - b);
  const linked = slots.map((slot, i): Slot => {
    if (isLocal(slot)) return { ...slot, off: starts.indexOf(i + 1 + slot.off), imm: 1 };
    const isTailCall = slot.code === CALL && slot.src === 0 && slot.imm === BPF_FUNC_TAIL_CALL;
    return isTailCall ? makeSlot(TAIL_CALL) : slot;
  });
  return starts.map((start, i) => linked.slice(start, starts[i + 1] ?? slots.length));
}
