/** Which bytes an instruction touches. */
import { describe, expect, it } from 'vitest';
import { decode, encode } from '../../src/a64/codec.js';
import { accessesOf } from '../../src/cpu/access.js';

/** x1 = 0x1000, x2 = -2 in 32 bits with junk above, sp = 0x2000. */
const VALUES: Readonly<Record<number, bigint>> = { 1: 0x1000n, 2: 0xdead_ffff_fffen, 31: 0x2000n };
const PC = 0x4000n;

function accesses(word: number): string[] {
  const decoded = decode(word);
  if (!decoded) throw new Error('no instruction');
  return accessesOf(decoded, PC, (register) => VALUES[register] ?? 0n).map(
    ({ access, address, size, aligned }) =>
      `${access} ${size} at ${address.toString(16)}${aligned ? ' aligned' : ''}`,
  );
}

const register = (option: number, S: number): number =>
  encode('LDR_register', { sf: 1, Rm: 2, option, S, Rn: 1, Rt: 0 });

describe('accessesOf', () => {
  it.each([
    [
      'ldr x0, [x1, #16]',
      encode('LDR_unsigned', { sf: 1, imm12: 2, Rn: 1, Rt: 0 }),
      ['read 8 at 1010'],
    ],
    ['strb w0, [sp, #-1]!', encode('STRB_pre', { imm9: -1, Rn: 31, Rt: 0 }), ['write 1 at 1fff']],
    ['ldrh w0, [x1], #4', encode('LDRH_post', { imm9: 4, Rn: 1, Rt: 0 }), ['read 2 at 1000']],
    [
      'ldr x0, [x1, w2, uxtw #3]',
      register(2, 1),
      [`read 8 at ${(0x1000 + 0xfffffffe * 8).toString(16)}`],
    ],
    ['ldr x0, [x1, w2, sxtw #3]', register(6, 1), ['read 8 at ff0']],
    ['ldr x0, [x1, x2]', register(3, 0), ['read 8 at deae00000ffe']],
    ['ldr x0, . - 8', encode('LDR_literal', { sf: 1, imm19: -2, Rt: 0 }), ['read 8 at 3ff8']],
    [
      'stp w0, w3, [sp, #-8]!',
      encode('STP_pre', { sf: 0, imm7: -2, Rt2: 3, Rn: 31, Rt: 0 }),
      ['write 4 at 1ff8', 'write 4 at 1ffc'],
    ],
    [
      'ldp x0, x3, [x1], #16',
      encode('LDP_post', { sf: 1, imm7: 2, Rt2: 3, Rn: 1, Rt: 0 }),
      ['read 8 at 1000', 'read 8 at 1008'],
    ],
    ['ldar w0, [x1]', encode('LDAR', { size: 2, Rn: 1, Rt: 0 }), ['read 4 at 1000 aligned']],
    [
      'ldxp x0, x3, [x1]',
      encode('LDXP', { sf: 1, Rt2: 3, Rn: 1, Rt: 0 }),
      ['read 16 at 1000 aligned'],
    ],
    [
      'stxrb w5, w0, [x1]',
      encode('STXR', { size: 0, Rs: 5, Rn: 1, Rt: 0 }),
      ['write 1 at 1000 aligned'],
    ],
    [
      'caspal w4, w5, w6, w7, [sp]',
      encode('CASP', { sf: 0, L: 1, Rs: 4, o0: 1, Rn: 31, Rt: 6 }),
      ['read 8 at 2000 aligned', 'write 8 at 2000 aligned'],
    ],
    ['nop', 0xd503201f, []],
    ['add x0, x1, #1', encode('ADD_immediate', { sf: 1, sh: 0, imm12: 1, Rn: 1, Rd: 0 }), []],
  ])('%s', (_, word, expected) => {
    expect(accesses(word)).toEqual(expected);
  });
});
