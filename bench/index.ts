/** All benchmarks by name: what `trampolab bench` runs. */
import { run as runEngines } from './engines.js';
import { benchFtrace } from './ftrace.js';
import { benchFuzz } from './fuzz.js';
import { benchInterpreter } from './interpreter.js';
import type { BenchRow } from './row.js';
import { benchRace } from './race.js';
import { benchRss } from './rss.js';
import { benchRings } from './rings.js';
import { benchSmc } from './smc.js';
import { benchSvq } from './svq.js';
import { benchTraffic } from './traffic.js';
import { benchWasm } from './wasm.js';

export interface BenchSuite {
  readonly name: string;
  readonly summary: string;
  readonly run: () => Promise<readonly BenchRow[]>;
}

export const SUITES: readonly BenchSuite[] = [
  {
    name: 'engines',
    summary: 'embedded engine against libunicorn: plain, with full trace, short runs',
    run: runEngines,
  },
  {
    name: 'interpreter',
    summary: 'eBPF interpreter on nine programs of 100 million instructions',
    run: async () => benchInterpreter(),
  },
  {
    name: 'wasm',
    summary: 'wasm tier on the same programs, with helper and compile costs',
    run: async () => benchWasm(),
  },
  {
    name: 'ftrace',
    summary: '60,000 patch sites: one ops on all of them, bytes of a record',
    run: benchFtrace,
  },
  {
    name: 'fuzz',
    summary: 'random programs per second of CPU time, by set of engines',
    run: benchFuzz,
  },
  {
    name: 'race',
    summary: 'states per second of the interleaving explorer',
    run: benchRace,
  },
  {
    name: 'rss',
    summary: 'receive hashes per second: Toeplitz by tables and as defined, whole frames',
    run: benchRss,
  },
  {
    name: 'rings',
    summary: 'virtqueue operations per second, split against packed',
    run: benchRings,
  },
  {
    name: 'svq',
    summary: 'control commands per second through a shadow virtqueue, bytes copied, by mode',
    run: benchSvq,
  },
  {
    name: 'traffic',
    summary: 'packets per second through virtio-net, without a program and with XDP programs',
    run: benchTraffic,
  },
  {
    name: 'smc',
    summary: "SMC-D over loopback with and without copy, beside Node's TCP and UNIX sockets",
    run: benchSmc,
  },
];
