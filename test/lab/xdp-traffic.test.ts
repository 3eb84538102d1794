/**
 * The examples over the captures through virtio-net: interpreter, JIT image on the embedded engine and on
 * Unicorn give the same verdicts, bytes, counters and maps, in both receive modes.
 */
import { describe, expect, it } from 'vitest';
import { load } from '../../src/bpf/object/load.js';
import { parseObject } from '../../src/bpf/object/parse.js';
import { bytesToHex } from '../../src/common/bytes.js';
import { applySetting } from '../../src/lab/map-setting.js';
import { listMap } from '../../src/lab/map-listing.js';
import { installVirtioNet, runTraffic, type TrafficOptions } from '../../src/lab/xdp-traffic.js';
import { readCapture } from '../../src/net/read-capture.js';
import { bootLab } from '../../src/node/boot.js';
import { PACKAGE_ROOT, readInput } from '../../src/node/files.js';
import { factories } from '../helpers/cpus.js';

const SETTINGS: Readonly<Record<string, readonly string[]>> = {
  drop_ports: ['drop_list[53]=0', 'drop_list[443]=0'],
  ipip_encap: ['tunnels[10.0.0.1]=hex:c0a80101c0a80102020000000009'],
};

interface Seen {
  readonly verdicts: object;
  readonly packets: readonly string[];
  readonly counters: object;
  readonly maps: object;
  readonly watched: readonly string[];
}

type Engine = 'interpreter' | 'embedded' | 'unicorn';

const example = (path: string): Uint8Array => readInput(`${PACKAGE_ROOT}/examples/${path}`);

async function see(
  engine: Engine,
  program: string,
  capture: string,
  rx: 'small' | 'mergeable',
): Promise<Seen> {
  const kernel = await bootLab({ engine: engine === 'interpreter' ? 'embedded' : engine });
  const driver = installVirtioNet(kernel);
  const watcher = load(parseObject(example('tracing/receive_sizes.o')), kernel.bpf.host);
  for (const { xlated } of watcher.programs) {
    kernel.bpf.attach(kernel.bpf.load(xlated), 'fexit', 'receive_buf');
  }
  const object = load(parseObject(example(`xdp/${program}.o`)), kernel.bpf.host);
  for (const setting of SETTINGS[program] ?? []) applySetting(object.maps, setting);
  const result = runTraffic(kernel, {
    driver,
    engine: engine === 'interpreter' ? 'interpreter' : 'jit',
    program: object.program(object.programs[0]?.spec.name ?? ''),
    capture: readCapture(example(`captures/${capture}`)),
    rx,
  });
  const seen: Seen = {
    verdicts: Object.fromEntries(result.verdicts),
    packets: result.outcomes.map(
      ({ verdict, out, to }) => `${verdict} ${to} ${out ? bytesToHex(out) : ''}`,
    ),
    counters: result.counters,
    maps: Object.fromEntries([...object.maps].map(([name, map]) => [name, listMap(map)])),
    watched: [...watcher.maps.values()].flatMap((map) => listMap(map)),
  };
  kernel.close();
  return seen;
}

const CPU_ENGINES = factories.map(({ name }) => name);

describe.each(['count_protocols', 'drop_ports', 'bounce_ttl', 'ipip_encap', 'vlan_ipv6'])(
  '%s',
  (program) => {
    it.each<[string, 'small' | 'mergeable']>([
      ['mixed.pcap', 'mergeable'],
      ['ipv6.pcap', 'small'],
      ['two-links.pcapng', 'small'],
    ])('over %s, %s buffers: the same on every engine', async (capture, rx) => {
      const expected = await see('interpreter', program, capture, rx);
      expect(
        Object.values(expected.verdicts).reduce((a: number, b: number) => a + b, 0),
      ).toBeGreaterThan(0);
      expect(expected.watched.length).toBeGreaterThan(0);
      for (const engine of CPU_ENGINES) {
        expect(await see(engine, program, capture, rx)).toEqual(expected);
      }
    });
  },
);

// headers say nothing about checksums, so where the program runs makes no difference to a packet
it.each(['drop_ports', 'bounce_ttl', 'ipip_encap'])(
  '%s: in generic mode, on old and new drivers: the same packets',
  async (program) => {
    const kernel = await bootLab();
    const driver = installVirtioNet(kernel);
    const object = load(parseObject(example(`xdp/${program}.o`)), kernel.bpf.host);
    for (const setting of SETTINGS[program] ?? []) applySetting(object.maps, setting);
    const capture = readCapture(example('captures/mixed.pcap'));
    const packets = (options: Partial<TrafficOptions>): readonly string[] => {
      const settings = { driver, engine: 'interpreter', capture, ...options } as const;
      const chosen = object.program(object.programs[0]?.spec.name ?? '');
      const { outcomes } = runTraffic(kernel, { ...settings, program: chosen });
      return outcomes.map(({ verdict, out }) => `${verdict} ${out ? bytesToHex(out) : ''}`);
    };
    const native = packets({});
    expect(packets({ variant: 'generic' })).toEqual(native);
    expect(packets({ variant: 'generic', rx: 'big' })).toEqual(native);
    expect(packets({ version: '6.1' })).toEqual(native);
    expect(packets({ version: '6.18', rx: 'small', variant: 'v4-fixed' })).toEqual(native);
    kernel.close();
  },
);
