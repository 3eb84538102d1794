/**
 * Whole outputs of commands against `test/golden/`. `ACCEPT=1 npx vitest run test/cli/golden` rewrites the
 * files; the difference then shows in review.
 */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { PACKAGE_ROOT } from '../../src/node/files.js';
import { runForTest } from '../helpers/cli.js';

it.each<[string, string[]]>([
  ['tour', ['tour', '--engine', 'embedded']],
  ['trace-near', ['trace', 'bpf_fentry_test3', '--fentry', '1', '--fexit', '1']],
  ['trace-far', ['trace', 'bpf_fentry_test3', '--fentry', '1', '--far']],
  ['trace-late', ['trace', 'bpf_fentry_test3', '--fentry', '1', '--ops', '2', '--far']],
  [
    'trace-fmod-ret',
    ['trace', 'bpf_modify_return_test', '1', '&2', '--fmod-ret', '1', '--fexit', '1'],
  ],
  [
    'xdp-packets',
    ['xdp', 'examples/xdp/bounce_ttl.o', '--pcap', 'examples/captures/mixed.pcap', '--packets'],
  ],
  ['rss-experiments', ['rss']],
  ['rss-random-ports', ['rss', '--experiment', 'gre-inner-random']],
  ['svq-landed', ['svq']],
  ['svq-copy-v8', ['svq', '--mode', 'copy-v8', '--command', 'queues=2']],
  ['svq-faults', ['svq', '--fault', 'all']],
  ['svq-migrate', ['svq', '--migrate', '--mode', 'transactional', '--seed', '3']],
  ['rss-capture', ['rss', 'examples/captures/tunnels.pcap', '--cost', '5000']],
])('%s', async (name, words) => {
  const path = join(PACKAGE_ROOT, 'test', 'golden', `${name}.txt`);
  const { code, lines } = await runForTest(words);
  const text = `${lines.join('\n')}\n`;
  expect(code).toBe(0);
  if (process.env['ACCEPT'] === '1' || !existsSync(path)) {
    if (process.env['ACCEPT'] !== '1') throw new Error(`${name}.txt is missing: run with ACCEPT=1`);
    writeFileSync(path, text);
  }
  expect(text).toBe(readFileSync(path, 'utf8'));
});

it('prints the same on the second run', async () => {
  const words = ['trace', 'bpf_fentry_test1', '--fexit', '2'];
  expect(await runForTest(words)).toEqual(await runForTest(words));
});
