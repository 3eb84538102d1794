/**
 * The two reference programs for the speed of CPU engines: an 8-instruction load/ALU/store/branch loop, and
 * many calls of a small function.
 */
import { encode } from '../src/a64/codec.js';
import { encodeLogical } from '../src/a64/immediates.js';
import type { Cpu } from '../src/cpu/cpu.js';
import { Memory } from '../src/cpu/memory.js';

export const TEXT = 0xffff800080000000n;
export const DATA = 0xffff000000100000n;
export const STACK = 0xffff800010000000n;

function logical(value: bigint): { N: number; immr: number; imms: number } {
  const fields = encodeLogical(value, 64);
  if (!fields) throw new RangeError(`no logical immediate ${value}`);
  return fields;
}

/**
 * x0 counts down; x1 points at 4096 bytes; the eight instructions from the third word on repeat.
 */
export const LOOP: readonly number[] = [
  encode('ADD_immediate', { sf: 1, sh: 0, imm12: 0, Rn: 1, Rd: 2 }),
  encode('MOVZ', { sf: 1, hw: 0, imm16: 0, Rd: 3 }),
  // ldr x4, [x2]; add x4, x4, x3; eor x3, x3, x4; str x4, [x2, #8]
  encode('LDR_unsigned', { sf: 1, imm12: 0, Rn: 2, Rt: 4 }),
  encode('ADD_shifted', { sf: 1, shift: 0, imm6: 0, Rm: 3, Rn: 4, Rd: 4 }),
  encode('EOR_shifted', { sf: 1, shift: 0, imm6: 0, Rm: 4, Rn: 3, Rd: 3 }),
  encode('STR_unsigned', { sf: 1, imm12: 1, Rn: 2, Rt: 4 }),
  // and x3, x3, #0xffff; lsr x5, x3, #3; subs x0, x0, #1; b.ne
  encode('AND_immediate', { sf: 1, ...logical(0xffffn), Rn: 3, Rd: 3 }),
  encode('UBFM', { sf: 1, N: 1, immr: 3, imms: 63, Rn: 3, Rd: 5 }),
  encode('SUBS_immediate', { sf: 1, sh: 0, imm12: 1, Rn: 0, Rd: 0 }),
  encode('B_cond', { imm19: -7, cond: 1 }),
  encode('RET', { Rn: 30 }),
];

/** x19 counts down; each round calls a function with a frame (11 instructions). */
export const CALLS: readonly number[] = [
  encode('BL', { imm26: 4 }),
  encode('SUBS_immediate', { sf: 1, sh: 0, imm12: 1, Rn: 19, Rd: 19 }),
  encode('B_cond', { imm19: -2, cond: 1 }),
  encode('RET', { Rn: 20 }),
  encode('STP_pre', { sf: 1, imm7: -4, Rt2: 30, Rn: 31, Rt: 29 }),
  encode('ADD_immediate', { sf: 1, sh: 0, imm12: 0, Rn: 31, Rd: 29 }),
  encode('STR_unsigned', { sf: 1, imm12: 2, Rn: 31, Rt: 19 }),
  encode('ADD_shifted', { sf: 1, shift: 0, imm6: 0, Rm: 1, Rn: 0, Rd: 0 }),
  encode('EOR_shifted', { sf: 1, shift: 0, imm6: 0, Rm: 0, Rn: 1, Rd: 1 }),
  encode('LDR_unsigned', { sf: 1, imm12: 2, Rn: 31, Rt: 19 }),
  encode('LDP_post', { sf: 1, imm7: 4, Rt2: 30, Rn: 31, Rt: 29 }),
  encode('RET', { Rn: 30 }),
];

/** The address both programs return to. */
export const RETURN = TEXT + 0x10000n;

export function benchMemory(): Memory {
  const memory = new Memory(1 << 20);
  memory.map({ name: 'text', address: TEXT, size: 0x20000, permissions: 'rx' });
  memory.map({ name: 'data', address: DATA, size: 4096, permissions: 'rw' });
  memory.map({ name: 'stack', address: STACK, size: 16384, permissions: 'rw' });
  const bytes = (words: readonly number[]): Uint8Array =>
    new Uint8Array(Uint32Array.from(words).buffer);
  memory.pokeBytes(TEXT, bytes(LOOP));
  memory.pokeBytes(TEXT + 0x1000n, bytes(CALLS));
  return memory;
}

/** Runs a program for about `instructions` instructions; gives how many were executed. */
export function runProgram(cpu: Cpu, program: 'loop' | 'calls', instructions: number): number {
  const before = cpu.executed;
  cpu.sp = STACK + 16384n;
  if (program === 'loop') {
    cpu.setX(0, BigInt(Math.max(1, Math.floor(instructions / 8))));
    cpu.setX(1, DATA);
    cpu.setX(30, RETURN);
    cpu.pc = TEXT;
  } else {
    cpu.setX(19, BigInt(Math.max(1, Math.floor(instructions / 11))));
    cpu.setX(20, RETURN);
    cpu.pc = TEXT + 0x1000n;
  }
  const stop = cpu.run({ until: RETURN });
  if (stop.kind !== 'until') throw new Error(`benchmark stopped: ${stop.kind}`);
  return cpu.executed - before;
}

/** M instructions per second, the median of `rounds`. */
export function measure(round: () => number, rounds = 9): number {
  round();
  const speeds = Array.from({ length: rounds }, () => {
    const start = performance.now();
    const count = round();
    return count / (performance.now() - start) / 1000;
  }).sort((a, b) => a - b);
  return speeds[rounds >> 1] as number;
}
