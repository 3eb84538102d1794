import { describe, expect, it } from 'vitest';
import { hexToBytes } from '../../src/common/bytes.js';
import { assemble } from '../../src/bpf/assemble.js';
import { createInterpreter } from '../../src/bpf/interpreter.js';
import { PlainHost } from '../../src/bpf/plain-host.js';
import { rawProgram, rawProgramFromHex } from '../../src/bpf/raw-program.js';
import { validate } from '../../src/bpf/validate.js';

const EXIT = '9500000000000000';

/** Slots in hex and what is wrong with them. */
const BAD: readonly (readonly [string, string, string])[] = [
  [
    'jump behind the end',
    `0500100000000000${EXIT}`,
    'insn 0: jump to 17, program has 2 instructions',
  ],
  [
    'jump before the start',
    `1500fdff00000000${EXIT}`,
    'insn 0: jump to -2, program has 2 instructions',
  ],
  ['long jump out', `0600000000010000${EXIT}`, 'insn 0: jump to 257, program has 2 instructions'],
  [
    'jump into ld_imm64',
    `050001000000000018000000010000000000000002000000${EXIT}`,
    'insn 0: jump to 2, the middle of ld_imm64',
  ],
  ['no exit', 'b700000000000000', 'insn 0: missing exit, program falls off its end'],
  [
    'conditional end',
    'b7000000000000001500feff00000000',
    'insn 1: missing exit, program falls off its end',
  ],
  ['unknown opcode', `ff00000000000000${EXIT}`, 'insn 0: unknown opcode 0xff'],
  ['dst register', `b70b000000000000${EXIT}`, 'insn 0: register r11 does not exist'],
  ['src register', `bff0000000000000${EXIT}`, 'insn 0: register r15 does not exist'],
  ['write to r10', `b70a000000000000${EXIT}`, 'insn 0: write to r10'],
  ['load to r10', `791a000000000000${EXIT}`, 'insn 0: write to r10'],
  ['fetch to r10', `dba1000001000000${EXIT}`, 'insn 0: write to r10'],
  ['half an ld_imm64', `${EXIT}1800000001000000`, 'insn 1: ld_imm64 without its second slot'],
  ['ld_imm64 and exit', `1800000001000000${EXIT}`, 'insn 0: ld_imm64 without its second slot'],
  [
    'dirty second slot',
    `18000000010000000001000000000000${EXIT}`,
    'insn 0: second slot of ld_imm64 has fields that must be zero',
  ],
  [
    'unresolved map',
    `18110000010000000000000000000000${EXIT}`,
    'insn 0: ld_imm64 with source 1: the reference is not resolved',
  ],
  ['byte swap', `dc00000030000000${EXIT}`, 'insn 0: byte swap of 48 bits'],
  ['division', `3f10020000000000${EXIT}`, 'insn 0: offset 2 in a division'],
  ['sign extension', `bc10200000000000${EXIT}`, 'insn 0: offset 32 in a move'],
  [
    'atomic operation',
    `db10000002000000${EXIT}`,
    'insn 0: unknown atomic operation 0x2 on 8 bytes',
  ],
  ['atomic size', `d310000000000000${EXIT}`, 'insn 0: unknown atomic operation 0x0 on 1 bytes'],
  [
    'packet load',
    `200000000c000000${EXIT}`,
    'insn 0: legacy packet load (0x20) needs a socket buffer: not supported',
  ],
  [
    'may_goto',
    `e500000000000000${EXIT}`,
    'insn 0: may_goto must be rewritten by the loader before it can run',
  ],
];

describe('validate', () => {
  it.each(BAD)('%s', (_, hex, problem) => {
    const program = rawProgramFromHex('bad', hex);
    expect(validate(program.functions)[0]).toBe(problem);
    expect(() => createInterpreter(program, new PlainHost())).toThrow(`program bad: ${problem}`);
  });

  it('finds nothing wrong with a dead tail', () => {
    expect(
      validate(rawProgram('x', assemble('goto end\nr0 = 1\nend: exit\nr0 = 2')).functions),
    ).toEqual([]);
  });

  it('takes a jump to itself unless told otherwise', () => {
    const { functions } = rawProgram('x', assemble('goto -1\nexit'));
    expect(validate(functions)).toEqual([]);
    expect(validate(functions, { refuseSelfJump: true })).toEqual([
      'insn 0: jump to itself never ends',
    ]);
  });

  it('knows the register of the rewrites in programs that are not raw', () => {
    const insns = assemble('r11 = 5\nr0 = r11\nexit');
    expect(validate(rawProgram('x', insns).functions)).toHaveLength(2);
    const program = rawProgram('x', insns, { type: 'xdp' });
    expect(createInterpreter(program, new PlainHost()).run(0n)).toEqual({ kind: 'return', r0: 5n });
  });

  it('names the function when there are several', () => {
    const program = rawProgram('main', assemble('call sub\nexit\nsub: r0 = 1'));
    expect(validate(program.functions)).toEqual([
      'main_sub_1: insn 0: missing exit, main_sub_1 falls off its end',
    ]);
  });

  it('reports every problem', () => {
    const program = rawProgramFromHex('x', `ff00000000000000b70a000000000000${EXIT}`);
    expect(validate(program.functions)).toHaveLength(2);
  });
});

describe('rawProgram', () => {
  it('splits functions at call targets', () => {
    const text = 'call b\ncall a\nexit\na: r0 = 1\nexit\nb: call a\nexit';
    const program = rawProgram('main', assemble(text));
    expect(program.functions.map(({ name, insns }) => [name, insns.length / 8])).toEqual([
      ['main', 3],
      ['main_sub_1', 2],
      ['main_sub_2', 2],
    ]);
  });

  it.each([
    ['b7000000', 'program x: 4 bytes are no multiple of 8'],
    ['', 'program x has no instructions'],
    [`8510000005000000${EXIT}`, 'insn 0: call to 6, program has 2 instructions'],
  ])('refuses %j', (hex, message) => {
    expect(() => rawProgram('x', hexToBytes(hex))).toThrow(message);
  });
});
