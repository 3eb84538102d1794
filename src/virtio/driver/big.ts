/**
 * Receive in big mode: a chain of whole pages per frame, without MRG_RXBUF.
 *
 * Reference: drivers/net/virtio_net.c of 6.12 (add_recvbuf_big, receive_big, get_a_page, give_pages, and the part
 * of page_to_skb that is for it). A buffer is its first page: `page.private` links the others, and the queue's
 * cookie is the page object, no address. The header has a piece of its own and 32 bytes are kept for it;
 * so 12 + 4064 + 17·4096 = 73708 bytes are posted with segmentation, in 19 pieces. XDP programs attach
 * and are never run. Pages that an skb did not keep are used again.
 */
import type { Ram } from '../../cpu/ram.js';
import { Callee, atomic, type KernelContext, type KernelFunction } from '../../kernel/function.js';
import {
  PAGE_SIZE,
  allocPage,
  pageAddress,
  pagePrivate,
  putPage,
  setPagePrivate,
} from '../../stack/pages.js';
import { MAX_SKB_FRAGS } from '../../stack/skb-geometry.js';
import { SCATTERLIST } from '../ring/vring-virtqueue.js';
import { hasBug } from './bugs.js';
import { pagesOf } from './common.js';
import { PADDED_VNET_HDR, bigBufferSize } from './geometry.js';
import { NET_DEVICE } from '../../stack/net-device.js';
import { RECEIVE_QUEUE, VIRTNET_RQ_STATS, VIRTNET_INFO } from './structs.js';

const DEV = NET_DEVICE.offset;
const RQ = RECEIVE_QUEUE.offset;
const RQ_STATS = VIRTNET_RQ_STATS.offset;
const VI = VIRTNET_INFO.offset;

const PAGE_TO_SKB = new Callee('page_to_skb');

const SG = SCATTERLIST.offset;

/** `get_a_page`: one that was given back, or a new one. */
function getAPage(kernel: KernelContext, vi: number, rq: number): number {
  const { ram } = kernel.memory;
  const kept = ram.pointer(rq + RQ.pages);
  if (kept === 0) return allocPage(kernel, pagesOf(ram, vi), 1);
  ram.setPointer(rq + RQ.pages, pagePrivate(ram, kept));
  setPagePrivate(ram, kept, 0);
  return kept;
}

/** `give_pages`: a chain goes back to the queue. */
export function givePages(ram: Ram, rq: number, page: number): void {
  let last = page;
  while (pagePrivate(ram, last) !== 0) last = pagePrivate(ram, last);
  setPagePrivate(ram, last, ram.pointer(rq + RQ.pages));
  ram.setPointer(rq + RQ.pages, page);
}

/** Frees a chain of pages. */
export function freePageChain(kernel: KernelContext, pages: number, first: number): void {
  const { ram } = kernel.memory;
  for (let page = first; page !== 0;) {
    const next = pagePrivate(ram, page);
    putPage(kernel, pages, page);
    page = next;
  }
}

function setPiece(ram: Ram, rq: number, index: number, at: number, length: number): void {
  const piece = rq + RQ.sg + index * SCATTERLIST.size;
  ram.setPointer(piece + SG.address, at);
  ram.set32(piece + SG.length, length);
}

function addRecvbufBig(kernel: KernelContext, vi: number, rq: number, gfp: number): number {
  const { ram } = kernel.memory;
  const behind = ram.u16(vi + VI.big_packets_num_skbfrags);
  let list = 0;
  for (let i = behind + 1; i > 1; i--) {
    const page = getAPage(kernel, vi, rq);
    setPiece(ram, rq, i, pageAddress(ram, page), PAGE_SIZE);
    setPagePrivate(ram, page, list);
    list = page;
  }
  const first = getAPage(kernel, vi, rq);
  const at = pageAddress(ram, first);
  setPiece(ram, rq, 0, at, ram.u8(vi + VI.hdr_len));
  setPiece(ram, rq, 1, at + PADDED_VNET_HDR, PAGE_SIZE - PADDED_VNET_HDR);
  setPagePrivate(ram, first, list);
  const vq = ram.pointer(rq + RQ.vq);
  const added = kernel.invoke('virtqueue_add_inbuf', vq, rq + RQ.sg, behind + 2, first, gfp);
  if (added < 0) givePages(ram, rq, first);
  return added;
}

function receiveBig(
  kernel: KernelContext,
  dev: number,
  vi: number,
  rq: number,
  page: number,
  len: number,
  stats: number,
): number {
  const { ram } = kernel.memory;
  const headerSize = ram.u8(vi + VI.hdr_len);
  const posted = bigBufferSize(headerSize, ram.u16(vi + VI.big_packets_num_skbfrags));
  // what an skb can hold was asked at all times, what was posted for a smaller MTU not
  const most = hasBug(ram, vi, 'lengths trusted') ? MAX_SKB_FRAGS * PAGE_SIZE : posted;
  if (len > most) {
    ram.add64(dev + DEV.rx_length_errors, 1);
    ram.add64(stats + RQ_STATS.drops, 1);
    givePages(ram, rq, page);
    return 0;
  }
  ram.add64(stats + RQ_STATS.bytes, len - headerSize);
  return kernel.invoke(PAGE_TO_SKB, vi, rq, page, 0, len, PAGE_SIZE, 0);
}

export const bigFunctions: readonly KernelFunction[] = [
  atomic({
    prototype: 'int add_recvbuf_big(struct virtnet_info *vi, struct receive_queue *rq, gfp_t gfp)',
    calls: true,
    body: addRecvbufBig,
  }),
  atomic({
    prototype:
      'struct sk_buff *receive_big(struct net_device *dev, struct virtnet_info *vi, ' +
      'struct receive_queue *rq, void *buf, unsigned int len, struct virtnet_rq_stats *stats)',
    calls: true,
    body: receiveBig,
  }),
];
