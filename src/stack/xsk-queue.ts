/**
 * The rings that an AF_XDP socket shares with its process, and the kernel's private view of each.
 *
 * Reference: net/xdp/xsk_queue.h, include/uapi/linux/if_xdp.h of 6.12. The shared part begins with the two
 * indexes on cache lines of their own; indexes run freely, a slot is index & (entries - 1). The kernel reads the
 * other side's index only when its cached one says full or empty. Fill and completion rings hold addresses in
 * the UMEM, rx and tx rings descriptors.
 *
 *   0 producer   128 consumer   196 flags   320 entries: u64, or { addr u64, len u32, options u32 }
 */
import { struct } from '../common/struct.js';
import type { Ram } from '../cpu/ram.js';
import type { KernelContext } from '../kernel/function.js';
import { PAGE_SIZE } from './pages.js';

/** `struct xdp_ring` with 64-byte cache lines. */
export const XDP_RING = { producer: 0, consumer: 128, flags: 196, entries: 320 } as const;
export const XDP_DESC = struct({ addr: 'u64', len: 'u32', options: 'u32' });
/** In the flags of a ring: the kernel has to be called to go on. */
export const XDP_RING_NEED_WAKEUP = 1;

/** `struct xsk_queue`. */
const XSK_QUEUE = struct({
  ring: 'u64',
  nentries: 'u32',
  cached_prod: 'u32',
  cached_cons: 'u32',
  entry_size: 'u32',
  invalid_descs: 'u64',
  queue_empty_descs: 'u64',
});

export const XQ = XSK_QUEUE.offset;

/** `xskq_create`. */
export function createQueue(
  { memory, physical }: KernelContext,
  entries: number,
  entrySize: number,
): number {
  const { ram } = memory;
  const queue = physical.alloc(XSK_QUEUE.size);
  const bytes = XDP_RING.entries + entries * entrySize;
  ram.setPointer(queue + XQ.ring, physical.allocPages(Math.ceil(bytes / PAGE_SIZE)));
  ram.set32(queue + XQ.nentries, entries);
  ram.set32(queue + XQ.entry_size, entrySize);
  return queue;
}

export function destroyQueue({ memory, physical }: KernelContext, queue: number): void {
  if (queue === 0) return;
  physical.freePages(memory.ram.pointer(queue + XQ.ring));
  physical.free(queue);
}

/** Where the entry with a free-running index lies. */
export function entryAt(ram: Ram, queue: number, index: number): number {
  const slot = index & (ram.u32(queue + XQ.nentries) - 1);
  return ram.pointer(queue + XQ.ring) + XDP_RING.entries + slot * ram.u32(queue + XQ.entry_size);
}

/** `xskq_prod_reserve`: where the next entry goes; 0 when the ring is full. */
export function reserve(ram: Ram, queue: number): number {
  const produced = ram.u32(queue + XQ.cached_prod);
  const entries = ram.u32(queue + XQ.nentries);
  if ((produced - ram.u32(queue + XQ.cached_cons)) >>> 0 === entries) {
    const consumed = ram.u32(ram.pointer(queue + XQ.ring) + XDP_RING.consumer);
    ram.set32(queue + XQ.cached_cons, consumed);
    if ((produced - consumed) >>> 0 === entries) return 0;
  }
  ram.set32(queue + XQ.cached_prod, produced + 1);
  return entryAt(ram, queue, produced);
}

/** `xskq_prod_submit`: the process sees what was reserved. */
export function submit(ram: Ram, queue: number): void {
  const ring = ram.pointer(queue + XQ.ring);
  ram.set32(ring + XDP_RING.producer, ram.u32(queue + XQ.cached_prod));
}

/** `xskq_cons_peek`: where the next entry lies; 0 when the ring is empty. `consume` takes it. */
export function peek(ram: Ram, queue: number): number {
  const consumed = ram.u32(queue + XQ.cached_cons);
  if (ram.u32(queue + XQ.cached_prod) === consumed) {
    release(ram, queue);
    const produced = ram.u32(ram.pointer(queue + XQ.ring) + XDP_RING.producer);
    ram.set32(queue + XQ.cached_prod, produced);
    if (produced === consumed) return 0;
  }
  return entryAt(ram, queue, consumed);
}

export function consume(ram: Ram, queue: number): void {
  ram.set32(queue + XQ.cached_cons, ram.u32(queue + XQ.cached_cons) + 1);
}

/** `__xskq_cons_release`: the process may use again what was taken. */
export function release(ram: Ram, queue: number): void {
  const ring = ram.pointer(queue + XQ.ring);
  ram.set32(ring + XDP_RING.consumer, ram.u32(queue + XQ.cached_cons));
}
