/**
 * All kernel functions of the virtio-net driver, and setting a device up and tearing it down.
 *
 * Reference: drivers/net/virtio_net.c of 6.12. The functions hold no state: everything is reached from
 * their arguments. Probe and removal are not modelled as functions to trace.
 */
import type { Memory } from '../cpu/memory.js';
import type { KernelContext, KernelFunction } from '../kernel/function.js';
import { XDP_RXQ_INFO } from '../bpf/xdp-buff.js';
import { MAX_MTU, mergeableMinimum } from './net-geometry.js';
import { NET_HEADER_SIZE } from './net-header.js';
import { attachFunctions, VIRTIO_NET_FEATURES } from './net-driver-attach.js';
import {
  DEV,
  RQ,
  SQ,
  VI,
  pagesOf,
  receiveQueue,
  sendQueue,
  type VirtioNetHost,
} from './net-driver-common.js';
import { mergeableFunctions } from './net-driver-mergeable.js';
import { receiveFunctions } from './net-driver-receive.js';
import { refillFunctions } from './net-driver-refill.js';
import { smallFunctions } from './net-driver-small.js';
import { xdpFunctions } from './net-driver-xdp.js';
import {
  NAPI_STRUCT,
  NET_DEVICE,
  RECEIVE_QUEUE,
  SEND_QUEUE,
  VIRTIO_XDP_FLAG,
  VIRTNET_INFO,
} from './net-structs.js';
import { PageTable } from './page-frag.js';
import {
  createVirtqueue,
  destroyVirtqueue,
  virtqueueDetachUnused,
  virtqueueDisableCb,
  virtqueueOutstanding,
} from './split-ring-driver.js';
import { virtqueueFunctions } from './virtqueue-functions.js';
import { returnFrame } from './xdp-frame.js';

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
}

const NAPI_POLL_WEIGHT = 64;

/** Makes the driver's structures and queues. The rings are empty: `try_fill_recv` fills them. */
export function probe(kernel: KernelContext, options: ProbeOptions): bigint {
  const { memory } = kernel;
  const mergeable = (options.features & VIRTIO_NET_FEATURES.MRG_RXBUF) !== 0n;
  const version1 = (options.features & VIRTIO_NET_FEATURES.VERSION_1) !== 0n;
  const eventIdx = (options.features & VIRTIO_NET_FEATURES.EVENT_IDX) !== 0n;
  const headerSize =
    mergeable || version1 ? NET_HEADER_SIZE.virtio_net_hdr_v1 : NET_HEADER_SIZE.virtio_net_hdr;

  const dev = kernel.kmalloc(NET_DEVICE.size);
  const vi = kernel.kmalloc(VIRTNET_INFO.size);
  memory.writeBytes(dev + DEV.name, new TextEncoder().encode(options.name).subarray(0, 15));
  memory.write64(dev + DEV.priv, vi);
  memory.writeBytes(dev + DEV.dev_addr, options.mac.subarray(0, 6));
  memory.write32(dev + DEV.mtu, options.mtu);
  memory.write32(dev + DEV.ifindex, options.ifindex);

  memory.write64(vi + VI.dev, dev);
  memory.write64(vi + VI.rq, kernel.kmalloc(RECEIVE_QUEUE.size * options.maxQueuePairs));
  memory.write64(vi + VI.sq, kernel.kmalloc(SEND_QUEUE.size * options.maxQueuePairs));
  memory.write16(vi + VI.max_queue_pairs, options.maxQueuePairs);
  memory.write16(vi + VI.curr_queue_pairs, options.queuePairs);
  memory.write8(vi + VI.hdr_len, headerSize);
  memory.write8(vi + VI.mergeable_rx_bufs, mergeable ? 1 : 0);
  memory.write8(vi + VI.any_header_sg, version1 ? 1 : 0);
  memory.write32(vi + VI.nr_cpu_ids, options.cpus);
  memory.write64(vi + VI.features, options.features);
  memory.write64(vi + VI.pages, PageTable.create(kernel).root);

  const minimum = mergeableMinimum(headerSize, MAX_MTU, options.queueSize);
  const queue = { num: options.queueSize, vdev: vi, eventIdx };
  for (let i = 0; i < options.maxQueuePairs; i++) {
    const rq = receiveQueue(memory, vi, i);
    memory.write64(rq + RQ.vq, createVirtqueue(kernel, { ...queue, index: 2 * i }));
    memory.write32(rq + RQ.napi + NAPI_STRUCT.offset.weight, NAPI_POLL_WEIGHT);
    memory.write32(rq + RQ.min_buf_len, minimum);
    memory.write64(rq + RQ.vi, vi);
    memory.write64(rq + RQ.xdp_rxq + BigInt(XDP_RXQ_INFO.dev), dev);
    memory.write32(rq + RQ.xdp_rxq + BigInt(XDP_RXQ_INFO.queueIndex), i);
    const sq = sendQueue(memory, vi, i);
    const vq = createVirtqueue(kernel, { ...queue, index: 2 * i + 1 });
    memory.write64(sq + SQ.vq, vq);
    // sent frames are reclaimed at the next transmit or poll, not by interrupt
    virtqueueDisableCb(memory, vq);
  }
  return vi;
}

/** Gives everything back: posted buffers, unsent frames, page chunks, structures. */
export function remove(kernel: KernelContext, vi: bigint): void {
  const { memory } = kernel;
  const pages = pagesOf(kernel, vi);
  for (let i = 0; i < memory.read16(vi + VI.max_queue_pairs); i++) {
    const rq = receiveQueue(memory, vi, i);
    const rxVq = memory.read64(rq + RQ.vq);
    for (const buf of virtqueueDetachUnused(memory, rxVq)) pages.put(pages.headPage(buf));
    const chunk = memory.read64(rq + RQ.frag_page);
    if (chunk !== 0n) pages.put(chunk);
    destroyVirtqueue(kernel, rxVq);
    const txVq = memory.read64(sendQueue(memory, vi, i) + SQ.vq);
    for (const cookie of virtqueueDetachUnused(memory, txVq)) {
      returnFrame(memory, pages, cookie & ~VIRTIO_XDP_FLAG);
    }
    destroyVirtqueue(kernel, txVq);
  }
  kernel.kfree(memory.read64(vi + VI.rq));
  kernel.kfree(memory.read64(vi + VI.sq));
  kernel.kfree(pages.root);
  kernel.kfree(memory.read64(vi + VI.dev));
  kernel.kfree(vi);
}

/** Buffers posted in the receive rings and frames held in the transmit rings. */
export function outstanding(
  memory: Memory,
  vi: bigint,
): { readonly rx: number; readonly tx: number } {
  let rx = 0;
  let tx = 0;
  for (let i = 0; i < memory.read16(vi + VI.max_queue_pairs); i++) {
    rx += virtqueueOutstanding(memory, memory.read64(receiveQueue(memory, vi, i) + RQ.vq)).length;
    tx += virtqueueOutstanding(memory, memory.read64(sendQueue(memory, vi, i) + SQ.vq)).length;
  }
  return { rx, tx };
}
