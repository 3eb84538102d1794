/**
 * A `packet` record through the model: equal to what the real guest did, skipped with a reason, or
 * different and where.
 *
 * Compared are the counters of device, driver and SNMP, the skb at the entry of the stack, drop reasons,
 * datagrams read, skbs handed to the driver, frames that left the guest with their headers, XDP exceptions,
 * and that no memory stays behind. The guest has 10.0.0.2, 10.0.0.9, 172.16.0.2 and fd00::2, a UDP socket,
 * a TCP listener and an IPIP tunnel; its peer is 52:54:00:00:00:01.
 *
 * Usage:
 *   const lab = new PacketLab(kernel);       // defines the driver in the kernel: once
 *   lab.check(record);
 */
import { bytesToHex, hexToBytes } from '../../../common/bytes.js';
import type { Kernel } from '../../../kernel/kernel.js';
import { IPPROTO } from '../../../stack/headers.js';
import { MIB_NAMES } from '../../../stack/net.js';
import { createNetwork, type Network } from '../../../stack/network.js';
import { SK_BUFF, skbHeadroom, skbShinfo, SKB_SHARED_INFO } from '../../../stack/skb.js';
import { readFrame, type DeliveredFrame } from '../../../virtio/driver/sink.js';
import { recordFeatures } from './packet-record.js';
import {
  defineVirtioNet,
  type VirtioNet,
  type VirtioNetDriver,
  type VirtioNetOptions,
} from '../../../virtio/virtio-net.js';
import { VERDICTS, labProgram, returnProgram } from '../../csum/programs.js';
import { VIRTIO_NET_HDR_F_DATA_VALID } from '../../../virtio/net-header.js';
import { VRING_DESC_F_NEXT } from '../../../virtio/ring/split-ring.js';
import { createXdpEngine, type XdpEngine } from '../../xdp-engine.js';
import { recordProgram } from './packet-program.js';
import { recordVersion, type PacketRecord } from './packet-record.js';

export type PacketResult =
  | { readonly kind: 'equal' }
  | { readonly kind: 'skipped'; readonly why: string }
  | { readonly kind: 'different'; readonly differences: readonly string[] };

/** Per-queue names are compared for queue 0; kicks depend on what the guest sent besides. */
const DEVICE_COUNTERS = ['rx_packets', 'rx_dropped', 'rx_length_errors', 'rx_frame_errors'];
const RX_COUNTERS = ['drops', 'xdp_packets', 'xdp_tx', 'xdp_redirects', 'xdp_drops'];
const TX_COUNTERS = ['xdp_tx', 'xdp_tx_drops'];

/** Fields of the skb, by the names of the record and of `DeliveredFrame`. */
const SKB_FIELDS = [
  ['ip_summed', 'ipSummed'],
  ['len', 'len'],
  ['data_len', 'dataLen'],
  ['truesize', 'truesize'],
  ['nr_frags', 'nrFrags'],
  ['gso_size', 'gsoSize'],
  ['gso_type', 'gsoType'],
  ['protocol', 'protocol'],
  ['headroom', 'headroom'],
  ['csum_start', 'csumStart'],
  ['csum_offset', 'csumOffset'],
] as const;

const PEER = Uint8Array.of(0x52, 0x54, 0, 0, 0, 1);
const SEEN_BYTES = 64;
const CHECKSUM_BREAK = 76;
/** Of an skb with a short frame's copy: 1024 bytes of head and the sk_buff, or less. */
const COPIED_TRUESIZE = 1280;

/** What tracepoints said about one packet. */
interface Events {
  entry: DeliveredFrame | undefined;
  readonly drops: string[];
  readonly xmits: string[];
}

export class PacketLab {
  readonly #kernel: Kernel;
  readonly #driver: VirtioNetDriver;
  #events: Events = { entry: undefined, drops: [], xmits: [] };

  /** @param kernel one without a virtio-net driver. */
  constructor(kernel: Kernel) {
    const { ram } = kernel.memory;
    this.#kernel = kernel;
    this.#driver = defineVirtioNet(kernel, {
      tracepoints: {
        kfreeSkb: (_skb, reason, location) => this.#events.drops.push(`${reason} ${location}`),
        napiGroReceiveEntry: (skb) => {
          this.#events.entry ??= readFrame(ram, skb);
        },
        netDevStartXmit: (skb) => {
          const S = SK_BUFF.offset;
          const offset = ram.u16(skb + S.transport_header) - skbHeadroom(ram, skb);
          const gso = ram.u16(skbShinfo(ram, skb) + SKB_SHARED_INFO.offset.gso_size);
          const summed = ram.u8(skb + S.ip_summed);
          this.#events.xmits.push(
            `xmit ip_summed=${summed} len=${ram.u32(skb + S.len)} transport_offset=${offset} gso_size=${gso}`,
          );
        },
      },
    });
  }

  check(record: PacketRecord): PacketResult {
    const why = whySkipped(record);
    if (why !== undefined) return { kind: 'skipped', why };
    const network = createNetwork(this.#kernel, {
      outTransmits: recordVersion(record) !== '6.1',
    });
    const net = this.#driver.probe(optionsFor(record, network));
    const engines: XdpEngine[] = [];
    const load = (text: string, hasFrags = false): XdpEngine => {
      const program = labProgram(this.#kernel, 'prog', text);
      const engine = createXdpEngine(this.#kernel, 'interpreter', program, { hasFrags });
      engines.push(engine);
      return engine;
    };
    try {
      configure(network, net, record, this.#kernel);
      prepareBuffers(net, record, load);
      return this.#compare(record, net, network);
    } finally {
      network.received();
      net.close();
      network.close();
      for (const engine of engines) engine.close();
    }
  }

  #compare(record: PacketRecord, net: VirtioNet, network: Network): PacketResult {
    const segments = record.rx_segments.segs ?? [];
    const differences = this.#findBuffers(
      net,
      segments.map(({ buf }) => buf),
    );
    network.received();
    const before = { ...net.counters(), ...network.counters() };
    this.#events = { entry: undefined, drops: [], xmits: [] };
    const used = segments.map((segment) => segment.used);
    const bytes = hexToBytes(record.injected);
    // the packet socket that fed the tap takes no DATA_VALID
    if (isTap(record)) bytes[0] = (bytes[0] ?? 0) & ~VIRTIO_NET_HDR_F_DATA_VALID;
    const result = net.device.deliverRaw(bytes, { bytesPerBuffer: used });
    if (result !== 'delivered') differences.push(`delivery: ${result}`);
    net.poll();
    const received = network.received();
    const after = { ...net.counters(), ...network.counters() };
    compareCounters(record, before, after, differences);
    compareStack(this.#events.entry, record, differences);
    compareDrops(this.#events.drops, record, differences);
    compareReceived(received, record, differences);
    compareXmits(this.#events.xmits, record, differences);
    compareSent(net, record, differences);
    const exception = record.trace.some((line) => line.startsWith('xdp_exception'));
    const raised = net.exceptions().length;
    if (raised !== (exception ? 1 : 0)) differences.push(`xdp_exception: ${raised}`);
    return differences.length === 0 ? { kind: 'equal' } : { kind: 'different', differences };
  }

  /** Lets frames pass until the next buffers have the sizes posted in the guest. */
  #findBuffers(net: VirtioNet, sizes: readonly number[]): string[] {
    for (let tries = 0; tries < 64; tries++) {
      const next = this.#nextBuffers(net, sizes.length);
      if (next.every((size, i) => size === sizes[i])) return [];
      filler(net, 1);
    }
    return [`no buffers of ${sizes.join(', ')} bytes posted`];
  }

  #nextBuffers(net: VirtioNet, count: number): number[] {
    const { memory } = this.#kernel;
    const ring = net.receiveRing(0);
    if (ring.kind === 'packed') throw new RangeError('the measured guests had split rings');
    const { desc, avail, num, next } = ring;
    return Array.from({ length: count }, (_, i) => {
      const slot = (next + i) & (num - 1);
      let length = 0;
      let at = desc + BigInt(16 * memory.read16(avail + BigInt(4 + 2 * slot)));
      for (;;) {
        length += memory.read32(at + 8n);
        if ((memory.read16(at + 12n) & VRING_DESC_F_NEXT) === 0) return length;
        at = desc + BigInt(16 * memory.read16(at + 14n));
      }
    });
  }
}

/** A device that honours offload commands. */
function isTap(record: PacketRecord): boolean {
  return record.backend.startsWith('tap');
}

function whySkipped(record: PacketRecord): string | undefined {
  if ((record.counters['TcpRetransSegs'] ?? 0) > 0) return 'a SYN of a connection that is there';
  if (record.xdp !== 'none' && recordProgram(record.program) === undefined) {
    return 'redirect targets';
  }
  if (recordVersion(record) === '6.1' && record.note === 'gso TCPV6 on IPv4 packet') {
    if (record.xdp === 'none') return 'TCP of 6.1 with the segmentation type of IPv6';
  }
  return undefined;
}

function optionsFor(record: PacketRecord, network: Network): VirtioNetOptions {
  return {
    version: recordVersion(record),
    // big mode follows from the features
    rx: record.features.includes('MRG_RXBUF') ? 'mergeable' : 'small',
    eventIdx: record.features.includes('EVENT_IDX'),
    queueSize: 64,
    features: recordFeatures(record.features),
    legacy: !record.features.includes('VERSION_1'),
    deviceHonoursOffloads: isTap(record),
    network,
    ...queues(record),
  };
}

/** Queue pairs and CPUs of the multiqueue guests stand in the name of the experiment. */
function queues(record: PacketRecord): { queuePairs: number; maxQueuePairs: number; cpus: number } {
  const match = /q(\d)c(\d)/.exec(record.id);
  if (!match) return { queuePairs: 1, maxQueuePairs: 1, cpus: 1 };
  const maxQueuePairs = Number(match[1]);
  const cpus = Number(match[2]);
  return { queuePairs: Math.min(maxQueuePairs, cpus), maxQueuePairs, cpus };
}

function configure(network: Network, net: VirtioNet, record: PacketRecord, kernel: Kernel): void {
  const dev = kernel.memory.ram.virtToPhys(net.dev);
  for (const address of ['10.0.0.2', '10.0.0.9', '172.16.0.2', 'fd00::2']) {
    network.addAddress(address);
  }
  for (const to of ['10.0.0.0/24', '10.0.9.0/24', 'fd00::/64']) {
    network.addRoute({ to, dev, neighbour: PEER });
  }
  network.bindUdp(2000);
  network.listenTcp(80);
  network.openTunnel();
  net.setTxChecksum(record.target !== 'fwdSW');
}

/** Attaches in the order that the record's buffers were posted in. */
function prepareBuffers(
  net: VirtioNet,
  record: PacketRecord,
  load: (text: string, hasFrags?: boolean) => XdpEngine,
): void {
  const pass = (): XdpEngine => load(returnProgram(VERDICTS.PASS));
  const posted = record.rx_segments.segs?.[0]?.buf;
  const runner =
    record.xdp === 'none'
      ? undefined
      : load(recordProgram(record.program) ?? '', record.frags_prog).runner;
  if (record.xdp !== 'drv') {
    // a buffer with XDP geometry that outlived its program: by its size, or in small mode by the headroom
    const outlived = Number(record.at_stack?.['headroom'] ?? 0) > 256;
    const mergeable = record.features.includes('MRG_RXBUF');
    if (posted === 3520 || outlived || (mergeable && record.note === 'after detach')) {
      net.attachXdp(pass().runner);
      filler(net, 80);
      net.attachXdp(undefined);
    }
    net.attachGenericXdp(runner);
    return;
  }
  if (record.rx_buffers.startsWith('posted while')) {
    net.attachXdp(pass().runner);
    filler(net, 80);
  }
  net.attachXdp(runner);
  if (record.rx_buffers.startsWith('posted-after')) {
    net.attachXdp(load(returnProgram(VERDICTS.DROP)).runner);
    filler(net, 80);
    net.attachXdp(runner);
  }
}

/** Frames of another protocol, which the stack drops. */
function filler(net: VirtioNet, count: number): void {
  const frame = new Uint8Array(60);
  frame.set([0x52, 0x54, 0, 0, 0, 2, 0x52, 0x54, 0, 0, 0, 1, 0x88, 0xb5]);
  for (let i = 1; i <= count; i++) {
    net.receive(frame);
    if (i % 16 === 0) net.poll();
  }
  net.poll();
  net.exceptions();
  net.transmitted();
}

function compareCounters(
  record: PacketRecord,
  before: Readonly<Record<string, number>>,
  after: Readonly<Record<string, number>>,
  differences: string[],
): void {
  const compare = (own: string, measured: string): void => {
    const change = (after[own] ?? 0) - (before[own] ?? 0);
    const expected = record.counters[measured] ?? 0;
    if (change !== expected) differences.push(`${measured}: ${change}, measured ${expected}`);
  };
  for (const name of DEVICE_COUNTERS) compare(`dev_${name}`, `dev.${name}`);
  const old = recordVersion(record) === '6.1';
  const queue = (way: string, name: string): void => {
    if (old) compare(`${way}_queue_0_${name}`, `ethtool.${way}_queue_0_${name}`);
    else compare(`${way}_${name}`, `ethtool.${way}_${name}`);
  };
  for (const name of RX_COUNTERS) queue('rx', name);
  for (const name of TX_COUNTERS) queue('tx', name);
  for (const name of MIB_NAMES) {
    // the measurement reads no IpExt group
    if (!name.startsWith('IpExt')) compare(name, name);
  }
}

function compareStack(
  entry: DeliveredFrame | undefined,
  record: PacketRecord,
  differences: string[],
): void {
  if ((entry === undefined) !== (record.at_stack === null)) {
    differences.push(entry ? 'reached the stack' : 'did not reach the stack');
  }
  if (!entry || !record.at_stack) return;
  for (const [field, own] of SKB_FIELDS) {
    const measured = record.at_stack[field];
    // the tracepoint has 16 bits of gso_type
    const value = own === 'gsoType' ? entry[own] & 0xffff : entry[own];
    if (measured !== undefined && value !== Number(measured)) {
      differences.push(`skb ${field}: ${value}, measured ${measured}`);
    }
  }
}

/**
 * Before 6.12 the location was not read, and 6.1 names no reason where the checksum is found wrong only as
 * the datagram is read: behind 76 bytes.
 */
function compareDrops(drops: readonly string[], record: PacketRecord, differences: string[]): void {
  const located = recordVersion(record) !== '6.1';
  const late = Number(record.at_stack?.['len'] ?? 0) > 20 + CHECKSUM_BREAK;
  const own = drops.map((drop) => {
    if (located) return drop;
    const reason = drop.split(' ')[0] ?? '';
    return late && reason === 'UDP_CSUM' ? 'NOT_SPECIFIED' : reason;
  });
  if (own.join() !== record.drop_reasons.join()) {
    differences.push(`dropped: ${own.join()}, measured ${record.drop_reasons.join()}`);
  }
}

function compareReceived(
  received: readonly Uint8Array[],
  record: PacketRecord,
  differences: string[],
): void {
  const show = (len: number, data: string): string => `${len}:${data}`;
  const own = received.map((data) => show(data.length, bytesToHex(data.subarray(0, SEEN_BYTES))));
  const measured = record.received.map(({ len, data }) => show(len, data));
  if (own.join() !== measured.join()) {
    differences.push(`received ${own.join()}, measured ${measured.join()}`);
  }
}

/** Multicast reports of the guest's own are no answer to the packet: their transport is at 62. */
function compareXmits(xmits: readonly string[], record: PacketRecord, differences: string[]): void {
  const measured = record.trace.filter(
    (line) => line.startsWith('xmit') && !line.includes('transport_offset=62'),
  );
  if (xmits.join() !== measured.join()) {
    differences.push(`${xmits.join()}, measured ${measured.join()}`);
  }
}

function compareSent(net: VirtioNet, record: PacketRecord, differences: string[]): void {
  const sent = net.transmitted();
  if (sent.length !== record.out.length) {
    differences.push(`sent ${sent.length}, measured ${record.out.length}`);
  }
  for (const [i, frame] of sent.entries()) {
    const measured = record.out[i];
    if (!measured) continue;
    if (frame.queue !== measured.queue) differences.push(`sent on ${frame.queue}`);
    const header = sentHeader(record, frame.header);
    const theirHeader = sentHeader(record, hexToBytes(measured.vnet));
    if (header !== theirHeader) differences.push(`header ${header}, measured ${theirHeader}`);
    const own = sentFrame(record, frame.frame);
    const theirs = sentFrame(record, hexToBytes(measured.frame));
    if (own !== theirs) differences.push(`sent ${own}, measured ${theirs}`);
  }
}

/** Without mergeable buffers Linux may leave num_buffers as it finds it; it means nothing then. */
function sentHeader(record: PacketRecord, header: Uint8Array): string {
  const mergeable = record.features.includes('MRG_RXBUF');
  return bytesToHex(mergeable ? header : header.subarray(0, 10));
}

/**
 * The frame without what depends on chance: a SYN-ACK's own sequence number, and the id that an outer
 * header takes over from memory nobody wrote, with its checksum, where the frame was copied into a new skb.
 */
function sentFrame(record: PacketRecord, frame: Uint8Array): string {
  const bytes = frame.slice();
  if (frame[23] === IPPROTO.TCP && frame[47] === 0x12) bytes.fill(0, 38, 42);
  const copied = Number(record.at_stack?.['truesize'] ?? Infinity) <= COPIED_TRUESIZE;
  if (frame[23] === IPPROTO.IPIP && copied) bytes.fill(0, 18, 20).fill(0, 24, 26);
  return bytesToHex(bytes);
}
