/** What a call of a traced function does, told by the model and seen in emulated kernels. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { parseRecords } from '../../../src/lab/check/record.js';
import {
  checkSavedTrampoline,
  fuzzTrampolines,
  isSavedTrampoline,
  minimiseTrampoline,
  saveTrampoline,
  describeTrampoline,
} from '../../../src/lab/fuzz/trampoline-fuzz.js';
import type { FuzzLink, TrampolineCase } from '../../../src/lab/fuzz/trampoline-case.js';
import { TrampolineRunner } from '../../../src/lab/fuzz/trampoline-runner.js';
import { expectedEvents, passArguments } from '../../../src/lab/fuzz/trampoline-semantics.js';
import { bootLab } from '../../../src/node/boot.js';

const link = (kind: FuzzLink['kind'], more: Partial<FuzzLink> = {}): FuzzLink => ({
  kind,
  sleepable: false,
  ip: false,
  cookie: 0n,
  result: 0n,
  ...more,
});

const call = (sizes: readonly number[], links: readonly FuzzLink[]): TrampolineCase => ({
  target: 'function',
  arguments: sizes.map((size) => ({ size, struct: size > 8 })),
  values: Array.from({ length: 20 }, (_, i) => BigInt(i + 1)),
  result: 99n,
  links,
});

const short = (events: readonly string[]): string[] =>
  events.map((event) => event.replaceAll(/0x0+(?=[0-9a-f])/g, ''));

describe('the model', () => {
  it('passes what does not fit into registers, and all after it, on the stack', () => {
    const passed = passArguments(call([8, 8, 8, 8, 8, 8, 8, 16, 4], []));
    expect(passed.registers).toEqual([1n, 2n, 3n, 4n, 5n, 6n, 7n]);
    expect(passed.stack).toEqual([8n, 9n, 10n]);
  });

  it('shows programs only the bytes that a stack argument has', () => {
    const wide = { ...call([8, 8, 8, 8, 8, 8, 8, 8, 2], []), values: Array(9).fill(0x1_2345n) };
    expect(passArguments(wide).stack).toEqual([0x12345n]);
    expect(passArguments(wide).context.at(-1)).toBe(0x2345n);
  });

  it.each<[string, readonly FuzzLink[], readonly string[]]>([
    [
      'fentry',
      [link('fentry')],
      ['link 0 at entry: 1 arguments 1, cookie 0', 'original: 1', 'returned 63'],
    ],
    [
      'the last attached runs first',
      [link('fexit'), link('fexit', { cookie: 7n })],
      [
        'original: 1',
        'link 1 at exit: 1 arguments 1, returned 63, cookie 7',
        'link 0 at exit: 1 arguments 1, returned 63, cookie 0',
        'returned 63',
      ],
    ],
    [
      'a value from fmod_ret takes the place of the original and of further fmod_ret programs',
      [link('fmod_ret'), link('fmod_ret', { result: 5n }), link('fexit')],
      [
        'link 1 at entry: 1 arguments 1, returned 0, cookie 0',
        'link 2 at exit: 1 arguments 1, returned 5, cookie 0',
        'returned 5',
      ],
    ],
  ])('%s', (_name, links, events) => {
    expect(short(expectedEvents(call([8], links), '6.12'))).toEqual(events);
  });

  it.each([
    ['6.1', [16], 'ENOTSUPP'],
    ['6.12', [8, 8, 8, 8, 8, 8, 8, 8, 8], 'ENOTSUPP'],
    ['7.3', Array<number>(13).fill(1), 'ENOTSUPP'],
    ['7.3', [17], 'EINVAL'],
  ] as const)('%s refuses arguments of %j bytes: %s', (version, sizes, errno) => {
    expect(expectedEvents(call(sizes, [link('fentry')]), version)).toEqual([`attach: ${errno}`]);
  });
});

describe.each([
  ['6.1', 0],
  ['6.12', 0],
  ['6.12', 256 << 20],
  ['7.3', 0],
] as const)('Linux %s, %i bytes of vmalloc space in use', (version, vmallocUsed) => {
  let runner: TrampolineRunner;
  beforeAll(async () => {
    runner = new TrampolineRunner(await bootLab({ version, vmallocUsed }));
  });
  afterAll(() => runner.kernel.close());

  it('does what the model says, and leaves nothing behind', () => {
    const { bpf } = runner.kernel;
    const images = bpf.images.liveImages;
    expect(fuzzTrampolines(runner, { seed: 21, count: 60 })).toBeUndefined();
    expect(bpf.liveTrampolineImages).toBe(0);
    expect(bpf.images.liveImages).toBe(images);
  });
});

describe('a kernel that is wrong', () => {
  it('is found; the case is cut down, shown and saved', async () => {
    const runner = new TrampolineRunner(await bootLab());
    // links with a cookie show another one
    const wrong: TrampolineRunner = Object.assign(Object.create(runner) as TrampolineRunner, {
      run: (fuzzCase: TrampolineCase) =>
        runner.run(fuzzCase).map((event) => event.replace(/cookie 0x.*[1-9a-f].*$/, 'cookie gone')),
    });
    const difference = fuzzTrampolines(wrong, { seed: 1, count: 100 });
    if (!difference) throw new Error('not found');
    const smallest = minimiseTrampoline(difference);
    expect(smallest.fuzzCase.links).toHaveLength(1);
    expect(smallest.fuzzCase.arguments).toHaveLength(0);
    expect(describeTrampoline(smallest).some((line) => line.endsWith('cookie gone'))).toBe(true);
    const [record] = parseRecords('saved.jsonl', saveTrampoline('found', smallest));
    if (!record) throw new Error('no record');
    expect(isSavedTrampoline(record)).toBe(true);
    const check = async (each: TrampolineRunner): Promise<string> =>
      (await checkSavedTrampoline(record, async () => each)).status;
    expect(await check(runner)).toBe('passed');
    expect(await check(wrong)).toBe('failed');
    runner.kernel.close();
  });
});
