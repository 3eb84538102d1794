/**
 * Reference-counted page chunks.
 *
 * Reference: get_page/put_page, virt_to_head_page. Linux finds the `struct page` of an address through the
 * vmemmap; here a hash table in kernel memory, keyed by the 32 KiB the chunk starts in, does that; `pages`
 * is its address. Leaves out memory pressure: allocation never fails softly.
 *
 * Usage:
 *   const pages = createPageTable(kernel);
 *   const page = allocPage(kernel, pages, 1);              // struct page with one reference
 *   putPage(kernel, pages, headPage(ram, pages, address));
 */
import { hex64 } from '../common/bytes.js';
import { struct } from '../common/struct.js';
import type { Ram } from '../cpu/ram.js';
import type { KernelContext } from '../kernel/function.js';

export const PAGE_SIZE = 4096;

/** A chunk of `bytes` from `address`; chained by `next` within its bucket. */
const PAGE = struct({
  address: 'u64',
  next: 'u64',
  bytes: 'u32',
  refcount: 'u32',
  /** The owner's: drivers link pages by it. */
  private: 'u64',
});

const BUCKETS = 256;
const LIVE = 8 * BUCKETS;
const GRANULE_SHIFT = 15;
const P = PAGE.offset;

export function createPageTable({ physical }: KernelContext): number {
  return physical.alloc(LIVE + 8);
}

/** Chunks that have references: what was allocated and not put yet. */
export function livePages(ram: Ram, pages: number): number {
  return ram.u32(pages + LIVE);
}

/** A chunk of `count` pages with one reference, as alloc_pages gives them: not zeroed. */
export function allocPage(
  { memory, physical }: KernelContext,
  pages: number,
  count: number,
): number {
  const { ram } = memory;
  const page = physical.alloc(PAGE.size);
  const address = physical.allocDirtyPages(count);
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

/** `page_private`, a pointer. */
export function pagePrivate(ram: Ram, page: number): number {
  return ram.pointer(page + P.private);
}

/** `set_page_private`. */
export function setPagePrivate(ram: Ram, page: number, value: number): void {
  ram.setPointer(page + P.private, value);
}

/** `get_page`. */
export function getPage(ram: Ram, page: number): void {
  ram.set32(page + P.refcount, ram.u32(page + P.refcount) + 1);
}

/** `page_count`. */
export function pageCount(ram: Ram, page: number): number {
  return ram.u32(page + P.refcount);
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
  physical.freeDirtyPages(address);
  physical.free(page);
  ram.set32(pages + LIVE, ram.u32(pages + LIVE) - 1);
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
