/**
 * What the parts of the virtio-net driver share: its hooks to the outside, counters, queue lookups.
 *
 * Reference: drivers/net/virtio_net.c of 6.12. Functions of Linux that the compiler inlines
 * (virtnet_rq_get_buf, virtqueue_napi_schedule, mergeable_buf_free, virtnet_xdp_get_sq) are helpers here
 * and no symbols.
 */
import type { Ram } from '../../cpu/ram.js';
import { Callee, type KernelContext } from '../../kernel/function.js';
import {
  NAPIF_STATE_SCHED,
  NAPI_STRUCT,
  RECEIVE_QUEUE,
  SEND_QUEUE,
  VIRTNET_INFO,
  VIRTNET_RQ_STATS,
} from './structs.js';
import { NET_DEVICE } from '../../stack/net-device.js';
import type { NetStack } from '../../stack/net-stack.js';
import { VIRTIO_NET_F, type VirtioNetFeature } from '../net-features.js';
import { headPage, putPage } from '../../stack/pages.js';

const VIRTQUEUE_GET_BUF_CTX = new Callee('virtqueue_get_buf_ctx');
const VIRTQUEUE_DISABLE_CB = new Callee('virtqueue_disable_cb');
const VIRTQUEUE_KICK_PREPARE = new Callee('virtqueue_kick_prepare');
const VIRTQUEUE_NOTIFY = new Callee('virtqueue_notify');

/** What lies outside the guest's memory: engines that run programs, doorbells, tracepoints. */
export interface VirtioNetHost {
  /** What the kernel's network side has once; it runs programs. */
  readonly stack: NetStack;
  /** The doorbell of a queue (`struct virtqueue` address). */
  notify(vq: number): void;
  /** Resets a receive queue, by its pair; `emptied` runs between emptying and filling it. */
  resetReceiveQueue(vi: number, pair: number, emptied: () => void): void;
  /** Tracepoint xdp:xdp_exception. */
  xdpException(dev: number, prog: number, action: number): void;
}

const RQ = RECEIVE_QUEUE.offset;
const VI = VIRTNET_INFO.offset;
const DEV = NET_DEVICE.offset;
const RQ_STATS = VIRTNET_RQ_STATS.offset;

/** Whether a feature was negotiated, by bit number. */
export function negotiated(ram: Ram, vi: number, feature: VirtioNetFeature): boolean {
  const bit = VIRTIO_NET_F[feature];
  return (ram.u8(vi + VI.features + (bit >> 3)) & (1 << (bit & 7))) !== 0;
}

/** `netdev_warn`, `netdev_err`: a line in the log with the device in front. */
export function netdevLog(kernel: KernelContext, dev: number, line: string): void {
  const { ram } = kernel.memory;
  const name = ram.slice(dev + DEV.name, 16);
  const text = new TextDecoder().decode(name.subarray(0, name.indexOf(0)));
  kernel.printk(`virtio_net virtio0 ${text}: ${line}`);
}

/** Big mode: pages without MRG_RXBUF. */
export function isBig(ram: Ram, vi: number): boolean {
  return ram.u8(vi + VI.big_packets) !== 0 && ram.u8(vi + VI.mergeable_rx_bufs) === 0;
}

/** The table of page chunks of a device: see `page-frag.ts`. */
export function pagesOf(ram: Ram, vi: number): number {
  return ram.pointer(vi + VI.pages);
}

export function receiveQueue(ram: Ram, vi: number, index: number): number {
  return ram.pointer(vi + VI.rq) + index * RECEIVE_QUEUE.size;
}

export function sendQueue(ram: Ram, vi: number, index: number): number {
  return ram.pointer(vi + VI.sq) + index * SEND_QUEUE.size;
}

/** Queue pair of a receive queue. */
export function pairOf(ram: Ram, vi: number, rq: number): number {
  return (rq - ram.pointer(vi + VI.rq)) / RECEIVE_QUEUE.size;
}

/** Queue pair of a send queue. */
export function sendPairOf(ram: Ram, vi: number, sq: number): number {
  return (sq - ram.pointer(vi + VI.sq)) / SEND_QUEUE.size;
}

/** `virtnet_xdp_get_sq`: a queue of this CPU's own if there are enough, else a shared one. */
export function xdpSendQueue(kernel: KernelContext, vi: number): number {
  const { ram } = kernel.memory;
  const current = ram.u16(vi + VI.curr_queue_pairs);
  const cpu = kernel.currentCpu;
  const index =
    current > ram.u32(vi + VI.nr_cpu_ids)
      ? current - ram.u16(vi + VI.xdp_queue_pairs) + cpu
      : cpu % current;
  return sendQueue(ram, vi, index);
}

/** `is_xdp_raw_buffer_queue`: a send queue that only XDP uses. */
export function isXdpRawBufferQueue(ram: Ram, vi: number, index: number): boolean {
  const current = ram.u16(vi + VI.curr_queue_pairs);
  return index < current && index >= current - ram.u16(vi + VI.xdp_queue_pairs);
}

/** `virtnet_rq_get_buf`: the next used buffer (0: none); length and context go to the scratch words. */
export function rqGetBuf(kernel: KernelContext, rq: number): number {
  const vq = kernel.memory.ram.pointer(rq + RQ.vq);
  return kernel.invoke(VIRTQUEUE_GET_BUF_CTX, vq, rq + RQ.scratch_len, rq + RQ.scratch_ctx);
}

/** `mergeable_buf_free`: takes what is left of a frame of `buffers` off the ring and frees it. */
export function mergeableBufFree(
  kernel: KernelContext,
  vi: number,
  rq: number,
  buffers: number,
  stats: number,
): void {
  const { ram } = kernel.memory;
  const pages = pagesOf(ram, vi);
  for (let left = buffers; left > 1; left--) {
    const buf = rqGetBuf(kernel, rq);
    if (buf === 0) {
      ram.add64(ram.pointer(vi + VI.dev) + DEV.rx_length_errors, 1);
      return;
    }
    ram.add64(stats + RQ_STATS.bytes, ram.u32(rq + RQ.scratch_len));
    putPage(kernel, pages, headPage(ram, pages, buf));
  }
}

/** `virtqueue_napi_schedule`: a poll is due; no more interrupts until it has been done. */
export function napiSchedule(kernel: KernelContext, napi: number, vq: number): void {
  const { ram } = kernel.memory;
  const state = napi + NAPI_STRUCT.offset.state;
  const flags = ram.u32(state);
  if ((flags & NAPIF_STATE_SCHED) !== 0) return;
  ram.set32(state, flags | NAPIF_STATE_SCHED);
  kernel.invoke(VIRTQUEUE_DISABLE_CB, vq);
}

/** Kicks a queue if the device wants to know; whether it did. */
export function kick(kernel: KernelContext, vq: number): boolean {
  if (kernel.invoke(VIRTQUEUE_KICK_PREPARE, vq) === 0) return false;
  return kernel.invoke(VIRTQUEUE_NOTIFY, vq) !== 0;
}
