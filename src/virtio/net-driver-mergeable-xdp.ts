/**
 * A frame in mergeable buffers through an XDP program.
 *
 * Reference: drivers/net/virtio_net.c of 6.12 (receive_mergeable_xdp, mergeable_xdp_get_buf,
 * virtnet_build_xdp_buff_mrg, build_skb_from_xdp_buff, put_xdp_frags), all of which the compiler inlines
 * into receive_mergeable. Before the program runs: a frame with segmentation or a partial checksum is
 * dropped; one that lacks headroom, or has several buffers for a program without frags support, is copied
 * into one page; otherwise further buffers become fragments.
 */
import { XDP_PACKET_HEADROOM } from '../bpf/xdp-buff.js';
import { call, type BodyGenerator, type KernelContext } from '../kernel/function.js';
import {
  MAX_SKB_FRAGS,
  PAGE_SIZE,
  contextHeadroom,
  contextTruesize,
  headroomFor,
  mergeableRoom,
} from './net-geometry.js';
import { NET_HEADER_OFFSET, VIRTIO_NET_HDR_F_NEEDS_CSUM } from './net-header.js';
import {
  DEV,
  RQ,
  RQ_STATS,
  VI,
  count,
  mergeableBufFree,
  pagesOf,
  rqGetBuf,
} from './net-driver-common.js';
import { XDP_PASS, XDP_REDIRECT, XDP_TX } from './net-driver-xdp.js';
import { BPF_PROG } from './net-structs.js';
import {
  SKB_SHARED_INFO,
  addLength,
  buildSkb,
  fillFrag,
  putFrags,
  skbPut,
  skbReserve,
  skbShinfo,
} from './skb.js';
import { toInt } from './struct.js';
import {
  XDP,
  XDP_FLAGS_HAS_FRAGS,
  prepareXdpBuff,
  xdpBuffHasFrags,
  xdpBuffMetaSize,
  xdpBuffShinfo,
} from './xdp-frame.js';

const SHINFO = SKB_SHARED_INFO.offset;

export interface MergeableFrame {
  readonly dev: bigint;
  readonly vi: bigint;
  readonly rq: bigint;
  readonly prog: bigint;
  /** Address of the virtio_net_hdr in the first buffer. */
  readonly buf: bigint;
  readonly ctx: bigint;
  /** Bytes in the first buffer, header included. */
  readonly length: number;
  readonly xdpXmit: bigint;
  readonly stats: bigint;
}

/** A frame as the program will get it; `page` is what to give back when it goes no further. */
interface Prepared {
  page: bigint;
  /** Address of the header; 0n: dropped. */
  header: bigint;
  length: number;
  frameSize: number;
  /** Buffers not taken off the ring yet, the first one counted. */
  buffers: number;
}

/** The skb of a frame that passes, 0n for one that does not. */
export function* receiveMergeableXdp(kernel: KernelContext, frame: MergeableFrame): BodyGenerator {
  const { memory } = kernel;
  const { vi, rq, prog, dev, xdpXmit, stats } = frame;
  const pages = pagesOf(kernel, vi);
  const xdp = rq + RQ.scratch_xdp;
  const prepared = yield* prepare(kernel, frame);

  let action = 0;
  let fragsTruesize = 0;
  if (prepared.header !== 0n) {
    const built = yield* buildXdpBuff(kernel, frame, prepared);
    if (built !== undefined) {
      fragsTruesize = built;
      action = toInt(yield* call('virtnet_xdp_handler', prog, xdp, dev, xdpXmit, stats));
      if (action === XDP_TX || action === XDP_REDIRECT) return 0n;
      if (action === XDP_PASS) return skbFromXdpBuff(kernel, xdp, fragsTruesize);
      if (xdpBuffHasFrags(memory, xdp)) putFrags(memory, pages, xdpBuffShinfo(memory, xdp));
    }
  }
  pages.put(prepared.page);
  yield* mergeableBufFree(kernel, vi, rq, prepared.buffers, stats);
  count(memory, stats + RQ_STATS.xdp_drops);
  count(memory, stats + RQ_STATS.drops);
  return 0n;
}

/** `mergeable_xdp_get_buf`. */
function* prepare(kernel: KernelContext, frame: MergeableFrame): BodyGenerator<Prepared> {
  const { memory } = kernel;
  const { rq, buf, ctx, vi } = frame;
  const pages = pagesOf(kernel, vi);
  const prepared: Prepared = {
    page: pages.headPage(buf),
    header: 0n,
    length: frame.length,
    frameSize: contextTruesize(ctx),
    buffers: memory.read16(buf + BigInt(NET_HEADER_OFFSET.num_buffers)),
  };
  if (memory.read8(buf + BigInt(NET_HEADER_OFFSET.gso_type)) !== 0) return prepared;
  const flags = memory.read8(buf + BigInt(NET_HEADER_OFFSET.flags));
  if ((flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) !== 0) return prepared;

  const hasFrags = memory.read32(frame.prog + BPF_PROG.offset.xdp_has_frags) !== 0;
  const roomy = contextHeadroom(ctx) >= headroomFor(memory.read8(vi + VI.xdp_enabled) !== 0);
  if (roomy && (prepared.buffers === 1 || hasFrags)) {
    prepared.header = buf;
    return prepared;
  }
  let fresh: bigint;
  if (hasFrags) {
    if (frame.length + mergeableRoom(XDP_PACKET_HEADROOM) > PAGE_SIZE) return prepared;
    fresh = pages.alloc(1);
    const target = pages.address(fresh) + BigInt(XDP_PACKET_HEADROOM);
    memory.writeBytes(target, memory.readBytes(buf, frame.length));
  } else {
    memory.write32(rq + RQ.scratch_num_buf, prepared.buffers);
    memory.write32(rq + RQ.scratch_total, frame.length);
    fresh = yield* call(
      'xdp_linearize_page',
      rq,
      rq + RQ.scratch_num_buf,
      prepared.page,
      buf - pages.address(prepared.page),
      BigInt(XDP_PACKET_HEADROOM),
      rq + RQ.scratch_total,
    );
    prepared.buffers = memory.read32(rq + RQ.scratch_num_buf) | 0;
    if (fresh === 0n) return prepared;
    prepared.length = memory.read32(rq + RQ.scratch_total);
  }
  pages.put(prepared.page);
  prepared.page = fresh;
  prepared.header = pages.address(fresh) + BigInt(XDP_PACKET_HEADROOM);
  prepared.frameSize = PAGE_SIZE;
  return prepared;
}

/**
 * `virtnet_build_xdp_buff_mrg`: returns the truesize of the fragments, or `undefined` when a buffer is
 * missing or lies about its length; fragments are given back then.
 */
function* buildXdpBuff(
  kernel: KernelContext,
  frame: MergeableFrame,
  prepared: Prepared,
): BodyGenerator<number | undefined> {
  const { memory } = kernel;
  const { vi, rq, dev, stats } = frame;
  const pages = pagesOf(kernel, vi);
  const headerSize = memory.read8(vi + VI.hdr_len);
  const xdp = rq + RQ.scratch_xdp;
  prepareXdpBuff(memory, xdp, {
    hardStart: prepared.header - BigInt(XDP_PACKET_HEADROOM),
    headroom: XDP_PACKET_HEADROOM + headerSize,
    length: prepared.length - headerSize,
    frameSize: prepared.frameSize,
    rxq: rq + RQ.xdp_rxq,
  });
  if (prepared.buffers === 0) return 0;
  const shinfo = xdpBuffShinfo(memory, xdp);
  if (prepared.buffers > 1) {
    memory.write32(xdp + XDP.flags, XDP_FLAGS_HAS_FRAGS);
    memory.write8(shinfo + SHINFO.nr_frags, 0);
    memory.write32(shinfo + SHINFO.xdp_frags_size, 0);
  }
  if (prepared.buffers > MAX_SKB_FRAGS + 1) return undefined;

  let truesize = 0;
  let bytes = 0;
  let frags = 0;
  const fail = (): undefined => {
    if (xdpBuffHasFrags(memory, xdp)) putFrags(memory, pages, shinfo);
    return undefined;
  };
  for (;;) {
    prepared.buffers -= 1;
    if (prepared.buffers <= 0) return truesize;
    const buf = yield* rqGetBuf(kernel, rq);
    if (buf === 0n) {
      count(memory, dev + DEV.rx_length_errors);
      return fail();
    }
    const length = memory.read32(rq + RQ.scratch_len);
    const ctx = memory.read64(rq + RQ.scratch_ctx);
    const size = contextTruesize(ctx);
    const page = pages.headPage(buf);
    count(memory, stats + RQ_STATS.bytes, length);
    truesize += size;
    if (length > size - mergeableRoom(contextHeadroom(ctx)) || size > PAGE_SIZE) {
      pages.put(page);
      count(memory, dev + DEV.rx_length_errors);
      return fail();
    }
    const offset = Number(buf - pages.address(page));
    fillFrag(memory, shinfo, frags++, { page, offset, len: length });
    bytes += length;
    memory.write8(shinfo + SHINFO.nr_frags, frags);
    memory.write32(shinfo + SHINFO.xdp_frags_size, bytes);
  }
}

/** `build_skb_from_xdp_buff`; its vnet header in the control block stays zero. */
function skbFromXdpBuff(kernel: KernelContext, xdp: bigint, fragsTruesize: number): bigint {
  const { memory } = kernel;
  const hardStart = memory.read64(xdp + XDP.dataHardStart);
  const data = memory.read64(xdp + XDP.data);
  const frags = xdpBuffHasFrags(memory, xdp)
    ? memory.read8(xdpBuffShinfo(memory, xdp) + SHINFO.nr_frags)
    : 0;
  const skb = buildSkb(kernel, hardStart, memory.read32(xdp + XDP.frameSize));
  skbReserve(memory, skb, Number(data - hardStart));
  skbPut(kernel, skb, Number(memory.read64(xdp + XDP.dataEnd) - data));
  const shinfo = skbShinfo(memory, skb);
  memory.write8(shinfo + SHINFO.meta_len, xdpBuffMetaSize(memory, xdp));
  if (frags > 0) {
    memory.write8(shinfo + SHINFO.nr_frags, frags);
    addLength(memory, skb, memory.read32(shinfo + SHINFO.xdp_frags_size), fragsTruesize);
  }
  return skb;
}
