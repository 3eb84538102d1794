/** Wrong input gets one line that says what and where, and the exit code: 1 for input, 2 for usage. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { PACKAGE_ROOT } from '../../src/node/files.js';
import { runForTest } from '../helpers/cli.js';

const folder = mkdtempSync(join(tmpdir(), 'trampolab-'));
afterAll(() => rmSync(folder, { recursive: true }));

const OBJECT = join(PACKAGE_ROOT, 'examples/xdp/drop_ports.o');
const CAPTURE = join(PACKAGE_ROOT, 'examples/captures/mixed.pcap');

function temporary(name: string, bytes: Uint8Array | string): string {
  const path = join(folder, name);
  writeFileSync(path, bytes);
  return path;
}

/** The object with some bytes changed. */
function patched(name: string, change: (bytes: Uint8Array) => Uint8Array): string {
  return temporary(name, change(new Uint8Array(readFileSync(OBJECT))));
}

const truncated = patched('truncated.o', (bytes) => bytes.slice(0, 300));
const otherMachine = patched('x86.o', (bytes) => {
  bytes[18] = 62;
  bytes[19] = 0;
  return bytes;
});
const cut = temporary('cut.pcap', new Uint8Array(readFileSync(CAPTURE)).slice(0, 200));

describe.each<[string, string[], number, RegExp]>([
  ['no command', [], 2, /^$/],
  ['an unknown command', ['frob'], 2, /no command 'frob'/],
  ['an unknown option', ['run', 'x.o', '--frob'], 2, /--frob/],
  ['no program', ['run'], 2, /PROG is missing/],
  ['a file that is not there', ['run', 'nowhere.o'], 1, /nowhere\.o: no such file/],
  ['a truncated object', ['run', truncated], 1, /truncated|beyond|outside|cut|end of (the )?file/i],
  ['an object for another machine', ['run', otherMachine], 1, /machine 62/],
  [
    'a program that is not in the object',
    ['run', OBJECT, '--program', 'frob'],
    1,
    /no program 'frob'/,
  ],
  ['an unknown variant', ['csum', '--variant', 'v5'], 2, /--variant takes base\|v4-literal/],
  ['a program without a capture', ['csum', '--prog', OBJECT], 2, /--prog needs --pcap/],
  [
    'nothing to do with SMC',
    ['smc'],
    2,
    /handshake, run, state, stats, reasons or bench, not nothing/,
  ],
  ['an option of another part', ['smc', 'handshake', '--size', '7'], 2, /handshake has no --size/],
  ['bytes without random calls', ['smc', 'run', '--bytes', '7'], 2, /--bytes goes with --random/],
  [
    'a user EID in small letters',
    ['smc', 'state', '--ueid', 'lab'],
    1,
    /'lab' is no user EID: A-Z/,
  ],
  ['no SMC', ['smc', 'run', '--ueid', 'none'], 1, /no SMC: .*PEERDECL, peer: .*NOUEID/],
  ['odd hex', ['run', '--hex', '950'], 1, /odd number of hex digits/],
  ['hex that is no program', ['run', '--hex', '95'], 1, /no multiple of 8/],
  [
    'a jump out of range',
    ['run', '--hex', '0500700000000000 9500000000000000'],
    1,
    /insn 0: jump to/,
  ],
  [
    'a capture for an object',
    ['xdp', CAPTURE, '--pcap', CAPTURE],
    1,
    /mixed\.pcap: not an ELF object/,
  ],
  [
    'bytes for assembly',
    ['run', CAPTURE],
    1,
    /mixed\.pcap: neither an ELF object nor assembly text$/,
  ],
  ['a tour to somewhere', ['tour', 'home'], 2, /unexpected 'home'/],
  ['no verb', ['ftrace', 'what'], 2, /ftrace takes list\|/],
  ['no form', ['dump'], 2, /dump takes xlated\|jited$/],
  ['a missing exit', ['run', '--hex', 'b700000001000000'], 1, /exit|falls off|end/],
  [
    'an unknown opcode',
    ['run', '--hex', 'ff00000000000000 9500000000000000'],
    1,
    /insn 0: .*opcode 0xff/,
  ],
  ['an unknown helper', ['run', '--hex', '8500000010270000 9500000000000000'], 1, /helper 10000/],
  ['assembly that is none', ['run', temporary('x.s', 'r0 = \nexit\n')], 1, /line 1/],
  ['a wrong engine', ['run', OBJECT, '--engine', 'warp'], 2, /--engine takes interpreter\|/],
  ['a wrong number', ['run', OBJECT, '--repeat', '0'], 2, /--repeat takes a whole number from 1/],
  ['an infinite loop', ['run', '--hex', '0500ffff00000000 9500000000000000'], 1, /budget/],
  [
    'a read of address 0',
    ['run', '--hex', '7910000000000000 9500000000000000'],
    1,
    /read of 8 bytes at 0x0{16}/,
  ],
  ['xdp without a capture', ['xdp', OBJECT], 2, /--pcap IN is missing/],
  ['a capture cut in the middle', ['xdp', OBJECT, '--pcap', cut], 1, /packet \d+ at byte \d+/],
  ['a capture that is none', ['xdp', OBJECT, '--pcap', OBJECT], 1, /capture|pcap/],
  [
    'a tracing program as XDP',
    ['xdp', join(PACKAGE_ROOT, 'examples/tracing/receive_sizes.o'), '--pcap', CAPTURE],
    2,
    /is no XDP program/,
  ],
  ['an unknown symbol', ['trace', 'no_such'], 1, /no symbol no_such/],
  [
    'no patch site',
    ['trace', '__bpf_prog_enter_recur', '--fentry', '1'],
    1,
    /-ENOTSUPP: .* no patch site/,
  ],
  ['too many arguments', ['trace', 'bpf_fentry_test1', '1', '2'], 2, /takes 1 arguments, not 2/],
  ['too many programs', ['trace', 'bpf_fentry_test1', '--fentry', '39'], 1, /-E2BIG/],
  ['an oops', ['trace', 'bpf_fentry_test8', '0'], 1, /NULL pointer.*pc bpf_fentry_test8\+0x8/],
  ['a layout of no version', ['layout', '--kernel', '6.0'], 2, /--kernel takes 5\.15\|v5\|/],
  ['a seed of 65 bits', ['layout', '--kaslr', '0x10000000000000000'], 2, /a number of 64 bits/],
  ['a seed and many', ['layout', '--kaslr', '1', '--seeds', '9'], 2, /exclude each other/],
  ['no seeds', ['layout', '--seeds', '0'], 2, /--seeds takes a whole number from 1/],
  ['an odd size', ['layout', '--modules', '64X'], 2, /--modules takes a size .* not '64X'/],
  ['an empty size', ['layout', '--modules', '64K,'], 2, /--modules takes a size .* not ''/],
  ['modules without room', ['layout', '--modules', '2G'], 1, /-ENOMEM: no 2147487744 bytes/],
  ['vmalloc without room', ['layout', '--vmalloc-used', '127T'], 1, /-ENOMEM: .* left in vmalloc/],
  ['a hole beside', ['layout', '--hole', '1M:4K'], 1, /a hole at 1048576 is not in 0 bytes of use/],
  ['half a hole', ['layout', '--hole', '1M'], 2, /--hole takes AT:SIZE, not '1M'/],
  ['a function outside', ['layout', '--function', '30M'], 2, /30M is not in an image/],
  ['an image too small', ['layout', '--image-size', '1M'], 2, /--image-size takes 16M to 127M/],
  ['vectors that are none', ['check', OBJECT], 1, /drop_ports\.o/],
  ['no vectors', ['check'], 2, /FILE is missing/],
])('%s', (_name, words, code, message) => {
  it(`trampolab ${words.map((word) => word.replace(/^.*\//, '')).join(' ')}`, async () => {
    const result = await runForTest(words);
    expect(result.code).toBe(code);
    const [error = '', ...more] = result.notices;
    if (words.length > 0) expect(error).toMatch(/^Error: /);
    expect(error).toMatch(message);
    const oops = /^(Unable to handle|Internal error)/;
    expect(more.filter((line) => !line.startsWith('usage: ') && !oops.test(line))).toEqual([]);
  });
});

it('says it as JSON with --json, on stdout', async () => {
  const result = await runForTest(['run', 'nowhere.o', '--json']);
  expect(result).toMatchObject({ code: 1, notices: [] });
  expect(JSON.parse(result.lines.join(''))).toEqual({ error: 'nowhere.o: no such file' });
});

it('every command explains itself', async () => {
  const overview = await runForTest(['--help']);
  expect(overview.code).toBe(0);
  const names = overview.lines.flatMap((line) => /^ {2}(\w+) {2,}/.exec(line)?.[1] ?? []);
  expect(names).toContain('tour');
  for (const name of names) {
    const { code, lines } = await runForTest([name, '--help']);
    expect(code).toBe(0);
    expect(lines[0]).toMatch(new RegExp(`^usage: trampolab ${name}\\b`));
  }
});
