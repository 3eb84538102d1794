/**
 * eBPF arithmetic and jump conditions on BigInt, straight from RFC 9669: what the interpreter is
 * compared with.
 */
import type { AluOperation, JumpOperation, Width } from '../../src/bpf/opcodes.js';

const unsigned = (bits: number, value: bigint): bigint => BigInt.asUintN(bits, value);
const signed = (bits: number, value: bigint): bigint => BigInt.asIntN(bits, value);

/** dst after `dst op= src`; `off` as in the instruction (signed division, sign extension). */
export function referenceAlu(
  op: AluOperation,
  width: Width,
  off: number,
  dst: bigint,
  src: bigint,
): bigint {
  const a = unsigned(width, dst);
  const b = unsigned(width, src);
  const amount = b & BigInt(width - 1);
  const compute = (): bigint => {
    switch (op) {
      case 'add':
        return a + b;
      case 'sub':
        return a - b;
      case 'mul':
        return a * b;
      case 'div':
        if (b === 0n) return 0n;
        return off === 1 ? signed(width, a) / signed(width, b) : a / b;
      case 'mod':
        if (b === 0n) return a;
        return off === 1 ? signed(width, a) % signed(width, b) : a % b;
      case 'or':
        return a | b;
      case 'and':
        return a & b;
      case 'xor':
        return a ^ b;
      case 'lsh':
        return a << amount;
      case 'rsh':
        return a >> amount;
      case 'arsh':
        return signed(width, a) >> amount;
      case 'mov':
        return off === 0 ? b : signed(off, b);
    }
  };
  return unsigned(width, compute());
}

export function referenceJump(op: JumpOperation, width: Width, dst: bigint, src: bigint): boolean {
  const [a, b] = [unsigned(width, dst), unsigned(width, src)];
  const [x, y] = [signed(width, dst), signed(width, src)];
  switch (op) {
    case 'jeq':
      return a === b;
    case 'jne':
      return a !== b;
    case 'jset':
      return (a & b) !== 0n;
    case 'jgt':
      return a > b;
    case 'jge':
      return a >= b;
    case 'jlt':
      return a < b;
    case 'jle':
      return a <= b;
    case 'jsgt':
      return x > y;
    case 'jsge':
      return x >= y;
    case 'jslt':
      return x < y;
    case 'jsle':
      return x <= y;
  }
}

/** Values at which arithmetic goes wrong. */
export const EDGES: readonly bigint[] = [
  0n,
  1n,
  2n,
  31n,
  32n,
  33n,
  63n,
  64n,
  0x7fn,
  0x80n,
  0xffffn,
  0x7fff_ffffn,
  0x8000_0000n,
  0xffff_ffffn,
  0x1_0000_0000n,
  0x1_0000_0001n,
  0x1f_ffff_ffff_ffffn,
  0x20_0000_0000_0001n,
  0x0123_4567_89ab_cdefn,
  0x7fff_ffff_ffff_ffffn,
  0x8000_0000_0000_0000n,
  0x8000_0000_0000_0001n,
  0xffff_ffff_0000_0000n,
  0xffff_ffff_8000_0000n,
  0xffff_ffff_ffff_fffen,
  0xffff_ffff_ffff_ffffn,
];
