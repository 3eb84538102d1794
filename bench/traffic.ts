/**
 * Packets per second through the virtio-net receive model: three example programs, two tiers.
 *
 * Each measurement sends the example capture again and again for about a second; kernel, driver and
 * program are set up before.
 */
import { join } from 'node:path';
import { load } from '../src/bpf/object/load.js';
import { parseObject } from '../src/bpf/object/parse.js';
import { installVirtioNet, runTraffic } from '../src/lab/xdp-traffic.js';
import { readCapture } from '../src/net/read-capture.js';
import { bootLab } from '../src/node/boot.js';
import { PACKAGE_ROOT, readInput } from '../src/node/files.js';
import type { BenchRow } from './row.js';

const PROGRAMS = ['drop_ports', 'count_protocols', 'ipip_encap'];
const MILLISECONDS = 1000;

export async function benchTraffic(): Promise<BenchRow[]> {
  const example = (...parts: string[]): Uint8Array =>
    readInput(join(PACKAGE_ROOT, 'examples', ...parts));
  const capture = readCapture(example('captures', 'mixed.pcap'));
  const rows: BenchRow[] = [];
  for (const name of PROGRAMS) {
    for (const engine of ['interpreter', 'wasm', 'jit'] as const) {
      const kernel = await bootLab({ engine: 'embedded' });
      const driver = installVirtioNet(kernel);
      const object = load(parseObject(example('xdp', `${name}.o`), { name }), kernel.bpf.host);
      const [program] = object.programs;
      if (!program) throw new Error(`${name}: no program`);
      const send = (): number =>
        runTraffic(kernel, { driver, engine, program, capture }).outcomes.length;
      send();
      let packets = 0;
      const start = performance.now();
      while (performance.now() - start < MILLISECONDS) packets += send();
      const seconds = (performance.now() - start) / 1000;
      const tier = engine === 'jit' ? 'embedded' : engine;
      rows.push({ name: `${name} ${tier}`, value: packets / seconds, unit: 'packets/s' });
      kernel.close();
    }
  }
  return rows;
}
