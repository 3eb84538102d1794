import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { encodeSlots, makeSlot, type Slot } from '../../src/bpf/instruction.js';
import { createInterpreter } from '../../src/bpf/interpreter.js';
import { OPCODES, type Opcode } from '../../src/bpf/opcodes.js';
import { PlainHost } from '../../src/bpf/plain-host.js';
import { rawProgram } from '../../src/bpf/raw-program.js';
import { EDGES, referenceAlu, referenceJump } from './reference.js';

const host = new PlainHost();
const anyValue = fc.oneof(fc.constantFrom(...EDGES), fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }));

const CODES = [...OPCODES.entries()];
const ALU = CODES.flatMap(([code, opcode]) => (opcode?.kind === 'alu' ? [{ code, opcode }] : []));
const JUMPS = CODES.flatMap(([code, opcode]) =>
  opcode?.kind === 'jump' ? [{ code, opcode }] : [],
);

/** Runs `slot` with R1 = a and R2 = b and gives R1, or 1/0 for a taken or other jump. */
function compile(slot: Slot, isJump: boolean): (a: bigint, b: bigint) => bigint {
  const body = isJump
    ? [makeSlot(0xb7, { imm: 1 }), slot, makeSlot(0xb7, { imm: 0 }), makeSlot(0x95)]
    : [slot, makeSlot(0xbf, { src: 1 }), makeSlot(0x95)];
  const interpreter = createInterpreter(rawProgram('case', encodeSlots(body)), host);
  return (a, b) => {
    const result = interpreter.run(a, { r2: b });
    if (result.kind !== 'return') throw new Error(`stopped: ${result.kind}`);
    return result.r0;
  };
}

function offsetsOf(opcode: Opcode & { readonly kind: 'alu' }): readonly number[] {
  if (opcode.op === 'div' || opcode.op === 'mod') return [0, 1];
  if (opcode.op !== 'mov' || opcode.source === 'immediate') return [0];
  return opcode.width === 64 ? [0, 8, 16, 32] : [0, 8, 16];
}

function checkPairs(check: (a: bigint, b: bigint) => void): void {
  for (const a of EDGES) for (const b of EDGES) check(a, b);
  fc.assert(fc.property(anyValue, anyValue, check), { numRuns: 200 });
}

describe('interpreter arithmetic against RFC 9669', () => {
  const registerForms = ALU.filter(({ opcode }) => opcode.source === 'register').flatMap((row) =>
    offsetsOf(row.opcode).map((off) => ({
      ...row,
      off,
      title: `${row.opcode.op}${row.opcode.width}`,
    })),
  );
  it.each(registerForms)('$title with register, off $off', ({ code, opcode, off }) => {
    const run = compile(makeSlot(code, { dst: 1, src: 2, off }), false);
    checkPairs((a, b) => {
      expect(run(a, b)).toBe(referenceAlu(opcode.op, opcode.width, off, a, b));
    });
    const runOnItself = compile(makeSlot(code, { dst: 1, src: 1, off }), false);
    for (const a of EDGES) {
      expect(runOnItself(a, 0n)).toBe(referenceAlu(opcode.op, opcode.width, off, a, a));
    }
  });

  const immediateForms = ALU.filter(({ opcode }) => opcode.source === 'immediate').flatMap((row) =>
    offsetsOf(row.opcode).map((off) => ({
      ...row,
      off,
      title: `${row.opcode.op}${row.opcode.width}`,
    })),
  );
  it.each(immediateForms)('$title with immediate, off $off', ({ code, opcode, off }) => {
    for (const edge of EDGES) {
      const imm = Number(BigInt.asIntN(32, edge));
      const run = compile(makeSlot(code, { dst: 1, imm, off }), false);
      for (const a of EDGES) {
        const expected = referenceAlu(opcode.op, opcode.width, off, a, BigInt(imm));
        expect(run(a, 0n)).toBe(expected);
      }
    }
  });

  it.each([
    [0x84, 'neg32', (a: bigint): bigint => BigInt.asUintN(32, -a)],
    [0x87, 'neg64', (a: bigint): bigint => BigInt.asUintN(64, -a)],
  ])('0x%i %s', (code, _, expected) => {
    const run = compile(makeSlot(code, { dst: 1 }), false);
    for (const a of EDGES) expect(run(a, 0n)).toBe(expected(a));
  });

  const swapped = (bits: number, value: bigint): bigint => {
    const digits = BigInt.asUintN(bits, value)
      .toString(16)
      .padStart(bits / 4, '0');
    return BigInt(`0x${digits.match(/../g)?.toReversed().join('') ?? '0'}`);
  };
  it.each([16, 32, 64])('byte order of %i bits', (bits) => {
    const le = compile(makeSlot(0xd4, { dst: 1, imm: bits }), false);
    const be = compile(makeSlot(0xdc, { dst: 1, imm: bits }), false);
    const swap = compile(makeSlot(0xd7, { dst: 1, imm: bits }), false);
    for (const a of EDGES) {
      expect(le(a, 0n)).toBe(BigInt.asUintN(bits, a));
      expect(be(a, 0n)).toBe(swapped(bits, a));
      expect(swap(a, 0n)).toBe(swapped(bits, a));
    }
  });
});

describe('interpreter jumps against RFC 9669', () => {
  it.each(JUMPS.map((row) => ({ ...row, title: `${row.opcode.op}${row.opcode.width}` })))(
    '$title',
    ({ code, opcode }) => {
      const expected = (a: bigint, b: bigint): bigint =>
        referenceJump(opcode.op, opcode.width, a, b) ? 1n : 0n;
      if (opcode.source === 'register') {
        const run = compile(makeSlot(code, { dst: 1, src: 2, off: 1 }), true);
        checkPairs((a, b) => {
          expect(run(a, b)).toBe(expected(a, b));
        });
        return;
      }
      for (const edge of EDGES) {
        const imm = Number(BigInt.asIntN(32, edge));
        const run = compile(makeSlot(code, { dst: 1, imm, off: 1 }), true);
        for (const a of EDGES) expect(run(a, 0n)).toBe(expected(a, BigInt(imm)));
      }
    },
  );
});
