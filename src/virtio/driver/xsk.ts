/**
 * AF_XDP without a copy: a receive queue whose buffers are the chunks of a socket's UMEM.
 *
 * Reference: drivers/net/virtio_net.c of 6.12 (virtnet_xsk_pool_enable, virtnet_xsk_pool_disable,
 * virtnet_add_recvbuf_xsk, virtnet_receive_xsk_bufs, virtnet_receive_xsk_small, virtnet_receive_xsk_merge,
 * xsk_construct_skb). Binding resets the queue, which takes RING_RESET. The header of the first chunk lies at the end of
 * its 256 bytes of headroom; further chunks of a frame begin there with data. A program sees frames in one
 * chunk; those in several are dropped where there is a program. Leaves out transmit without a copy (6.13)
 * and wakeup: where the fill ring is empty, the queue is filled before a later poll.
 */
import {
  SKB_SHARED_INFO_SIZE,
  XDP_BUFF,
  XDP_PACKET_HEADROOM,
  XDP_RXQ_INFO,
} from '../../bpf/xdp-buff.js';
import { ERRNO } from '../../common/errno.js';
import type { Ram } from '../../cpu/ram.js';
import { Callee, atomic, type KernelContext, type KernelFunction } from '../../kernel/function.js';
import { NET_DEVICE } from '../../stack/net-device.js';
import { allocPage, pageAddress } from '../../stack/pages.js';
import { ETH_HLEN, skbDataAlign } from '../../stack/skb-geometry.js';
import {
  SKB_SHARED_INFO,
  allocSkbHead,
  freeSkb,
  skbAppendFrag,
  skbPull,
  skbPut,
  skbShinfo,
} from '../../stack/skb.js';
import { prepareXdpBuff, xdpBuffMetaSize } from '../../stack/xdp-frame.js';
import { XDP_ABORTED, XDP_PASS, XDP_REDIRECT, XDP_TX } from '../../stack/xdp-verdict.js';
import {
  MEM_TYPE_PAGE_SHARED,
  MEM_TYPE_XSK_BUFF_POOL,
  NO_CHUNK,
  allocChunk,
  freeAtHardStart,
  hardStartOf,
  rxFrameSize,
} from '../../stack/xsk-pool.js';
import { NETDEV_BPF } from '../../stack/xsk-structs.js';
import { NET_HEADER_OFFSET } from '../net-header.js';
import { virtqueueNumFree } from '../ring/virtqueue.js';
import { SCATTERLIST } from '../ring/vring-virtqueue.js';
import { hasBug } from './bugs.js';
import { isBig, negotiated, pagesOf, receiveQueue, type VirtioNetHost } from './common.js';
import { RECEIVE_QUEUE, VIRTNET_INFO, VIRTNET_RQ_STATS } from './structs.js';
import { savedFlags } from './xdp-checksum.js';

const DEV = NET_DEVICE.offset;
const RQ = RECEIVE_QUEUE.offset;
const RQ_STATS = VIRTNET_RQ_STATS.offset;
const VI = VIRTNET_INFO.offset;

const VIRTQUEUE_ADD_INBUF_CTX = new Callee('virtqueue_add_inbuf_ctx');
const VIRTQUEUE_GET_BUF = new Callee('virtqueue_get_buf');
const VIRTNET_XDP_HANDLER = new Callee('virtnet_xdp_handler');
const VIRTNET_RECEIVE_DONE = new Callee('virtnet_receive_done');
const VIRTNET_RECEIVE_XSK_BUF = new Callee('virtnet_receive_xsk_buf');

const NET_SKB_PAD = 64;

function addRecvbufXsk(
  kernel: KernelContext,
  vi: number,
  rq: number,
  pool: number,
  gfp: number,
): number {
  const { ram } = kernel.memory;
  const vq = ram.pointer(rq + RQ.vq);
  const headerSize = ram.u8(vi + VI.hdr_len);
  const sg = rq + RQ.sg;
  let posted = 0;
  for (; virtqueueNumFree(kernel.memory, vq) > 0; posted++) {
    const chunk = allocChunk(ram, pool);
    if (chunk === NO_CHUNK) break;
    const hardStart = hardStartOf(ram, pool, chunk);
    ram.setPointer(sg + SCATTERLIST.offset.address, hardStart + XDP_PACKET_HEADROOM - headerSize);
    ram.set32(sg + SCATTERLIST.offset.length, rxFrameSize(ram, pool) + headerSize);
    if (kernel.invoke(VIRTQUEUE_ADD_INBUF_CTX, vq, sg, 1, hardStart, 0, gfp) < 0) {
      freeAtHardStart(ram, pool, hardStart);
      break;
    }
  }
  return posted === 0 ? -ERRNO.ENOMEM : posted;
}

function receiveXskBufs(
  kernel: KernelContext,
  vi: number,
  rq: number,
  budget: number,
  xdpXmit: number,
  stats: number,
): number {
  const { ram } = kernel.memory;
  let packets = 0;
  for (; packets < budget; packets++) {
    const buf = getBuf(kernel, rq);
    if (buf === 0) break;
    const len = ram.u32(rq + RQ.scratch_len);
    kernel.invoke(VIRTNET_RECEIVE_XSK_BUF, vi, rq, buf, len, xdpXmit, stats);
  }
  return packets;
}

function getBuf(kernel: KernelContext, rq: number): number {
  const vq = kernel.memory.ram.pointer(rq + RQ.vq);
  return kernel.invoke(VIRTQUEUE_GET_BUF, vq, rq + RQ.scratch_len);
}

/** `xsk_buff_free`. */
function freeBuf(ram: Ram, rq: number, hardStart: number): void {
  freeAtHardStart(ram, ram.pointer(rq + RQ.xsk_pool), hardStart);
}

/** The check of `buf_to_xdp`: the first chunk of a frame has its header, which `length` does not count. */
function fits(ram: Ram, vi: number, rq: number, length: number, isFirst: boolean): boolean {
  const size = rxFrameSize(ram, ram.pointer(rq + RQ.xsk_pool));
  return length <= (isFirst ? size : size + ram.u8(vi + VI.hdr_len));
}

function receiveXskBuf(
  kernel: KernelContext,
  vi: number,
  rq: number,
  hardStart: number,
  len: number,
  xdpXmit: number,
  stats: number,
): void {
  const { ram } = kernel.memory;
  const headerSize = ram.u8(vi + VI.hdr_len);
  const length = len - headerSize;
  ram.add64(stats + RQ_STATS.bytes, length);
  if (length < ETH_HLEN || !fits(ram, vi, rq, length, true)) {
    ram.add64(ram.pointer(vi + VI.dev) + DEV.rx_length_errors, 1);
    freeBuf(ram, rq, hardStart);
    return;
  }
  const header = hardStart + XDP_PACKET_HEADROOM - headerSize;
  const flags = savedFlags(ram, vi, rq, header, header);
  const pool = ram.pointer(rq + RQ.xsk_pool);
  const frameSize = rxFrameSize(ram, pool) + XDP_PACKET_HEADROOM;
  const xdp = rq + RQ.scratch_xdp;
  prepareXdpBuff(ram, xdp, rq + RQ.xdp_rxq, hardStart, XDP_PACKET_HEADROOM, length, frameSize);
  const mergeable = ram.u8(vi + VI.mergeable_rx_bufs) !== 0;
  const buffers = mergeable ? ram.u16(header + NET_HEADER_OFFSET.num_buffers) : 1;
  const skb = receiveFrame(kernel, vi, rq, buffers, xdpXmit, stats);
  if (skb !== 0) kernel.invoke(VIRTNET_RECEIVE_DONE, vi, rq, skb, flags);
}

/** `virtnet_receive_xsk_small` and `virtnet_receive_xsk_merge`. */
function receiveFrame(
  kernel: KernelContext,
  vi: number,
  rq: number,
  buffers: number,
  xdpXmit: number,
  stats: number,
): number {
  const { ram } = kernel.memory;
  const xdp = rq + RQ.scratch_xdp;
  const hardStart = ram.pointer(xdp + XDP_BUFF.dataHardStart);
  const prog = ram.pointer(rq + RQ.xdp_prog);
  let action: number = XDP_PASS;
  if (prog !== 0 && buffers === 1) {
    action = kernel.invoke(
      VIRTNET_XDP_HANDLER,
      prog,
      xdp,
      ram.pointer(vi + VI.dev),
      xdpXmit,
      stats,
    );
  } else if (prog !== 0 && !hasBug(ram, vi, 'chunks pass the program')) {
    action = XDP_ABORTED;
  }
  if (action === XDP_TX || action === XDP_REDIRECT) return 0;
  if (action !== XDP_PASS) {
    freeBuf(ram, rq, hardStart);
    dropFollowing(kernel, vi, rq, buffers, stats);
    ram.add64(stats + RQ_STATS.drops, 1);
    return 0;
  }
  const skb = constructSkb(kernel, rq, xdp);
  if (appendChunks(kernel, vi, rq, skb, buffers, stats)) return skb;
  freeSkb(kernel, pagesOf(ram, vi), skb);
  ram.add64(stats + RQ_STATS.drops, 1);
  return 0;
}

/** `xsk_construct_skb`: metadata and packet in memory of the skb's own; the chunk is free. */
function constructSkb(kernel: KernelContext, rq: number, xdp: number): number {
  const { ram } = kernel.memory;
  const metaSize = xdpBuffMetaSize(ram, xdp);
  const from = ram.pointer(xdp + XDP_BUFF.data) - metaSize;
  const size = ram.pointer(xdp + XDP_BUFF.dataEnd) - from;
  const headSize = skbDataAlign(NET_SKB_PAD + size) + SKB_SHARED_INFO_SIZE;
  const skb = allocSkbHead(kernel, headSize, NET_SKB_PAD);
  ram.copy(skbPut(kernel, skb, size), from, size);
  if (metaSize > 0) {
    skbPull(ram, skb, metaSize);
    ram.set8(skbShinfo(ram, skb) + SKB_SHARED_INFO.offset.meta_len, metaSize);
  }
  freeBuf(ram, rq, ram.pointer(xdp + XDP_BUFF.dataHardStart));
  return skb;
}

/** `xsk_append_merge_buffer`: the rest of a frame as fragments; false when it is not right. */
function appendChunks(
  kernel: KernelContext,
  vi: number,
  rq: number,
  skb: number,
  buffers: number,
  stats: number,
): boolean {
  const { ram } = kernel.memory;
  const pages = pagesOf(ram, vi);
  const headerSize = ram.u8(vi + VI.hdr_len);
  let current = skb;
  // a device that says 0 buffers has the ring taken until it is empty
  for (let left = buffers - 1; left !== 0; left--) {
    const hardStart = getBuf(kernel, rq);
    const len = ram.u32(rq + RQ.scratch_len);
    if (hardStart === 0) {
      ram.add64(ram.pointer(vi + VI.dev) + DEV.rx_length_errors, 1);
      return false;
    }
    ram.add64(stats + RQ_STATS.bytes, len);
    if (!fits(ram, vi, rq, len, false)) {
      ram.add64(ram.pointer(vi + VI.dev) + DEV.rx_length_errors, 1);
      freeBuf(ram, rq, hardStart);
      dropFollowing(kernel, vi, rq, left, stats);
      return false;
    }
    const page = allocPage(kernel, pages, 1);
    ram.copy(pageAddress(ram, page), hardStart + XDP_PACKET_HEADROOM - headerSize, len);
    freeBuf(ram, rq, hardStart);
    current = skbAppendFrag(kernel, pages, skb, current, page, 0, len, len);
  }
  return true;
}

/** `xsk_drop_follow_bufs`: what is behind the first of `buffers`. */
function dropFollowing(
  kernel: KernelContext,
  vi: number,
  rq: number,
  buffers: number,
  stats: number,
): void {
  const { ram } = kernel.memory;
  for (let left = buffers; left > 1; left--) {
    const hardStart = getBuf(kernel, rq);
    if (hardStart === 0) {
      ram.add64(ram.pointer(vi + VI.dev) + DEV.rx_length_errors, 1);
      return;
    }
    ram.add64(stats + RQ_STATS.bytes, ram.u32(rq + RQ.scratch_len));
    freeBuf(ram, rq, hardStart);
  }
}

/** Whether a receive queue can have a pool: 0 or a negative errno. */
function poolProblem(ram: Ram, vi: number, queue: number): number {
  if (isBig(ram, vi)) return -ERRNO.ENOENT;
  if (queue >= ram.u16(vi + VI.curr_queue_pairs)) return -ERRNO.EINVAL;
  // virtqueue_reset
  return negotiated(ram, vi, 'RING_RESET') ? 0 : -ERRNO.ENOENT;
}

export function xskPoolFunctions(host: VirtioNetHost): readonly KernelFunction[] {
  return [
    atomic({
      prototype:
        'int virtnet_add_recvbuf_xsk(struct virtnet_info *vi, struct receive_queue *rq, ' +
        'struct xsk_buff_pool *pool, gfp_t gfp)',
      calls: true,
      body: addRecvbufXsk,
    }),
    atomic({
      prototype:
        'int virtnet_receive_xsk_bufs(struct virtnet_info *vi, struct receive_queue *rq, int budget, ' +
        'unsigned int *xdp_xmit, struct virtnet_rq_stats *stats)',
      calls: true,
      body: receiveXskBufs,
    }),
    atomic({
      prototype:
        'void virtnet_receive_xsk_buf(struct virtnet_info *vi, struct receive_queue *rq, void *buf, ' +
        'u32 len, unsigned int *xdp_xmit, struct virtnet_rq_stats *stats)',
      calls: true,
      body: receiveXskBuf,
    }),
    atomic({
      prototype: 'int virtnet_xsk_pool_setup(struct net_device *dev, struct netdev_bpf *xdp)',
      calls: true,
      body: ({ memory: { ram } }, dev, bpf) => {
        const vi = ram.pointer(dev + DEV.priv);
        const queue = ram.u16(bpf + NETDEV_BPF.offset.queue_id);
        const pool = ram.pointer(bpf + NETDEV_BPF.offset.pool);
        const problem = poolProblem(ram, vi, queue);
        if (problem !== 0) return problem;
        const rq = receiveQueue(ram, vi, queue);
        const rxq = rq + RQ.xdp_rxq;
        host.resetReceiveQueue(vi, queue, () => {
          ram.setPointer(rq + RQ.xsk_pool, pool);
          ram.setPointer(rxq + XDP_RXQ_INFO.xskPool, pool);
          const type = pool === 0 ? MEM_TYPE_PAGE_SHARED : MEM_TYPE_XSK_BUFF_POOL;
          ram.set32(rxq + XDP_RXQ_INFO.memType, type);
        });
        return 0;
      },
    }),
  ];
}
