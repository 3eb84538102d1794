/**
 * A small `struct sk_buff`: a linear head, page fragments, checksum state.
 *
 * Reference: net/core/skbuff.c (build_skb, skb_put, __pskb_pull_tail, kfree_skb), include/linux/skbuff.h.
 * The sk_buff's offsets are ours; `struct skb_shared_info` behind the head has those of 6.12. `truesize`
 * counts 256 bytes for the sk_buff, as the kernel does. Leaves out cloning and destructors.
 *
 * Usage:
 *   const skb = buildSkb(kernel, head, 4096);
 *   skbReserve(ram, skb, 268);
 *   skbPut(kernel, skb, 54);
 */
import { KernelError } from '../common/errors.js';
import type { Ram } from '../cpu/ram.js';
import type { KernelContext } from '../kernel/function.js';
import { SKB_SHARED_INFO_SIZE } from '../bpf/xdp-buff.js';
import { MAX_SKB_FRAGS, skbDataAlign } from './skb-geometry.js';
import { PAGE_SIZE, headPage, pageAddress, putPage } from './pages.js';
import { struct } from '../common/struct.js';

export const CHECKSUM_NONE = 0;
export const CHECKSUM_UNNECESSARY = 1;
export const CHECKSUM_COMPLETE = 2;
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
  network_header: 'u16',
  /** UNNECESSARY: checksums verified behind the first. */
  csum_level: 'u8',
  /** Software verified it. */
  csum_valid: 'u8',
  /** Generic XDP has redirected it already, and does not run on it again. */
  redirected: 'u8',
  /** Sum so far, while the rest is still to be verified. */
  csum: 'u32',
  /** Of the flow, as the device reported it; whether it is over ports too. */
  hash: 'u32',
  l4_hash: 'u8',
  /** struct fib_info that the packet leaves by. */
  dst: 'u64',
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

/**
 * `skb_frag_t`: one fragment. In place of a `struct page` it points to the memory of the page, which is where
 * XDP helpers look for its bytes.
 */
const SKB_FRAG = struct({ page: 'u64', len: 'u32', offset: 'u32' });

const SKB = SK_BUFF.offset;
const SHINFO = SKB_SHARED_INFO.offset;
const FRAG = SKB_FRAG.offset;

/** `build_skb`: an skb around `size` bytes of page memory whose last 320 hold skb_shared_info. */
export function buildSkb({ memory, physical }: KernelContext, head: number, size: number): number {
  const { ram } = memory;
  const skb = physical.alloc(SK_BUFF.size);
  const end = size - SKB_SHARED_INFO_SIZE;
  ram.setPointer(skb + SKB.head, head);
  ram.setPointer(skb + SKB.data, head);
  ram.set32(skb + SKB.end, end);
  ram.set32(skb + SKB.truesize, size + SK_BUFF_TRUESIZE);
  ram.set8(skb + SKB.head_frag, 1);
  // frags stay: fragments of an xdp_buff lie in the same place
  const shinfo = head + end;
  ram.zero(shinfo, SHINFO.xdp_frags_size);
  ram.set32(shinfo + SHINFO.dataref, 1);
  return skb;
}

/** `napi_alloc_skb` for a short frame: a head of 1024 bytes, 64 of them headroom. */
export function allocSkb(kernel: KernelContext): number {
  return allocSkbHead(kernel, SMALL_HEAD_SIZE, NET_SKB_PAD);
}

/** `alloc_skb`: a head of `size` bytes, skb_shared_info included, with `headroom`. */
export function allocSkbHead(kernel: KernelContext, size: number, headroom: number): number {
  const { ram } = kernel.memory;
  const skb = buildSkb(kernel, kernel.physical.alloc(size), size);
  ram.set8(skb + SKB.head_frag, 0);
  skbReserve(ram, skb, headroom);
  return skb;
}

export function skbShinfo(ram: Ram, skb: number): number {
  return ram.pointer(skb + SKB.head) + ram.u32(skb + SKB.end);
}

export function skbHeadroom(ram: Ram, skb: number): number {
  return ram.pointer(skb + SKB.data) - ram.pointer(skb + SKB.head);
}

export function skbTailroom(ram: Ram, skb: number): number {
  return ram.u32(skb + SKB.end) - ram.u32(skb + SKB.tail);
}

/** Bytes in the linear part. */
export function skbHeadlen(ram: Ram, skb: number): number {
  return ram.u32(skb + SKB.len) - ram.u32(skb + SKB.data_len);
}

export function skbReserve(ram: Ram, skb: number, bytes: number): void {
  ram.setPointer(skb + SKB.data, ram.pointer(skb + SKB.data) + bytes);
  ram.set32(skb + SKB.tail, ram.u32(skb + SKB.tail) + bytes);
}

/**
 * `skb_put`: lengthens the linear part; returns where the new bytes go. Past the end of the head it
 * is the kernel's BUG skb_over_panic.
 */
export function skbPut(kernel: KernelContext, skb: number, bytes: number): number {
  const { ram } = kernel.memory;
  const tail = ram.u32(skb + SKB.tail);
  const end = ram.u32(skb + SKB.end);
  const len = ram.u32(skb + SKB.len) + bytes;
  if (tail + bytes > end) {
    const line =
      `skb_over_panic: len:${len} put:${bytes} tail:0x${(tail + bytes).toString(16)} ` +
      `end:0x${end.toString(16)}`;
    kernel.printk(`skbuff: ${line}`);
    throw new KernelError('EFAULT', `kernel BUG at net/core/skbuff.c: ${line}`);
  }
  ram.set32(skb + SKB.tail, tail + bytes);
  ram.set32(skb + SKB.len, len);
  return ram.pointer(skb + SKB.head) + tail;
}

/** `__skb_pull`: takes bytes off the front. */
export function skbPull(ram: Ram, skb: number, bytes: number): void {
  ram.set32(skb + SKB.len, ram.u32(skb + SKB.len) - bytes);
  ram.setPointer(skb + SKB.data, ram.pointer(skb + SKB.data) + bytes);
}

/** `__skb_push`: gives bytes back to the front; the caller knows that there is headroom. */
export function skbPush(ram: Ram, skb: number, bytes: number): number {
  ram.set32(skb + SKB.len, ram.u32(skb + SKB.len) + bytes);
  const data = ram.pointer(skb + SKB.data) - bytes;
  ram.setPointer(skb + SKB.data, data);
  return data;
}

/** Writes fragment `index` of a shared info: `len` bytes from `offset` in a chunk. */
export function fillFrag(
  ram: Ram,
  shinfo: number,
  index: number,
  page: number,
  offset: number,
  len: number,
): void {
  fillFragAt(ram, shinfo, index, pageAddress(ram, page) + offset, len);
}

/** The same by the address of the bytes: the page is the 4 KiB that they begin in. */
function fillFragAt(ram: Ram, shinfo: number, index: number, address: number, len: number): void {
  const at = fragOf(shinfo, index);
  const offset = address % PAGE_SIZE;
  ram.setPointer(at + FRAG.page, address - offset);
  ram.set32(at + FRAG.len, len);
  ram.set32(at + FRAG.offset, offset);
}

/** Where a fragment's entry in a shared info lies. */
function fragOf(shinfo: number, index: number): number {
  return shinfo + SHINFO.frags + index * SKB_FRAG.size;
}

export function fragLength(ram: Ram, shinfo: number, index: number): number {
  return ram.u32(fragOf(shinfo, index) + FRAG.len);
}

/** Where a fragment's bytes begin. */
export function fragAddress(ram: Ram, shinfo: number, index: number): number {
  const frag = fragOf(shinfo, index);
  return ram.pointer(frag + FRAG.page) + ram.u32(frag + FRAG.offset);
}

/** `skb_add_rx_frag` at the end. The caller has checked that there are fewer than MAX_SKB_FRAGS. */
export function skbAddFrag(
  ram: Ram,
  skb: number,
  page: number,
  offset: number,
  len: number,
  truesize: number,
): void {
  const shinfo = skbShinfo(ram, skb);
  const count = ram.u8(shinfo + SHINFO.nr_frags);
  fillFrag(ram, shinfo, count, page, offset, len);
  ram.set8(shinfo + SHINFO.nr_frags, count + 1);
  addLength(ram, skb, len, truesize);
}

/**
 * Appends page bytes to an skb that may have a frag list: coalesces with the last fragment where they
 * adjoin, and starts a further skb when `current` has no fragment left (`virtnet_skb_append_frag`).
 * Returns the skb that took them.
 */
export function skbAppendFrag(
  kernel: KernelContext,
  pages: number,
  head: number,
  current: number,
  page: number,
  offset: number,
  len: number,
  truesize: number,
): number {
  const { ram } = kernel.memory;
  let skb = current;
  const shinfo = skbShinfo(ram, skb);
  const count = ram.u8(shinfo + SHINFO.nr_frags);
  if (count === MAX_SKB_FRAGS) {
    skb = allocSkb(kernel);
    ram.setPointer(current === head ? shinfo + SHINFO.frag_list : current + SKB.next, skb);
    const own = ram.u32(skb + SKB.truesize);
    ram.set32(head + SKB.truesize, ram.u32(head + SKB.truesize) + own);
  } else if (count > 0) {
    const last = fragOf(shinfo, count - 1);
    const lastLen = ram.u32(last + FRAG.len);
    if (fragAddress(ram, shinfo, count - 1) + lastLen === pageAddress(ram, page) + offset) {
      putPage(kernel, pages, page);
      ram.set32(last + FRAG.len, lastLen + len);
      addLength(ram, skb, len, truesize);
      if (skb !== head) addLength(ram, head, len, truesize);
      return skb;
    }
  }
  skbAddFrag(ram, skb, page, offset, len, truesize);
  if (skb !== head) addLength(ram, head, len, truesize);
  return skb;
}

/** Accounts `bytes` that lie in fragments. */
export function addLength(ram: Ram, skb: number, bytes: number, truesize: number): void {
  ram.set32(skb + SKB.len, ram.u32(skb + SKB.len) + bytes);
  ram.set32(skb + SKB.data_len, ram.u32(skb + SKB.data_len) + bytes);
  ram.set32(skb + SKB.truesize, ram.u32(skb + SKB.truesize) + truesize);
}

/**
 * `pskb_may_pull`: makes the first `bytes` linear; false if linear part and fragments have not so many
 * (what lies in the frag list is never reached for: it starts behind 17 fragments).
 */
export function skbMayPull(
  kernel: KernelContext,
  pages: number,
  skb: number,
  bytes: number,
): boolean {
  const { ram } = kernel.memory;
  let missing = bytes - skbHeadlen(ram, skb);
  if (missing <= 0) return true;
  if (missing > fragBytes(ram, skbShinfo(ram, skb))) return false;
  if (skbTailroom(ram, skb) < missing) pskbExpandHead(kernel, pages, skb, 0, missing);
  const shinfo = skbShinfo(ram, skb);
  let tail = ram.pointer(skb + SKB.head) + ram.u32(skb + SKB.tail);
  ram.set32(skb + SKB.tail, ram.u32(skb + SKB.tail) + missing);
  ram.set32(skb + SKB.data_len, ram.u32(skb + SKB.data_len) - missing);
  let kept = 0;
  const count = ram.u8(shinfo + SHINFO.nr_frags);
  for (let i = 0; i < count; i++) {
    const address = fragAddress(ram, shinfo, i);
    const len = fragLength(ram, shinfo, i);
    const taken = Math.min(missing, len);
    ram.copy(tail, address, taken);
    tail += taken;
    missing -= taken;
    if (taken === len) putPage(kernel, pages, headPage(ram, pages, address));
    else fillFragAt(ram, shinfo, kept++, address + taken, len - taken);
  }
  ram.set8(shinfo + SHINFO.nr_frags, kept);
  return true;
}

/** `pskb_trim`: shortens the skb to `len` bytes. */
export function skbTrim(kernel: KernelContext, pages: number, skb: number, len: number): void {
  const { ram } = kernel.memory;
  if (len >= ram.u32(skb + SKB.len)) return;
  const linear = skbHeadlen(ram, skb);
  const shinfo = skbShinfo(ram, skb);
  const frags = ram.u8(shinfo + SHINFO.nr_frags);
  let left = Math.max(0, len - linear);
  let kept = 0;
  for (let i = 0; i < frags; i++) {
    const at = fragOf(shinfo, i);
    const size = Math.min(left, ram.u32(at + FRAG.len));
    if (size === 0) putPage(kernel, pages, ram.pointer(at + FRAG.page));
    else {
      ram.set32(at + FRAG.len, size);
      kept++;
    }
    left -= size;
  }
  ram.set8(shinfo + SHINFO.nr_frags, kept);
  left = trimFragList(kernel, pages, shinfo, left);
  ram.set32(skb + SKB.data_len, Math.max(0, len - linear) - left);
  ram.set32(skb + SKB.len, len);
  if (len < linear) ram.set32(skb + SKB.tail, ram.u32(skb + SKB.tail) - (linear - len));
}

/** Keeps `bytes` bytes of the frag list; what it could not keep. */
function trimFragList(kernel: KernelContext, pages: number, shinfo: number, bytes: number): number {
  const { ram } = kernel.memory;
  let left = bytes;
  let link = shinfo + SHINFO.frag_list;
  for (let part = ram.pointer(link); part !== 0; part = ram.pointer(link)) {
    if (left === 0) {
      ram.setPointer(link, ram.pointer(part + SKB.next));
      ram.setPointer(part + SKB.next, 0);
      freeSkb(kernel, pages, part);
      continue;
    }
    const size = Math.min(left, ram.u32(part + SKB.len));
    skbTrim(kernel, pages, part, size);
    left -= size;
    link = part + SKB.next;
  }
  return left;
}

/** `skb_copy_bits`: copies `len` bytes from `offset` on to `to`, wherever they lie. */
export function skbCopyBits(ram: Ram, skb: number, offset: number, to: number, len: number): void {
  let target = to;
  forEachPart(ram, skb, offset, len, (at, size) => {
    ram.copy(target, at, size);
    target += size;
  });
}

/** Shows where bytes [offset, offset + len) of the skb lie, piece by piece. */
export function forEachPart(
  ram: Ram,
  skb: number,
  offset: number,
  len: number,
  visit: (at: number, size: number) => void,
): void {
  let skip = offset;
  let left = len;
  const part = (at: number, size: number): void => {
    const from = Math.min(skip, size);
    const taken = Math.min(left, size - from);
    skip -= from;
    left -= taken;
    if (taken > 0) visit(at + from, taken);
  };
  part(ram.pointer(skb + SKB.data), skbHeadlen(ram, skb));
  const shinfo = skbShinfo(ram, skb);
  const frags = ram.u8(shinfo + SHINFO.nr_frags);
  for (let i = 0; i < frags; i++) part(fragAddress(ram, shinfo, i), fragLength(ram, shinfo, i));
  for (let more = ram.pointer(shinfo + SHINFO.frag_list); more !== 0 && left > 0;) {
    const size = ram.u32(more + SKB.len);
    const from = Math.min(skip, size);
    const taken = Math.min(left, size - from);
    forEachPart(ram, more, from, taken, visit);
    skip -= from;
    left -= taken;
    more = ram.pointer(more + SKB.next);
  }
}

/** A copy of all bytes of the skb: linear part, fragments, skbs of its frag list. */
export function skbBytes(ram: Ram, skb: number): Uint8Array {
  const bytes = new Uint8Array(ram.u32(skb + SKB.len));
  let at = 0;
  forEachPart(ram, skb, 0, bytes.length, (from, size) => {
    bytes.set(ram.bytes.subarray(from, from + size), at);
    at += size;
  });
  return bytes;
}

/** `kfree_skb`: gives fragments, head and sk_buff back. */
export function freeSkb(kernel: KernelContext, pages: number, skb: number): void {
  const { ram } = kernel.memory;
  const shinfo = skbShinfo(ram, skb);
  putFrags(kernel, pages, shinfo);
  for (let part = ram.pointer(shinfo + SHINFO.frag_list); part !== 0;) {
    const next = ram.pointer(part + SKB.next);
    freeSkb(kernel, pages, part);
    part = next;
  }
  freeHead(kernel, pages, skb);
  kernel.physical.free(skb);
}

/** Gives back all fragments of a shared info. */
export function putFrags(kernel: KernelContext, pages: number, shinfo: number): void {
  const { ram } = kernel.memory;
  const count = ram.u8(shinfo + SHINFO.nr_frags);
  for (let i = 0; i < count; i++) {
    putPage(kernel, pages, headPage(ram, pages, fragAddress(ram, shinfo, i)));
  }
}

function fragBytes(ram: Ram, shinfo: number): number {
  let total = 0;
  const count = ram.u8(shinfo + SHINFO.nr_frags);
  for (let i = 0; i < count; i++) total += fragLength(ram, shinfo, i);
  return total;
}

/**
 * `pskb_expand_head`: a new head with the same contents, `nhead` more bytes of headroom and at least
 * `ntail` of tailroom.
 */
export function pskbExpandHead(
  kernel: KernelContext,
  pages: number,
  skb: number,
  nhead: number,
  ntail: number,
): void {
  const { ram } = kernel.memory;
  const oldHead = ram.pointer(skb + SKB.head);
  const tail = ram.u32(skb + SKB.tail);
  const end = skbDataAlign(nhead + tail + ntail);
  const head = kernel.physical.alloc(end + SKB_SHARED_INFO_SIZE);
  ram.copy(head + nhead, oldHead, tail);
  ram.copy(head + end, skbShinfo(ram, skb), SKB_SHARED_INFO_SIZE);
  const data = head + nhead + (ram.pointer(skb + SKB.data) - oldHead);
  freeHead(kernel, pages, skb);
  ram.setPointer(skb + SKB.head, head);
  ram.setPointer(skb + SKB.data, data);
  ram.set32(skb + SKB.tail, nhead + tail);
  ram.set32(skb + SKB.end, end);
  ram.set8(skb + SKB.head_frag, 0);
  if (nhead === 0) return;
  if (ram.u8(skb + SKB.ip_summed) === CHECKSUM_PARTIAL) moveBy(ram, skb + SKB.csum_start, nhead);
  moveBy(ram, skb + SKB.mac_header, nhead);
  moveBy(ram, skb + SKB.network_header, nhead);
  moveBy(ram, skb + SKB.transport_header, nhead);
}

function moveBy(ram: Ram, at: number, by: number): void {
  ram.set16(at, ram.u16(at) + by);
}

/** Gives the head back, wherever it lies. */
export function freeHead(kernel: KernelContext, pages: number, skb: number): void {
  const { ram } = kernel.memory;
  const head = ram.pointer(skb + SKB.head);
  if (ram.u8(skb + SKB.head_frag) !== 0) putPage(kernel, pages, headPage(ram, pages, head));
  else kernel.physical.free(head);
}
