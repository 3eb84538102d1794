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
  [
    'xdp-queues',
    (
      'xdp examples/xdp/rx_hash.o --program rx_hash --pcap examples/captures/tunnels.pcap ' +
      '--dev-bound --queues 4 --rss --rss-key microsoft'
    ).split(' '),
  ],
  ['csum-nat', ['csum', '--section', '10.2']],
  ['csum-upstream-small', ['csum', '--variant', 'upstream', '--rx', 'small', '--section', '10.1']],
  [
    'csum-capture',
    [
      'csum',
      '--pcap',
      'examples/captures/ipv6.pcap',
      '--prog',
      'examples/xdp/count_protocols.o',
      '--variant',
      'base,v4-fixed,upstream',
      '--verified',
    ],
  ],
  ['rss-experiments', ['rss']],
  ['rss-random-ports', ['rss', '--experiment', 'gre-inner-random']],
  ['svq-landed', ['svq']],
  ['svq-copy-v8', ['svq', '--mode', 'copy-v8', '--command', 'queues=2']],
  ['svq-faults', ['svq', '--fault', 'all']],
  ['svq-migrate', ['svq', '--migrate', '--mode', 'transactional', '--seed', '3']],
  ['rss-capture', ['rss', 'examples/captures/tunnels.pcap', '--cost', '5000']],
  [
    'xdp-redirect',
    (
      'xdp examples/xdp/redirect_dev.o --pcap examples/captures/ipv6.pcap --events ' +
      '--device eth1 --device eth2 --set mirrors[0]=eth1 --set mirrors[1]=eth2'
    ).split(' '),
  ],
  ['smc-handshake', ['smc', 'handshake', '--connections', '2']],
  ['smc-handshake-declined', ['smc', 'handshake', '--ueid', 'none']],
  ['smc-run-nocopy', ['smc', 'run', '--count', '4', '--trace']],
  ['smc-run-copy', ['smc', 'run', '--count', '4', '--trace', '--copy']],
  ['smc-state', ['smc', 'state', '--ism']],
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
