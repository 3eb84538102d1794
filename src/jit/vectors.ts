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
import { branchWord } from '../a64/immediates.js';
import { hex32, hex64, hexToBytes } from '../common/bytes.js';
import { InputError, KernelError } from '../common/errors.js';
import type { JitFunctionInput } from './context.js';
import { compile, type JitImage, type JitInput } from './program.js';
import { moveRegisterWord, planTextPoke, type PokeType } from './poke.js';
import type { KernelVersion, StructOffsets } from './profile.js';
import { PROFILES } from './profiles.js';
import { compileTrampoline, type Trampoline } from './trampoline.js';
import type { LinkKind, TrampolineLink } from './trampoline-model.js';

/** Struct offsets of the kernels behind the vectors (arm64 defconfig). */
export const VECTOR_OFFSETS: Readonly<Record<KernelVersion, StructOffsets>> = {
  '6.1': { maxEntries: 36, ptrs: 272, bpfFunc: 48, insnsi: 72, threadInfoCpu: 16 },
  '6.12': { maxEntries: 36, ptrs: 264, bpfFunc: 48, insnsi: 72, threadInfoCpu: 16 },
  '7.3': { maxEntries: 68, ptrs: 296, bpfFunc: 72, insnsi: 96, threadInfoCpu: 16 },
};

const HARNESS = {
  callBase: 0xffff800081000000n,
  dummyTramp: 0xffff800080030000n,
  trampEnter: 0xffff800080040000n,
  trampExit: 0xffff800080040100n,
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
  const number = compareNumbers(numbers);
  if (number !== undefined) return number;
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

function compareNumbers(
  numbers: readonly (readonly [string, number | undefined, number | undefined])[],
): string | undefined {
  for (const [name, expected, ours] of numbers) {
    if (expected !== undefined && expected !== ours) return `${name} ${expected}, ours ${ours}`;
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

const HARNESS_ENTER_EXIT = 0xffff800080041000n;
/** Order of the harness's enter functions; exit functions are 0x100 further. */
const ENTER_EXIT_KINDS = ['plain', 'recur', 'sleepable', 'sleepable_recur', 'lsm_cgroup'] as const;

interface LinkRecord {
  readonly kind: LinkKind;
  readonly enter_exit: (typeof ENTER_EXIT_KINDS)[number];
  readonly jited: number;
  readonly cookie: string;
  readonly prog: string;
  readonly bpf_func: string;
  readonly link_type: string;
  readonly fsession?: number;
  readonly session_cookie?: number;
}

export interface TrampolineRecord {
  readonly name: string;
  readonly kernel: KernelVersion;
  readonly config: Bits;
  readonly model: { readonly arg_size: readonly number[]; readonly arg_flags: readonly number[] };
  readonly flags: number;
  readonly image_base: string;
  readonly im: string | null;
  readonly func_addr?: string;
  readonly addr?: Readonly<Record<string, string>>;
  readonly links: readonly LinkRecord[];
  readonly ret: number;
  readonly alloc_size?: number;
  readonly words?: readonly string[];
  readonly ip_after_call_off?: number;
  readonly ip_epilogue_off?: number;
}

/** An address that a booted kernel gave, or the harness's. */
function address(record: TrampolineRecord, symbol: string, harness: bigint): bigint {
  if (record.addr === undefined) return harness;
  const value = record.addr[symbol];
  if (value === undefined) throw new InputError(`${record.name}: no address of ${symbol}`);
  return BigInt(value);
}

function trampolineLink(record: TrampolineRecord, link: LinkRecord): TrampolineLink {
  const suffix = link.enter_exit === 'plain' ? '' : `_${link.enter_exit}`;
  const harness = HARNESS_ENTER_EXIT + 0x200n * BigInt(ENTER_EXIT_KINDS.indexOf(link.enter_exit));
  return {
    kind: link.kind,
    program: BigInt(link.prog),
    entry: BigInt(link.bpf_func),
    jited: link.jited === 1,
    cookie: BigInt(link.cookie),
    enter: address(record, `__bpf_prog_enter${suffix}`, harness),
    exit: address(record, `__bpf_prog_exit${suffix}`, harness + 0x100n),
    structOps: link.link_type === 'struct_ops',
    session: link.fsession === 1,
    sessionCookie: link.session_cookie === 1,
  };
}

/** Our trampoline of a record. Throws KernelError where the kernel refuses. */
export function compileTrampolineRecord(
  record: TrampolineRecord,
  offsets?: StructOffsets,
): Trampoline {
  const { arg_size: sizes, arg_flags: flags } = record.model;
  const model = {
    arguments: sizes.map((size, i) => ({ size, struct: ((flags[i] ?? 0) & 1) === 1 })),
  };
  const links = record.links.map((link) => trampolineLink(record, link));
  return compileTrampoline(model, record.flags, links, {
    kernel: record.kernel,
    config: { pac: record.config.pac === 1, bti: record.config.bti === 1 },
    offsets: offsets ?? VECTOR_OFFSETS[record.kernel],
    functionAddress: BigInt(record.func_addr ?? 0),
    im: BigInt(record.im ?? 0),
    enter: address(record, '__bpf_tramp_enter', HARNESS.trampEnter),
    exit: address(record, '__bpf_tramp_exit', HARNESS.trampExit),
    place: () => BigInt(record.image_base),
  });
}

function checkTrampoline(record: TrampolineRecord, offsets?: StructOffsets): string | undefined {
  let trampoline: Trampoline;
  try {
    trampoline = compileTrampolineRecord(record, offsets);
  } catch (error) {
    if (!(error instanceof KernelError)) throw error;
    return error.code === record.ret ? undefined : `returns ${record.ret}, ours ${error.message}`;
  }
  if (record.ret < 0) return `returns ${record.ret}, ours ${trampoline.length}`;
  const words = compareWords(record.words ?? [], trampoline.words);
  if (words !== undefined) {
    const part = trampoline.listing.find(({ start, end }) => {
      return start <= words.index && words.index < end;
    });
    return `${words.text}, in '${part?.text ?? 'the end'}'`;
  }
  const numbers: readonly (readonly [string, number | undefined, number | undefined])[] = [
    ['ret', record.ret, trampoline.length],
    ['alloc_size', record.alloc_size, trampoline.allocSize],
    ['ip_after_call_off', record.ip_after_call_off, trampoline.ipAfterCall],
    ['ip_epilogue_off', record.ip_epilogue_off, trampoline.ipEpilogue],
  ];
  return compareNumbers(numbers);
}

export interface PokeRecord {
  readonly name: string;
  readonly config: Bits;
  readonly image_base: string;
  readonly jited_len: number;
  readonly ip: string;
  readonly type: PokeType;
  readonly old_addr: string;
  readonly new_addr: string;
  readonly current_word: string;
  readonly ret: number;
  readonly patched_at?: string;
  readonly patched_word?: string;
  readonly plt_target_at?: string;
  readonly plt_target?: string;
}

function checkPoke(record: PokeRecord): string | undefined {
  const image = { base: BigInt(record.image_base), jitedLength: record.jited_len };
  const ip = BigInt(record.ip);
  const inside = ip >= image.base && ip < image.base + BigInt(image.jitedLength);
  const plan = planTextPoke({
    ip,
    type: record.type,
    oldAddress: BigInt(record.old_addr),
    newAddress: BigInt(record.new_addr),
    image: inside ? image : undefined,
    bti: record.config.bti === 1,
    dummyTramp: HARNESS.dummyTramp,
    read: () => parseInt(record.current_word, 16),
  });
  const hex = (value: bigint | undefined): string => (value === undefined ? 'none' : hex64(value));
  const texts: readonly (readonly [string, string, string])[] = [
    ['ret', `${record.ret}`, `${plan.result}`],
    ['patched_at', record.patched_at ?? 'none', hex(plan.patch?.address)],
    ['patched_word', record.patched_word ?? 'none', plan.patch ? hex32(plan.patch.word) : 'none'],
    ['plt_target_at', record.plt_target_at ?? 'none', hex(plan.pltWrite?.address)],
    ['plt_target', record.plt_target ?? 'none', hex(plan.pltWrite?.target)],
  ];
  for (const [name, expected, ours] of texts) {
    if (expected !== ours) return `${name} ${expected}, ours ${ours}`;
  }
  return undefined;
}

export type BranchRecord =
  | {
      readonly op: 'b' | 'bl';
      readonly pc: string;
      readonly target: string;
      readonly word: string;
    }
  | { readonly op: 'mov_reg64'; readonly rd: number; readonly rn: number; readonly word: string };

function checkBranch(record: BranchRecord): string | undefined {
  const ours =
    record.op === 'mov_reg64'
      ? moveRegisterWord(record.rd, record.rn)
      : branchWord(BigInt(record.pc), BigInt(record.target), record.op === 'bl');
  return compareWords([record.word], [ours])?.text;
}

const CHECKS: Readonly<
  Record<string, (record: never, offsets?: StructOffsets) => string | undefined>
> = {
  op: checkProgram,
  random: checkProgram,
  multi: checkProgram,
  real: checkProgram,
  tramp: checkTrampoline,
  tramp_real: checkTrampoline,
  poke: checkPoke,
  insn_gen: checkBranch,
};

/** Whether `checkJitRecord` knows this kind of record. */
export function isJitRecord(record: unknown): boolean {
  if (typeof record !== 'object' || record === null) return false;
  const { cat, kernel } = record as { readonly cat?: unknown; readonly kernel?: unknown };
  return (
    typeof cat === 'string' && cat in CHECKS && typeof kernel === 'string' && kernel in PROFILES
  );
}

/**
 * The first difference between a record and what we make of its input; `undefined` when there is none.
 * `offsets` replaces the struct offsets of the record's kernel. Throws InputError for other records and
 * KernelError where our JIT refuses a program.
 */
export function checkJitRecord(record: unknown, offsets?: StructOffsets): string | undefined {
  const cat = (record as { readonly cat?: unknown } | null)?.cat;
  if (!isJitRecord(record) || typeof cat !== 'string') {
    throw new InputError(`not a JIT record: cat ${JSON.stringify(cat)}`);
  }
  const check = CHECKS[cat];
  return check?.(record as never, offsets);
}
