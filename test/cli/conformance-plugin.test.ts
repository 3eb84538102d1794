import { readFileSync } from 'node:fs';
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest';
import { sharedFile } from '../helpers/shared.js';

let standardInput = '';

let runForTest: typeof import('../helpers/cli.js').runForTest;

// modules are shared by test files: these here are loaded anew, around another standard input
beforeAll(async () => {
  vi.resetModules();
  vi.doMock('../../src/node/index.js', async (original) => {
    const node = await original<typeof import('../../src/node/index.js')>();
    const readInput = (path: string): Uint8Array =>
      path === '-' ? new TextEncoder().encode(standardInput) : node.readInput(path);
    return { ...node, readInput };
  });
  ({ runForTest } = await import('../helpers/cli.js'));
}, 60_000);

afterAll(() => {
  vi.doUnmock('../../src/node/index.js');
  vi.resetModules();
});

afterEach(() => (standardInput = ''));

/** Bytes as the runner writes them: two spaces between, and spaces behind. */
function spaced(hex: string): string {
  return `${hex.match(/../g)?.join('  ') ?? ''}  `;
}

async function plugin(program: string, ...words: string[]) {
  standardInput = `${spaced(program)}\n`;
  return runForTest(['conformance-plugin', ...words]);
}

interface Conformance {
  readonly name: string;
  readonly insns_hex: string;
  readonly mem_hex: string | null;
  readonly expected_r0: string;
}

/** r0 = r2; r0 <<= 8; r1 = *(u8 *)r1; r0 |= r1; exit */
const LENGTH_AND_BYTE =
  'bf20000000000000' +
  '6700000008000000' +
  '7111000000000000' +
  '4f10000000000000' +
  '9500000000000000';

describe.each(['interpreter', 'embedded'])('on %s', (engine) => {
  it('runs the program on the memory', async () => {
    const result = await plugin(LENGTH_AND_BYTE, spaced('aabbcc'), '--engine', engine);
    expect(result).toMatchObject({ code: 0, lines: ['3aa'], notices: [] });
  });

  it('runs without memory', async () => {
    const result = await plugin(
      '18000000ffffffff00000000feffffff9500000000000000',
      '--engine',
      engine,
    );
    expect(result).toMatchObject({ code: 0, lines: ['fffffffeffffffff'] });
  });

  it('prints why a program was refused, and fails', async () => {
    const result = await plugin('ff000000000000009500000000000000', '--engine', engine);
    expect(result.code).toBe(1);
    expect(result.lines.join()).toMatch(/insn 0: unknown opcode 0xff/);
  });
});

it('reads an object', async () => {
  const object = readFileSync(new URL('../vectors/objects/text_main.o', import.meta.url));
  const result = await plugin(object.toString('hex'), spaced('05000000'), '--elf');
  expect(result).toMatchObject({ code: 0, lines: ['f'] });
});

it.each<[string, string, string[], RegExp]>([
  ['what is no hex', 'zz', [], /hex/],
  ['an object that is none', '00'.repeat(64), ['--elf'], /not an ELF object/],
  ['nothing', '', [], /no instructions/],
  ['two memories', '9500000000000000', ['00', '01'], /one MEMORY is enough/],
])('refuses %s', async (_name, program, words, message) => {
  const { code, lines, notices } = await plugin(program, ...words);
  expect(code).not.toBe(0);
  expect([...lines, ...notices].join('\n')).toMatch(message);
});

const corpus = sharedFile('vectors', 'bpf', 'conformance.jsonl');

it.runIf(corpus)('passes bpf_conformance', async () => {
  const records = readFileSync(corpus ?? '', 'utf8')
    .trim()
    .split('\n');
  const wrong: string[] = [];
  for (const line of records) {
    const { name, insns_hex, mem_hex, expected_r0 } = JSON.parse(line) as Conformance;
    const memory = mem_hex === null ? [] : [spaced(mem_hex)];
    const { code, lines } = await plugin(insns_hex, ...memory);
    const r0 = /^[0-9a-f]+$/.test(lines[0] ?? '') ? BigInt(`0x${lines[0]}`) : undefined;
    if (code !== 0 || lines.length !== 1 || r0 !== BigInt(`0x${expected_r0.replace(/^0x/, '')}`))
      wrong.push(name);
  }
  expect(wrong).toEqual([]);
  expect(records).toHaveLength(313);
});
