/**
 * Packets per second through the virtio-net receive model: device, virtqueue, driver, program, verdict.
 *
 * The receive path by itself (`receive.ts`), and three programs on every tier: `drop_ports` on packets that
 * it drops, `count_protocols` on all of the example capture, `ipip_encap` on packets that it encapsulates
 * and sends back. `batched` is 64 packets per poll, `single` a poll for each; `x` compares with the
 * interpreter in the same run. Speeds and bytes are those of `packet-rate.ts`.
 */
import { join } from 'node:path';
import { load } from '../src/bpf/object/load.js';
import { parseObject } from '../src/bpf/object/parse.js';
import type { RunEngine } from '../src/lab/run-program.js';
import { applySetting } from '../src/lab/map-setting.js';
import {
  NAPI_POLL_WEIGHT,
  installVirtioNet,
  openTraffic,
  runTraffic,
  verdictName,
} from '../src/lab/xdp-traffic.js';
import { readCapture } from '../src/net/read-capture.js';
import { bootLab } from '../src/node/boot.js';
import { PACKAGE_ROOT, readInput } from '../src/node/files.js';
import { measureApart, type TrafficSetting, type Workload } from './packet-job.js';
import { garbageCollector, measureRate, type PacketRate } from './packet-rate.js';
import { receiveRows } from './receive.js';
import type { BenchRow } from './row.js';

const WORKLOADS: readonly Workload[] = [
  {
    program: 'drop_ports',
    settings: ['drop_list[53]=0', 'drop_list[443]=0'],
    verdict: 'XDP_DROP',
  },
  { program: 'count_protocols', settings: [] },
  {
    program: 'ipip_encap',
    settings: ['tunnels[10.0.0.1]=hex:c0a80101c0a80102020000000009'],
    verdict: 'XDP_TX',
  },
];

const TIERS: readonly (readonly [string, RunEngine])[] = [
  ['interpreter', 'interpreter'],
  ['wasm', 'wasm'],
  ['embedded', 'jit'],
];
const WINDOW = 1024;

export async function benchTraffic(): Promise<BenchRow[]> {
  const rows: BenchRow[] = await receiveRows(garbageCollector());
  for (const workload of WORKLOADS) {
    for (const [mode, batch] of [
      ['batched', NAPI_POLL_WEIGHT],
      ['single', 1],
    ] as const) {
      let reference: number | undefined;
      for (const [tier, engine] of TIERS) {
        const job = { kind: 'traffic', workload, engine, batch } as const;
        const { speed, allocated, kept } = await measureApart(job);
        reference ??= speed;
        const name = `${workload.program} ${tier} ${mode}`;
        rows.push({ name, value: speed, unit: 'packets/s', ratio: speed / reference });
        if (batch === 1) continue;
        rows.push({ name: `${name} allocated`, value: allocated, unit: 'bytes/packet' });
        rows.push({ name: `${name} kept`, value: kept, unit: 'bytes/packet' });
      }
    }
  }
  return rows;
}

export async function measureTraffic(
  { workload: { program: name, settings, verdict }, engine, batch }: TrafficSetting,
  collect: () => void,
): Promise<PacketRate> {
  const example = (...parts: string[]): Uint8Array =>
    readInput(join(PACKAGE_ROOT, 'examples', ...parts));
  const capture = readCapture(example('captures', 'mixed.pcap'));
  const kernel = await bootLab({ engine: 'embedded' });
  const driver = installVirtioNet(kernel);
  const object = load(parseObject(example('xdp', `${name}.o`), { name }), kernel.bpf.host);
  for (const setting of settings) applySetting(object.maps, setting);
  const [program] = object.programs;
  if (!program) throw new Error(`${name}: no program`);
  const chosen = runTraffic(kernel, { driver, engine, program, capture }).outcomes.filter(
    (outcome) => verdict === undefined || verdictName(outcome.verdict) === verdict,
  );
  if (chosen.length === 0) throw new Error(`${name}: no packet with ${verdict}`);
  const frames = Array.from({ length: WINDOW }, (_, i) => chosen[i % chosen.length]?.packet.bytes);
  const packets = frames.filter((frame) => frame !== undefined);

  const stream = openTraffic(kernel, { driver, engine, program, batch });
  const rate = measureRate(() => stream.send(packets), packets.length, collect);
  stream.close();
  kernel.close();
  return rate;
}
