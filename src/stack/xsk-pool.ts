/**
 * `struct xsk_buff_pool`: chunks of a UMEM, taken from the fill ring and given back to the pool's free list.
 *
 * Reference: net/xdp/xsk_buff_pool.c, include/net/xdp_sock_drv.h of 6.12 (xp_alloc, xp_free,
 * xsk_pool_get_rx_frame_size). A chunk as a driver has it begins at its hard start, behind the UMEM's headroom, and is
 * told from a page by the memory type of the queue (MEM_TYPE_XSK_BUFF_POOL). Linux keeps an xdp_buff per chunk;
 * here the queue's is used, so that the pool is found through the queue. Leaves out unaligned chunks, DMA.
 */
import { XDP_BUFF, XDP_PACKET_HEADROOM, XDP_RXQ_INFO } from '../bpf/xdp-buff.js';
import type { Ram } from '../cpu/ram.js';
import { XQ, consume, peek } from './xsk-queue.js';
import { XSK_POOL } from './xsk-structs.js';

const POOL = XSK_POOL.offset;

/** xdp_mem_info.type of a queue whose buffers are chunks. */
export const MEM_TYPE_XSK_BUFF_POOL = 3;
export const MEM_TYPE_PAGE_SHARED = 0;

export const NO_CHUNK = -1;

/** `xsk_pool_get_rx_frame_size`. */
export function rxFrameSize(ram: Ram, pool: number): number {
  return ram.u32(pool + POOL.chunk_size) - ram.u32(pool + POOL.headroom) - XDP_PACKET_HEADROOM;
}

/** `xp_alloc`: the address of a chunk in the UMEM, or NO_CHUNK. */
export function allocChunk(ram: Ram, pool: number): number {
  const free = ram.u32(pool + POOL.free_list_cnt);
  if (free > 0) {
    ram.set32(pool + POOL.free_list_cnt, free - 1);
    return ram.u32(ram.pointer(pool + POOL.free_list) + 8 * (free - 1));
  }
  const fq = ram.pointer(pool + POOL.fq);
  for (;;) {
    const entry = peek(ram, fq);
    if (entry === 0) {
      ram.add64(fq + XQ.queue_empty_descs, 1);
      return NO_CHUNK;
    }
    const given = ram.u53(entry);
    consume(ram, fq);
    const chunk = given - (given % ram.u32(pool + POOL.chunk_size));
    if (ram.u32(entry + 4) === 0 && chunk < ram.u32(pool + POOL.addrs_cnt)) return chunk;
    ram.add64(fq + XQ.invalid_descs, 1);
  }
}

export function freeChunk(ram: Ram, pool: number, chunk: number): void {
  const free = ram.u32(pool + POOL.free_list_cnt);
  ram.setWord(ram.pointer(pool + POOL.free_list) + 8 * free, chunk);
  ram.set32(pool + POOL.free_list_cnt, free + 1);
}

/** Where a chunk begins for a driver. */
export function hardStartOf(ram: Ram, pool: number, chunk: number): number {
  return ram.pointer(pool + POOL.addrs) + chunk + ram.u32(pool + POOL.headroom);
}

/** `xsk_buff_free`, by a chunk's hard start. */
export function freeAtHardStart(ram: Ram, pool: number, hardStart: number): void {
  const start = ram.pointer(pool + POOL.addrs) + ram.u32(pool + POOL.headroom);
  freeChunk(ram, pool, hardStart - start);
}

/** The pool whose chunk an xdp_buff lies in; 0: it lies in a page. */
export function poolOfXdpBuff(ram: Ram, xdp: number): number {
  const rxq = ram.pointer(xdp + XDP_BUFF.rxq);
  const isChunk = ram.u32(rxq + XDP_RXQ_INFO.memType) === MEM_TYPE_XSK_BUFF_POOL;
  return isChunk ? ram.pointer(rxq + XDP_RXQ_INFO.xskPool) : 0;
}
