/** Commands on a program with callbacks: every engine says the same. */
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { PACKAGE_ROOT } from '../../src/node/files.js';
import { runForTest } from '../helpers/cli.js';
import { factories } from '../helpers/cpus.js';

const OBJECT = join(PACKAGE_ROOT, 'test/vectors/objects/loops.o');
const CAPTURE = join(PACKAGE_ROOT, 'examples/captures/ipv6.pcap');
const engines = ['wasm', ...factories.map(({ name }) => name)];

async function output(...words: string[]): Promise<readonly string[]> {
  const { code, lines, notices } = await runForTest(words);
  expect(notices).toEqual([]);
  expect(code).toBe(0);
  return lines.map((line) => line.replace(/duration: \d+ns/, ''));
}

describe.each([
  ['run', ['run', OBJECT, '--maps', '--mem', '00'.repeat(200)]],
  ['xdp', ['xdp', OBJECT, '--pcap', CAPTURE, '--packets']],
])('%s', (_name, words) => {
  it(`does as the interpreter on ${engines.join(', ')}`, async () => {
    const expected = await output(...words);
    expect(expected.join()).toMatch(/7: \d+.*busiest.*0: \d/s);
    for (const engine of engines)
      expect(await output(...words, '--engine', engine)).toEqual(expected);
  });
});

it('a trace goes through the callbacks', async () => {
  const lines = await output('run', OBJECT, '--engine', 'embedded', '--trace');
  const entered = (name: string): number =>
    lines.filter((line) => line.includes(` bpf_prog_${name}+0x0 `)).length;
  // 64 bytes: the power is 6, found in the 7th round; 16 elements
  expect(entered('find_power')).toBe(7);
  expect(entered('find_busiest')).toBe(16);
});

it.each(['6.1', '6.12', '7.3'])(
  'dump jited %s has all functions with their lines',
  async (kernel) => {
    const lines = await output('dump', 'jited', OBJECT, '--kernel', kernel);
    for (const [prototype, source] of [
      ['int packet_sizes(struct xdp_md * ctx):', '; bpf_loop(16, find_power, &search, 0);'],
      ['long find_power(u32 index, void * data):', '; search->power = index;'],
      ['long find_busiest(void * map, u32 * key, u64 * value, void * data):', '; return 0;'],
    ] as const) {
      const at = lines.indexOf(prototype);
      expect(at).toBeGreaterThanOrEqual(0);
      expect(lines.indexOf(source, at)).toBeGreaterThan(at);
    }
    expect(lines.join('\n')).toMatch(/r2 = subprog\[\+\d+\]\n(.*mov[nk]? x1, .*\n){3}/);
  },
);
