/**
 * Refilling a receive queue: buffers cut from page chunks and posted with their context.
 *
 * Reference: drivers/net/virtio_net.c of 6.12 (try_fill_recv, add_recvbuf_small,
 * add_recvbuf_mergeable). The headroom is that of the moment: buffers posted before XDP was attached
 * have none. Leaves out big mode, AF_XDP pools and delayed refill (allocation does not fail softly).
 */
import { ERRNO } from '../common/errno.js';
import {
  call,
  type BodyGenerator,
  type KernelContext,
  type KernelFunction,
} from '../kernel/function.js';
import {
  GOOD_PACKET_LEN,
  PAGE_FRAG_SIZE,
  VIRTNET_RX_PAD,
  headroomFor,
  mergeableContext,
  mergeableLength,
  mergeableRoom,
  smallBufferSize,
} from './net-geometry.js';
import { RQ, RQ_STATS, VI, count, kick, pagesOf } from './net-driver-common.js';
import { SCATTERLIST, virtqueueNumFree } from './split-ring-driver.js';
import { toInt } from './struct.js';

function* addRecvbufSmall(kernel: KernelContext, vi = 0n, rq = 0n, gfp = 0n): BodyGenerator {
  const { memory } = kernel;
  const pages = pagesOf(kernel, vi);
  const headerSize = memory.read8(vi + VI.hdr_len);
  const headroom = headroomFor(memory.read8(vi + VI.xdp_enabled) !== 0);
  const size = smallBufferSize(headerSize, headroom);
  pages.fragRefill(rq, size);
  const buf = pages.rqAlloc(rq, size) + BigInt(VIRTNET_RX_PAD + headroom);
  return yield* post(kernel, vi, rq, buf, headerSize + GOOD_PACKET_LEN, BigInt(headroom), gfp);
}

function* addRecvbufMergeable(kernel: KernelContext, vi = 0n, rq = 0n, gfp = 0n): BodyGenerator {
  const { memory } = kernel;
  const pages = pagesOf(kernel, vi);
  const headroom = headroomFor(memory.read8(vi + VI.xdp_enabled) !== 0);
  const room = mergeableRoom(headroom);
  let length = mergeableLength(
    memory.read8(vi + VI.hdr_len),
    memory.read32(rq + RQ.mrg_avg_pkt_len),
    memory.read32(rq + RQ.min_buf_len),
    room,
  );
  pages.fragRefill(rq, length + room);
  const buf = pages.rqAlloc(rq, length + room) + BigInt(headroom);
  const used = memory.read32(rq + RQ.frag_offset);
  const hole = PAGE_FRAG_SIZE - used;
  if (hole < length + room) {
    // the rest of the chunk is too small for another buffer: it goes to this one
    if (headroom === 0) length += hole;
    memory.write32(rq + RQ.frag_offset, used + hole);
  }
  return yield* post(kernel, vi, rq, buf, length, mergeableContext(length + room, headroom), gfp);
}

function* post(
  kernel: KernelContext,
  vi: bigint,
  rq: bigint,
  buf: bigint,
  length: number,
  ctx: bigint,
  gfp: bigint,
): BodyGenerator {
  const { memory } = kernel;
  const sg = rq + RQ.sg;
  memory.write64(sg + SCATTERLIST.offset.address, buf);
  memory.write32(sg + SCATTERLIST.offset.length, length);
  const vq = memory.read64(rq + RQ.vq);
  const result = yield* call('virtqueue_add_inbuf_ctx', vq, sg, 1n, buf, ctx, gfp);
  if (toInt(result) < 0) {
    const pages = pagesOf(kernel, vi);
    pages.put(pages.headPage(buf));
  }
  return result;
}

function* tryFillRecv(kernel: KernelContext, vi = 0n, rq = 0n, gfp = 0n): BodyGenerator {
  const { memory } = kernel;
  const vq = memory.read64(rq + RQ.vq);
  const mergeable = memory.read8(vi + VI.mergeable_rx_bufs) !== 0;
  const add = mergeable ? 'add_recvbuf_mergeable' : 'add_recvbuf_small';
  let result: number;
  do {
    result = toInt(yield* call(add, vi, rq, gfp));
  } while (result === 0 && virtqueueNumFree(memory, vq) > 0);
  if (yield* kick(vq)) count(memory, rq + RQ.stats + RQ_STATS.kicks);
  return result === -ERRNO.ENOMEM ? 0n : 1n;
}

export const refillFunctions: readonly KernelFunction[] = [
  {
    name: 'try_fill_recv',
    prototype: 'bool try_fill_recv(struct virtnet_info *vi, struct receive_queue *rq, gfp_t gfp)',
    parameters: 3,
    body: tryFillRecv,
  },
  {
    name: 'add_recvbuf_small',
    prototype:
      'int add_recvbuf_small(struct virtnet_info *vi, struct receive_queue *rq, gfp_t gfp)',
    parameters: 3,
    body: addRecvbufSmall,
  },
  {
    name: 'add_recvbuf_mergeable',
    prototype:
      'int add_recvbuf_mergeable(struct virtnet_info *vi, struct receive_queue *rq, gfp_t gfp)',
    parameters: 3,
    body: addRecvbufMergeable,
  },
];
