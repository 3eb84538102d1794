/**
 * A small `struct sk_buff`: a linear head, page fragments, checksum state.
 *
 * Reference: net/core/skbuff.c (build_skb, skb_put, __pskb_pull_tail, kfree_skb), include/linux/skbuff.h.
 * The sk_buff's offsets are ours; `struct skb_shared_info` behind the head has those of 6.12. `truesize`
 * counts 256 bytes for the sk_buff, as the kernel does. Leaves out cloning and destructors.
 *
 * Usage:
 *   const skb = buildSkb(kernel, pages, head, 4096);
 *   skbReserve(memory, skb, 268);
 *   skbPut(kernel, skb, 54);
 */
import { KernelError } from '../common/errors.js';
import type { Memory } from '../cpu/memory.js';
import type { KernelContext } from '../kernel/function.js';
import { SKB_SHARED_INFO_SIZE } from '../bpf/xdp-buff.js';
import { MAX_SKB_FRAGS, skbDataAlign } from './net-geometry.js';
import type { PageTable } from './page-frag.js';
import { struct } from './struct.js';

export const CHECKSUM_UNNECESSARY = 1;
export const CHECKSUM_PARTIAL = 3;

/** SKB_DATA_ALIGN(sizeof(struct sk_buff)): what truesize counts for it. */
const SK_BUFF_TRUESIZE = 256;
const NET_SKB_PAD = 64;
/** Head that napi_alloc_skb takes for short frames. */
const SMALL_HEAD_SIZE = 1024;

export const SK_BUFF = struct({
  next: 'u64',
  dev: 'u64',
  head: 'u64',
  data: 'u64',
  /** Offsets from head. */
  tail: 'u32',
  end: 'u32',
  /** All bytes; those in fragments. */
  len: 'u32',
  data_len: 'u32',
  truesize: 'u32',
  ip_summed: 'u8',
  pkt_type: 'u8',
  /** The head is page memory: freed by put_page. */
  head_frag: 'u8',
  /** Offsets from head. */
  csum_start: 'u16',
  csum_offset: 'u16',
  transport_header: 'u16',
  mac_header: 'u16',
  /** Ethertype in host order. */
  protocol: 'u16',
  /** Receive queue + 1. */
  queue_mapping: 'u16',
  cb: 48,
});

/** `struct skb_shared_info`, 6.12. */
export const SKB_SHARED_INFO = struct({
  flags: 'u8',
  meta_len: 'u8',
  nr_frags: 'u8',
  tx_flags: 'u8',
  gso_size: 'u16',
  gso_segs: 'u16',
  frag_list: 'u64',
  hwtstamps: 'u64',
  gso_type: 'u32',
  tskey: 'u32',
  dataref: 'u32',
  xdp_frags_size: 'u32',
  destructor_arg: 'u64',
  frags: 16 * MAX_SKB_FRAGS,
});

/** `skb_frag_t`: one fragment. */
const SKB_FRAG = struct({ page: 'u64', len: 'u32', offset: 'u32' });

const SKB = SK_BUFF.offset;
const SHINFO = SKB_SHARED_INFO.offset;

/** `build_skb`: an skb around `size` bytes of page memory whose last 320 hold skb_shared_info. */
export function buildSkb(kernel: KernelContext, head: bigint, size: number): bigint {
  const { memory } = kernel;
  const skb = kernel.kmalloc(SK_BUFF.size);
  const end = size - SKB_SHARED_INFO_SIZE;
  memory.write64(skb + SKB.head, head);
  memory.write64(skb + SKB.data, head);
  memory.write32(skb + SKB.end, end);
  memory.write32(skb + SKB.truesize, size + SK_BUFF_TRUESIZE);
  memory.write8(skb + SKB.head_frag, 1);
  // frags stay: fragments of an xdp_buff lie in the same place
  const shinfo = head + BigInt(end);
  memory.writeBytes(shinfo, new Uint8Array(Number(SHINFO.xdp_frags_size)));
  memory.write32(shinfo + SHINFO.dataref, 1);
  return skb;
}

/** `napi_alloc_skb` for a short frame: a head of 1024 bytes, 64 of them headroom. */
export function allocSkb(kernel: KernelContext): bigint {
  const head = kernel.kmalloc(SMALL_HEAD_SIZE);
  const skb = buildSkb(kernel, head, SMALL_HEAD_SIZE);
  kernel.memory.write8(skb + SKB.head_frag, 0);
  skbReserve(kernel.memory, skb, NET_SKB_PAD);
  return skb;
}

export function skbShinfo(memory: Memory, skb: bigint): bigint {
  return memory.read64(skb + SKB.head) + BigInt(memory.read32(skb + SKB.end));
}

export function skbHeadroom(memory: Memory, skb: bigint): number {
  return Number(memory.read64(skb + SKB.data) - memory.read64(skb + SKB.head));
}

export function skbTailroom(memory: Memory, skb: bigint): number {
  return memory.read32(skb + SKB.end) - memory.read32(skb + SKB.tail);
}

/** Bytes in the linear part. */
export function skbHeadlen(memory: Memory, skb: bigint): number {
  return memory.read32(skb + SKB.len) - memory.read32(skb + SKB.data_len);
}

export function skbReserve(memory: Memory, skb: bigint, bytes: number): void {
  memory.write64(skb + SKB.data, memory.read64(skb + SKB.data) + BigInt(bytes));
  memory.write32(skb + SKB.tail, memory.read32(skb + SKB.tail) + bytes);
}

/**
 * `skb_put`: lengthens the linear part; returns where the new bytes go. Past the end of the head it
 * is the kernel's BUG skb_over_panic.
 */
export function skbPut(kernel: KernelContext, skb: bigint, bytes: number): bigint {
  const { memory } = kernel;
  const tail = memory.read32(skb + SKB.tail);
  const end = memory.read32(skb + SKB.end);
  const len = memory.read32(skb + SKB.len) + bytes;
  if (tail + bytes > end) {
    const line =
      `skb_over_panic: len:${len} put:${bytes} tail:0x${(tail + bytes).toString(16)} ` +
      `end:0x${end.toString(16)}`;
    kernel.printk(`skbuff: ${line}`);
    throw new KernelError('EFAULT', `kernel BUG at net/core/skbuff.c: ${line}`);
  }
  memory.write32(skb + SKB.tail, tail + bytes);
  memory.write32(skb + SKB.len, len);
  return memory.read64(skb + SKB.head) + BigInt(tail);
}

/** `__skb_pull`: takes bytes off the front. */
export function skbPull(memory: Memory, skb: bigint, bytes: number): void {
  memory.write32(skb + SKB.len, memory.read32(skb + SKB.len) - bytes);
  memory.write64(skb + SKB.data, memory.read64(skb + SKB.data) + BigInt(bytes));
}

/** Writes fragment `index` of a shared info. */
export function fillFrag(
  memory: Memory,
  shinfo: bigint,
  index: number,
  frag: { readonly page: bigint; readonly offset: number; readonly len: number },
): void {
  const at = fragAddress(shinfo, index);
  memory.write64(at + SKB_FRAG.offset.page, frag.page);
  memory.write32(at + SKB_FRAG.offset.len, frag.len);
  memory.write32(at + SKB_FRAG.offset.offset, frag.offset);
}

function fragAddress(shinfo: bigint, index: number): bigint {
  return shinfo + SHINFO.frags + BigInt(index * SKB_FRAG.size);
}

/** `skb_add_rx_frag` at the end. The caller has checked that there are fewer than MAX_SKB_FRAGS. */
export function skbAddFrag(
  memory: Memory,
  skb: bigint,
  frag: { readonly page: bigint; readonly offset: number; readonly len: number },
  truesize: number,
): void {
  const shinfo = skbShinfo(memory, skb);
  const count = memory.read8(shinfo + SHINFO.nr_frags);
  fillFrag(memory, shinfo, count, frag);
  memory.write8(shinfo + SHINFO.nr_frags, count + 1);
  addLength(memory, skb, frag.len, truesize);
}

/**
 * Appends page bytes to an skb that may have a frag list: coalesces with the last fragment where they
 * adjoin, and starts a further skb when `current` has no fragment left (`virtnet_skb_append_frag`).
 * Returns the skb that took them.
 */
export function skbAppendFrag(
  kernel: KernelContext,
  pages: PageTable,
  head: bigint,
  current: bigint,
  frag: { readonly page: bigint; readonly offset: number; readonly len: number },
  truesize: number,
): bigint {
  const { memory } = kernel;
  let skb = current;
  const shinfo = skbShinfo(memory, skb);
  const count = memory.read8(shinfo + SHINFO.nr_frags);
  if (count === MAX_SKB_FRAGS) {
    skb = allocSkb(kernel);
    const link = current === head ? shinfo + SHINFO.frag_list : current + SKB.next;
    memory.write64(link, skb);
    const own = memory.read32(skb + SKB.truesize);
    memory.write32(head + SKB.truesize, memory.read32(head + SKB.truesize) + own);
  } else if (count > 0) {
    const last = readFrag(memory, shinfo, count - 1);
    if (last.page === frag.page && last.offset + last.len === frag.offset) {
      pages.put(frag.page);
      fillFrag(memory, shinfo, count - 1, { ...last, len: last.len + frag.len });
      addLength(memory, skb, frag.len, truesize);
      if (skb !== head) addLength(memory, head, frag.len, truesize);
      return skb;
    }
  }
  skbAddFrag(memory, skb, frag, truesize);
  if (skb !== head) addLength(memory, head, frag.len, truesize);
  return skb;
}

/** Accounts `bytes` that lie in fragments. */
export function addLength(memory: Memory, skb: bigint, bytes: number, truesize: number): void {
  memory.write32(skb + SKB.len, memory.read32(skb + SKB.len) + bytes);
  memory.write32(skb + SKB.data_len, memory.read32(skb + SKB.data_len) + bytes);
  memory.write32(skb + SKB.truesize, memory.read32(skb + SKB.truesize) + truesize);
}

/**
 * `pskb_may_pull`: makes the first `bytes` linear; false if linear part and fragments have not so many
 * (what lies in the frag list is never reached for: it starts behind 17 fragments).
 */
export function skbMayPull(
  kernel: KernelContext,
  pages: PageTable,
  skb: bigint,
  bytes: number,
): boolean {
  const { memory } = kernel;
  let missing = bytes - skbHeadlen(memory, skb);
  if (missing <= 0) return true;
  if (missing > fragBytes(memory, skbShinfo(memory, skb))) return false;
  if (skbTailroom(memory, skb) < missing) growHead(kernel, pages, skb, missing);
  const shinfo = skbShinfo(memory, skb);
  let tail = memory.read64(skb + SKB.head) + BigInt(memory.read32(skb + SKB.tail));
  memory.write32(skb + SKB.tail, memory.read32(skb + SKB.tail) + missing);
  memory.write32(skb + SKB.data_len, memory.read32(skb + SKB.data_len) - missing);
  let kept = 0;
  const count = memory.read8(shinfo + SHINFO.nr_frags);
  for (let i = 0; i < count; i++) {
    const frag = readFrag(memory, shinfo, i);
    const taken = Math.min(missing, frag.len);
    memory.writeBytes(
      tail,
      memory.readBytes(pages.address(frag.page) + BigInt(frag.offset), taken),
    );
    tail += BigInt(taken);
    missing -= taken;
    if (taken === frag.len) {
      pages.put(frag.page);
      continue;
    }
    fillFrag(memory, shinfo, kept++, {
      page: frag.page,
      offset: frag.offset + taken,
      len: frag.len - taken,
    });
  }
  memory.write8(shinfo + SHINFO.nr_frags, kept);
  return true;
}

/** All bytes of the skb: linear part, fragments, skbs of its frag list. */
export function skbBytes(memory: Memory, pages: PageTable, skb: bigint): Uint8Array {
  const bytes = new Uint8Array(memory.read32(skb + SKB.len));
  const shinfo = skbShinfo(memory, skb);
  let listed = 0;
  for (let part = memory.read64(shinfo + SHINFO.frag_list); part !== 0n;) {
    listed += memory.read32(part + SKB.len);
    part = memory.read64(part + SKB.next);
  }
  const inFrags = memory.read32(skb + SKB.data_len) - listed;
  let at = bytes.length - inFrags - listed;
  bytes.set(memory.readBytes(memory.read64(skb + SKB.data), at));
  for (let i = 0; i < memory.read8(shinfo + SHINFO.nr_frags); i++) {
    const frag = readFrag(memory, shinfo, i);
    const address = pages.address(frag.page) + BigInt(frag.offset);
    bytes.set(memory.readBytes(address, frag.len), at);
    at += frag.len;
  }
  for (let part = memory.read64(shinfo + SHINFO.frag_list); part !== 0n;) {
    const partBytes = skbBytes(memory, pages, part);
    bytes.set(partBytes, at);
    at += partBytes.length;
    part = memory.read64(part + SKB.next);
  }
  return bytes;
}

/** `kfree_skb`: gives fragments, head and sk_buff back. */
export function freeSkb(kernel: KernelContext, pages: PageTable, skb: bigint): void {
  const { memory } = kernel;
  const shinfo = skbShinfo(memory, skb);
  putFrags(memory, pages, shinfo);
  for (let part = memory.read64(shinfo + SHINFO.frag_list); part !== 0n;) {
    const next = memory.read64(part + SKB.next);
    freeSkb(kernel, pages, part);
    part = next;
  }
  freeHead(kernel, pages, skb);
  kernel.kfree(skb);
}

/** Gives back all fragments of a shared info. */
export function putFrags(memory: Memory, pages: PageTable, shinfo: bigint): void {
  const count = memory.read8(shinfo + SHINFO.nr_frags);
  for (let i = 0; i < count; i++) pages.put(readFrag(memory, shinfo, i).page);
}

export function readFrag(
  memory: Memory,
  shinfo: bigint,
  index: number,
): { readonly page: bigint; readonly offset: number; readonly len: number } {
  const at = fragAddress(shinfo, index);
  return {
    page: memory.read64(at + SKB_FRAG.offset.page),
    len: memory.read32(at + SKB_FRAG.offset.len),
    offset: memory.read32(at + SKB_FRAG.offset.offset),
  };
}

function fragBytes(memory: Memory, shinfo: bigint): number {
  let total = 0;
  const count = memory.read8(shinfo + SHINFO.nr_frags);
  for (let i = 0; i < count; i++) total += readFrag(memory, shinfo, i).len;
  return total;
}

/** `pskb_expand_head`: a larger head with the same contents and `more` bytes of tailroom. */
function growHead(kernel: KernelContext, pages: PageTable, skb: bigint, more: number): void {
  const { memory } = kernel;
  const oldHead = memory.read64(skb + SKB.head);
  const tail = memory.read32(skb + SKB.tail);
  const end = skbDataAlign(tail + more);
  const head = kernel.kmalloc(end + SKB_SHARED_INFO_SIZE);
  memory.writeBytes(head, memory.readBytes(oldHead, tail));
  const shinfo = memory.readBytes(skbShinfo(memory, skb), SKB_SHARED_INFO_SIZE);
  memory.writeBytes(head + BigInt(end), shinfo);
  const data = head + (memory.read64(skb + SKB.data) - oldHead);
  freeHead(kernel, pages, skb);
  memory.write64(skb + SKB.head, head);
  memory.write64(skb + SKB.data, data);
  memory.write32(skb + SKB.end, end);
  memory.write8(skb + SKB.head_frag, 0);
}

function freeHead(kernel: KernelContext, pages: PageTable, skb: bigint): void {
  const head = kernel.memory.read64(skb + SKB.head);
  if (kernel.memory.read8(skb + SKB.head_frag) !== 0) pages.put(pages.headPage(head));
  else kernel.kfree(head);
}
