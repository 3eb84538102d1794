/**
 * All kernel functions of the virtio-net driver, and setting a device up and tearing it down.
 *
 * Reference: drivers/net/virtio_net.c of 6.12. The functions hold no state: everything is reached from
 * their arguments. Probe and removal are not modelled as functions to trace.
 */
import type { Memory } from '../../cpu/memory.js';
import type { KernelContext, KernelFunction } from '../../kernel/function.js';
import { XDP_RXQ_INFO } from '../../bpf/xdp-buff.js';
import { MAX_MTU, mergeableMinimum } from './geometry.js';
import { NET_HEADER_SIZE } from '../net-header.js';
import { attachFunctions, VIRTIO_NET_FEATURES } from './attach.js';
import { DEV, RQ, SQ, VI, pagesOf, receiveQueue, sendQueue, type VirtioNetHost } from './common.js';
import { mergeableFunctions } from './mergeable.js';
import { receiveFunctions } from './receive.js';
import { refillFunctions } from './refill.js';
import { smallFunctions } from './small.js';
import { xdpFunctions } from './xdp.js';
import {
  NAPI_STRUCT,
  RECEIVE_QUEUE,
  SEND_QUEUE,
  VIRTIO_XDP_FLAG,
  VIRTNET_INFO,
} from './structs.js';
import { headPage, putPage } from '../../stack/pages.js';
import {
  createVirtqueue,
  destroyVirtqueue,
  virtqueueDetachUnused,
  virtqueueDisableCb,
  virtqueueOutstanding,
} from '../ring/split-ring-driver.js';
import { virtqueueFunctions } from '../ring/virtqueue-functions.js';
import { returnFrame } from '../../stack/xdp-frame.js';
import { NETDEV_XDP_ACT, NET_DEVICE } from '../../stack/net-device.js';

/** Every function of the receive path, with the names and prototypes of Linux 6.12. */
export function virtioNetFunctions(host: VirtioNetHost): readonly KernelFunction[] {
  return [
    ...receiveFunctions,
    ...smallFunctions,
    ...mergeableFunctions,
    ...refillFunctions,
    ...xdpFunctions(host),
    ...attachFunctions(host),
    ...virtqueueFunctions(host),
  ];
}

export interface ProbeOptions {
  readonly name: string;
  readonly ifindex: number;
  readonly mac: Uint8Array;
  readonly mtu: number;
  readonly queueSize: number;
  readonly queuePairs: number;
  readonly maxQueuePairs: number;
  readonly cpus: number;
  /** Negotiated bits. */
  readonly features: bigint;
  /** Root of the kernel's table of page chunks. */
  readonly pages: number;
}

const NAPI_POLL_WEIGHT = 64;

/** Makes the driver's structures and queues. The rings are empty: `try_fill_recv` fills them. */
export function probe(kernel: KernelContext, options: ProbeOptions): number {
  const { memory, physical } = kernel;
  const { ram } = memory;
  const mergeable = (options.features & VIRTIO_NET_FEATURES.MRG_RXBUF) !== 0n;
  const version1 = (options.features & VIRTIO_NET_FEATURES.VERSION_1) !== 0n;
  const eventIdx = (options.features & VIRTIO_NET_FEATURES.EVENT_IDX) !== 0n;
  const headerSize =
    mergeable || version1 ? NET_HEADER_SIZE.virtio_net_hdr_v1 : NET_HEADER_SIZE.virtio_net_hdr;

  const dev = physical.alloc(NET_DEVICE.size);
  const vi = physical.alloc(VIRTNET_INFO.size);
  ram.bytes.set(new TextEncoder().encode(options.name).subarray(0, 15), dev + DEV.name);
  ram.setPointer(dev + DEV.priv, vi);
  ram.bytes.set(options.mac.subarray(0, 6), dev + DEV.dev_addr);
  ram.set32(dev + DEV.mtu, options.mtu);
  ram.set32(dev + DEV.ifindex, options.ifindex);

  ram.setPointer(vi + VI.dev, dev);
  ram.setPointer(vi + VI.rq, physical.alloc(RECEIVE_QUEUE.size * options.maxQueuePairs));
  ram.setPointer(vi + VI.sq, physical.alloc(SEND_QUEUE.size * options.maxQueuePairs));
  ram.set16(vi + VI.max_queue_pairs, options.maxQueuePairs);
  ram.set16(vi + VI.curr_queue_pairs, options.queuePairs);
  ram.set8(vi + VI.hdr_len, headerSize);
  ram.set8(vi + VI.mergeable_rx_bufs, mergeable ? 1 : 0);
  ram.set8(vi + VI.any_header_sg, version1 ? 1 : 0);
  ram.set32(vi + VI.nr_cpu_ids, options.cpus);
  ram.set64(vi + VI.features, options.features);
  ram.setPointer(vi + VI.pages, options.pages);
  const features = NETDEV_XDP_ACT.BASIC | NETDEV_XDP_ACT.REDIRECT;
  ram.set32(dev + DEV.xdp_features, features | (mergeable ? NETDEV_XDP_ACT.RX_SG : 0));

  const minimum = mergeableMinimum(headerSize, MAX_MTU, options.queueSize);
  const queue = { num: options.queueSize, vdev: vi, eventIdx };
  for (let i = 0; i < options.maxQueuePairs; i++) {
    const rq = receiveQueue(ram, vi, i);
    ram.setPointer(rq + RQ.vq, createVirtqueue(kernel, { ...queue, index: 2 * i }));
    ram.set32(rq + RQ.napi + NAPI_STRUCT.offset.weight, NAPI_POLL_WEIGHT);
    ram.set32(rq + RQ.min_buf_len, minimum);
    ram.setPointer(rq + RQ.vi, vi);
    ram.setPointer(rq + RQ.xdp_rxq + XDP_RXQ_INFO.dev, dev);
    ram.set32(rq + RQ.xdp_rxq + XDP_RXQ_INFO.queueIndex, i);
    const sq = sendQueue(ram, vi, i);
    const vq = createVirtqueue(kernel, { ...queue, index: 2 * i + 1 });
    ram.setPointer(sq + SQ.vq, vq);
    // sent frames are reclaimed at the next transmit or poll, not by interrupt
    virtqueueDisableCb(memory, vq);
  }
  return vi;
}

/** Gives everything back: posted buffers, unsent frames, page chunks, structures. */
export function remove(kernel: KernelContext, vi: number): void {
  const { memory, physical } = kernel;
  const { ram } = memory;
  const pages = pagesOf(ram, vi);
  for (let i = 0; i < ram.u16(vi + VI.max_queue_pairs); i++) {
    const rq = receiveQueue(ram, vi, i);
    const rxVq = ram.pointer(rq + RQ.vq);
    for (const buf of virtqueueDetachUnused(memory, rxVq)) {
      putPage(kernel, pages, headPage(ram, pages, buf));
    }
    const chunk = ram.pointer(rq + RQ.frag_page);
    if (chunk !== 0) putPage(kernel, pages, chunk);
    destroyVirtqueue(kernel, rxVq);
    const txVq = ram.pointer(sendQueue(ram, vi, i) + SQ.vq);
    for (const cookie of virtqueueDetachUnused(memory, txVq)) {
      returnFrame(kernel, pages, cookie & ~VIRTIO_XDP_FLAG);
    }
    destroyVirtqueue(kernel, txVq);
  }
  physical.free(ram.pointer(vi + VI.rq));
  physical.free(ram.pointer(vi + VI.sq));
  physical.free(ram.pointer(vi + VI.dev));
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
