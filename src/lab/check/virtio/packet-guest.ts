/**
 * The guest of a `packet` record: its device, its network, and the receive buffers that were posted.
 *
 * The guest has 10.0.0.2, 10.0.0.9, 172.16.0.2 and fd00::2, a UDP socket, a TCP listener and an IPIP tunnel; its
 * peer is 52:54:00:00:00:01. What a record does not state of the time before its packet follows from what it
 * shows: buffers with the room that XDP takes were posted while a program was attached; a SYN that was answered
 * once more, or not at all, had come before.
 */
import { hexToBytes } from '../../../common/bytes.js';
import { ERRNO } from '../../../common/errno.js';
import { KernelError } from '../../../common/errors.js';
import type { Kernel } from '../../../kernel/kernel.js';
import { IPPROTO, TCP_FLAG } from '../../../stack/headers.js';
import type { Network } from '../../../stack/network.js';
import type { XdpRunner } from '../../../stack/xdp-program.js';
import type { VirtioNet, VirtioNetOptions } from '../../../virtio/virtio-net.js';
import { postedBuffers } from '../../posted-buffers.js';
import { guestVersion } from './guest-version.js';
import { recordFeatures, type PacketRecord } from './packet-record.js';

const PEER = Uint8Array.of(0x52, 0x54, 0, 0, 0, 1);
/** Of `injected`: the virtio_net_hdr in front of the frame. */
const VNET_BYTES = 12;
/** Enough that every buffer of a ring of 64 entries was posted anew. */
const FILLER_FRAMES = 80;

/** A device that honours offload commands. */
export function isTap(record: PacketRecord): boolean {
  return record.backend.startsWith('tap');
}

export function guestOptions(record: PacketRecord, network: Network): VirtioNetOptions {
  return {
    version: guestVersion(record),
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

export function configureGuest(
  kernel: Kernel,
  network: Network,
  net: VirtioNet,
  record: PacketRecord,
): void {
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

/** The record's program, and two that let packets pass or drop them, to post buffers with. */
export interface GuestPrograms {
  readonly own: XdpRunner | undefined;
  readonly pass: XdpRunner;
  readonly drop: XdpRunner;
}

/** What attaching the record's program came to. */
export interface Attached {
  /** 0, or the negative errno of a refusal. */
  readonly rc: number;
  /** As the guest's probes print them: `goff: mask=0x0`, `class=5 cmd=0`. */
  readonly events: readonly string[];
  /** Queues in use then, if the driver told the device. */
  readonly enabled: readonly number[];
}

/** Attaches in the order that the record's buffers were posted in. */
export function attachAsRecorded(
  net: VirtioNet,
  record: PacketRecord,
  { own, pass, drop }: GuestPrograms,
): Attached {
  const postWith = (runner: XdpRunner): void => {
    net.attachXdp(runner);
    filler(net, FILLER_FRAMES);
  };
  if (record.xdp !== 'drv') {
    // a buffer with XDP geometry that outlived its program: by its size, or in small mode by the headroom
    const outlived = Number(record.at_stack?.['headroom'] ?? 0) > 256;
    const mergeable = record.features.includes('MRG_RXBUF');
    const posted = record.rx_segments.segs?.[0]?.buf;
    if (posted === 3520 || outlived || (mergeable && record.note === 'after detach')) {
      postWith(pass);
      net.attachXdp(undefined);
    }
    // the first generic program of a guest switched segmentation offload off, for good
    if (record.attach?.events.length === 0) {
      net.attachGenericXdp(pass);
      net.attachGenericXdp(undefined);
    }
    return attaching(net, () => net.attachGenericXdp(own));
  }
  if (record.rx_buffers.startsWith('posted while')) {
    postWith(pass);
    net.attachXdp(undefined);
  }
  const attached = attaching(net, () => net.attachXdp(own));
  if (attached.rc === 0 && record.rx_buffers.startsWith('posted-after')) {
    postWith(drop);
    net.attachXdp(own);
  }
  return attached;
}

/**
 * How often the packet had come before: SYNs of the same connection, in the guests from other experiments. The
 * first is answered, the second once more, which is counted; what follows within half a second is not.
 */
export function earlierArrivals(record: PacketRecord): number {
  const { counters } = record;
  if ((counters['TcpRetransSegs'] ?? 0) > 0) return 1;
  const frame = hexToBytes(record.injected).subarray(VNET_BYTES);
  const isSyn = frame[23] === IPPROTO.TCP && frame[47] === TCP_FLAG.SYN;
  const silent =
    isSyn &&
    counters['TcpInSegs'] === 1 &&
    !('TcpOutSegs' in counters) &&
    !('TcpInErrs' in counters);
  return silent ? 2 : 0;
}

function attaching(net: VirtioNet, attach: () => void): Attached {
  net.controlLog();
  let rc = 0;
  try {
    attach();
  } catch (error) {
    if (!(error instanceof KernelError)) throw error;
    rc = -ERRNO[error.errno];
  }
  const requests = net.controlLog().map(({ request }) => request);
  const events = requests.flatMap((request) => [
    ...(request[0] === GUEST_OFFLOADS ? [`goff: mask=0x${maskOf(request).toString(16)}`] : []),
    `class=${request[0]} cmd=${request[1]}`,
  ]);
  const told = requests.some(([commandClass]) => commandClass === MQ);
  const enabled = Array.from({ length: told ? 2 * net.device.activePairs : 0 }, (_, i) => i);
  return { rc, events, enabled };
}

/** VIRTIO_NET_CTRL_MQ and VIRTIO_NET_CTRL_GUEST_OFFLOADS. */
const MQ = 4;
const GUEST_OFFLOADS = 5;

/** The le64 behind class and command. */
function maskOf(request: Uint8Array): bigint {
  return request
    .subarray(2, 10)
    .reduce((mask, byte, i) => mask | (BigInt(byte) << BigInt(8 * i)), 0n);
}

/** Lets frames pass until the next buffers have the sizes posted in the guest; what is amiss. */
export function findBuffers(
  kernel: Kernel,
  net: VirtioNet,
  sizes: readonly number[],
): readonly string[] {
  for (let tries = 0; tries < 64; tries++) {
    const next = postedBuffers(kernel.memory, net, sizes.length);
    if (next.every(({ length }, i) => length === sizes[i])) return [];
    filler(net, 1);
  }
  return [`no buffers of ${sizes.join(', ')} bytes posted`];
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
