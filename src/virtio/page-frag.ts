/**
 * Reference-counted page chunks, and receive buffers cut from them.
 *
 * Reference: mm/page_frag (skb_page_frag_refill), get_page/put_page, virt_to_head_page. Linux finds the
 * `struct page` of an address through the vmemmap; here a hash table in kernel memory, keyed by the
 * 32 KiB the chunk starts in, does that; `pages` is its address. Leaves out DMA (virtnet_rq_dma) and memory
 * pressure: allocation never fails softly.
 *
 * Usage:
 *   const pages = createPageTable(kernel);
 *   const page = allocPage(kernel, pages, 1);              // struct page with one reference
 *   putPage(kernel, pages, headPage(ram, pages, address));
 */
import { hex64 } from '../common/bytes.js';
import type { Ram } from '../cpu/ram.js';
import type { KernelContext } from '../kernel/function.js';
import { PAGE_FRAG_SIZE, PAGE_SIZE } from './net-geometry.js';
import { RECEIVE_QUEUE } from './net-structs.js';
import { struct } from './struct.js';

/** A chunk of `bytes` from `address`; chained by `next` within its bucket. */
const PAGE = struct({ address: 'u64', next: 'u64', bytes: 'u32', refcount: 'u32' });

const BUCKETS = 256;
const LIVE = 8 * BUCKETS;
const GRANULE_SHIFT = 15;
const P = PAGE.offset;
const RQ = RECEIVE_QUEUE.offset;

export function createPageTable({ physical }: KernelContext): number {
  return physical.alloc(LIVE + 8);
}

/** Chunks that have references: what was allocated and not put yet. */
export function livePages(ram: Ram, pages: number): number {
  return ram.u32(pages + LIVE);
}

/** A chunk of `count` zeroed pages with one reference. */
export function allocPage(
  { memory, physical }: KernelContext,
  pages: number,
  count: number,
): number {
  const { ram } = memory;
  const page = physical.alloc(PAGE.size);
  const address = physical.allocPages(count);
  const bucket = bucketOf(pages, address >>> GRANULE_SHIFT);
  ram.setPointer(page + P.address, address);
  ram.setPointer(page + P.next, ram.pointer(bucket));
  ram.set32(page + P.bytes, count * PAGE_SIZE);
  ram.set32(page + P.refcount, 1);
  ram.setPointer(bucket, page);
  ram.set32(pages + LIVE, ram.u32(pages + LIVE) + 1);
  return page;
}

export function pageAddress(ram: Ram, page: number): number {
  return ram.pointer(page + P.address);
}

/** `virt_to_head_page`: the chunk that holds `address`. */
export function headPage(ram: Ram, pages: number, address: number): number {
  const granule = address >>> GRANULE_SHIFT;
  const page = find(ram, pages, granule, address) || find(ram, pages, granule - 1, address);
  if (page === 0) throw new RangeError(`no page chunk holds ${hex64(ram.physToVirt(address))}`);
  return page;
}

/** Drops a reference; the last one frees the chunk. */
export function putPage({ memory, physical }: KernelContext, pages: number, page: number): void {
  const { ram } = memory;
  const references = ram.u32(page + P.refcount) - 1;
  ram.set32(page + P.refcount, references);
  if (references > 0) return;
  const address = pageAddress(ram, page);
  let link = bucketOf(pages, address >>> GRANULE_SHIFT);
  while (ram.pointer(link) !== page) link = ram.pointer(link) + P.next;
  ram.setPointer(link, ram.pointer(page + P.next));
  physical.freePages(address);
  physical.free(page);
  ram.set32(pages + LIVE, ram.u32(pages + LIVE) - 1);
}

/**
 * `skb_page_frag_refill`: makes sure that `size` bytes can be cut from the queue's chunk. A chunk
 * nobody else uses any more starts over; one without room is given up for a new one.
 */
export function fragRefill(kernel: KernelContext, pages: number, rq: number, size: number): void {
  const { ram } = kernel.memory;
  const page = ram.pointer(rq + RQ.frag_page);
  if (page !== 0) {
    if (ram.u32(page + P.refcount) === 1) ram.set32(rq + RQ.frag_offset, 0);
    if (ram.u32(rq + RQ.frag_offset) + size <= PAGE_FRAG_SIZE) return;
    putPage(kernel, pages, page);
  }
  ram.setPointer(rq + RQ.frag_page, allocPage(kernel, pages, PAGE_FRAG_SIZE / PAGE_SIZE));
  ram.set32(rq + RQ.frag_offset, 0);
}

/** `virtnet_rq_alloc`: cuts `size` bytes from the queue's chunk and takes a reference for them. */
export function rqAlloc(ram: Ram, rq: number, size: number): number {
  const page = ram.pointer(rq + RQ.frag_page);
  const offset = ram.u32(rq + RQ.frag_offset);
  ram.set32(page + P.refcount, ram.u32(page + P.refcount) + 1);
  ram.set32(rq + RQ.frag_offset, offset + size);
  return pageAddress(ram, page) + offset;
}

function bucketOf(pages: number, granule: number): number {
  return pages + 8 * (granule % BUCKETS);
}

function find(ram: Ram, pages: number, granule: number, address: number): number {
  let page = ram.pointer(bucketOf(pages, granule));
  while (page !== 0) {
    const start = ram.pointer(page + P.address);
    if (start <= address && address < start + ram.u32(page + P.bytes)) return page;
    page = ram.pointer(page + P.next);
  }
  return 0;
}
