/**
 * Reference-counted page chunks, and receive buffers cut from them.
 *
 * Reference: mm/page_frag (skb_page_frag_refill), get_page/put_page, virt_to_head_page. Linux finds the
 * `struct page` of an address through the vmemmap; here a hash table in kernel memory, keyed by the
 * 32 KiB the chunk starts in, does that. All state is in kernel memory; a `PageTable` object is only its
 * address and the kernel. Leaves out DMA (virtnet_rq_dma) and memory pressure: allocation never fails
 * softly.
 *
 * Usage:
 *   const pages = PageTable.create(kernel);
 *   const page = pages.alloc(1);              // struct page with one reference
 *   pages.put(pages.headPage(address));
 */
import { hex64 } from '../common/bytes.js';
import type { KernelContext } from '../kernel/function.js';
import { PAGE_FRAG_SIZE, PAGE_SIZE } from './net-geometry.js';
import { RECEIVE_QUEUE } from './net-structs.js';
import { struct } from './struct.js';

/** A chunk of `bytes` from `address`; chained by `next` within its bucket. */
const PAGE = struct({ address: 'u64', next: 'u64', bytes: 'u32', refcount: 'u32' });

const BUCKETS = 256;
const GRANULE_SHIFT = 15n;
const P = PAGE.offset;
const RQ = RECEIVE_QUEUE.offset;

export class PageTable {
  readonly root: bigint;
  readonly #kernel: KernelContext;

  constructor(kernel: KernelContext, root: bigint) {
    this.#kernel = kernel;
    this.root = root;
  }

  static create(kernel: KernelContext): PageTable {
    return new PageTable(kernel, kernel.kmalloc(8 * BUCKETS + 8));
  }

  /** Chunks that have references: what was allocated and not put yet. */
  get live(): number {
    return this.#kernel.memory.read32(this.#liveAddress);
  }

  /** A chunk of `count` zeroed pages with one reference. */
  alloc(count: number): bigint {
    const { memory } = this.#kernel;
    const page = this.#kernel.kmalloc(PAGE.size);
    const address = this.#kernel.allocPages(count);
    const bucket = this.#bucket(address >> GRANULE_SHIFT);
    memory.write64(page + P.address, address);
    memory.write64(page + P.next, memory.read64(bucket));
    memory.write32(page + P.bytes, count * PAGE_SIZE);
    memory.write32(page + P.refcount, 1);
    memory.write64(bucket, page);
    memory.write32(this.#liveAddress, this.live + 1);
    return page;
  }

  address(page: bigint): bigint {
    return this.#kernel.memory.read64(page + P.address);
  }

  /** `virt_to_head_page`: the chunk that holds `address`. */
  headPage(address: bigint): bigint {
    const granule = address >> GRANULE_SHIFT;
    const page = this.#find(granule, address) || this.#find(granule - 1n, address);
    if (page === 0n) throw new RangeError(`no page chunk holds ${hex64(address)}`);
    return page;
  }

  get(page: bigint): void {
    const { memory } = this.#kernel;
    memory.write32(page + P.refcount, memory.read32(page + P.refcount) + 1);
  }

  /** Drops a reference; the last one frees the chunk. */
  put(page: bigint): void {
    const { memory } = this.#kernel;
    const references = memory.read32(page + P.refcount) - 1;
    memory.write32(page + P.refcount, references);
    if (references > 0) return;
    const address = this.address(page);
    let link = this.#bucket(address >> GRANULE_SHIFT);
    while (memory.read64(link) !== page) link = memory.read64(link) + P.next;
    memory.write64(link, memory.read64(page + P.next));
    this.#kernel.freePages(address);
    this.#kernel.kfree(page);
    memory.write32(this.#liveAddress, this.live - 1);
  }

  /**
   * `skb_page_frag_refill`: makes sure that `size` bytes can be cut from the queue's chunk. A chunk
   * nobody else uses any more starts over; one without room is given up for a new one.
   */
  fragRefill(rq: bigint, size: number): void {
    const { memory } = this.#kernel;
    const page = memory.read64(rq + RQ.frag_page);
    if (page !== 0n) {
      if (memory.read32(page + P.refcount) === 1) memory.write32(rq + RQ.frag_offset, 0);
      if (memory.read32(rq + RQ.frag_offset) + size <= PAGE_FRAG_SIZE) return;
      this.put(page);
    }
    memory.write64(rq + RQ.frag_page, this.alloc(PAGE_FRAG_SIZE / PAGE_SIZE));
    memory.write32(rq + RQ.frag_offset, 0);
  }

  /** `virtnet_rq_alloc`: cuts `size` bytes from the queue's chunk and takes a reference for them. */
  rqAlloc(rq: bigint, size: number): bigint {
    const { memory } = this.#kernel;
    const page = memory.read64(rq + RQ.frag_page);
    const offset = memory.read32(rq + RQ.frag_offset);
    this.get(page);
    memory.write32(rq + RQ.frag_offset, offset + size);
    return this.address(page) + BigInt(offset);
  }

  get #liveAddress(): bigint {
    return this.root + BigInt(8 * BUCKETS);
  }

  #bucket(granule: bigint): bigint {
    return this.root + BigInt(8 * (Number(granule & 0xffffffn) % BUCKETS));
  }

  #find(granule: bigint, address: bigint): bigint {
    const { memory } = this.#kernel;
    let page = memory.read64(this.#bucket(granule));
    while (page !== 0n) {
      const start = memory.read64(page + P.address);
      if (start <= address && address < start + BigInt(memory.read32(page + P.bytes))) return page;
      page = memory.read64(page + P.next);
    }
    return 0n;
  }
}
