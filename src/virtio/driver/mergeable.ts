/**
 * Receive in mergeable mode: a frame in one or more buffers, of which the first has the header.
 *
 * Reference: drivers/net/virtio_net.c of 6.12 (receive_mergeable, page_to_skb, xdp_linearize_page).
 * With a program see `mergeable-xdp.ts`; page_to_skb is big mode's too.
 */
import { Callee, atomic, type KernelContext, type KernelFunction } from '../../kernel/function.js';
import { KernelError } from '../../common/errors.js';
import { SKB_SHARED_INFO_SIZE, XDP_PACKET_HEADROOM } from '../../bpf/xdp-buff.js';
import { ETH_HLEN, skbDataAlign } from '../../stack/skb-geometry.js';
import { givePages } from './big.js';
import {
  GOOD_COPY_LEN,
  PADDED_VNET_HDR,
  VIRTNET_RX_PAD,
  contextHeadroom,
  contextTruesize,
  ewmaAdd,
} from './geometry.js';
import { NET_HEADER_OFFSET } from '../net-header.js';
import { hasBug } from './bugs.js';
import { receiveMergeableXdp } from './mergeable-xdp.js';
import { mergeableBufFree, pagesOf, rqGetBuf } from './common.js';
import { contextRoom, profileOf } from './profiles.js';
import {
  PAGE_SIZE,
  allocPage,
  headPage,
  pageAddress,
  pagePrivate,
  putPage,
  setPagePrivate,
} from '../../stack/pages.js';
import {
  SK_BUFF,
  allocSkbHead,
  buildSkb,
  freeSkb,
  skbAddFrag,
  skbAppendFrag,
  skbPut,
  skbReserve,
  skbTailroom,
} from '../../stack/skb.js';
import { NET_DEVICE } from '../../stack/net-device.js';
import { RECEIVE_QUEUE, VIRTNET_RQ_STATS, VIRTNET_INFO } from './structs.js';

const DEV = NET_DEVICE.offset;
const RQ = RECEIVE_QUEUE.offset;
const RQ_STATS = VIRTNET_RQ_STATS.offset;
const VI = VIRTNET_INFO.offset;

const PAGE_TO_SKB = new Callee('page_to_skb');

function receiveMergeable(
  kernel: KernelContext,
  dev: number,
  vi: number,
  rq: number,
  buf: number,
  ctx: number,
  len: number,
  xdpXmit: number,
  stats: number,
): number {
  const { ram } = kernel.memory;
  const pages = pagesOf(ram, vi);
  const truesize = contextTruesize(ctx);
  const headroom = contextHeadroom(ctx);
  const page = headPage(ram, pages, buf);
  let buffers = ram.u16(buf + NET_HEADER_OFFSET.num_buffers);
  ram.add64(stats + RQ_STATS.bytes, len - ram.u8(vi + VI.hdr_len));

  if (len > truesize - contextRoom(ram, vi, headroom)) {
    ram.add64(dev + DEV.rx_length_errors, 1);
    return drop(kernel, vi, rq, page, buffers, 0, stats);
  }
  if (ram.u8(vi + VI.xdp_enabled) !== 0) {
    const prog = ram.pointer(rq + RQ.xdp_prog);
    if (prog !== 0) {
      return receiveMergeableXdp(kernel, dev, vi, rq, prog, page, buf, ctx, len, xdpXmit, stats);
    }
  }

  const offset = buf - pageAddress(ram, page);
  const head = kernel.invoke(PAGE_TO_SKB, vi, rq, page, offset, len, truesize, headroom);
  let current = head;
  // a device that says 0 buffers has the ring taken until it is empty, as in Linux
  while (--buffers !== 0) {
    const more = rqGetBuf(kernel, rq);
    if (more === 0) {
      ram.add64(dev + DEV.rx_length_errors, 1);
      return drop(kernel, vi, rq, 0, 0, head, stats);
    }
    const moreLen = ram.u32(rq + RQ.scratch_len);
    const moreCtx = ram.u32(rq + RQ.scratch_ctx);
    const moreTruesize = contextTruesize(moreCtx);
    const morePage = headPage(ram, pages, more);
    ram.add64(stats + RQ_STATS.bytes, moreLen);
    if (moreLen > moreTruesize - contextRoom(ram, vi, contextHeadroom(moreCtx))) {
      ram.add64(dev + DEV.rx_length_errors, 1);
      return drop(kernel, vi, rq, morePage, buffers, head, stats);
    }
    const at = more - pageAddress(ram, morePage);
    current = skbAppendFrag(kernel, pages, head, current, morePage, at, moreLen, moreTruesize);
  }
  const average = rq + RQ.mrg_avg_pkt_len;
  ram.set32(average, ewmaAdd(ram.u32(average), ram.u32(head + SK_BUFF.offset.len)));
  return head;
}

/** Gives up a frame: the page of its last buffer (0: none), those not taken yet, the skb so far. */
function drop(
  kernel: KernelContext,
  vi: number,
  rq: number,
  page: number,
  buffers: number,
  head: number,
  stats: number,
): number {
  const { ram } = kernel.memory;
  const pages = pagesOf(ram, vi);
  if (page !== 0) {
    putPage(kernel, pages, page);
    mergeableBufFree(kernel, vi, rq, buffers, stats);
  }
  ram.add64(stats + RQ_STATS.drops, 1);
  if (head !== 0) freeSkb(kernel, pages, head);
  return 0;
}

/** `page_to_skb`: short frames are copied, others keep their buffer as head or as fragment. */
function pageToSkb(
  kernel: KernelContext,
  vi: number,
  rq: number,
  page: number,
  offset: number,
  len: number,
  postedTruesize: number,
  headroom: number,
): number {
  const { ram } = kernel.memory;
  const profile = profileOf(ram, vi);
  // where the context counts what was posted, a buffer with headroom is a page
  const truesize = headroom > 0 && !profile.contextHasRoom ? PAGE_SIZE : postedTruesize;
  const headerSize = ram.u8(vi + VI.hdr_len);
  const mergeable = ram.u8(vi + VI.mergeable_rx_bufs) !== 0;
  const padded = mergeable ? headerSize : PADDED_VNET_HDR;
  const length = len - headerSize;
  const header = pageAddress(ram, page) + offset;
  const data = header + padded;
  const tailroom = truesize - headroom - padded - length;

  if (length > GOOD_COPY_LEN && tailroom >= skbDataAlign(SKB_SHARED_INFO_SIZE)) {
    const skb = buildSkb(kernel, header - headroom, truesize);
    skbReserve(ram, skb, headroom + padded);
    skbPut(kernel, skb, length);
    ram.copy(skb + SK_BUFF.offset.cb, header, headerSize);
    const more = mergeable ? 0 : pagePrivate(ram, page);
    if (more !== 0) givePages(ram, rq, more);
    return skb;
  }
  const skb = allocSkbHead(kernel, profile.copyHeadSize, VIRTNET_RX_PAD);
  const copied = length <= skbTailroom(ram, skb) ? length : ETH_HLEN;
  ram.copy(skbPut(kernel, skb, copied), data, copied);
  ram.copy(skb + SK_BUFF.offset.cb, header, headerSize);
  if (!mergeable) {
    addPages(kernel, rq, skb, page, padded + copied, length - copied, truesize);
  } else if (copied === length) {
    putPage(kernel, pagesOf(ram, vi), page);
  } else {
    skbAddFrag(ram, skb, page, offset + padded + copied, length - copied, truesize);
  }
  return skb;
}

const NULL_PAGE =
  'Unable to handle kernel NULL pointer dereference: page->private of a page behind the last, page_to_skb';

/** The rest of a big-mode frame as fragments; pages that it does not reach go back to the queue. */
function addPages(
  kernel: KernelContext,
  rq: number,
  skb: number,
  first: number,
  firstOffset: number,
  bytes: number,
  truesize: number,
): void {
  const { ram } = kernel.memory;
  let page = first;
  let offset = firstOffset;
  for (let left = bytes; left > 0;) {
    // unreachable unless the device's length is trusted
    if (page === 0) throw new KernelError('EFAULT', NULL_PAGE);
    const size = Math.min(PAGE_SIZE - offset, left);
    const next = pagePrivate(ram, page);
    setPagePrivate(ram, page, 0);
    skbAddFrag(ram, skb, page, offset, size, truesize);
    left -= size;
    page = next;
    offset = 0;
  }
  if (page !== 0) givePages(ram, rq, page);
}

/**
 * `xdp_linearize_page`: copies a frame into one fresh page at `page_off`. Takes the frame's further
 * buffers off the ring. 0 when header and frame do not fit with 320 bytes behind them.
 */
function xdpLinearizePage(
  kernel: KernelContext,
  rq: number,
  numBuf: number,
  p: number,
  offset: number,
  pageOff: number,
  len: number,
): number {
  const { ram } = kernel.memory;
  const vi = ram.pointer(rq + RQ.vi);
  const pages = pagesOf(ram, vi);
  const limit = PAGE_SIZE - skbDataAlign(SKB_SHARED_INFO_SIZE);
  const first = ram.u32(len);
  let at = pageOff;
  if (at + first > limit && !hasBug(ram, vi, 'first copy unchecked')) return 0;
  const page = allocPage(kernel, pages, 1);
  const target = pageAddress(ram, page);
  ram.copy(target + at, pageAddress(ram, p) + offset, first);
  at += first;
  for (;;) {
    const left = ram.s32(numBuf) - 1;
    ram.set32(numBuf, left);
    if (left === 0) break;
    const buf = rqGetBuf(kernel, rq);
    if (buf === 0) {
      putPage(kernel, pages, page);
      return 0;
    }
    const more = ram.u32(rq + RQ.scratch_len);
    const from = headPage(ram, pages, buf);
    const ctx = ram.u32(rq + RQ.scratch_ctx);
    const lies =
      more > contextTruesize(ctx) - contextRoom(ram, vi, contextHeadroom(ctx)) &&
      !hasBug(ram, vi, 'lengths trusted');
    if (lies || at + more > limit) {
      putPage(kernel, pages, from);
      putPage(kernel, pages, page);
      return 0;
    }
    ram.copy(target + at, buf, more);
    at += more;
    putPage(kernel, pages, from);
  }
  ram.set32(len, at - XDP_PACKET_HEADROOM);
  return page;
}

export const mergeableFunctions: readonly KernelFunction[] = [
  atomic({
    prototype:
      'struct sk_buff *receive_mergeable(struct net_device *dev, struct virtnet_info *vi, ' +
      'struct receive_queue *rq, void *buf, void *ctx, unsigned int len, unsigned int *xdp_xmit, ' +
      'struct virtnet_rq_stats *stats)',
    numbers: ['ctx'],
    calls: true,
    body: receiveMergeable,
  }),
  atomic({
    prototype:
      'struct sk_buff *page_to_skb(struct virtnet_info *vi, struct receive_queue *rq, ' +
      'struct page *page, unsigned int offset, unsigned int len, unsigned int truesize, ' +
      'unsigned int headroom)',
    body: pageToSkb,
  }),
  atomic({
    prototype:
      'struct page *xdp_linearize_page(struct receive_queue *rq, int *num_buf, struct page *p, ' +
      'int offset, int page_off, unsigned int *len)',
    calls: true,
    body: xdpLinearizePage,
  }),
];
