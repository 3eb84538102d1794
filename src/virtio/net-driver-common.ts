/**
 * What the parts of the virtio-net driver share: its hooks to the outside, counters, queue lookups.
 *
 * Reference: drivers/net/virtio_net.c of 6.12. Functions of Linux that the compiler inlines
 * (virtnet_rq_get_buf, virtqueue_napi_schedule, mergeable_buf_free, virtnet_xdp_get_sq) are helpers here
 * and no symbols.
 */
import type { Memory } from '../cpu/memory.js';
import { call, type BodyGenerator, type KernelContext } from '../kernel/function.js';
import {
  NAPIF_STATE_SCHED,
  NAPI_STRUCT,
  NET_DEVICE,
  RECEIVE_QUEUE,
  SEND_QUEUE,
  VIRTNET_INFO,
  VIRTNET_RQ_STATS,
} from './net-structs.js';
import { PageTable } from './page-frag.js';
import { toUint } from './struct.js';

/** Runs an XDP program on an xdp_buff; the result's low 32 bits are the verdict. */
export interface XdpRunner {
  /** The program was loaded with the frags flag. Default false. */
  readonly hasFrags?: boolean;
  run(xdpBuff: bigint): BodyGenerator;
}

/** What lies outside the guest's memory: engines that run programs, doorbells, tracepoints. */
export interface VirtioNetHost {
  /** The engine behind a `struct bpf_prog` of `receive_queue.xdp_prog`. */
  runner(prog: bigint): XdpRunner;
  /** The doorbell of a queue (`struct virtqueue` address). */
  notify(vq: bigint): void;
  /** The device is told how many queue pairs to use: in place of VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET. */
  setQueuePairs(vi: bigint, pairs: number): void;
  /** Tracepoint xdp:xdp_exception. */
  xdpException(dev: bigint, prog: bigint, action: number): void;
}

export const RQ = RECEIVE_QUEUE.offset;
export const SQ = SEND_QUEUE.offset;
export const VI = VIRTNET_INFO.offset;
export const DEV = NET_DEVICE.offset;
export const RQ_STATS = VIRTNET_RQ_STATS.offset;

/** `u64_stats_add`. */
export function count(memory: Memory, counter: bigint, by = 1): void {
  memory.write64(counter, memory.read64(counter) + BigInt(by));
}

export function pagesOf(kernel: KernelContext, vi: bigint): PageTable {
  return new PageTable(kernel, kernel.memory.read64(vi + VI.pages));
}

export function receiveQueue(memory: Memory, vi: bigint, index: number): bigint {
  return memory.read64(vi + VI.rq) + BigInt(index * RECEIVE_QUEUE.size);
}

export function sendQueue(memory: Memory, vi: bigint, index: number): bigint {
  return memory.read64(vi + VI.sq) + BigInt(index * SEND_QUEUE.size);
}

/** Queue pair of a receive or send queue. */
export function pairOf(memory: Memory, vi: bigint, queue: bigint, kind: 'rx' | 'tx'): number {
  return kind === 'rx'
    ? Number(queue - memory.read64(vi + VI.rq)) / RECEIVE_QUEUE.size
    : Number(queue - memory.read64(vi + VI.sq)) / SEND_QUEUE.size;
}

/** `virtnet_xdp_get_sq`: a queue of this CPU's own if there are enough, else a shared one. */
export function xdpSendQueue(kernel: KernelContext, vi: bigint): bigint {
  const { memory } = kernel;
  const current = memory.read16(vi + VI.curr_queue_pairs);
  const cpu = kernel.currentCpu;
  const index =
    current > memory.read32(vi + VI.nr_cpu_ids)
      ? current - memory.read16(vi + VI.xdp_queue_pairs) + cpu
      : cpu % current;
  return sendQueue(memory, vi, index);
}

/** `is_xdp_raw_buffer_queue`: a send queue that only XDP uses. */
export function isXdpRawBufferQueue(memory: Memory, vi: bigint, index: number): boolean {
  const current = memory.read16(vi + VI.curr_queue_pairs);
  return index < current && index >= current - memory.read16(vi + VI.xdp_queue_pairs);
}

/** `virtnet_rq_get_buf`: the next used buffer (0n: none); length and context go to the scratch words. */
export function* rqGetBuf(kernel: KernelContext, rq: bigint): BodyGenerator {
  const vq = kernel.memory.read64(rq + RQ.vq);
  return yield* call('virtqueue_get_buf_ctx', vq, rq + RQ.scratch_len, rq + RQ.scratch_ctx);
}

/** `mergeable_buf_free`: takes what is left of a frame of `buffers` off the ring and frees it. */
export function* mergeableBufFree(
  kernel: KernelContext,
  vi: bigint,
  rq: bigint,
  buffers: number,
  stats: bigint,
): BodyGenerator<void> {
  const { memory } = kernel;
  const pages = pagesOf(kernel, vi);
  for (let left = buffers; left > 1; left--) {
    const buf = yield* rqGetBuf(kernel, rq);
    if (buf === 0n) {
      count(memory, memory.read64(vi + VI.dev) + DEV.rx_length_errors);
      return;
    }
    count(memory, stats + RQ_STATS.bytes, memory.read32(rq + RQ.scratch_len));
    pages.put(pages.headPage(buf));
  }
}

/** `virtqueue_napi_schedule`: a poll is due; no more interrupts until it has been done. */
export function* napiSchedule(kernel: KernelContext, rq: bigint): BodyGenerator<void> {
  const { memory } = kernel;
  const state = rq + RQ.napi + NAPI_STRUCT.offset.state;
  const flags = memory.read32(state);
  if ((flags & NAPIF_STATE_SCHED) !== 0) return;
  memory.write32(state, flags | NAPIF_STATE_SCHED);
  yield* call('virtqueue_disable_cb', memory.read64(rq + RQ.vq));
}

/** Kicks a queue if the device wants to know; whether it did. */
export function* kick(vq: bigint): BodyGenerator<boolean> {
  if (toUint(yield* call('virtqueue_kick_prepare', vq)) === 0) return false;
  return toUint(yield* call('virtqueue_notify', vq)) !== 0;
}
