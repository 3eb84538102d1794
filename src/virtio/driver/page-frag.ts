/**
 * Receive buffers cut from a queue's page chunk.
 *
 * Reference: skb_page_frag_refill, virtnet_rq_alloc. With DMA mapped beforehand a chunk begins with its
 * struct virtnet_rq_dma, of which only the room it takes is here.
 */
import type { Ram } from '../../cpu/ram.js';
import type { KernelContext } from '../../kernel/function.js';
import {
  PAGE_SIZE,
  allocPage,
  getPage,
  pageAddress,
  pageCount,
  putPage,
} from '../../stack/pages.js';
import { PAGE_FRAG_SIZE } from './geometry.js';
import { RECEIVE_QUEUE } from './structs.js';

const RQ = RECEIVE_QUEUE.offset;

/**
 * `skb_page_frag_refill`: makes sure that `size` bytes can be cut from the queue's chunk. A chunk
 * nobody else uses any more starts over; one without room is given up for a new one.
 */
export function fragRefill(kernel: KernelContext, pages: number, rq: number, size: number): void {
  const { ram } = kernel.memory;
  const page = ram.pointer(rq + RQ.frag_page);
  if (page !== 0) {
    if (pageCount(ram, page) === 1) ram.set32(rq + RQ.frag_offset, 0);
    if (ram.u32(rq + RQ.frag_offset) + size <= PAGE_FRAG_SIZE) return;
    putPage(kernel, pages, page);
  }
  ram.setPointer(rq + RQ.frag_page, allocPage(kernel, pages, PAGE_FRAG_SIZE / PAGE_SIZE));
  ram.set32(rq + RQ.frag_offset, 0);
}

/**
 * `virtnet_rq_alloc`: cuts `size` bytes from the queue's chunk, which begins with `header` bytes that are
 * no buffer, and takes a reference for them.
 */
export function rqAlloc(ram: Ram, rq: number, size: number, header: number): number {
  const page = ram.pointer(rq + RQ.frag_page);
  const offset = ram.u32(rq + RQ.frag_offset) || header;
  getPage(ram, page);
  ram.set32(rq + RQ.frag_offset, offset + size);
  return pageAddress(ram, page) + offset;
}
