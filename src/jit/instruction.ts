/**
 * One BPF instruction to A64 words: the dispatch by class, mode and operation.
 *
 * Reference: arch/arm64/net/bpf_jit_comp.c: build_insn. An opcode byte is `oooo s ccc` (ALU, JMP) or
 * `mmm zz ccc` (LD, ST); what no case knows is refused with -EINVAL.
 */
import type { Slot } from '../bpf/instruction.js';
import { buildAlu } from './alu.js';
import { buildAtomic } from './atomics.js';
import { buildCall, buildLoadImm64 } from './calls.js';
import type { FunctionContext } from './context.js';
import { br, bti, dsbNsh, isb, sb } from './emit.js';
import { buildConditional, buildExit, buildGoto } from './jumps.js';
import { buildLoad, buildStore } from './memory.js';

const CALL = 0x85;
const EXIT = 0x95;
const TAIL_CALL = 0xf5;
const JA = 0x05;
const JA_X = 0x0d;
const GOTOL = 0x06;
const LD_IMM64 = 0x18;
const NOSPEC = 0xc2;
const MODE_ATOMIC = 0xc0;
const MODE_PROBE_ATOMIC = 0xe0;

/** Builds slot `ctx.index`; gives the number of slots used (2 for ld_imm64). */
export function buildInstruction(ctx: FunctionContext, slot: Slot): number {
  if (ctx.env.config.bti && ctx.indirectTargets.has(ctx.index)) ctx.emit(bti('j'));
  switch (slot.code) {
    case CALL:
      buildCall(ctx, slot);
      return 1;
    case EXIT:
      buildExit(ctx);
      return 1;
    case TAIL_CALL:
      ctx.profile.buildTailCall(ctx);
      return 1;
    case JA:
      buildGoto(ctx, slot.off);
      return 1;
    case JA_X:
      if (!ctx.profile.indirectJumps) throw ctx.unsupported();
      ctx.emit(br(ctx.reg(slot.dst)));
      return 1;
    case GOTOL:
      if (!ctx.profile.cpuV4) throw ctx.unsupported();
      buildGoto(ctx, slot.imm);
      return 1;
    case LD_IMM64: {
      const second = ctx.slots[ctx.index + 1];
      if (second === undefined) throw ctx.refuse('ld_imm64 without its second slot');
      buildLoadImm64(ctx, slot, second);
      return 2;
    }
    case NOSPEC:
      buildNospec(ctx);
      return 1;
    default:
      buildByClass(ctx, slot);
      return 1;
  }
}

function buildByClass(ctx: FunctionContext, slot: Slot): void {
  switch (slot.code & 7) {
    case 4:
    case 7:
      return buildAlu(ctx, slot);
    case 5:
    case 6:
      return buildConditional(ctx, slot);
    case 1:
      return buildLoad(ctx, slot);
    case 2:
      return buildStore(ctx, slot);
    case 3: {
      const mode = slot.code & 0xe0;
      if (mode === MODE_ATOMIC || mode === MODE_PROBE_ATOMIC) return buildAtomic(ctx, slot);
      return buildStore(ctx, slot);
    }
    default:
      throw ctx.unsupported();
  }
}

/** The speculation barrier. */
function buildNospec(ctx: FunctionContext): void {
  if (!ctx.profile.nospecBarrier) return;
  if (ctx.env.cpu.sb) return ctx.emit(sb());
  ctx.emit(dsbNsh());
  ctx.emit(isb());
}
