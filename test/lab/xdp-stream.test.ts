/** A stream of batches gives what one packet at a time gives; tracing every function changes nothing. */
import { describe, expect, it } from 'vitest';
import { load } from '../../src/bpf/object/load.js';
import { parseObject } from '../../src/bpf/object/parse.js';
import { bytesToHex } from '../../src/common/bytes.js';
import type { RunEngine } from '../../src/lab/run-program.js';
import { applySetting } from '../../src/lab/map-setting.js';
import {
  installVirtioNet,
  openTraffic,
  runTraffic,
  type StreamOptions,
} from '../../src/lab/xdp-traffic.js';
import type { Kernel } from '../../src/kernel/kernel.js';
import { readCapture } from '../../src/net/read-capture.js';
import { bootLab } from '../../src/node/boot.js';
import { PACKAGE_ROOT, readInput } from '../../src/node/files.js';

const SETTINGS: Readonly<Record<string, readonly string[]>> = {
  drop_ports: ['drop_list[53]=0', 'drop_list[443]=0'],
  ipip_encap: ['tunnels[10.0.0.1]=hex:c0a80101c0a80102020000000009'],
};

const example = (path: string): Uint8Array => readInput(`${PACKAGE_ROOT}/examples/${path}`);
const capture = readCapture(example('captures/mixed.pcap'));
const frames = capture.packets.map(({ bytes }) => bytes);

interface Bench {
  readonly kernel: Kernel;
  readonly options: StreamOptions;
}

async function bench(name: string, engine: RunEngine): Promise<Bench> {
  const kernel = await bootLab({ engine: 'embedded' });
  const driver = installVirtioNet(kernel);
  const object = load(parseObject(example(`xdp/${name}.o`)), kernel.bpf.host);
  for (const setting of SETTINGS[name] ?? []) applySetting(object.maps, setting);
  const program = object.program(object.programs[0]?.spec.name ?? '');
  return { kernel, options: { driver, engine, program } };
}

/** Without those that tell when the driver polled: kicks, and sent frames, counted when they are reclaimed. */
function lasting(counters: Readonly<Record<string, number>>): [string, number][] {
  return Object.entries(counters).filter(([name]) => !/kicks|tx\d*_(packets|bytes)$/.test(name));
}

describe.each(['drop_ports', 'count_protocols', 'bounce_ttl', 'ipip_encap'])('%s', (name) => {
  it.each<[RunEngine, 'small' | 'mergeable', number]>([
    ['interpreter', 'mergeable', 64],
    ['wasm', 'mergeable', 64],
    ['wasm', 'small', 7],
    ['jit', 'small', 1000],
  ])('%s, %s, batches of %i: as one at a time', async (engine, rx, batch) => {
    const single = await bench(name, engine);
    const expected = runTraffic(single.kernel, { ...single.options, rx, capture });
    const out = (to: string): string[] =>
      expected.outcomes
        .filter((outcome) => outcome.to === to)
        .map((outcome) => bytesToHex(outcome.out ?? new Uint8Array()));

    const { kernel, options } = await bench(name, engine);
    const delivered: string[] = [];
    const transmitted: string[] = [];
    const stream = openTraffic(kernel, {
      ...options,
      rx,
      batch,
      onDelivered: (bytes, start, end) => delivered.push(bytesToHex(bytes.slice(start, end))),
      onTransmitted: (bytes, start, end) =>
        transmitted.push(bytesToHex(bytes.slice(start + 12, end))),
    });
    stream.send(frames);
    const { counts } = stream;
    expect([...counts.verdicts]).toEqual([...expected.verdicts]);
    expect(lasting(counts.counters)).toEqual(lasting(expected.counters));
    expect({ delivered, transmitted }).toEqual({
      delivered: out('stack'),
      transmitted: out('transmit'),
    });
    expect(counts).toMatchObject({
      packets: frames.length,
      delivered: delivered.length,
      transmitted: transmitted.length,
    });
    stream.close();
    single.kernel.close();
    kernel.close();
  });
});

it.each(['small', 'mergeable'] as const)(
  '%s: every function through its text: the same',
  async (rx) => {
    const direct = await bench('ipip_encap', 'wasm');
    const expected = runTraffic(direct.kernel, { ...direct.options, rx, capture });
    const traced = await bench('ipip_encap', 'wasm');
    traced.kernel.executor.everyInstruction = true;
    const before = traced.kernel.cpus[0]?.executed ?? 0;
    const result = runTraffic(traced.kernel, { ...traced.options, rx, capture });
    expect((traced.kernel.cpus[0]?.executed ?? 0) - before).toBeGreaterThan(frames.length * 50);
    expect(result).toEqual(expected);
    direct.kernel.close();
    traced.kernel.close();
  },
);
