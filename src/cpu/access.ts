/**
 * Which bytes a load, store or atomic touches, from its word and the registers before it.
 *
 * For reports: an engine that only learns the page at which an access failed finds the access here,
 * lockstep finds what was written. A pair is two accesses in the order of their addresses, an
 * exclusive pair or CASP is one (Arm ARM DDI 0487, B2.2.1: single-copy atomic). Atomics read, then write.
 *
 * Usage:
 *   accessesOf(decode(0xa9bf7bfd), pc, (n) => cpu.getX(n))  // stp x29, x30, [sp, #-16]!: two writes of 8
 */
import { s64, u64 } from '../common/bytes.js';
import type { Decoded } from '../a64/codec.js';
import type { AccessBytes } from '../a64/semantics.js';

export interface DataAccess {
  readonly access: 'read' | 'write';
  readonly address: bigint;
  readonly size: number;
  /** Single-copy atomic whatever its size: must be aligned to it. */
  readonly aligned: boolean;
}

/** @param read value of X0..X30, or of SP for 31. */
export function accessesOf(
  { row, fields }: Decoded,
  pc: bigint,
  read: (register: number) => bigint,
): readonly DataAccess[] {
  const { sem } = row;
  const field = (name: string): number => fields[name] ?? 0;
  const bytesOf = (bytes: AccessBytes): number => {
    if (bytes === 'sf') return 4 << field('sf');
    return bytes === 'size' ? 1 << field('size') : bytes;
  };
  const base = (): bigint => read(field('Rn'));
  switch (sem.kind) {
    case 'load':
    case 'store': {
      const size = bytesOf(sem.bytes);
      const address = (): bigint => {
        switch (sem.addressing) {
          case 'base':
          case 'post':
            return base();
          case 'unsigned':
            return base() + BigInt(field('imm12') * size);
          case 'unscaled':
          case 'pre':
            return base() + BigInt(field('imm9'));
          case 'offset':
            return base() + BigInt(field('imm7') * size);
          case 'literal':
            return pc + BigInt(field('imm19') * 4);
          case 'register':
            return (
              base() + indexOf(field('Rm'), field('option'), field('S') * Math.log2(size), read)
            );
        }
      };
      return [
        {
          access: sem.kind === 'load' ? 'read' : 'write',
          address: u64(address()),
          size,
          aligned: sem.ordered,
        },
      ];
    }
    case 'loadPair':
    case 'storePair': {
      const size = bytesOf(sem.bytes);
      const offset = sem.addressing === 'post' ? 0 : field('imm7') * size;
      const access = sem.kind === 'loadPair' ? 'read' : 'write';
      return [0, size].map((second) => ({
        access,
        address: u64(base() + BigInt(offset + second)),
        size,
        aligned: false,
      }));
    }
    case 'loadExclusive':
    case 'storeExclusive': {
      const size = sem.pair ? 8 << field('sf') : 1 << field('size');
      const access = sem.kind === 'loadExclusive' ? 'read' : 'write';
      return [{ access, address: base(), size, aligned: true }];
    }
    case 'atomic':
    case 'compareAndSwap': {
      const pair = sem.kind === 'compareAndSwap' && sem.pair;
      const size = pair ? 8 << field('sf') : 1 << field('size');
      const both = { address: base(), size, aligned: true };
      return [
        { access: 'read', ...both },
        { access: 'write', ...both },
      ];
    }
    default:
      return [];
  }
}

/** Rm extended by `option` (UXTW, LSL, SXTW, SXTX) and shifted. */
function indexOf(
  register: number,
  option: number,
  shift: number,
  read: (register: number) => bigint,
): bigint {
  const value = register === 31 ? 0n : read(register);
  const extended =
    option === 2 ? BigInt.asUintN(32, value) : option === 6 ? BigInt.asIntN(32, value) : s64(value);
  return extended << BigInt(shift);
}
