/**
 * The arm64 BPF JIT: an xlated program in, images out, equal to the kernel's in every word.
 *
 * Reference: arch/arm64/net/bpf_jit_comp.c: bpf_int_jit_compile, build_body; kernel/bpf/verifier.c:
 * jit_subprogs. The passes are the kernel's: sizes without an address; then, when every function has
 * its place, code is generated until the offsets of one pass are those of the one before. The
 * allocation is made for the first size: an image may end up shorter (6.12: BL instead of the long
 * call), and its exception table stays where the first size put it.
 *
 * Left out: constant blinding, classic BPF, CFI, big endian.
 *
 * Usage:
 *   const { functions } = compile(program, {
 *     callBase, dummyTramp, offsets, cpu: { lse: true, vhe: false, sb: false },
 *     config: { pac: true, bti: false }, place: (_, size) => region.allocate(size),
 *   });
 *   memory.writeWords(functions[0].base, functions[0].words);
 */
import { readSlots, type Slot } from '../bpf/instruction.js';
import type { Arena } from '../bpf/program.js';
import { CodeBuffer } from './code-buffer.js';
import {
  type Environment,
  type ExtableEntry,
  FunctionContext,
  type JitFunctionInput,
} from './context.js';
import { isAddSubImmediate } from './alu.js';
import { EXTABLE_ENTRY_SIZE } from './extable.js';
import { buildInstruction } from './instruction.js';
import { buildPlt, PLT_TARGET_OFFSET, PLT_TARGET_SIZE } from './plt.js';
import type { JitConfig, JitCpu, JitProfile, KernelVersion, StructOffsets } from './profile.js';
import { PROFILES } from './profiles.js';
import { stackArgumentSize } from './stack-arguments.js';

export interface JitInput {
  /** Main first. A bpf2bpf call names its callee by index. */
  readonly functions: readonly JitFunctionInput[];
  readonly arena?: Arena;
}

export interface JitOptions {
  /** Default 6.12. */
  readonly kernel?: KernelVersion;
  /** What that version does its own way. Default: its profile; others for releases near it and bugs of old ones. */
  readonly profile?: JitProfile;
  readonly cpu: JitCpu;
  readonly config: JitConfig;
  readonly offsets: StructOffsets;
  /** __bpf_call_base: what helper immediates are relative to. */
  readonly callBase: bigint;
  /** 7.3: arch_bpf_timed_may_goto. Default: no call is one to it. */
  readonly timedMayGoto?: bigint;
  /** dummy_tramp: the PLT's first target. */
  readonly dummyTramp: bigint;
  /** The allocator: address of the image of function `index`, 8-byte aligned. */
  readonly place: (index: number, allocSize: number) => bigint;
}

/** The image of one function. Offsets and lengths are bytes from `base`. */
export interface JitImage {
  readonly name: string;
  readonly base: bigint;
  readonly words: Uint32Array;
  /** Offset of each slot's code, and of the epilogue. The second slot of ld_imm64 has what follows it. */
  readonly insnOffsets: Int32Array;
  readonly prologueLength: number;
  readonly epilogueOffset: number;
  readonly stackSize: number;
  readonly pltOffset: number;
  /** What the 8 bytes after the last word hold. */
  readonly pltTarget: bigint;
  /** Bytes of `words`. */
  readonly jitedLength: number;
  /** Bytes that were allocated: words, PLT target and exception table of the sizing pass. */
  readonly allocSize: number;
  readonly extableOffset: number;
  readonly extable: readonly ExtableEntry[];
}

export interface JitProgram {
  readonly kernel: KernelVersion;
  readonly config: JitConfig;
  readonly functions: readonly JitImage[];
}

/** Opcode modes with an exception table entry: PROBE_MEM, PROBE_MEMSX, PROBE_MEM32(SX), PROBE_ATOMIC. */
const PROBE_MODES: Readonly<Record<number, readonly number[]>> = {
  1: [0x20, 0x40, 0xa0, 0xc0],
  2: [0xa0],
  3: [0xa0, 0xe0],
};

/** Compiles all functions. Throws KernelError EINVAL for what the JIT cannot translate. */
export function compile(program: JitInput, options: JitOptions): JitProgram {
  const kernel = options.kernel ?? '6.12';
  const env: Environment = {
    profile: options.profile ?? PROFILES[kernel],
    cpu: options.cpu,
    config: options.config,
    offsets: options.offsets,
    callBase: options.callBase,
    timedMayGoto: options.timedMayGoto,
    arena: program.arena,
  };
  const contexts = program.functions.map((fn, index) => {
    const slots = readSlots(fn.insns);
    const ctx = new FunctionContext(env, fn, slots, index === 0);
    for (const size of [ctx.stackSize, stackArgumentSize(ctx)]) {
      if (!isAddSubImmediate(size)) throw ctx.refuse(`stack of ${size} bytes`);
    }
    return ctx;
  });
  const layouts = contexts.map(firstLayout);
  const bases = layouts.map((layout, index) => options.place(index, layout.allocSize));
  const functions = contexts.map((ctx, index) => {
    const layout = layouts[index];
    const base = bases[index];
    if (layout === undefined || base === undefined) throw new RangeError(`function ${index}`);
    return finish(ctx, layout, base, bases, options.dummyTramp);
  });
  return { kernel, config: options.config, functions };
}

/** By opcode byte: 1 for all of ALU and ALU64, and for the modes MEM (0x60), MEMSX (0x80), ATOMIC (0xc0). */
const PLACELESS = Uint8Array.from({ length: 256 }, (_, code) => {
  const mode = code & 0xe0;
  switch (code & 7) {
    case 4:
    case 7:
      return 1;
    case 1:
      return mode === 0x60 || mode === 0x80 ? 1 : 0;
    case 2:
      return mode === 0x60 ? 1 : 0;
    case 3:
      return mode === 0x60 || mode === 0xc0 ? 1 : 0;
    default:
      return 0;
  }
});

interface Layout {
  readonly allocSize: number;
  readonly extableOffset: number;
}

/** The pass without an address: sizes. */
function firstLayout(ctx: FunctionContext): Layout {
  runPass(ctx);
  const entries = ctx.slots.filter((slot, index) => {
    const second = index > 0 && ctx.slots[index - 1]?.code === 0x18;
    return !second && PROBE_MODES[slot.code & 7]?.includes(slot.code & 0xe0);
  }).length;
  const extableOffset = 4 * ctx.code.length + PLT_TARGET_SIZE;
  return { extableOffset, allocSize: extableOffset + EXTABLE_ENTRY_SIZE * entries };
}

function finish(
  ctx: FunctionContext,
  layout: Layout,
  base: bigint,
  entries: readonly bigint[],
  dummyTramp: bigint,
): JitImage {
  ctx.entries = entries;
  ctx.extableAddress = base + BigInt(layout.extableOffset);
  while (!runPass(ctx, base));
  const jitedLength = 4 * ctx.code.length;
  return {
    name: ctx.fn.name,
    base,
    words: Uint32Array.from(ctx.code.words),
    insnOffsets: ctx.offsets.map((words) => 4 * words),
    prologueLength: 4 * (ctx.offsets[0] ?? 0),
    epilogueOffset: 4 * ctx.epilogue,
    stackSize: ctx.stackSize,
    pltOffset: jitedLength - PLT_TARGET_OFFSET,
    pltTarget: dummyTramp,
    jitedLength,
    allocSize: layout.allocSize,
    extableOffset: layout.extableOffset,
    extable: ctx.extable,
  };
}

/**
 * Generates everything once; leaves offsets, the epilogue's offset and the words in `ctx`. Whether the
 * offsets are those of the pass before, from which this pass took its branch distances. Code only
 * ever shrinks from pass to pass, so that they settle.
 */
function runPass(ctx: FunctionContext, base?: bigint): boolean {
  const offsets = ctx.offsets.slice();
  const { epilogue, code: before } = ctx;
  ctx.code = new CodeBuffer(base);
  ctx.extable = [];
  ctx.profile.buildPrologue(ctx);
  buildBody(ctx, before.words, offsets);
  ctx.epilogue = ctx.code.length;
  ctx.profile.buildEpilogue(ctx);
  buildPlt(ctx.code);
  return epilogue === ctx.epilogue && ctx.offsets.every((offset, i) => offset === offsets[i]);
}

/** Takes what says the same at any place from the words of the pass before, if there was one. */
function buildBody(ctx: FunctionContext, words: readonly number[], before: Int32Array): void {
  const { slots, offsets, code } = ctx;
  let index = 0;
  while (index < slots.length) {
    const slot = slots[index];
    if (slot === undefined) break;
    ctx.index = index;
    offsets[index] = code.length;
    if (words.length > 0 && isPlaceless(slot)) {
      const end = before[index + 1] ?? 0;
      for (let at = before[index] ?? 0; at < end; at++) code.emit(words[at] ?? 0);
      index++;
      continue;
    }
    const used = buildInstruction(ctx, slot);
    if (used === 2) offsets[index + 1] = code.length;
    index += used;
  }
  offsets[slots.length] = code.length;
}

/** Arithmetic, and accesses without an exception table entry: no address or distance is in their code. */
function isPlaceless({ code }: Slot): boolean {
  return PLACELESS[code] === 1;
}
