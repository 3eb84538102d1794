/**
 * Experiments with receive-side scaling of tunnelled traffic: where the packets of many flows end up.
 *
 * Each makes real frames and sends them through a receiver of 8 queues with a table of 128 entries. Inner
 * flows are TCP from 10.0.0.1 to 10.0.0.2 in a tunnel from 192.0.2.1 to 192.0.2.2. Consecutive
 * ports spread perfectly because the hash is linear, so there is a run with ports from a generator too.
 *
 * Usage:
 *   for (const each of EXPERIMENTS) runExperiment(each).spread.counts;
 */
import { gre, vxlan, etherTypeOf } from '../../net/encapsulate.js';
import { ethernet, ETHERTYPE, IPPROTO, ipv4, tcp, type Endpoints } from '../../net/packet.js';
import { SYMMETRIC_KEY } from '../../net/rss/toeplitz.js';
import { VIRTIO_NET_HASH_TUNNEL_TYPE as TUNNEL } from '../../net/rss/types.js';
import { DEFAULT_SETTINGS, RssReceiver, type RssSettings } from './receiver.js';
import { spreadOf, type Spread } from './spread.js';

const FLOWS = 256;
const INNER: Endpoints = { source: '10.0.0.1', destination: '10.0.0.2' };
const REVERSE: Endpoints = { source: INNER.destination, destination: INNER.source };
const OUTER: Endpoints = { source: '192.0.2.1', destination: '192.0.2.2' };

/** A frame, and which flow it belongs to. */
interface FlowFrame {
  readonly flow: number;
  readonly frame: Uint8Array;
}

export interface Experiment {
  readonly name: string;
  /** What the frames are. */
  readonly traffic: string;
  /** What the device does. */
  readonly receiver: string;
  readonly settings?: Partial<RssSettings>;
  readonly frames: () => readonly FlowFrame[];
}

export interface ExperimentResult {
  readonly experiment: Experiment;
  readonly spread: Spread;
  /** Queue of each frame, in order. */
  readonly queues: readonly number[];
  readonly flows: number;
  /** Flows whose frames all went to one queue. */
  readonly stableFlows: number;
}

export function runExperiment(experiment: Experiment): ExperimentResult {
  const settings = { ...DEFAULT_SETTINGS, ...experiment.settings };
  const receiver = new RssReceiver(settings);
  const counts = Array.from({ length: settings.queues }, () => 0);
  const byFlow = new Map<number, Set<number>>();
  const queues = experiment.frames().map(({ flow, frame }) => {
    const queue = receiver.queueOf(frame);
    counts[queue] = (counts[queue] ?? 0) + 1;
    const seen = byFlow.get(flow) ?? new Set();
    byFlow.set(flow, seen.add(queue));
    return queue;
  });
  const stableFlows = [...byFlow.values()].filter(({ size }) => size === 1).length;
  return { experiment, spread: spreadOf(counts), queues, flows: byFlow.size, stableFlows };
}

function innerPacket(ends: Endpoints, sourcePort: number, destinationPort: number): Uint8Array {
  const segment = tcp(ends, { sourcePort, destinationPort }, new Uint8Array(0));
  return ipv4(ends, { protocol: IPPROTO.TCP }, segment);
}

function plain(packet: Uint8Array): Uint8Array {
  return ethernet({ type: etherTypeOf(packet) }, packet);
}

function inGre(packet: Uint8Array, outer = OUTER): Uint8Array {
  return plain(ipv4(outer, { protocol: IPPROTO.GRE }, gre({ type: ETHERTYPE.IPV4 }, packet)));
}

function inVxlan(packet: Uint8Array, sourcePort: number): Uint8Array {
  return plain(ipv4(OUTER, { protocol: IPPROTO.UDP }, vxlan(OUTER, { sourcePort }, plain(packet))));
}

/** One frame of each of `FLOWS` flows. */
function eachFlow(make: (flow: number) => Uint8Array): readonly FlowFrame[] {
  return Array.from({ length: FLOWS }, (_, flow) => ({ flow, frame: make(flow) }));
}

/** Source ports from a linear congruential generator, as a busy client's look. */
function* generatedPorts(): Generator<number> {
  let x = 12345n;
  for (;;) {
    x = (x * 1103515245n + 12345n) & 0x7fffffffn;
    yield 1024 + Number((x >> 8n) % 60000n);
  }
}

/** `count` of the generated ports. */
function somePorts(count: number): readonly number[] {
  const ports = generatedPorts();
  return Array.from({ length: count }, () => ports.next().value as number);
}

/** A source port that a sender derives from the inner flow. */
function entropyPort(flow: number): number {
  return 49152 + ((Math.imul(flow, 2654435761) >>> 8) & 0x3fff);
}

/** What a sender does that wants one queue to have all: ports whose hash ends in 0 modulo the queues. */
export function adversaryPorts(count: number): readonly number[] {
  const receiver = new RssReceiver(DEFAULT_SETTINGS);
  const ports: number[] = [];
  for (let port = 1024; port < 65536 && ports.length < count; port++) {
    if (receiver.queueOf(plain(innerPacket(INNER, port, 80))) === 0) ports.push(port);
  }
  return ports;
}

function bothDirections(): readonly FlowFrame[] {
  return Array.from({ length: 2 * FLOWS }, (_, i) => {
    const flow = i >> 1;
    const port = 10000 + flow;
    const packet = i % 2 === 0 ? innerPacket(INNER, port, 80) : innerPacket(REVERSE, 80, port);
    return { flow, frame: plain(packet) };
  });
}

/** One flow whose packets take eight tunnels, 192.0.2.1 > .2 to 192.0.2.15 > .16, in turn. */
function manyTunnels(): readonly FlowFrame[] {
  return Array.from({ length: 8 }, (_, i) => {
    const outer = { source: `192.0.2.${2 * i + 1}`, destination: `192.0.2.${2 * i + 2}` };
    return { flow: 0, frame: inGre(innerPacket(INNER, 10000, 80), outer) };
  });
}

const INNER_GRE: Partial<RssSettings> = { tunnelTypes: TUNNEL.GRE_2784 };

export const EXPERIMENTS: readonly Experiment[] = [
  {
    name: 'gre-outer',
    traffic: '256 flows in one GRE tunnel',
    receiver: 'outer hash',
    frames: () => eachFlow((flow) => inGre(innerPacket(INNER, 10000 + flow, 80))),
  },
  {
    name: 'gre-inner',
    traffic: '256 flows in one GRE tunnel',
    receiver: 'inner hash',
    settings: INNER_GRE,
    frames: () => eachFlow((flow) => inGre(innerPacket(INNER, 10000 + flow, 80))),
  },
  {
    name: 'gre-inner-random',
    traffic: '256 flows in GRE, generated ports',
    receiver: 'inner hash',
    settings: INNER_GRE,
    frames: () => {
      const ports = somePorts(FLOWS);
      return eachFlow((flow) => inGre(innerPacket(INNER, ports[flow] ?? 0, 443)));
    },
  },
  {
    name: 'vxlan-entropy',
    traffic: '256 flows in VXLAN, outer port by flow',
    receiver: 'outer hash',
    frames: () =>
      eachFlow((flow) => inVxlan(innerPacket(INNER, 10000 + flow, 80), entropyPort(flow))),
  },
  {
    name: 'vxlan-fixed',
    traffic: '256 flows in VXLAN, outer port 4789',
    receiver: 'outer hash',
    frames: () => eachFlow((flow) => inVxlan(innerPacket(INNER, 10000 + flow, 80), 4789)),
  },
  {
    name: 'tunnels-outer',
    traffic: 'one flow over eight GRE tunnels',
    receiver: 'outer hash',
    frames: manyTunnels,
  },
  {
    name: 'tunnels-inner',
    traffic: 'one flow over eight GRE tunnels',
    receiver: 'inner hash',
    settings: INNER_GRE,
    frames: manyTunnels,
  },
  {
    name: 'directions',
    traffic: 'both directions of 256 flows',
    receiver: 'Microsoft key',
    frames: bothDirections,
  },
  {
    name: 'directions-symmetric',
    traffic: 'both directions of 256 flows',
    receiver: 'symmetric key',
    settings: { key: SYMMETRIC_KEY },
    frames: bothDirections,
  },
  {
    name: 'adversary-outer',
    traffic: '256 flows in VXLAN, inner ports chosen',
    receiver: 'outer hash',
    frames: () => {
      const ports = adversaryPorts(FLOWS);
      return eachFlow((flow) =>
        inVxlan(innerPacket(INNER, ports[flow] ?? 0, 80), entropyPort(flow)),
      );
    },
  },
  {
    name: 'adversary-inner',
    traffic: '256 flows in VXLAN, inner ports chosen',
    receiver: 'inner hash',
    settings: { tunnelTypes: TUNNEL.VXLAN },
    frames: () => {
      const ports = adversaryPorts(FLOWS);
      return eachFlow((flow) =>
        inVxlan(innerPacket(INNER, ports[flow] ?? 0, 80), entropyPort(flow)),
      );
    },
  },
];
