/**
 * Taking buffers back from a queue that the device has let go of, and making the queue as new.
 *
 * Reference: drivers/virtio/virtio_ring.c (virtqueue_disable_and_recycle, virtqueue_reset),
 * drivers/net/virtio_net.c of 6.12 (virtnet_rq_unmap_free_buf, virtnet_sq_free_unused_buf). Plain steps and
 * no functions to trace, as probe and removal.
 */
import type { KernelContext } from '../../kernel/function.js';
import { headPage, putPage } from '../../stack/pages.js';
import { freeAtHardStart } from '../../stack/xsk-pool.js';
import { virtqueueDetachUnused, virtqueueReinit } from '../ring/virtqueue.js';
import { freePageChain } from './big.js';
import { isBig, pagesOf, receiveQueue, sendQueue } from './common.js';
import { freeTransmitted } from './xdp.js';
import { RECEIVE_QUEUE, SEND_QUEUE, VIRTNET_INFO } from './structs.js';

const RQ = RECEIVE_QUEUE.offset;
const SQ = SEND_QUEUE.offset;
const VI = VIRTNET_INFO.offset;

/** `struct virtqueue` of a queue by its index: rx of pair i is 2i, tx is 2i+1, the control queue behind. */
export function virtqueueOf(kernel: KernelContext, vi: number, queue: number): number {
  const { ram } = kernel.memory;
  const pair = queue >> 1;
  if (pair === ram.u16(vi + VI.max_queue_pairs)) return ram.pointer(vi + VI.cvq);
  if (queue % 2 === 0) return ram.pointer(receiveQueue(ram, vi, pair) + RQ.vq);
  return ram.pointer(sendQueue(ram, vi, pair) + SQ.vq);
}

/** Frees what a queue holds: posted buffers, or frames that were not reclaimed. */
export function recycleQueue(kernel: KernelContext, vi: number, queue: number): void {
  const { ram } = kernel.memory;
  const pages = pagesOf(ram, vi);
  const isReceive = queue % 2 === 0 && queue >> 1 < ram.u16(vi + VI.max_queue_pairs);
  const pool = isReceive ? ram.pointer(receiveQueue(ram, vi, queue >> 1) + RQ.xsk_pool) : 0;
  for (const cookie of virtqueueDetachUnused(kernel, virtqueueOf(kernel, vi, queue))) {
    // a command's buffers are the device structure's own
    if (cookie === vi) continue;
    if (!isReceive) freeTransmitted(kernel, pages, cookie);
    else if (pool !== 0) freeAtHardStart(ram, pool, cookie);
    else if (isBig(ram, vi)) freePageChain(kernel, pages, cookie);
    else putPage(kernel, pages, headPage(ram, pages, cookie));
  }
}

/** `virtqueue_reset` while the device does not use the queue: it is empty and works again. */
export function resetVirtqueue(kernel: KernelContext, vi: number, queue: number): void {
  recycleQueue(kernel, vi, queue);
  const vq = virtqueueOf(kernel, vi, queue);
  virtqueueReinit(kernel.memory, vq);
}
