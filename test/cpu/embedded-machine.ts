/** A small machine for tests of the embedded engine: text, data and stack with a CPU on them. */
import { encode } from '../../src/a64/codec.js';
import { EmbeddedCpu } from '../../src/cpu/embedded/cpu.js';
import { Memory, type Region } from '../../src/cpu/memory.js';

export const TEXT = 0xffff800080000000n;
export const OTHER = 0xffff8000a0000000n;
export const DATA = 0xffff000000100000n;
export const STACK_TOP = 0xffff800010004000n;

export interface Machine {
  readonly memory: Memory;
  readonly cpu: EmbeddedCpu;
  readonly data: Region;
}

/** Pokes words at an address, whatever the permissions there. */
export function poke(memory: Memory, address: bigint, words: readonly number[]): void {
  memory.pokeBytes(address, new Uint8Array(Uint32Array.from(words).buffer));
}

export function machine(words: readonly number[] = []): Machine {
  const memory = new Memory(1 << 20);
  memory.map({ name: 'text', address: TEXT, size: 8192, permissions: 'rx' });
  memory.map({ name: 'other', address: OTHER, size: 4096, permissions: 'rx' });
  memory.map({ name: 'rodata', address: DATA - 0x10000n, size: 4096, permissions: 'r' });
  const data = memory.map({ name: 'data', address: DATA, size: 4096, permissions: 'rw' });
  memory.map({ name: 'stack', address: STACK_TOP - 8192n, size: 8192, permissions: 'rw' });
  poke(memory, TEXT, words);
  const cpu = new EmbeddedCpu(memory);
  cpu.pc = TEXT;
  cpu.sp = STACK_TOP;
  return { memory, cpu, data };
}

export const NOP = encode('NOP', {});
export const RET = encode('RET', { Rn: 30 });

/** add xd, xn, #imm */
export function add(Rd: number, Rn: number, imm12: number): number {
  return encode('ADD_immediate', { sf: 1, sh: 0, imm12, Rn, Rd });
}

/** movz xd, #imm */
export function mov(Rd: number, imm16: number): number {
  return encode('MOVZ', { sf: 1, hw: 0, imm16, Rd });
}
