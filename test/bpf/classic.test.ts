import { describe, expect, it } from 'vitest';
import { hexToBytes } from '../../src/common/bytes.js';
import {
  CLASSIC_HELPERS,
  checkClassic,
  classicPacket,
  parseClassic,
  skbFieldOf,
  translateClassic,
} from '../../src/bpf/classic.js';
import { InterpreterRunner } from '../../src/lab/check/runner.js';

/** code, jt, jf, k */
type Line = readonly [number, number, number, number];

function assemble(...lines: readonly Line[]): Uint8Array {
  const bytes = new Uint8Array(8 * lines.length);
  const view = new DataView(bytes.buffer);
  for (const [i, [code, jt, jf, k]] of lines.entries()) {
    view.setUint16(8 * i, code, true);
    view.setUint8(8 * i + 2, jt);
    view.setUint8(8 * i + 3, jf);
    view.setUint32(8 * i + 4, k >>> 0, true);
  }
  return bytes;
}

function run(packet: Uint8Array, ...lines: readonly Line[]): string {
  const filter = parseClassic(assemble(...lines));
  expect(checkClassic(filter)).toBeUndefined();
  const outcome = new InterpreterRunner().run({
    name: 'filter',
    insns: translateClassic(filter),
    memory: classicPacket(packet),
    helpers: CLASSIC_HELPERS,
  });
  return outcome.kind === 'return' ? `0x${outcome.r0.toString(16)}` : outcome.reason;
}

const RET_A: Line = [0x16, 0, 0, 0];
const PACKET = hexToBytes('0102030405060708 45000014');

describe('classic BPF', () => {
  it.each<readonly [string, string, readonly Line[]]>([
    ['ld [2]', '0x3040506', [[0x20, 0, 0, 2]]],
    ['ldh [2]', '0x304', [[0x28, 0, 0, 2]]],
    ['ldb [11]', '0x14', [[0x30, 0, 0, 11]]],
    [
      'ld [9] ends with 0',
      '0x0',
      [
        [0x00, 0, 0, 7],
        [0x20, 0, 0, 9],
      ],
    ],
    ['ldb [LL + 1]', '0x2', [[0x30, 0, 0, 0xffe00001]]],
    ['ld #len', '0xc', [[0x80, 0, 0, 0]]],
    [
      'ldxb 4*([8]&0xf); txa',
      '0x14',
      [
        [0xb1, 0, 0, 8],
        [0x87, 0, 0, 0],
      ],
    ],
    [
      'ldb [x + 1]',
      '0x4',
      [
        [0x01, 0, 0, 2],
        [0x50, 0, 0, 1],
      ],
    ],
    [
      'st M[3]; ld M[3]',
      '0x9',
      [
        [0x00, 0, 0, 9],
        [0x02, 0, 0, 3],
        [0x00, 0, 0, 1],
        [0x60, 0, 0, 3],
      ],
    ],
    [
      'div by x = 0 ends with 0',
      '0x0',
      [
        [0x00, 0, 0, 9],
        [0x3c, 0, 0, 0],
      ],
    ],
    [
      'neg',
      '0xffffffff',
      [
        [0x00, 0, 0, 1],
        [0x84, 0, 0, 0],
      ],
    ],
    [
      'jgt is unsigned',
      '0x1',
      [
        [0x00, 0, 0, -1],
        [0x25, 0, 1, 5],
        [0x06, 0, 0, 1],
        [0x06, 0, 0, 2],
      ],
    ],
    [
      'jset falls through',
      '0x2',
      [
        [0x00, 0, 0, 4],
        [0x45, 0, 1, 3],
        [0x06, 0, 0, 1],
        [0x06, 0, 0, 2],
      ],
    ],
    [
      'alu_xor_x',
      '0x6',
      [
        [0x01, 0, 0, 3],
        [0x00, 0, 0, 5],
        [0x20, 0, 0, 0xfffff028],
      ],
    ],
  ])('%s', (_, expected, lines) => {
    expect(run(PACKET, ...lines, RET_A)).toBe(expected);
  });

  it.each<readonly [string, readonly Line[]]>([
    ['0 instructions, there may be 1 to 4096', []],
    ['the last instruction is no return', [[0x00, 0, 0, 1]]],
    ['insn 0: unknown code 0xe', [[0x0e, 0, 0, 0]]],
    ['insn 0: division by zero', [[0x34, 0, 0, 0], RET_A]],
    ['insn 0: shift by 32', [[0x64, 0, 0, 32], RET_A]],
    ['insn 0: M[16]', [[0x02, 0, 0, 16], RET_A]],
    ['insn 0: M[1] is read before it is written', [[0x60, 0, 0, 1], RET_A]],
    ['insn 0: jump by 1 leaves the program', [[0x05, 0, 0, 1], RET_A]],
    ['insn 0: jump leaves the program', [[0x15, 0, 1, 1], RET_A]],
    ['insn 0: unknown ancillary data 2', [[0x20, 0, 0, 0xfffff002], RET_A]],
  ])('refuses: %s', (why, lines) => {
    expect(checkClassic(parseClassic(assemble(...lines)))).toBe(why);
  });

  it('names the field of a socket buffer', () => {
    const filter = parseClassic(assemble([0x20, 0, 0, 0xfffff014], RET_A));
    expect(skbFieldOf(filter)).toBe('mark');
    expect(() => translateClassic(filter)).toThrow('mark is not modelled');
  });
});
