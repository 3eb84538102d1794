/**
 * Records of `vectors/jit`: a program, trampoline, poke or branch as a kernel made it, against ours.
 *
 * The record formats are in that folder's README. What a record leaves open follows its rules: the struct
 * offsets of the kernels that made the files are `VECTOR_OFFSETS`, addresses of the harness are
 * constants unless the record has its own (`addr` of records read from booted kernels).
 *
 * Usage:
 *   const difference = checkJitRecord(JSON.parse(line));   // undefined: equal
 */
import { hex32, hexToBytes } from '../common/bytes.js';
import { InputError } from '../common/errors.js';
import type { JitFunctionInput } from './context.js';
import { compile, type JitImage, type JitInput } from './program.js';
import type { KernelVersion, StructOffsets } from './profile.js';

/** Struct offsets of the kernels behind the vectors (arm64 defconfig). */
export const VECTOR_OFFSETS: Readonly<Record<KernelVersion, StructOffsets>> = {
  '6.1': { maxEntries: 36, ptrs: 272, bpfFunc: 48, insnsi: 72, threadInfoCpu: 16 },
  '6.12': { maxEntries: 36, ptrs: 264, bpfFunc: 48, insnsi: 72, threadInfoCpu: 16 },
  '7.3': { maxEntries: 68, ptrs: 296, bpfFunc: 72, insnsi: 96, threadInfoCpu: 16 },
};

const HARNESS = {
  callBase: 0xffff800081000000n,
  dummyTramp: 0xffff800080030000n,
} as const;

interface Bits {
  readonly pac: number;
  readonly bti: number;
}

interface FunctionRecord {
  readonly insns: string;
  readonly stack_depth?: number;
  readonly stack_depth_rounded16?: number;
  readonly flags?: readonly string[];
  readonly private_stack?: unknown;
  readonly priv_stack_ptr?: string;
  readonly out_stack_arg_cnt?: number;
  readonly indirect_targets?: readonly number[];
  readonly image_base: string;
  readonly jited_len: number;
  readonly alloc_size?: number;
  readonly prologue_len?: number;
  readonly epilogue_off?: number;
  readonly stack_size?: number;
  readonly insn_off?: readonly number[];
  readonly words: readonly string[];
  readonly plt_off?: number;
  readonly plt_target?: string;
  readonly extable_off?: number;
  readonly extable?: readonly { insn: number; fixup: string; type: number; data: number }[];
}

export interface ProgramRecord {
  readonly name: string;
  readonly kernel: KernelVersion;
  readonly config: Bits;
  readonly cpu: { readonly lse: number; readonly vhe: number; readonly sb: number };
  readonly arena?: { readonly kern_vm_start: string; readonly user_vm_start: string };
  readonly addr?: { readonly call_base: string; readonly dummy_tramp: string };
  readonly thread_info_cpu_off?: number;
  readonly funcs: readonly FunctionRecord[];
}

/** The JIT's input of a program record. */
export function programInput(record: ProgramRecord): JitInput {
  const functions = record.funcs.map((fn, index): JitFunctionInput => {
    const flags = fn.flags ?? [];
    return {
      name: `${record.name}[${index}]`,
      insns: hexToBytes(fn.insns),
      stackDepth: fn.stack_depth ?? fn.stack_depth_rounded16 ?? 0,
      exceptionBoundary: flags.includes('exception_boundary'),
      exceptionCallback: flags.includes('exception_cb'),
      ...(fn.priv_stack_ptr === undefined ? {} : { privateStack: BigInt(fn.priv_stack_ptr) }),
      outgoingStackArguments: fn.out_stack_arg_cnt ?? 0,
      indirectTargets: fn.indirect_targets ?? [],
    };
  });
  const { arena } = record;
  if (arena === undefined) return { functions };
  const window = {
    kernVmStart: BigInt(arena.kern_vm_start),
    userVmStart: BigInt(arena.user_vm_start),
  };
  return { functions, arena: window };
}

/** Our images of a program record. */
export function compileRecord(record: ProgramRecord, offsets?: StructOffsets): readonly JitImage[] {
  const base = offsets ?? VECTOR_OFFSETS[record.kernel];
  const { addr, cpu, config } = record;
  return compile(programInput(record), {
    kernel: record.kernel,
    cpu: { lse: cpu.lse === 1, vhe: cpu.vhe === 1, sb: cpu.sb === 1 },
    config: { pac: config.pac === 1, bti: config.bti === 1 },
    offsets: { ...base, threadInfoCpu: record.thread_info_cpu_off ?? base.threadInfoCpu },
    callBase: addr === undefined ? HARNESS.callBase : BigInt(addr.call_base),
    dummyTramp: addr === undefined ? HARNESS.dummyTramp : BigInt(addr.dummy_tramp),
    place: (index) => BigInt(record.funcs[index]?.image_base ?? 0),
  }).functions;
}

function checkProgram(record: ProgramRecord, offsets?: StructOffsets): string | undefined {
  const images = compileRecord(record, offsets);
  for (const [index, fn] of record.funcs.entries()) {
    const image = images[index];
    const difference = image === undefined ? 'no image' : compareImage(fn, image);
    if (difference !== undefined) return `function ${index}: ${difference}`;
  }
  return undefined;
}

function compareImage(fn: FunctionRecord, image: JitImage): string | undefined {
  const words = compareWords(fn.words, image.words);
  if (words !== undefined) {
    const at = 4 * words.index;
    return `${words.text}, in ${sectionAt(image, at)}`;
  }
  const numbers: readonly (readonly [string, number | undefined, number])[] = [
    ['jited_len', fn.jited_len, image.jitedLength],
    ['alloc_size', fn.alloc_size, image.allocSize],
    ['prologue_len', fn.prologue_len, image.prologueLength],
    ['epilogue_off', fn.epilogue_off, image.epilogueOffset],
    ['stack_size', fn.stack_size, image.stackSize],
    ['plt_off', fn.plt_off, image.pltOffset],
    ['extable_off', fn.extable_off, image.extableOffset],
    ['extable entries', fn.extable?.length, image.extable.length],
  ];
  for (const [name, expected, ours] of numbers) {
    if (expected !== undefined && expected !== ours) return `${name} ${expected}, ours ${ours}`;
  }
  if (fn.plt_target !== undefined && BigInt(fn.plt_target) !== image.pltTarget) {
    return `plt_target ${fn.plt_target}, ours 0x${image.pltTarget.toString(16)}`;
  }
  for (const [index, offset] of (fn.insn_off ?? []).entries()) {
    const ours = image.insnOffsets[index];
    if (ours !== offset) return `offset of insn ${index} is ${offset}, ours ${ours}`;
  }
  for (const [index, entry] of (fn.extable ?? []).entries()) {
    const ours = image.extable[index];
    const text = (e: typeof ours): string =>
      e === undefined ? 'none' : `${e.insn} ${hex32(e.fixup)} ${e.type} ${e.data}`;
    const expected = text({ ...entry, fixup: parseInt(entry.fixup, 16) });
    if (expected !== text(ours)) return `extable[${index}] ${expected}, ours ${text(ours)}`;
  }
  return undefined;
}

interface WordDifference {
  readonly index: number;
  readonly text: string;
}

function compareWords(
  expected: readonly string[],
  ours: ArrayLike<number>,
): WordDifference | undefined {
  const count = Math.max(expected.length, ours.length);
  for (let index = 0; index < count; index++) {
    const theirs = expected[index];
    const own = ours[index];
    if (theirs !== undefined && own !== undefined && parseInt(theirs, 16) === own) continue;
    const show = (word: number | undefined): string =>
      word === undefined ? 'nothing' : `${hex32(word)}`;
    const text = `word ${index} is ${show(theirs === undefined ? undefined : parseInt(theirs, 16))}, ours ${show(own)}`;
    return { index, text };
  }
  return undefined;
}

/** Which part of the image byte `at` belongs to. */
function sectionAt(image: JitImage, at: number): string {
  if (at < image.prologueLength) return 'prologue';
  if (at >= image.epilogueOffset) return at >= image.pltOffset ? 'PLT' : 'epilogue';
  let insn = 0;
  for (const [index, offset] of image.insnOffsets.entries()) if (offset <= at) insn = index;
  return `insn ${insn}`;
}

export function checkJitRecord(record: unknown): string | undefined {
  if (typeof record !== 'object' || record === null || !('cat' in record)) {
    throw new InputError('not a JIT record: no cat');
  }
  return checkProgram(record as object as ProgramRecord);
}
