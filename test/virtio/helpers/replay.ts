/**
 * Replays what a real guest received (test/vectors/virtio) through the model and compares what came
 * of it: counters, the skb at the entry of the stack, exceptions, frames sent.
 */
import { hexToBytes, bytesToHex } from '../../../src/common/bytes.js';
import type { Memory } from '../../../src/cpu/memory.js';
import type { XdpRunner } from '../../../src/virtio/driver/common.js';
import {
  DRIVER_PROFILES,
  VIRTIO_NET_VERSIONS,
  type VirtioNetVersion,
} from '../../../src/virtio/driver/profiles.js';
import { createVirtioNet, type VirtioNet } from '../../../src/virtio/virtio-net.js';
import { DirectKernel } from './direct-kernel.js';
import { upcomingBuffers } from './rings.js';
import { VERDICT, XDP, adjustHead, adjustTail, makeFrame, program, returns } from './programs.js';

/** The fields of a `packet` record that the comparison uses. */
export interface PacketRecord {
  readonly id: string;
  readonly type: string;
  readonly kernel_version: string;
  readonly backend: string;
  readonly rx_mode: string;
  readonly features: readonly string[];
  readonly xdp: string;
  readonly program: string;
  readonly frags_prog: boolean;
  readonly rx_buffers: string;
  readonly note: string;
  readonly injected: string;
  readonly rx_segments: {
    readonly segs?: readonly { readonly buf: number; readonly used: number }[];
  };
  readonly at_stack: Readonly<Record<string, number | string>> | null;
  readonly counters: Readonly<Record<string, number>>;
  readonly trace: readonly string[];
  readonly out: readonly {
    readonly queue: number;
    readonly vnet: string;
    readonly frame: string;
  }[];
}

export type ReplayResult =
  | { readonly kind: 'equal' }
  | { readonly kind: 'skipped'; readonly why: string }
  | { readonly kind: 'different'; readonly differences: readonly string[] };

/** Per-queue names are compared for queue 0; kicks depend on what the guest sent besides. */
const DEVICE_COUNTERS = [
  'dev.rx_packets',
  'dev.rx_dropped',
  'dev.rx_length_errors',
  'dev.rx_frame_errors',
] as const;

const QUEUE_COUNTERS = {
  queue: [
    'ethtool.rx_queue_0_drops',
    'ethtool.rx_queue_0_xdp_packets',
    'ethtool.rx_queue_0_xdp_tx',
    'ethtool.rx_queue_0_xdp_redirects',
    'ethtool.rx_queue_0_xdp_drops',
  ],
  short: [
    'ethtool.rx_drops',
    'ethtool.rx_xdp_packets',
    'ethtool.rx_xdp_tx',
    'ethtool.rx_xdp_redirects',
    'ethtool.rx_xdp_drops',
    'ethtool.tx_xdp_tx',
    'ethtool.tx_xdp_tx_drops',
    'ethtool.rx0_drops',
    'ethtool.rx0_xdp_packets',
    'ethtool.rx0_xdp_tx',
    'ethtool.rx0_xdp_drops',
  ],
} as const;

/** Fields of the skb, by the names of the record and of `DeliveredFrame`. */
const SKB_FIELDS = [
  ['ip_summed', 'ipSummed'],
  ['len', 'len'],
  ['data_len', 'dataLen'],
  ['truesize', 'truesize'],
  ['nr_frags', 'nrFrags'],
  ['gso_size', 'gsoSize'],
  ['headroom', 'headroom'],
  ['csum_start', 'csumStart'],
  ['csum_offset', 'csumOffset'],
] as const;

export function replay(record: PacketRecord): ReplayResult {
  const skip = whySkipped(record);
  if (skip !== undefined) return { kind: 'skipped', why: skip };
  const kernel = new DirectKernel(4 << 20);
  const rx = record.rx_mode === 'small' ? 'small' : 'mergeable';
  const net = createVirtioNet(kernel, {
    rx,
    eventIdx: false,
    queueSize: 64,
    version: versionOf(record.kernel_version),
    ...queues(record),
  });
  const runner = record.xdp === 'drv' ? runnerFor(record, kernel.memory) : undefined;
  const segments = record.rx_segments.segs ?? [];
  prepareBuffers(net, record, runner);
  const differences = findBuffers(
    kernel.memory,
    net,
    segments.map(({ buf }) => buf),
  );

  const before = net.counters();
  const used = segments.map((segment) => segment.used);
  const bytes = hexToBytes(record.injected);
  const result = net.device.deliverRaw(bytes, { bytesPerBuffer: used });
  if (result !== 'delivered') differences.push(`delivery: ${result}`);
  net.poll();
  const after = net.counters();
  const { counterNames } = DRIVER_PROFILES[versionOf(record.kernel_version)];
  for (const name of [...DEVICE_COUNTERS, ...QUEUE_COUNTERS[counterNames]]) {
    const own = name.replace('dev.', 'dev_').replace('ethtool.', '');
    const change = (after[own] ?? 0) - (before[own] ?? 0);
    const measured = record.counters[name] ?? 0;
    if (change !== measured) differences.push(`${name}: ${change}, measured ${measured}`);
  }
  compareStack(net, record, differences);
  const exception = record.trace.some((line) => line.startsWith('xdp_exception'));
  const raised = net.exceptions().length;
  if (raised !== (exception ? 1 : 0)) differences.push(`xdp_exception: ${raised}`);
  compareSent(net, record, differences);
  net.close();
  const { slab, pages } = kernel.allocated;
  if (slab + pages > 0) differences.push(`${slab} slab objects, ${pages} page chunks leaked`);
  return differences.length === 0 ? { kind: 'equal' } : { kind: 'different', differences };
}

function whySkipped(record: PacketRecord): string | undefined {
  if (record.xdp === 'skb') return 'generic XDP';
  if (record.rx_mode === 'big') return 'mode big';
  if (!record.backend.startsWith('vhost-user')) return 'a device that honours offload commands';
  if (record.program.startsWith('redirect') || record.program.includes('+redirect')) {
    return 'redirect targets';
  }
  return undefined;
}

function versionOf(kernel: string): VirtioNetVersion {
  const version = VIRTIO_NET_VERSIONS.find((each) => kernel.startsWith(`${each}.`));
  if (!version) throw new Error(`no driver of ${kernel}`);
  return version;
}

/** Queue pairs and CPUs of the multiqueue guests stand in the name of the experiment. */
function queues(record: PacketRecord): { queuePairs: number; maxQueuePairs: number; cpus: number } {
  const match = /q(\d)c(\d)/.exec(record.id);
  if (!match) return { queuePairs: 1, maxQueuePairs: 1, cpus: 1 };
  const maxQueuePairs = Number(match[1]);
  const cpus = Number(match[2]);
  return { queuePairs: Math.min(maxQueuePairs, cpus), maxQueuePairs, cpus };
}

/** Attaches in the order that the record's buffers were posted in. */
function prepareBuffers(net: VirtioNet, record: PacketRecord, runner: XdpRunner | undefined): void {
  const posted = record.rx_segments.segs?.[0]?.buf;
  if (record.xdp === 'none') {
    // a buffer with XDP geometry that outlived its program
    if (posted !== 3520 && record.note !== 'after detach') return;
    net.attachXdp(returns(VERDICT.PASS));
    filler(net, 80);
    net.attachXdp(undefined);
    return;
  }
  if (record.rx_buffers.startsWith('posted while')) {
    net.attachXdp(returns(VERDICT.PASS));
    filler(net, 80);
  }
  net.attachXdp(runner);
  if (record.rx_buffers.startsWith('posted-after')) {
    net.attachXdp(returns(VERDICT.DROP));
    filler(net, 80);
    net.attachXdp(runner);
  }
}

function filler(net: VirtioNet, count: number): void {
  for (let i = 1; i <= count; i++) {
    net.receive(makeFrame(60));
    if (i % 16 === 0) net.poll();
  }
  net.poll();
  net.delivered();
  net.exceptions();
  net.transmitted();
}

/** Lets frames pass until the next buffers have the sizes posted in the guest. */
function findBuffers(memory: Memory, net: VirtioNet, sizes: readonly number[]): string[] {
  for (let tries = 0; tries < 64; tries++) {
    const next = upcomingBuffers(memory, net, sizes.length);
    if (next.every(({ length }, i) => length === sizes[i])) return [];
    filler(net, 1);
  }
  return [`no buffers of ${sizes.join(', ')} bytes posted`];
}

function compareStack(net: VirtioNet, record: PacketRecord, differences: string[]): void {
  const [skb] = net.delivered();
  if ((skb === undefined) !== (record.at_stack === null)) {
    differences.push(skb ? 'reached the stack' : 'did not reach the stack');
  }
  if (!skb || !record.at_stack) return;
  for (const [field, own] of SKB_FIELDS) {
    const measured = record.at_stack[field];
    if (measured !== undefined && skb[own] !== measured) {
      differences.push(`skb ${field}: ${skb[own]}, measured ${measured}`);
    }
  }
}

function compareSent(net: VirtioNet, record: PacketRecord, differences: string[]): void {
  const sent = net.transmitted();
  if (!record.program.includes('tx') && !record.program.includes('TX')) return;
  if (sent.length !== record.out.length) {
    differences.push(`sent ${sent.length}, measured ${record.out.length}`);
  }
  for (const [i, frame] of sent.entries()) {
    const measured = record.out[i];
    if (measured && frame.queue !== measured.queue) differences.push(`sent on ${frame.queue}`);
    if (measured && bytesToHex(frame.header) !== measured.vnet) differences.push('sent header');
    const rebuilt = !record.program.startsWith('encap');
    if (measured && rebuilt && bytesToHex(frame.frame) !== measured.frame) {
      differences.push(`sent ${bytesToHex(frame.frame)}, measured ${measured.frame}`);
    }
  }
}

const FIXED: Readonly<Record<string, number>> = {
  pass: VERDICT.PASS,
  drop: VERDICT.DROP,
  aborted: VERDICT.ABORTED,
  ret7: 7,
};

/** The program a record names, as far as the driver can tell the difference. */
function runnerFor(record: PacketRecord, memory: Memory): XdpRunner {
  const name = record.program;
  const options = { hasFrags: record.frags_prog };
  const fixed = FIXED[name];
  if (fixed !== undefined) return returns(fixed, options);
  // the multiqueue guests' `tx` swapped the addresses too, as the frames they sent show
  if (name === 'tx-macswap' || name === 'tx') {
    return program((xdp) => {
      const data = memory.read64(xdp + XDP.data);
      const macs = memory.readBytes(data, 12);
      memory.writeBytes(data, macs.subarray(6));
      memory.writeBytes(data + 6n, macs.subarray(0, 6));
      return VERDICT.TX;
    }, options);
  }
  if (name.startsWith('nat-')) {
    return program((xdp) => {
      memory.write8(memory.read64(xdp + XDP.data) + 33n, 9);
      return VERDICT.PASS;
    }, options);
  }
  if (name.startsWith('encap-ipip')) {
    const verdict = name.endsWith('TX') ? VERDICT.TX : VERDICT.PASS;
    return program((xdp) => {
      const ethernet = memory.readBytes(memory.read64(xdp + XDP.data), 14);
      if (adjustHead(memory, xdp, -20) < 0) return VERDICT.DROP;
      memory.writeBytes(memory.read64(xdp + XDP.data), ethernet);
      return verdict;
    }, options);
  }
  const helper = /^helper(44|65)\((-?\d+)\)$/.exec(name);
  if (helper) {
    const adjust = helper[1] === '44' ? adjustHead : adjustTail;
    return program((xdp) => (adjust(memory, xdp, Number(helper[2])) === 0 ? 0 : 1), options);
  }
  const head = /^adjust_head\((-?\d+)(?:,([+-]\d+))?\)/.exec(name);
  if (head) {
    const verdicts = name.includes('ABORTED') ? [0, 1] : [VERDICT.PASS, VERDICT.DROP];
    return program((xdp) => {
      const deltas = [head[1], head[2]].filter((delta) => delta !== undefined).map(Number);
      const ok = deltas.every((delta) => adjustHead(memory, xdp, delta) === 0);
      return verdicts[ok ? 0 : 1] ?? 0;
    }, options);
  }
  const tail = /^adjust_tail\(([+-]\d+)\)\+PASS$/.exec(name);
  if (tail) {
    return program(
      (xdp) => (adjustTail(memory, xdp, Number(tail[1])) === 0 ? VERDICT.PASS : VERDICT.DROP),
      options,
    );
  }
  throw new Error(`program ${name} is not known here`);
}
