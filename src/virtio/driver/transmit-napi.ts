/**
 * When sent skbs and frames are taken back: by the transmit interrupt's poll, by each receive poll, by who sends next.
 *
 * Reference: drivers/net/virtio_net.c of 6.12 (skb_xmit_done, virtnet_poll_tx, virtnet_poll_cleantx,
 * check_sq_full_and_disable). A queue that only XDP uses is left to who sends next, and asks for no interrupt.
 * With `napiTx: false` (module parameter napi_tx) nobody polls, and an interrupt only starts a queue again.
 * Leaves out byte queue limits, and qdiscs: an skb that comes while its queue is stopped goes to the driver
 * all the same.
 */
import { Callee, atomic, type KernelContext, type KernelFunction } from '../../kernel/function.js';
import { MAX_SKB_FRAGS } from '../../stack/skb-geometry.js';
import { virtqueueIsBroken, virtqueueNumFree } from '../ring/virtqueue.js';
import { VRING_VIRTQUEUE } from '../ring/vring-virtqueue.js';
import { isXdpRawBufferQueue, napiSchedule, sendQueue } from './common.js';
import { NAPI_STRUCT, SEND_QUEUE, VIRTNET_SQ_STATS } from './structs.js';

const SQ = SEND_QUEUE.offset;
const STATS = VIRTNET_SQ_STATS.offset;
const VQ = VRING_VIRTQUEUE.offset;
const WEIGHT = SQ.napi + NAPI_STRUCT.offset.weight;

const FREE_OLD_XMIT = new Callee('free_old_xmit');
const VIRTQUEUE_DISABLE_CB = new Callee('virtqueue_disable_cb');
const VIRTQUEUE_ENABLE_CB_DELAYED = new Callee('virtqueue_enable_cb_delayed');
const VIRTQUEUE_ENABLE_CB_PREPARE = new Callee('virtqueue_enable_cb_prepare');
const VIRTQUEUE_POLL = new Callee('virtqueue_poll');
const NAPI_COMPLETE_DONE = new Callee('napi_complete_done');

/** `sq->napi.weight`: sent skbs are taken back by a poll. */
export function usesNapi({ memory: { ram } }: KernelContext, sq: number): boolean {
  return ram.u32(sq + WEIGHT) !== 0;
}

function hasRoom({ memory }: KernelContext, sq: number): boolean {
  return virtqueueNumFree(memory, memory.ram.pointer(sq + SQ.vq)) >= 2 + MAX_SKB_FRAGS;
}

/** netif_tx_wake_queue, where it was stopped. */
function wake({ memory: { ram } }: KernelContext, sq: number): void {
  if (ram.u8(sq + SQ.stopped) === 0) return;
  ram.set8(sq + SQ.stopped, 0);
  ram.add64(sq + SQ.stats + STATS.wake, 1);
}

/**
 * Takes back what was sent; an interrupt comes when three quarters of the rest were. A broken queue gives nothing
 * back however far its used index is: the driver would go round for ever there, this ends.
 */
export function reclaim(kernel: KernelContext, sq: number, inNapi: number): void {
  const { memory } = kernel;
  const vq = memory.ram.pointer(sq + SQ.vq);
  do {
    kernel.invoke(VIRTQUEUE_DISABLE_CB, vq);
    kernel.invoke(FREE_OLD_XMIT, sq, 0, inNapi);
  } while (kernel.invoke(VIRTQUEUE_ENABLE_CB_DELAYED, vq) === 0 && !virtqueueIsBroken(memory, vq));
}

/** `virtnet_poll_cleantx`: what a receive poll does for the send queue of its pair. */
export function pollCleantx(kernel: KernelContext, vi: number, pair: number): void {
  const { ram } = kernel.memory;
  if (isXdpRawBufferQueue(ram, vi, pair)) return;
  const sq = sendQueue(ram, vi, pair);
  if (!usesNapi(kernel, sq)) return;
  reclaim(kernel, sq, 1);
  if (hasRoom(kernel, sq)) wake(kernel, sq);
}

/** `check_sq_full_and_disable`: stops a queue that may have no room for one more skb. */
export function checkSqFullAndDisable(kernel: KernelContext, sq: number): void {
  if (hasRoom(kernel, sq)) return;
  const { ram } = kernel.memory;
  const vq = ram.pointer(sq + SQ.vq);
  ram.set8(sq + SQ.stopped, 1);
  ram.add64(sq + SQ.stats + STATS.stop, 1);
  if (kernel.invoke(VIRTQUEUE_ENABLE_CB_DELAYED, vq) !== 0) return;
  if (usesNapi(kernel, sq)) {
    napiSchedule(kernel, sq + SQ.napi, vq);
    return;
  }
  // more was just sent
  kernel.invoke(FREE_OLD_XMIT, sq, 0, 0);
  if (!hasRoom(kernel, sq)) return;
  wake(kernel, sq);
  kernel.invoke(VIRTQUEUE_DISABLE_CB, vq);
}

function pollTx(kernel: KernelContext, napi: number): number {
  const { ram } = kernel.memory;
  const sq = napi - SQ.napi;
  const vq = ram.pointer(sq + SQ.vq);
  const vi = ram.pointer(vq + VQ.vdev);
  if (isXdpRawBufferQueue(ram, vi, ram.u32(vq + VQ.index) >> 1)) {
    kernel.invoke(NAPI_COMPLETE_DONE, napi, 0);
    return 0;
  }
  kernel.invoke(VIRTQUEUE_DISABLE_CB, vq);
  kernel.invoke(FREE_OLD_XMIT, sq, 0, 1);
  if (hasRoom(kernel, sq)) wake(kernel, sq);
  const opaque = kernel.invoke(VIRTQUEUE_ENABLE_CB_PREPARE, vq);
  kernel.invoke(NAPI_COMPLETE_DONE, napi, 0);
  if (kernel.invoke(VIRTQUEUE_POLL, vq, opaque) !== 0) napiSchedule(kernel, napi, vq);
  return 0;
}

export const transmitNapiFunctions: readonly KernelFunction[] = [
  atomic({
    prototype: 'void skb_xmit_done(struct virtqueue *vq)',
    calls: true,
    body: (kernel, vq) => {
      const { ram } = kernel.memory;
      const sq = sendQueue(ram, ram.pointer(vq + VQ.vdev), ram.u32(vq + VQ.index) >> 1);
      kernel.invoke(VIRTQUEUE_DISABLE_CB, vq);
      if (usesNapi(kernel, sq)) napiSchedule(kernel, sq + SQ.napi, vq);
      // netif_wake_subqueue
      else ram.set8(sq + SQ.stopped, 0);
    },
  }),
  atomic({
    prototype: 'int virtnet_poll_tx(struct napi_struct *napi, int budget)',
    calls: true,
    body: pollTx,
  }),
];
