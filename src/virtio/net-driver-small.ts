/**
 * Receive in small mode: one buffer per frame, wrapped into an skb where it lies.
 *
 * Reference: drivers/net/virtio_net.c of 6.12 (receive_small with receive_small_xdp and
 * receive_small_build_skb inlined: the XDP part takes nine arguments and has one caller). A frame in a
 * buffer posted without headroom is copied into a fresh page before the program runs. hard_start lies
 * header + 64 behind the buffer's start while frame_sz covers the whole buffer, so that a program may
 * grow the tail 76 bytes past the skb's end: passing such a frame is the kernel's skb_over_panic.
 */
import {
  call,
  type BodyGenerator,
  type KernelContext,
  type KernelFunction,
} from '../kernel/function.js';
import { GOOD_PACKET_LEN, VIRTNET_RX_PAD, headroomFor, smallBufferSize } from './net-geometry.js';
import { NET_HEADER_OFFSET, VIRTIO_NET_HDR_F_NEEDS_CSUM } from './net-header.js';
import { DEV, RQ, RQ_STATS, VI, count, pagesOf } from './net-driver-common.js';
import { XDP_PASS, XDP_REDIRECT, XDP_TX } from './net-driver-xdp.js';
import { SKB_SHARED_INFO, SK_BUFF, buildSkb, skbPut, skbReserve, skbShinfo } from './skb.js';
import { toInt, toUint } from './struct.js';
import { XDP, prepareXdpBuff, xdpBuffMetaSize } from './xdp-frame.js';

function* receiveSmall(
  kernel: KernelContext,
  dev = 0n,
  vi = 0n,
  rq = 0n,
  buf = 0n,
  ctx = 0n,
  len = 0n,
  xdpXmit = 0n,
  stats = 0n,
): BodyGenerator {
  const { memory } = kernel;
  const pages = pagesOf(kernel, vi);
  const headerSize = memory.read8(vi + VI.hdr_len);
  const headroom = Number(ctx);
  const length = toUint(len) - headerSize;
  const page = pages.headPage(buf);
  count(memory, stats + RQ_STATS.bytes, length);
  if (length > GOOD_PACKET_LEN) {
    count(memory, dev + DEV.rx_length_errors);
    count(memory, stats + RQ_STATS.drops);
    pages.put(page);
    return 0n;
  }
  if (memory.read8(vi + VI.xdp_enabled) !== 0) {
    const prog = memory.read64(rq + RQ.xdp_prog);
    if (prog !== 0n) {
      const frame: SmallFrame = { dev, vi, rq, prog, buf, headroom, length, page, xdpXmit, stats };
      return yield* receiveSmallXdp(kernel, frame);
    }
  }
  const start = buf - BigInt(VIRTNET_RX_PAD + headroom);
  const offset = VIRTNET_RX_PAD + headroom + headerSize;
  const skb = buildSkb(kernel, start, smallBufferSize(headerSize, headroom));
  skbReserve(memory, skb, offset);
  skbPut(kernel, skb, length);
  memory.writeBytes(skb + SK_BUFF.offset.cb, memory.readBytes(buf, headerSize));
  return skb;
}

interface SmallFrame {
  readonly dev: bigint;
  readonly vi: bigint;
  readonly rq: bigint;
  readonly prog: bigint;
  /** Address of the virtio_net_hdr. */
  readonly buf: bigint;
  readonly headroom: number;
  readonly length: number;
  readonly page: bigint;
  readonly xdpXmit: bigint;
  readonly stats: bigint;
}

function* receiveSmallXdp(kernel: KernelContext, frame: SmallFrame): BodyGenerator {
  const { memory } = kernel;
  const { vi, rq, stats } = frame;
  const pages = pagesOf(kernel, vi);
  const headerSize = memory.read8(vi + VI.hdr_len);
  let { page, headroom } = frame;
  let start = frame.buf - BigInt(VIRTNET_RX_PAD + headroom);
  const drop = (): bigint => {
    count(memory, stats + RQ_STATS.xdp_drops);
    count(memory, stats + RQ_STATS.drops);
    pages.put(page);
    return 0n;
  };

  if (memory.read8(frame.buf + BigInt(NET_HEADER_OFFSET.gso_type)) !== 0) return drop();
  const flags = memory.read8(frame.buf + BigInt(NET_HEADER_OFFSET.flags));
  if ((flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) !== 0) return drop();

  if (headroom < headroomFor(true)) {
    headroom = headroomFor(true);
    memory.write32(rq + RQ.scratch_num_buf, 1);
    memory.write32(rq + RQ.scratch_total, frame.length + headerSize);
    const fresh = yield* call(
      'xdp_linearize_page',
      rq,
      rq + RQ.scratch_num_buf,
      page,
      frame.buf - pages.address(page),
      BigInt(VIRTNET_RX_PAD + headroom),
      rq + RQ.scratch_total,
    );
    if (fresh === 0n) return drop();
    pages.put(page);
    page = fresh;
    start = pages.address(page);
  }

  const size = smallBufferSize(headerSize, headroom);
  const xdp = rq + RQ.scratch_xdp;
  prepareXdpBuff(memory, xdp, {
    hardStart: start + BigInt(VIRTNET_RX_PAD + headerSize),
    headroom,
    length: frame.length,
    frameSize: size,
    rxq: rq + RQ.xdp_rxq,
  });
  const { prog, dev, xdpXmit } = frame;
  const action = toInt(yield* call('virtnet_xdp_handler', prog, xdp, dev, xdpXmit, stats));
  if (action === XDP_TX || action === XDP_REDIRECT) return 0n;
  if (action !== XDP_PASS) return drop();

  const data = memory.read64(xdp + XDP.data);
  const metaSize = xdpBuffMetaSize(memory, xdp);
  const skb = buildSkb(kernel, start, size);
  skbReserve(memory, skb, Number(data - start));
  skbPut(kernel, skb, Number(memory.read64(xdp + XDP.dataEnd) - data));
  memory.write8(skbShinfo(memory, skb) + SKB_SHARED_INFO.offset.meta_len, metaSize);
  return skb;
}

export const smallFunctions: readonly KernelFunction[] = [
  {
    name: 'receive_small',
    prototype:
      'struct sk_buff *receive_small(struct net_device *dev, struct virtnet_info *vi, ' +
      'struct receive_queue *rq, void *buf, void *ctx, unsigned int len, unsigned int *xdp_xmit, ' +
      'struct virtnet_rq_stats *stats)',
    parameters: 8,
    body: receiveSmall,
  },
];
