/**
 * Refilling a receive queue: buffers cut from page chunks and posted with their context.
 *
 * Reference: drivers/net/virtio_net.c of 6.12 (try_fill_recv, add_recvbuf_small,
 * add_recvbuf_mergeable; big mode is in `big.ts`). The headroom is that of the moment: buffers posted
 * before XDP was attached have none. Chunks of an AF_XDP socket are in `xsk.ts`; only they can run out, and
 * are then asked for again before a later poll (delayed refill).
 */
import { ERRNO } from '../../common/errno.js';
import { Callee, atomic, type KernelContext, type KernelFunction } from '../../kernel/function.js';
import {
  GOOD_PACKET_LEN,
  PAGE_FRAG_SIZE,
  VIRTNET_RX_PAD,
  headroomFor,
  mergeableContext,
  mergeableLength,
  mergeableRoom,
  smallBufferSize,
} from './geometry.js';
import { isBig, kick, pagesOf } from './common.js';
import { fragRefill, rqAlloc } from './page-frag.js';
import { profileOf } from './profiles.js';
import { headPage, putPage } from '../../stack/pages.js';
import { virtqueueNumFree } from '../ring/virtqueue.js';
import { SCATTERLIST } from '../ring/vring-virtqueue.js';
import { RECEIVE_QUEUE, VIRTNET_RQ_STATS, VIRTNET_INFO } from './structs.js';

const RQ = RECEIVE_QUEUE.offset;
const RQ_STATS = VIRTNET_RQ_STATS.offset;
const VI = VIRTNET_INFO.offset;

const ADD_RECVBUF_BIG = new Callee('add_recvbuf_big');
const ADD_RECVBUF_SMALL = new Callee('add_recvbuf_small');
const ADD_RECVBUF_MERGEABLE = new Callee('add_recvbuf_mergeable');
const VIRTNET_ADD_RECVBUF_XSK = new Callee('virtnet_add_recvbuf_xsk');
const VIRTQUEUE_ADD_INBUF_CTX = new Callee('virtqueue_add_inbuf_ctx');

function addRecvbufSmall(kernel: KernelContext, vi: number, rq: number, gfp: number): number {
  const { ram } = kernel.memory;
  const headerSize = ram.u8(vi + VI.hdr_len);
  const headroom = headroomFor(ram.u8(vi + VI.xdp_enabled) !== 0);
  const size = smallBufferSize(headerSize, headroom);
  fragRefill(kernel, pagesOf(ram, vi), rq, size);
  const { chunkHeader } = profileOf(ram, vi);
  const buf = rqAlloc(ram, rq, size, chunkHeader) + VIRTNET_RX_PAD + headroom;
  return post(kernel, vi, rq, buf, headerSize + GOOD_PACKET_LEN, headroom, gfp);
}

function addRecvbufMergeable(kernel: KernelContext, vi: number, rq: number, gfp: number): number {
  const { ram } = kernel.memory;
  const headroom = headroomFor(ram.u8(vi + VI.xdp_enabled) !== 0);
  const room = mergeableRoom(headroom);
  let length = mergeableLength(
    ram.u8(vi + VI.hdr_len),
    ram.u32(rq + RQ.mrg_avg_pkt_len),
    ram.u32(rq + RQ.min_buf_len),
    room,
  );
  fragRefill(kernel, pagesOf(ram, vi), rq, length + room);
  const { chunkHeader, contextHasRoom } = profileOf(ram, vi);
  const buf = rqAlloc(ram, rq, length + room, chunkHeader) + headroom;
  const used = ram.u32(rq + RQ.frag_offset);
  const hole = PAGE_FRAG_SIZE - used;
  if (hole < length + room) {
    // the rest of the chunk is too small for another buffer: it goes to this one
    if (headroom === 0) length += hole;
    ram.set32(rq + RQ.frag_offset, used + hole);
  }
  const truesize = length + (contextHasRoom ? room : 0);
  return post(kernel, vi, rq, buf, length, mergeableContext(truesize, headroom), gfp);
}

function post(
  kernel: KernelContext,
  vi: number,
  rq: number,
  buf: number,
  length: number,
  ctx: number,
  gfp: number,
): number {
  const { ram } = kernel.memory;
  const sg = rq + RQ.sg;
  ram.setPointer(sg + SCATTERLIST.offset.address, buf);
  ram.set32(sg + SCATTERLIST.offset.length, length);
  const vq = ram.pointer(rq + RQ.vq);
  const result = kernel.invoke(VIRTQUEUE_ADD_INBUF_CTX, vq, sg, 1, buf, ctx, gfp);
  if (result < 0) {
    const pages = pagesOf(ram, vi);
    putPage(kernel, pages, headPage(ram, pages, buf));
  }
  return result;
}

function tryFillRecv(kernel: KernelContext, vi: number, rq: number, gfp: number): number {
  const { ram } = kernel.memory;
  const vq = ram.pointer(rq + RQ.vq);
  const pool = ram.pointer(rq + RQ.xsk_pool);
  if (pool !== 0) {
    const filled = kernel.invoke(VIRTNET_ADD_RECVBUF_XSK, vi, rq, pool, gfp);
    return kicked(kernel, rq, vq, filled);
  }
  const mergeable = ram.u8(vi + VI.mergeable_rx_bufs) !== 0;
  const other = isBig(ram, vi) ? ADD_RECVBUF_BIG : ADD_RECVBUF_SMALL;
  const add = mergeable ? ADD_RECVBUF_MERGEABLE : other;
  let result: number;
  do {
    result = kernel.invoke(add, vi, rq, gfp);
  } while (result === 0 && virtqueueNumFree(kernel.memory, vq) > 0);
  return kicked(kernel, rq, vq, result);
}

/** The end of filling: the device is told; 0 when there was no memory for a buffer. */
function kicked(kernel: KernelContext, rq: number, vq: number, result: number): number {
  const { ram } = kernel.memory;
  if (kick(kernel, vq)) ram.add64(rq + RQ.stats + RQ_STATS.kicks, 1);
  return result === -ERRNO.ENOMEM ? 0 : 1;
}

export const refillFunctions: readonly KernelFunction[] = [
  atomic({
    prototype: 'bool try_fill_recv(struct virtnet_info *vi, struct receive_queue *rq, gfp_t gfp)',
    calls: true,
    body: tryFillRecv,
  }),
  atomic({
    prototype:
      'int add_recvbuf_small(struct virtnet_info *vi, struct receive_queue *rq, gfp_t gfp)',
    calls: true,
    body: addRecvbufSmall,
  }),
  atomic({
    prototype:
      'int add_recvbuf_mergeable(struct virtnet_info *vi, struct receive_queue *rq, gfp_t gfp)',
    calls: true,
    body: addRecvbufMergeable,
  }),
];
