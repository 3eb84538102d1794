/**
 * Receive in mergeable mode: a frame in one or more buffers, of which the first has the header.
 *
 * Reference: drivers/net/virtio_net.c of 6.12 (receive_mergeable, page_to_skb, xdp_linearize_page).
 * With a program see `net-driver-mergeable-xdp.ts`. Leaves out big mode's use of page_to_skb.
 */
import {
  call,
  type BodyGenerator,
  type KernelContext,
  type KernelFunction,
} from '../kernel/function.js';
import { SKB_SHARED_INFO_SIZE, XDP_PACKET_HEADROOM } from '../bpf/xdp-buff.js';
import {
  ETH_HLEN,
  GOOD_COPY_LEN,
  PAGE_SIZE,
  contextHeadroom,
  contextTruesize,
  ewmaAdd,
  mergeableRoom,
  skbDataAlign,
} from './net-geometry.js';
import { NET_HEADER_OFFSET } from './net-header.js';
import { receiveMergeableXdp } from './net-driver-mergeable-xdp.js';
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
import {
  SK_BUFF,
  allocSkb,
  buildSkb,
  freeSkb,
  skbAddFrag,
  skbAppendFrag,
  skbPut,
  skbReserve,
  skbTailroom,
} from './skb.js';
import { toUint } from './struct.js';

function* receiveMergeable(
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
  const length = toUint(len);
  const truesize = contextTruesize(ctx);
  const headroom = contextHeadroom(ctx);
  const page = pages.headPage(buf);
  let buffers = memory.read16(buf + BigInt(NET_HEADER_OFFSET.num_buffers));
  count(memory, stats + RQ_STATS.bytes, length - memory.read8(vi + VI.hdr_len));
  let head = 0n;
  const drop = function* (failed: bigint | undefined): BodyGenerator {
    if (failed !== undefined) {
      pages.put(failed);
      yield* mergeableBufFree(kernel, vi, rq, buffers, stats);
    }
    count(memory, stats + RQ_STATS.drops);
    if (head !== 0n) freeSkb(kernel, pages, head);
    return 0n;
  };

  if (length > truesize - mergeableRoom(headroom)) {
    count(memory, dev + DEV.rx_length_errors);
    return yield* drop(page);
  }
  if (memory.read8(vi + VI.xdp_enabled) !== 0) {
    const prog = memory.read64(rq + RQ.xdp_prog);
    if (prog !== 0n) {
      const frame = { dev, vi, rq, prog, buf, ctx, length, xdpXmit, stats };
      return yield* receiveMergeableXdp(kernel, frame);
    }
  }

  const offset = buf - pages.address(page);
  const sizes = [BigInt(length), BigInt(truesize), BigInt(headroom)] as const;
  head = yield* call('page_to_skb', vi, rq, page, offset, ...sizes);
  let current = head;
  // a device that says 0 buffers has the ring taken until it is empty, as in Linux
  while (--buffers !== 0) {
    const more = yield* rqGetBuf(kernel, rq);
    if (more === 0n) {
      count(memory, dev + DEV.rx_length_errors);
      return yield* drop(undefined);
    }
    const moreLength = memory.read32(rq + RQ.scratch_len);
    const moreCtx = memory.read64(rq + RQ.scratch_ctx);
    const moreTruesize = contextTruesize(moreCtx);
    const morePage = pages.headPage(more);
    count(memory, stats + RQ_STATS.bytes, moreLength);
    if (moreLength > moreTruesize - mergeableRoom(contextHeadroom(moreCtx))) {
      count(memory, dev + DEV.rx_length_errors);
      return yield* drop(morePage);
    }
    const frag = {
      page: morePage,
      offset: Number(more - pages.address(morePage)),
      len: moreLength,
    };
    current = skbAppendFrag(kernel, pages, head, current, frag, moreTruesize);
  }
  const average = rq + RQ.mrg_avg_pkt_len;
  const total = memory.read32(head + SK_BUFF.offset.len);
  memory.write32(average, ewmaAdd(memory.read32(average), total));
  return head;
}

/** `page_to_skb`: short frames are copied, others keep their buffer as head or as fragment. */
function pageToSkb(
  kernel: KernelContext,
  vi = 0n,
  _rq = 0n,
  page = 0n,
  offset = 0n,
  len = 0n,
  truesizeArg = 0n,
  headroomArg = 0n,
): bigint {
  const { memory } = kernel;
  const pages = pagesOf(kernel, vi);
  const headerSize = memory.read8(vi + VI.hdr_len);
  const truesize = toUint(truesizeArg);
  const headroom = toUint(headroomArg);
  const length = toUint(len) - headerSize;
  const header = pages.address(page) + offset;
  const data = header + BigInt(headerSize);
  const tailroom = truesize - headroom - headerSize - length;
  const headerBytes = memory.readBytes(header, headerSize);

  let skb: bigint;
  if (length > GOOD_COPY_LEN && tailroom >= skbDataAlign(SKB_SHARED_INFO_SIZE)) {
    skb = buildSkb(kernel, header - BigInt(headroom), truesize);
    skbReserve(memory, skb, headroom + headerSize);
    skbPut(kernel, skb, length);
  } else {
    skb = allocSkb(kernel);
    const copied = length <= skbTailroom(memory, skb) ? length : ETH_HLEN;
    memory.writeBytes(skbPut(kernel, skb, copied), memory.readBytes(data, copied));
    if (copied === length) {
      pages.put(page);
    } else {
      const frag = {
        page,
        offset: Number(offset) + headerSize + copied,
        len: length - copied,
      };
      skbAddFrag(memory, skb, frag, truesize);
    }
  }
  memory.writeBytes(skb + SK_BUFF.offset.cb, headerBytes);
  return skb;
}

/**
 * `xdp_linearize_page`: copies a frame into one fresh page at `page_off`. Takes the frame's further
 * buffers off the ring. 0 when header and frame do not fit with 320 bytes behind them.
 */
function* xdpLinearizePage(
  kernel: KernelContext,
  rq = 0n,
  numBuf = 0n,
  p = 0n,
  offset = 0n,
  pageOff = 0n,
  len = 0n,
): BodyGenerator {
  const { memory } = kernel;
  const pages = pagesOf(kernel, memory.read64(rq + RQ.vi));
  const limit = PAGE_SIZE - skbDataAlign(SKB_SHARED_INFO_SIZE);
  const first = memory.read32(len);
  let at = toUint(pageOff);
  if (at + first > limit) return 0n;
  const page = pages.alloc(1);
  const target = pages.address(page);
  memory.writeBytes(target + BigInt(at), memory.readBytes(pages.address(p) + offset, first));
  at += first;
  for (;;) {
    const left = (memory.read32(numBuf) - 1) | 0;
    memory.write32(numBuf, left);
    if (left === 0) break;
    const buf = yield* rqGetBuf(kernel, rq);
    if (buf === 0n) {
      pages.put(page);
      return 0n;
    }
    const more = memory.read32(rq + RQ.scratch_len);
    const from = pages.headPage(buf);
    const ctx = memory.read64(rq + RQ.scratch_ctx);
    const lies = more > contextTruesize(ctx) - mergeableRoom(contextHeadroom(ctx));
    if (lies || at + more > limit) {
      pages.put(from);
      pages.put(page);
      return 0n;
    }
    memory.writeBytes(target + BigInt(at), memory.readBytes(buf, more));
    at += more;
    pages.put(from);
  }
  memory.write32(len, at - XDP_PACKET_HEADROOM);
  return page;
}

export const mergeableFunctions: readonly KernelFunction[] = [
  {
    name: 'receive_mergeable',
    prototype:
      'struct sk_buff *receive_mergeable(struct net_device *dev, struct virtnet_info *vi, ' +
      'struct receive_queue *rq, void *buf, void *ctx, unsigned int len, unsigned int *xdp_xmit, ' +
      'struct virtnet_rq_stats *stats)',
    parameters: 8,
    body: receiveMergeable,
  },
  {
    name: 'page_to_skb',
    prototype:
      'struct sk_buff *page_to_skb(struct virtnet_info *vi, struct receive_queue *rq, ' +
      'struct page *page, unsigned int offset, unsigned int len, unsigned int truesize, ' +
      'unsigned int headroom)',
    parameters: 7,
    body: pageToSkb,
  },
  {
    name: 'xdp_linearize_page',
    prototype:
      'struct page *xdp_linearize_page(struct receive_queue *rq, int *num_buf, struct page *p, ' +
      'int offset, int page_off, unsigned int *len)',
    parameters: 6,
    body: xdpLinearizePage,
  },
];
