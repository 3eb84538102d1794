/** `trampolab svq`: commands, modes, faults as JSON, refusals. */
import { describe, expect, it } from 'vitest';
import { runForTest } from '../helpers/cli.js';

interface Step {
  readonly name: string;
  readonly changes: readonly { readonly name: string; readonly after?: string }[];
}

async function json(...words: string[]) {
  const { code, lines } = await runForTest(['svq', ...words, '--json']);
  return { code, value: JSON.parse(lines.join('')) as Record<string, unknown> };
}

it.each([
  ['landed', ['guest', 'pop', 'copy out', 'add', 'device', 'get_buf', 'model', 'push_elem']],
  [
    'copy-v8',
    [
      'guest',
      'pop',
      'copy out',
      'map out',
      'copy in',
      'map in',
      'add',
      'device',
      'get_buf',
      'unmap',
      'model',
      'used',
    ],
  ],
  [
    'transactional',
    [
      'guest',
      'pop',
      'copy out',
      'map in',
      'add',
      'device',
      'get_buf',
      'unmap',
      'model',
      'push_elem',
    ],
  ],
  ['translate', ['guest', 'pop', 'add', 'device', 'get_buf', 'model', 'push_elem']],
])('steps of a command, %s', async (mode, names) => {
  const { value } = await json('--mode', mode);
  const steps = value['steps'] as readonly Step[];
  expect(steps.map(({ name }) => name)).toEqual(names);
  const device = steps.find(({ name }) => name === 'device');
  expect(device?.changes.map(({ name }) => name)).toContain('device state');
  expect(value['ack']).toBe(0);
});

it('one fault in one mode', async () => {
  const { value } = await json('--fault', 'oversize-gigabyte', '--mode', 'copy-v8');
  expect(value).toMatchObject([
    {
      fault: 'oversize-gigabyte',
      abort: 'allocation of 1073741824 bytes',
      largestRequest: 2 ** 30,
    },
  ]);
});

it('a refused command is an answer, not a failure', async () => {
  const { code, value } = await json('--command', 'queues=9', '--mode', 'transactional');
  expect([code, value['ack']]).toEqual([0, 1]);
});

describe('refused', () => {
  it.each<[string, string[], number, string]>([
    ['an unknown mode', ['--mode', 'v9'], 2, '--mode takes translate|copy-v8|landed|transactional'],
    ['an unknown fault', ['--fault', 'none'], 2, "no fault 'none'"],
    ['two things at once', ['--fault', 'loop', '--migrate'], 2, 'go one at a time'],
    ['a seed without a migration', ['--seed', '3'], 2, '--seed and --count are for --migrate'],
    ['an argument', ['promisc'], 2, "unexpected 'promisc'"],
    ['an unknown command', ['--command', 'fly=1'], 2, "no command 'fly'"],
    ['a value that is none', ['--command', 'promisc=2'], 2, 'on or off is wanted'],
    ['a MAC address that is none', ['--command', 'mac=1:2'], 2, '1:2'],
  ])('%s', async (_what, words, code, text) => {
    const result = await runForTest(['svq', ...words]);
    expect(result.code).toBe(code);
    expect(result.notices.join()).toContain(text);
  });
});
