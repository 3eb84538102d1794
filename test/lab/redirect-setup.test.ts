/** The redirecting examples on every engine: the same packets at the same targets. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { load } from '../../src/bpf/object/load.js';
import { parseObject } from '../../src/bpf/object/parse.js';
import { bytesToHex } from '../../src/common/bytes.js';
import { RedirectSetup } from '../../src/lab/redirect-setup.js';
import type { RunEngine } from '../../src/lab/run-program.js';
import { installVirtioNet, runTraffic } from '../../src/lab/xdp-traffic.js';
import { readCapture } from '../../src/net/read-capture.js';
import { PACKAGE_ROOT } from '../../src/node/files.js';
import { bootLab } from '../../src/node/index.js';
import { runForTest } from '../helpers/cli.js';

const ENGINES: readonly RunEngine[] = ['interpreter', 'wasm', 'jit'];
const file = (path: string): Uint8Array => readFileSync(join(PACKAGE_ROOT, 'examples', path));

interface Case {
  readonly object: string;
  readonly settings: readonly string[];
  readonly queues?: readonly number[];
  /** Packets at each target. */
  readonly redirected: Readonly<Record<string, number>>;
  readonly toStack: number;
}

const CASES: readonly Case[] = [
  {
    object: 'redirect_dev',
    settings: ['ports[6]=eth1', 'ports[17]=eth2,stamp_source', 'mirrors[1]=3', 'mirrors[2]=eth0'],
    redirected: { eth1: 99, eth2: 20 },
    toStack: 66,
  },
  {
    object: 'redirect_cpu',
    settings: ['cpus[1]=192,count_here', 'cpus[3]=1'],
    redirected: { eth1: 0, eth2: 0 },
    toStack: 200,
  },
  { object: 'redirect_xsk', settings: [], queues: [0], redirected: { xsk0: 35 }, toStack: 165 },
];

async function run(engine: RunEngine, { object: name, settings, queues }: Case) {
  const kernel = await bootLab({ engine: 'embedded', cpus: 4 });
  try {
    const driver = installVirtioNet(kernel);
    const object = load(parseObject(file(`xdp/${name}.o`), { name }), kernel.bpf.host);
    const devices = queues ? [] : ['eth1', 'eth2'];
    const options = { driver, engine, object, devices, queues: queues ?? [], settings };
    const setup = new RedirectSetup(kernel, options);
    const program = object.program(name);
    const { prepare, targets } = setup;
    const capture = readCapture(file('captures/mixed.pcap'));
    const result = runTraffic(kernel, { driver, engine, program, capture, prepare, targets });
    setup.close();
    object.free();
    return result;
  } finally {
    kernel.close();
  }
}

describe.each(CASES)('$object', (example) => {
  test('redirects the same on every engine', async () => {
    const results = [];
    for (const engine of ENGINES) results.push(await run(engine, example));
    const [first, ...others] = results;
    expect(Object.fromEntries(first?.redirected ?? [])).toEqual(example.redirected);
    expect(first?.outcomes.filter(({ to }) => to === 'stack')).toHaveLength(example.toStack);
    const frames = (result: typeof first): unknown =>
      result?.outcomes.map(({ verdict, out, redirected }) => [
        verdict,
        out && bytesToHex(out),
        redirected.map(({ target, frame }) => [target, bytesToHex(frame)]),
      ]);
    for (const other of others) {
      expect(frames(other)).toEqual(frames(first));
      expect(other.counters).toEqual(first?.counters);
    }
  });
});

test.each([
  [['--set', 'ports[6]=eth9'], 'neither a number nor one of: eth0, eth1, stamp_source'],
  [['--set', 'ports[6]=9'], 'EINVAL'],
  [['--set', 'ports[6]=eth1,stamp_source,1'], '3 words, 8 bytes are there'],
  [['--out', 'eth7=never.pcap'], 'no device eth7, add --device eth7'],
  [['--xsk', 'a=b'], 'QUEUE=FILE'],
  [['--device', 'eth1'], 'two devices eth1'],
  [['--program', 'stamp_source'], 'is no XDP program of a device'],
  [['--events', '--repeat', '2'], 'without --out, --packets and --events'],
])('the command refuses %j', async (words, why) => {
  const command = 'xdp examples/xdp/redirect_dev.o --pcap examples/captures/ipv6.pcap';
  const { code, notices } = await runForTest([...`${command} --device eth1`.split(' '), ...words]);
  expect(code).toBeGreaterThan(0);
  expect(notices.join('\n')).toContain(why);
});
