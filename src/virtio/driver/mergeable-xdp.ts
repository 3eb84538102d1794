/**
 * A frame in mergeable buffers through an XDP program.
 *
 * Reference: drivers/net/virtio_net.c of 6.12 (receive_mergeable_xdp, mergeable_xdp_get_buf,
 * virtnet_build_xdp_buff_mrg, build_skb_from_xdp_buff, put_xdp_frags), all of which the compiler inlines
 * into receive_mergeable. Before the program runs: a frame with segmentation or a partial checksum is
 * dropped; one that lacks headroom, or has several buffers for a program without frags support, is copied
 * into one page; otherwise further buffers become fragments. In 6.1 no program gets fragments, hard_start
 * lies a header further, and the frame that passes is made an skb by page_to_skb.
 */
import { XDP_BUFF, XDP_FLAGS_HAS_FRAGS, XDP_PACKET_HEADROOM } from '../../bpf/xdp-buff.js';
import { Callee, type KernelContext } from '../../kernel/function.js';
import { MAX_SKB_FRAGS } from '../../stack/skb-geometry.js';
import { PAGE_SIZE } from '../../stack/pages.js';
import {
  contextHeadroom,
  contextTruesize,
  ewmaAdd,
  headroomFor,
  mergeableRoom,
} from './geometry.js';
import { NET_HEADER_OFFSET } from '../net-header.js';
import { hasBug } from './bugs.js';
import { mergeableBufFree, pagesOf, rqGetBuf } from './common.js';
import { partialMustNotRun } from './xdp-checksum.js';
import { XDP_PASS, XDP_REDIRECT, XDP_TX } from '../../stack/xdp-verdict.js';
import { contextRoom, profileOf } from './profiles.js';
import { BPF_PROG } from '../../stack/xdp-program.js';
import { allocPage, headPage, pageAddress, putPage } from '../../stack/pages.js';
import {
  SKB_SHARED_INFO,
  SK_BUFF,
  addLength,
  buildSkb,
  fillFrag,
  putFrags,
  skbPull,
  skbPut,
  skbReserve,
  skbShinfo,
} from '../../stack/skb.js';
import {
  prepareXdpBuff,
  xdpBuffHasFrags,
  xdpBuffMetaSize,
  xdpBuffShinfo,
} from '../../stack/xdp-frame.js';
import { NET_DEVICE } from '../../stack/net-device.js';
import { RECEIVE_QUEUE, VIRTNET_RQ_STATS, VIRTNET_INFO } from './structs.js';

const DEV = NET_DEVICE.offset;
const RQ = RECEIVE_QUEUE.offset;
const RQ_STATS = VIRTNET_RQ_STATS.offset;
const VI = VIRTNET_INFO.offset;

const VIRTNET_XDP_HANDLER = new Callee('virtnet_xdp_handler');
const PAGE_TO_SKB = new Callee('page_to_skb');

const SHINFO = SKB_SHARED_INFO.offset;

/**
 * The skb of a frame that passes, 0 for one that does not. `buf` is the address of the virtio_net_hdr in `page`,
 * `len` the bytes in the first buffer, header included.
 */
export function receiveMergeableXdp(
  kernel: KernelContext,
  dev: number,
  vi: number,
  rq: number,
  prog: number,
  page: number,
  buf: number,
  ctx: number,
  len: number,
  xdpXmit: number,
  stats: number,
): number {
  const { ram } = kernel.memory;
  const pages = pagesOf(ram, vi);
  const xdp = rq + RQ.scratch_xdp;
  const header = getBuf(kernel, vi, rq, prog, page, buf, ctx, len);
  if (header !== 0) {
    const truesize = buildXdpBuff(kernel, dev, vi, rq, header, stats);
    if (truesize >= 0) {
      const action = kernel.invoke(VIRTNET_XDP_HANDLER, prog, xdp, dev, xdpXmit, stats);
      if (action === XDP_TX || action === XDP_REDIRECT) return 0;
      if (action === XDP_PASS) {
        return profileOf(ram, vi).passesByPageToSkb
          ? skbByPageToSkb(kernel, vi, rq, xdp, header !== buf)
          : skbFromXdpBuff(kernel, xdp, truesize);
      }
      if (xdpBuffHasFrags(ram, xdp)) putFrags(kernel, pages, xdpBuffShinfo(ram, xdp));
    }
  }
  putPage(kernel, pages, ram.pointer(rq + RQ.scratch_page));
  mergeableBufFree(kernel, vi, rq, ram.s32(rq + RQ.scratch_num_buf), stats);
  ram.add64(stats + RQ_STATS.xdp_drops, 1);
  ram.add64(stats + RQ_STATS.drops, 1);
  return 0;
}

/**
 * `mergeable_xdp_get_buf`: where the header is that the program's frame will have; 0: the frame goes no
 * further. Scratch words take the page to give back then, the buffers not taken off the ring yet (the
 * first one counted), the bytes from the header on and frame_sz.
 */
function getBuf(
  kernel: KernelContext,
  vi: number,
  rq: number,
  prog: number,
  page: number,
  buf: number,
  ctx: number,
  len: number,
): number {
  const { ram } = kernel.memory;
  const pages = pagesOf(ram, vi);
  const buffers = ram.u16(buf + NET_HEADER_OFFSET.num_buffers);
  ram.setPointer(rq + RQ.scratch_page, page);
  ram.set32(rq + RQ.scratch_num_buf, buffers);
  ram.set32(rq + RQ.scratch_total, len);
  const profile = profileOf(ram, vi);
  const whole = contextHeadroom(ctx) > 0 && !profile.contextHasRoom;
  ram.set32(rq + RQ.scratch_frame_sz, whole ? PAGE_SIZE : contextTruesize(ctx));
  if (ram.u8(buf + NET_HEADER_OFFSET.gso_type) !== 0) return 0;
  if (partialMustNotRun(ram, vi, buf)) return 0;

  const hasFrags = profile.xdpFrags && ram.u32(prog + BPF_PROG.offset.xdp_has_frags) !== 0;
  const roomy = contextHeadroom(ctx) >= headroomFor(ram.u8(vi + VI.xdp_enabled) !== 0);
  if (roomy && (buffers === 1 || hasFrags)) return buf;

  let fresh: number;
  if (hasFrags) {
    if (len + mergeableRoom(XDP_PACKET_HEADROOM) > PAGE_SIZE) return 0;
    fresh = allocPage(kernel, pages, 1);
    ram.copy(pageAddress(ram, fresh) + XDP_PACKET_HEADROOM, buf, len);
  } else {
    fresh = kernel.invoke(
      'xdp_linearize_page',
      rq,
      rq + RQ.scratch_num_buf,
      page,
      buf - pageAddress(ram, page),
      XDP_PACKET_HEADROOM,
      rq + RQ.scratch_total,
    );
    if (fresh === 0) return 0;
  }
  putPage(kernel, pages, page);
  ram.setPointer(rq + RQ.scratch_page, fresh);
  ram.set32(rq + RQ.scratch_frame_sz, PAGE_SIZE);
  return pageAddress(ram, fresh) + XDP_PACKET_HEADROOM;
}

/**
 * `virtnet_build_xdp_buff_mrg`: returns the truesize of the fragments, or -1 when a buffer is missing
 * or lies about its length; fragments are given back then.
 */
function buildXdpBuff(
  kernel: KernelContext,
  dev: number,
  vi: number,
  rq: number,
  header: number,
  stats: number,
): number {
  const { ram } = kernel.memory;
  const pages = pagesOf(ram, vi);
  const headerSize = ram.u8(vi + VI.hdr_len);
  const xdp = rq + RQ.scratch_xdp;
  // 6.1 keeps the header out of the frame's room
  const kept = profileOf(ram, vi).hardStartAtBuffer ? 0 : headerSize;
  const hardStart = header - XDP_PACKET_HEADROOM + kept;
  const length = ram.u32(rq + RQ.scratch_total) - headerSize;
  const headroom = XDP_PACKET_HEADROOM + headerSize - kept;
  const frameSize = ram.u32(rq + RQ.scratch_frame_sz) - kept;
  prepareXdpBuff(ram, xdp, rq + RQ.xdp_rxq, hardStart, headroom, length, frameSize);
  let buffers = ram.s32(rq + RQ.scratch_num_buf);
  if (buffers === 0) return 0;
  const shinfo = xdpBuffShinfo(ram, xdp);
  if (buffers > 1) {
    ram.set32(xdp + XDP_BUFF.flags, XDP_FLAGS_HAS_FRAGS);
    ram.set8(shinfo + SHINFO.nr_frags, 0);
    ram.set32(shinfo + SHINFO.xdp_frags_size, 0);
  }
  if (buffers > MAX_SKB_FRAGS + 1) return -1;

  let truesize = 0;
  let bytes = 0;
  let frags = 0;
  for (;;) {
    buffers -= 1;
    ram.set32(rq + RQ.scratch_num_buf, buffers);
    if (buffers <= 0) return truesize;
    const buf = rqGetBuf(kernel, rq);
    if (buf === 0) break;
    const len = ram.u32(rq + RQ.scratch_len);
    const ctx = ram.u32(rq + RQ.scratch_ctx);
    const size = contextTruesize(ctx);
    const page = headPage(ram, pages, buf);
    ram.add64(stats + RQ_STATS.bytes, len);
    truesize += size;
    if (len > size - contextRoom(ram, vi, contextHeadroom(ctx)) || size > PAGE_SIZE) {
      putPage(kernel, pages, page);
      break;
    }
    fillFrag(ram, shinfo, frags++, page, buf - pageAddress(ram, page), len);
    bytes += len;
    ram.set8(shinfo + SHINFO.nr_frags, frags);
    ram.set32(shinfo + SHINFO.xdp_frags_size, bytes);
  }
  ram.add64(dev + DEV.rx_length_errors, 1);
  if (xdpBuffHasFrags(ram, xdp)) putFrags(kernel, pages, shinfo);
  return -1;
}

/**
 * What 6.1 does with a frame that passes: page_to_skb, with metadata in front of the frame, and no vnet
 * header in the control block.
 */
function skbByPageToSkb(
  kernel: KernelContext,
  vi: number,
  rq: number,
  xdp: number,
  copied: boolean,
): number {
  const { ram } = kernel.memory;
  const headerSize = ram.u8(vi + VI.hdr_len);
  const metaSize = xdpBuffMetaSize(ram, xdp);
  const data = ram.pointer(xdp + XDP_BUFF.data);
  const page = ram.pointer(rq + RQ.scratch_page);
  const offset = data - headerSize - metaSize - pageAddress(ram, page);
  const length = ram.pointer(xdp + XDP_BUFF.dataEnd) - data + headerSize + metaSize;
  const moved = data - ram.pointer(xdp + XDP_BUFF.dataHardStart) - metaSize;
  const headroom = hasBug(ram, vi, 'posted headroom') ? XDP_PACKET_HEADROOM : moved;
  const skb = kernel.invoke(PAGE_TO_SKB, vi, rq, page, offset, length, PAGE_SIZE, headroom);
  ram.zero(skb + SK_BUFF.offset.cb, headerSize);
  if (metaSize > 0) {
    skbPull(ram, skb, metaSize);
    ram.set8(skbShinfo(ram, skb) + SHINFO.meta_len, metaSize);
  }
  if (!copied) {
    const average = rq + RQ.mrg_avg_pkt_len;
    ram.set32(average, ewmaAdd(ram.u32(average), ram.u32(skb + SK_BUFF.offset.len)));
  }
  return skb;
}

/** `build_skb_from_xdp_buff`; its vnet header in the control block stays zero. */
function skbFromXdpBuff(kernel: KernelContext, xdp: number, fragsTruesize: number): number {
  const { ram } = kernel.memory;
  const hardStart = ram.pointer(xdp + XDP_BUFF.dataHardStart);
  const data = ram.pointer(xdp + XDP_BUFF.data);
  const frags = xdpBuffHasFrags(ram, xdp) ? ram.u8(xdpBuffShinfo(ram, xdp) + SHINFO.nr_frags) : 0;
  const skb = buildSkb(kernel, hardStart, ram.u32(xdp + XDP_BUFF.frameSize));
  skbReserve(ram, skb, data - hardStart);
  skbPut(kernel, skb, ram.pointer(xdp + XDP_BUFF.dataEnd) - data);
  const shinfo = skbShinfo(ram, skb);
  ram.set8(shinfo + SHINFO.meta_len, xdpBuffMetaSize(ram, xdp));
  if (frags > 0) {
    ram.set8(shinfo + SHINFO.nr_frags, frags);
    addLength(ram, skb, ram.u32(shinfo + SHINFO.xdp_frags_size), fragsTruesize);
  }
  return skb;
}
