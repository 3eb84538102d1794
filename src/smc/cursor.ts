/**
 * Cursors in a ring: how far somebody has written or read, as {wrap, count}.
 *
 * Reference: smc_curs_add, smc_curs_diff, smc_curs_comp, smc_curs_diff_large in net/smc/smc_cdc.h. A cursor
 * lies in memory as union smc_host_cursor. `curs_diff` cannot tell one round from several: a ring is never
 * passed by more than its size.
 *
 * Usage:
 *   cursAdd(ram, 16352, conn + C.tx_curs_prep, 100);
 *   const prepared = cursDiff(ram, 16352, conn + C.tx_curs_sent, conn + C.tx_curs_prep);
 */
import type { Ram } from '../cpu/ram.js';

const WRAP = 2;
const COUNT = 4;

export function cursWrap(ram: Ram, at: number): number {
  return ram.u16(at + WRAP);
}

export function cursCount(ram: Ram, at: number): number {
  return ram.u32(at + COUNT);
}

export function cursSet(ram: Ram, at: number, wrap: number, count: number): void {
  ram.set16(at + WRAP, wrap);
  ram.set32(at + COUNT, count);
}

export function cursCopy(ram: Ram, to: number, from: number): void {
  ram.set32(to, ram.s32(from));
  ram.set32(to + 4, ram.s32(from + 4));
}

/** At most one round. */
export function cursAdd(ram: Ram, size: number, at: number, value: number): void {
  const count = cursCount(ram, at) + value;
  if (count < size) {
    ram.set32(at + COUNT, count);
    return;
  }
  cursSet(ram, at, cursWrap(ram, at) + 1, count - size);
}

/** Bytes from `from` to `to`, not more than one round apart. */
export function cursDiff(ram: Ram, size: number, from: number, to: number): number {
  const distance = cursCount(ram, to) - cursCount(ram, from);
  return Math.max(0, cursWrap(ram, from) === cursWrap(ram, to) ? distance : size + distance);
}

/** The same with a sign: negative when `from` is ahead. */
export function cursComp(ram: Ram, size: number, from: number, to: number): number {
  const [a, b] = [cursWrap(ram, from), cursWrap(ram, to)];
  const isAhead = a > b || (a === b && cursCount(ram, from) > cursCount(ram, to));
  return isAhead ? -cursDiff(ram, size, to, from) : cursDiff(ram, size, from, to);
}

/** The same where more than one round may lie between; at most `size`. */
export function cursDiffLarge(ram: Ram, size: number, from: number, to: number): number {
  const [a, b] = [cursWrap(ram, from), cursWrap(ram, to)];
  const distance = cursCount(ram, to) - cursCount(ram, from);
  if (a === b) return Math.max(0, distance);
  const rounds = a < b ? b - a - 1 : b + 0xffff - a;
  return Math.min(size, size + distance + rounds * size);
}

/** A cursor by value, as a register has it: the union's 8 bytes. */
export function cursValue(ram: Ram, at: number): number {
  return ram.u32(at + COUNT) * 0x1_0000_0000 + cursWrap(ram, at) * 0x1_0000;
}

export function cursFromValue(ram: Ram, at: number, value: number): void {
  cursSet(ram, at, Math.floor(value / 0x1_0000) & 0xffff, Math.floor(value / 0x1_0000_0000));
}
