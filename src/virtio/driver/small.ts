/**
 * Receive in small mode: one buffer per frame, wrapped into an skb where it lies.
 *
 * Reference: drivers/net/virtio_net.c of 6.12 (receive_small with receive_small_xdp and
 * receive_small_build_skb inlined: the XDP part takes nine arguments and has one caller). A frame in a
 * buffer posted without headroom is copied into a fresh page before the program runs. hard_start lies
 * header + 64 behind the buffer's start while frame_sz covers the whole buffer, so that a program may
 * grow the tail 76 bytes past the skb's end: passing such a frame is the kernel's skb_over_panic.
 */
import { XDP_BUFF } from '../../bpf/xdp-buff.js';
import { Callee, atomic, type KernelContext, type KernelFunction } from '../../kernel/function.js';
import { GOOD_PACKET_LEN, VIRTNET_RX_PAD, headroomFor, smallBufferSize } from './geometry.js';
import { NET_HEADER_OFFSET } from '../net-header.js';
import { pagesOf } from './common.js';
import { partialMustNotRun } from './xdp-checksum.js';
import { XDP_PASS, XDP_REDIRECT, XDP_TX } from '../../stack/xdp-verdict.js';
import { headPage, pageAddress, putPage } from '../../stack/pages.js';
import {
  SKB_SHARED_INFO,
  SK_BUFF,
  buildSkb,
  skbPut,
  skbReserve,
  skbShinfo,
} from '../../stack/skb.js';
import { prepareXdpBuff, xdpBuffMetaSize } from '../../stack/xdp-frame.js';
import { NET_DEVICE } from '../../stack/net-device.js';
import { RECEIVE_QUEUE, VIRTNET_RQ_STATS, VIRTNET_INFO } from './structs.js';

const DEV = NET_DEVICE.offset;
const RQ = RECEIVE_QUEUE.offset;
const RQ_STATS = VIRTNET_RQ_STATS.offset;
const VI = VIRTNET_INFO.offset;

const VIRTNET_XDP_HANDLER = new Callee('virtnet_xdp_handler');

function receiveSmall(
  kernel: KernelContext,
  dev: number,
  vi: number,
  rq: number,
  buf: number,
  headroom: number,
  len: number,
  xdpXmit: number,
  stats: number,
): number {
  const { ram } = kernel.memory;
  const headerSize = ram.u8(vi + VI.hdr_len);
  const length = len - headerSize;
  ram.add64(stats + RQ_STATS.bytes, length);
  if (length > GOOD_PACKET_LEN) {
    ram.add64(dev + DEV.rx_length_errors, 1);
    ram.add64(stats + RQ_STATS.drops, 1);
    const pages = pagesOf(ram, vi);
    putPage(kernel, pages, headPage(ram, pages, buf));
    return 0;
  }
  if (ram.u8(vi + VI.xdp_enabled) !== 0) {
    const prog = ram.pointer(rq + RQ.xdp_prog);
    if (prog !== 0) {
      return receiveSmallXdp(kernel, dev, vi, rq, prog, buf, headroom, length, xdpXmit, stats);
    }
  }
  const start = buf - (VIRTNET_RX_PAD + headroom);
  const skb = buildSkb(kernel, start, smallBufferSize(headerSize, headroom));
  skbReserve(ram, skb, VIRTNET_RX_PAD + headroom + headerSize);
  skbPut(kernel, skb, length);
  ram.copy(skb + SK_BUFF.offset.cb, buf, headerSize);
  return skb;
}

/** `buf` is the address of the virtio_net_hdr, `length` counts what is behind it. */
function receiveSmallXdp(
  kernel: KernelContext,
  dev: number,
  vi: number,
  rq: number,
  prog: number,
  buf: number,
  postedHeadroom: number,
  length: number,
  xdpXmit: number,
  stats: number,
): number {
  const { ram } = kernel.memory;
  const pages = pagesOf(ram, vi);
  const headerSize = ram.u8(vi + VI.hdr_len);
  let page = headPage(ram, pages, buf);
  let headroom = postedHeadroom;
  let start = buf - (VIRTNET_RX_PAD + headroom);
  if (ram.u8(buf + NET_HEADER_OFFSET.gso_type) !== 0) return drop(kernel, pages, page, stats);
  if (partialMustNotRun(ram, vi, buf)) return drop(kernel, pages, page, stats);

  if (headroom < headroomFor(true)) {
    headroom = headroomFor(true);
    ram.set32(rq + RQ.scratch_num_buf, 1);
    ram.set32(rq + RQ.scratch_total, length + headerSize);
    const fresh = kernel.invoke(
      'xdp_linearize_page',
      rq,
      rq + RQ.scratch_num_buf,
      page,
      buf - pageAddress(ram, page),
      VIRTNET_RX_PAD + headroom,
      rq + RQ.scratch_total,
    );
    if (fresh === 0) return drop(kernel, pages, page, stats);
    putPage(kernel, pages, page);
    page = fresh;
    start = pageAddress(ram, page);
  }

  const size = smallBufferSize(headerSize, headroom);
  const xdp = rq + RQ.scratch_xdp;
  const hardStart = start + VIRTNET_RX_PAD + headerSize;
  prepareXdpBuff(ram, xdp, rq + RQ.xdp_rxq, hardStart, headroom, length, size);
  const action = kernel.invoke(VIRTNET_XDP_HANDLER, prog, xdp, dev, xdpXmit, stats);
  if (action === XDP_TX || action === XDP_REDIRECT) return 0;
  if (action !== XDP_PASS) return drop(kernel, pages, page, stats);

  const data = ram.pointer(xdp + XDP_BUFF.data);
  const metaSize = xdpBuffMetaSize(ram, xdp);
  const skb = buildSkb(kernel, start, size);
  skbReserve(ram, skb, data - start);
  skbPut(kernel, skb, ram.pointer(xdp + XDP_BUFF.dataEnd) - data);
  ram.set8(skbShinfo(ram, skb) + SKB_SHARED_INFO.offset.meta_len, metaSize);
  return skb;
}

function drop(kernel: KernelContext, pages: number, page: number, stats: number): number {
  const { ram } = kernel.memory;
  ram.add64(stats + RQ_STATS.xdp_drops, 1);
  ram.add64(stats + RQ_STATS.drops, 1);
  putPage(kernel, pages, page);
  return 0;
}

export const smallFunctions: readonly KernelFunction[] = [
  atomic({
    prototype:
      'struct sk_buff *receive_small(struct net_device *dev, struct virtnet_info *vi, ' +
      'struct receive_queue *rq, void *buf, void *ctx, unsigned int len, unsigned int *xdp_xmit, ' +
      'struct virtnet_rq_stats *stats)',
    numbers: ['ctx'],
    calls: true,
    body: receiveSmall,
  }),
];
