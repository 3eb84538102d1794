/**
 * Jumps: ja and gotol as B, conditional jumps as a comparison and B.cond.
 *
 * Reference: arch/arm64/net/bpf_jit_comp.c: build_insn (BPF_JMP, BPF_JMP32), emit_cond_jmp,
 * bpf2a64_offset, check_imm. B.cond reaches 1 MiB and B 128 MiB; a jump farther than that makes the JIT
 * refuse the program. The first pass checks with offsets that are still 0 ahead of it, so that it also
 * refuses a conditional jump back to code behind the first MiB, however near. A profile may check as wrongly as
 * old versions did: what the encoders then make of the distance is theirs, too (arch/arm64/lib/insn.c:
 * label_imm_common gives the range itself for what is out of it).
 */
import { encode } from '../a64/codec.js';
import type { Slot } from '../bpf/instruction.js';
import { isAddSubImmediate } from './alu.js';
import { moveInt32 } from './constants.js';
import type { FunctionContext } from './context.js';
import {
  addsImmediate,
  andsImmediate,
  andsRegister,
  b,
  bCond,
  type Condition,
  subsImmediate,
  subsRegister,
  ZR,
} from './emit.js';

const CONDITION: Readonly<Record<number, Condition>> = {
  0x10: 'eq',
  0x20: 'hi',
  0x30: 'cs',
  0x40: 'ne', // jset: after TST
  0x50: 'ne',
  0x60: 'gt',
  0x70: 'ge',
  0xa0: 'cc',
  0xb0: 'ls',
  0xc0: 'lt',
  0xd0: 'le',
};

/** Words from the jump (the last word before the next slot's code) to the target slot's code. */
function jumpDistance(ctx: FunctionContext, off: number): number {
  const next = ctx.index + 1;
  const target = ctx.offsets[next + off];
  if (target === undefined || next + off < 0) throw ctx.refuse(`jump to insn ${next + off}`);
  return target - ((ctx.offsets[next] ?? 0) - 1);
}

const BREAK_FAULT = encode('BRK', { imm16: 0x100 });

/** Whether a branch distance in words fits `bits` signed bits; refuses what check_imm() does. */
function fits(ctx: FunctionContext, bits: number, distance: number): boolean {
  const limit = 2 ** (bits - 1);
  const accepted = ctx.profile.branchCheck === 'twice' ? 2 * limit : limit;
  if (distance < -accepted || distance >= accepted) {
    throw ctx.refuse(`branch of ${distance} instructions does not fit imm${bits}`);
  }
  return distance >= -limit && distance < limit;
}

/** aarch64_insn_gen_branch_imm: what is out of range is a BRK. */
function branch(ctx: FunctionContext, distance: number): number {
  return fits(ctx, 26, distance) ? b(distance) : BREAK_FAULT;
}

/** aarch64_insn_gen_cond_branch_imm before 6.12.96: what is out of range is 1 MiB, which 19 bits read as -1 MiB. */
function conditionalBranch(ctx: FunctionContext, condition: Condition, distance: number): number {
  return bCond(condition, fits(ctx, 19, distance) ? distance : -(2 ** 18));
}

/** ja (off) and gotol (imm). */
export function buildGoto(ctx: FunctionContext, off: number): void {
  ctx.emit(branch(ctx, jumpDistance(ctx, off)));
}

/** A jump to the epilogue, left out of the last slot, which falls through. */
export function buildExit(ctx: FunctionContext): void {
  if (ctx.index === ctx.slots.length - 1) return;
  ctx.emit(branch(ctx, ctx.epilogue - ctx.code.length));
}

export function buildConditional(ctx: FunctionContext, slot: Slot): void {
  const sf = (slot.code & 7) === 5 ? 1 : 0;
  const operation = slot.code & 0xf0;
  const condition = CONDITION[operation];
  if (condition === undefined) throw ctx.unsupported();
  const dst = ctx.reg(slot.dst);
  if (slot.code & 8) {
    const compare = operation === 0x40 ? andsRegister : subsRegister;
    ctx.emit(compare(sf, ZR, dst, ctx.reg(slot.src)));
  } else if (operation === 0x40) {
    testImmediate(ctx, sf, dst, slot.imm);
  } else {
    compareImmediate(ctx, sf, dst, slot.imm);
  }
  ctx.emit(conditionalBranch(ctx, condition, jumpDistance(ctx, slot.off)));
}

function testImmediate(ctx: FunctionContext, sf: number, dst: number, imm: number): void {
  const word = andsImmediate(sf, ZR, dst, imm);
  if (word !== undefined) return ctx.emit(word);
  const { tmp1 } = ctx.registers;
  ctx.code.emitAll(moveInt32(sf, tmp1, imm));
  ctx.emit(andsRegister(sf, ZR, dst, tmp1));
}

function compareImmediate(ctx: FunctionContext, sf: number, dst: number, imm: number): void {
  if (isAddSubImmediate(imm)) return ctx.emit(subsImmediate(sf, ZR, dst, imm));
  if (isAddSubImmediate(-imm)) return ctx.emit(addsImmediate(sf, ZR, dst, -imm));
  const { tmp1 } = ctx.registers;
  ctx.code.emitAll(moveInt32(sf, tmp1, imm));
  ctx.emit(subsRegister(sf, ZR, dst, tmp1));
}
