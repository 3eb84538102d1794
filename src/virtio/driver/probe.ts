/**
 * Setting a virtio-net device up and tearing it down: structures, queues, what the net_device can do.
 *
 * Reference: drivers/net/virtio_net.c (virtnet_probe, init_vqs, virtnet_remove). Probe and removal are not
 * modelled as functions to trace; the commands that probe sends are.
 */
import { KernelError } from '../../common/errors.js';
import type { Memory } from '../../cpu/memory.js';
import type { KernelContext } from '../../kernel/function.js';
import { XDP_RXQ_INFO } from '../../bpf/xdp-buff.js';
import {
  NETDEV_XDP_ACT,
  NETIF_F_GSO_ROBUST,
  NETIF_F_HI,
  NETIF_F_HW_CSUM,
  NETIF_F_TSO,
  NETIF_F_TSO6,
  NETIF_F_TSO_ECN,
  NET_DEVICE,
} from '../../stack/net-device.js';
import { putPage } from '../../stack/pages.js';
import { hasFeature, netHeaderSize, type VirtioNetFeature } from '../net-features.js';
import {
  createVirtqueue,
  destroyVirtqueue,
  virtqueueLayout,
  virtqueueOutstanding,
} from '../ring/virtqueue.js';
import { NET_HEADER_SIZE } from '../net-header.js';
import { VIRTIO_CONFIG_S, type VirtioTransport } from '../transport.js';
import { freePageChain } from './big.js';
import { setBugs, type DriverBug } from './bugs.js';
import { isBig, negotiated, pagesOf, receiveQueue, sendQueue } from './common.js';
import { CONTROL_BUF_SIZE } from './control.js';
import { MAX_MTU, bigPacketPages, mergeableMinimum } from './geometry.js';
import { negotiate, resume } from './negotiate.js';
import { initGuestOffloads } from './offloads.js';
import {
  DRIVER_PROFILES,
  profileOf,
  setProfile,
  xdpChecksumOf,
  type VirtioNetVersion,
  type XdpChecksum,
} from './profiles.js';
import { hasRssFault, type RssFault } from './rss-faults.js';
import { VIRTIO_NET_RSS_MAX_KEY_SIZE, initRss, keySizeRefusal } from './rss.js';
import { NAPI_STRUCT, RECEIVE_QUEUE, SEND_QUEUE, VIRTNET_INFO } from './structs.js';
import { recycleQueue, resetVirtqueue, virtqueueOf } from './queue-reset.js';

const DEV = NET_DEVICE.offset;
const RQ = RECEIVE_QUEUE.offset;
const SQ = SEND_QUEUE.offset;
const VI = VIRTNET_INFO.offset;

export interface ProbeOptions {
  readonly name: string;
  readonly ifindex: number;
  readonly queueSize: number;
  /** Queue pairs to use; at most one per CPU. */
  readonly queuePairs: number;
  readonly cpus: number;
  readonly version: VirtioNetVersion;
  readonly xdpChecksum: XdpChecksum | undefined;
  readonly rssFaults: readonly RssFault[] | undefined;
  readonly bugs: readonly DriverBug[];
  /** Module parameter napi_tx. */
  readonly napiTx: boolean;
  /** Bytes for the hash key, in place of random ones. */
  readonly rssKey: Uint8Array;
  /** `struct net` that the device is in; 0: no stack behind it. */
  readonly net: number;
  /** Root of the table of page chunks. */
  readonly pages: number;
}

const NAPI_POLL_WEIGHT = 64;
const CONTROL_QUEUE_SIZE = 64;
const DEFAULT_MTU = 1500;

/** Guest features with which frames larger than the wire's arrive. */
const GUEST_GSO: readonly VirtioNetFeature[] = [
  'GUEST_TSO4',
  'GUEST_TSO6',
  'GUEST_ECN',
  'GUEST_UFO',
  'GUEST_USO4',
  'GUEST_USO6',
];

/**
 * Negotiates with a device and makes the driver's structures and queues: `virtnet_info`. The rings are
 * empty: `try_fill_recv` fills them. `announce` is called before the first command, with the device ready.
 * Throws KernelError when driver or device refuses.
 */
export function probe(
  kernel: KernelContext,
  device: VirtioTransport,
  options: ProbeOptions,
  announce: (vi: number) => void,
): number {
  const { memory, physical } = kernel;
  const { ram } = memory;
  const { features, config } = negotiate(kernel, device, options.version);
  const has = (feature: VirtioNetFeature): boolean => hasFeature(features, feature);
  const rssFaults = options.rssFaults ?? DRIVER_PROFILES[options.version].rssFaults;
  const refusal =
    has('RSS') || has('HASH_REPORT') ? keySizeRefusal(config.rssMaxKeySize, rssFaults) : undefined;
  if (refusal !== undefined) {
    device.writeStatus(device.status | VIRTIO_CONFIG_S.FAILED);
    throw new KernelError('EINVAL', `virtio_net: ${refusal}`);
  }
  const mergeable = has('MRG_RXBUF');
  const maxPairs = has('MQ') || has('RSS') ? config.maxVirtqueuePairs : 1;
  const mtu = has('MTU') ? config.mtu : DEFAULT_MTU;

  const dev = physical.alloc(NET_DEVICE.size);
  const vi = physical.alloc(VIRTNET_INFO.size);
  ram.bytes.set(new TextEncoder().encode(options.name).subarray(0, 15), dev + DEV.name);
  ram.setPointer(dev + DEV.priv, vi);
  setProfile(ram, vi, options.version, options.xdpChecksum, rssFaults);
  const shortHeader = hasRssFault(ram, vi, 'short-header');
  const headerSize = shortHeader ? NET_HEADER_SIZE.virtio_net_hdr_v1 : netHeaderSize(features);
  ram.bytes.set(config.mac.subarray(0, 6), dev + DEV.dev_addr);
  ram.set32(dev + DEV.mtu, mtu);
  ram.set32(dev + DEV.ifindex, options.ifindex);

  const guestGso = GUEST_GSO.some(has);
  ram.setPointer(vi + VI.dev, dev);
  ram.setPointer(vi + VI.rq, physical.alloc(RECEIVE_QUEUE.size * maxPairs));
  ram.setPointer(vi + VI.sq, physical.alloc(SEND_QUEUE.size * maxPairs));
  ram.set16(vi + VI.max_queue_pairs, maxPairs);
  ram.set16(vi + VI.curr_queue_pairs, Math.min(options.queuePairs, maxPairs));
  ram.set8(vi + VI.hdr_len, headerSize);
  ram.set8(vi + VI.mergeable_rx_bufs, mergeable ? 1 : 0);
  ram.set8(vi + VI.big_packets, !mergeable && (guestGso || mtu > DEFAULT_MTU) ? 1 : 0);
  ram.set16(vi + VI.big_packets_num_skbfrags, bigPacketPages(guestGso, mtu));
  ram.set8(vi + VI.any_header_sg, has('VERSION_1') || has('ANY_LAYOUT') ? 1 : 0);
  ram.set32(vi + VI.nr_cpu_ids, options.cpus);
  ram.set64(vi + VI.features, features & 0xffffffffffffffffn);
  ram.set64(vi + VI.features_hi, features >> 64n);
  setBugs(ram, vi, options.bugs);
  ram.setPointer(dev + DEV.nd_net, options.net);
  ram.setPointer(vi + VI.pages, options.pages);
  ram.setPointer(dev + DEV.pages, options.pages);
  const xdpFeatures = NETDEV_XDP_ACT.BASIC | NETDEV_XDP_ACT.REDIRECT;
  ram.set32(dev + DEV.xdp_features, xdpFeatures | (mergeable ? NETDEV_XDP_ACT.RX_SG : 0));
  initGuestOffloads(ram, vi);
  initNetdevFeatures(kernel, dev, vi);

  const minimum = mergeableMinimum(
    headerSize,
    has('MTU') ? config.mtu : MAX_MTU,
    options.queueSize,
  );
  const queue = {
    vdev: vi,
    packed: has('RING_PACKED'),
    eventIdx: has('EVENT_IDX'),
    indirect: has('INDIRECT_DESC'),
    inOrder: has('IN_ORDER'),
    // the driver looks at lengths itself
    validateLength: false,
  };
  // small and mergeable buffers have a context
  const context = !isBig(ram, vi);
  const open = (index: number, num: number): number => {
    const withContext = context && index % 2 === 0 && index < 2 * maxPairs;
    const vq = createVirtqueue(kernel, { ...queue, num, index, context: withContext });
    device.startQueue(index, virtqueueLayout(memory, vq));
    return vq;
  };
  for (let i = 0; i < maxPairs; i++) {
    const rq = receiveQueue(ram, vi, i);
    ram.setPointer(rq + RQ.vq, open(2 * i, options.queueSize));
    ram.set32(rq + RQ.napi + NAPI_STRUCT.offset.weight, NAPI_POLL_WEIGHT);
    ram.set32(rq + RQ.min_buf_len, minimum);
    ram.setPointer(rq + RQ.vi, vi);
    ram.setPointer(rq + RQ.xdp_rxq + XDP_RXQ_INFO.dev, dev);
    ram.set32(rq + RQ.xdp_rxq + XDP_RXQ_INFO.queueIndex, i);
    const sq = sendQueue(ram, vi, i);
    ram.setPointer(sq + SQ.vq, open(2 * i + 1, options.queueSize));
    ram.set32(sq + SQ.napi + NAPI_STRUCT.offset.weight, options.napiTx ? NAPI_POLL_WEIGHT : 0);
  }
  if (has('CTRL_VQ')) {
    ram.set8(vi + VI.has_cvq, 1);
    ram.setPointer(vi + VI.cvq, open(2 * config.maxVirtqueuePairs, CONTROL_QUEUE_SIZE));
    ram.setPointer(vi + VI.ctrl, physical.alloc(CONTROL_BUF_SIZE));
  }
  initRss(kernel, vi, config, options.rssKey);
  announce(vi);
  ready(kernel, device, vi);
  return vi;
}

/** The device may start; it starts with one pair, and where it refuses more, the driver goes on as if not. */
function ready(kernel: KernelContext, device: VirtioTransport, vi: number): void {
  device.writeStatus(device.status | VIRTIO_CONFIG_S.DRIVER_OK);
  const { ram } = kernel.memory;
  const hashes = ram.u8(vi + VI.has_rss) !== 0 || ram.u8(vi + VI.has_rss_hash_report) !== 0;
  if (hashes && profileOf(ram, vi).rssFollowsQueues) {
    if (kernel.invoke('virtnet_commit_rss_command', vi) === 0) {
      kernel.printk('virtio_net virtio0: RSS disabled because committing failed.');
      const dev = ram.pointer(vi + VI.dev);
      ram.set32(dev + DEV.hw_features + 4, ram.u32(dev + DEV.hw_features + 4) & ~NETIF_F_HI.RXHASH);
      ram.set8(vi + VI.has_rss, 0);
      ram.set8(vi + VI.has_rss_hash_report, 0);
    }
  }
  kernel.invoke('_virtnet_set_queues', vi, ram.u16(vi + VI.curr_queue_pairs));
}

/**
 * A device that was reset works again: the features of before, empty queues (virtnet_freeze, virtnet_restore).
 * What commands had changed in the device is lost, but for the number of queue pairs.
 */
export function restore(kernel: KernelContext, device: VirtioTransport, vi: number): void {
  const { memory } = kernel;
  const { ram } = memory;
  resume(device, ram.u64(vi + VI.features) | (ram.u64(vi + VI.features_hi) << 64n));
  const queues = 2 * ram.u16(vi + VI.max_queue_pairs) + ram.u8(vi + VI.has_cvq);
  for (let index = 0; index < queues; index++) {
    resetVirtqueue(kernel, vi, index);
    device.startQueue(index, virtqueueLayout(memory, virtqueueOf(kernel, vi, index)));
  }
  ready(kernel, device, vi);
}

/** What the net_device can do, and which of it can be switched. */
function initNetdevFeatures({ memory: { ram } }: KernelContext, dev: number, vi: number): void {
  const has = (feature: VirtioNetFeature): boolean => negotiated(ram, vi, feature);
  let features = 0;
  let switchable = 0;
  let high = 0;
  let switchableHigh = 0;
  if (has('CSUM')) {
    switchable |= NETIF_F_HW_CSUM;
    if (has('GSO')) switchable |= NETIF_F_TSO | NETIF_F_TSO6 | NETIF_F_TSO_ECN;
    if (has('HOST_TSO4')) switchable |= NETIF_F_TSO;
    if (has('HOST_TSO6')) switchable |= NETIF_F_TSO6;
    if (has('HOST_ECN')) switchable |= NETIF_F_TSO_ECN;
    features = switchable | NETIF_F_GSO_ROBUST;
  }
  // upstream takes DATA_VALID from any device
  const anyDevice = xdpChecksumOf(ram, vi) === 'upstream';
  if (has('GUEST_CSUM') || anyDevice) high |= NETIF_F_HI.RXCSUM;
  if (has('GUEST_TSO4') || has('GUEST_TSO6')) high |= NETIF_F_HI.GRO_HW;
  if (has('CTRL_GUEST_OFFLOADS')) switchableHigh |= NETIF_F_HI.GRO_HW;
  // RSS alone too, though there is no hash then
  if (has('RSS') || has('HASH_REPORT')) switchableHigh |= NETIF_F_HI.RXHASH;
  ram.set32(dev + DEV.features, features);
  ram.set32(dev + DEV.features_hi, high);
  ram.set32(dev + DEV.hw_features, switchable);
  ram.set32(dev + DEV.hw_features + 4, switchableHigh);
  ram.set32(dev + DEV.wanted_features, features & switchable);
  ram.set32(dev + DEV.wanted_features + 4, high & switchableHigh);
}

/** Bytes of a hash key when none was chosen: spread bits, the same each time. */
export function defaultRssKey(): Uint8Array {
  let word = 0x9e3779b9;
  return Uint8Array.from({ length: VIRTIO_NET_RSS_MAX_KEY_SIZE }, () => {
    // xorshift32
    word ^= word << 13;
    word ^= word >>> 17;
    word ^= word << 5;
    return word & 0xff;
  });
}

/** Gives everything back: posted buffers, unsent frames, page chunks, structures. */
export function remove(kernel: KernelContext, vi: number): void {
  const { memory, physical } = kernel;
  const { ram } = memory;
  const pages = pagesOf(ram, vi);
  for (let i = 0; i < ram.u16(vi + VI.max_queue_pairs); i++) {
    const rq = receiveQueue(ram, vi, i);
    recycleQueue(kernel, vi, 2 * i);
    recycleQueue(kernel, vi, 2 * i + 1);
    freePageChain(kernel, pages, ram.pointer(rq + RQ.pages));
    const chunk = ram.pointer(rq + RQ.frag_page);
    if (chunk !== 0) putPage(kernel, pages, chunk);
    destroyVirtqueue(kernel, virtqueueOf(kernel, vi, 2 * i));
    destroyVirtqueue(kernel, virtqueueOf(kernel, vi, 2 * i + 1));
  }
  if (ram.u8(vi + VI.has_cvq) !== 0) {
    destroyVirtqueue(kernel, ram.pointer(vi + VI.cvq));
    physical.free(ram.pointer(vi + VI.ctrl));
  }
  const rss = ram.pointer(vi + VI.rss);
  if (rss !== 0) physical.free(rss);
  physical.free(ram.pointer(vi + VI.rq));
  physical.free(ram.pointer(vi + VI.sq));
  const dev = ram.pointer(vi + VI.dev);
  for (const field of [DEV.uc, DEV.mc]) {
    const list = ram.pointer(dev + field);
    if (list !== 0) physical.free(list);
  }
  physical.free(dev);
  physical.free(vi);
}

/** Buffers posted in the receive rings and frames held in the transmit rings. */
export function outstanding(
  memory: Memory,
  vi: number,
): { readonly rx: number; readonly tx: number } {
  const { ram } = memory;
  let rx = 0;
  let tx = 0;
  for (let i = 0; i < ram.u16(vi + VI.max_queue_pairs); i++) {
    rx += virtqueueOutstanding(memory, ram.pointer(receiveQueue(ram, vi, i) + RQ.vq)).length;
    tx += virtqueueOutstanding(memory, ram.pointer(sendQueue(ram, vi, i) + SQ.vq)).length;
  }
  return { rx, tx };
}
