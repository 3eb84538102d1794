/**
 * The receive path from interrupt to stack: napi poll, one buffer, the finished skb.
 *
 * Reference: drivers/net/virtio_net.c of 6.12 (skb_recv_done, virtnet_poll, virtnet_receive,
 * virtnet_receive_packets, receive_buf, virtnet_receive_done). How checksum offload goes with XDP is in
 * `xdp-checksum.ts`, the stack behind napi_gro_receive in `src/stack`. Behind a program the header is
 * gone and with it the hash. Queues of AF_XDP sockets are in `xsk.ts`. Leaves out dynamic interrupt moderation.
 */
import { Callee, atomic, type KernelContext, type KernelFunction } from '../../kernel/function.js';
import { ETH_HLEN } from '../../stack/skb-geometry.js';
import { NET_HEADER_OFFSET, VIRTIO_NET_HDR_F_DATA_VALID } from '../net-header.js';
import type { Ram } from '../../cpu/ram.js';
import { netHeaderToSkb } from './header-skb.js';
import { xdpChecksumOf } from './profiles.js';
import { skbSetHash, skbSetSavedHash, wantsHash } from './rss-hash.js';
import { pollCleantx } from './transmit-napi.js';
import { savedFlags, setCsumAfterXdp, smallAllocation } from './xdp-checksum.js';
import {
  isBig,
  kick,
  napiSchedule,
  pairOf,
  pagesOf,
  receiveQueue,
  rqGetBuf,
  xdpSendQueue,
} from './common.js';
import {
  NAPIF_STATE_SCHED,
  NAPI_STRUCT,
  VIRTIO_XDP_REDIR,
  VIRTIO_XDP_TX,
  VIRTNET_RQ_STATS,
  VIRTNET_SQ_STATS,
  RECEIVE_QUEUE,
  SEND_QUEUE,
  VIRTNET_INFO,
} from './structs.js';
import { headPage, pageAddress, putPage } from '../../stack/pages.js';
import { givePages } from './big.js';
import { hasBug } from './bugs.js';
import { profileOf } from './profiles.js';
import { setProtocol } from '../../stack/ethernet.js';
import { CHECKSUM_UNNECESSARY, SK_BUFF, freeSkb, skbHeadroom } from '../../stack/skb.js';
import { virtqueueNumFree } from '../ring/virtqueue.js';
import { VRING_VIRTQUEUE } from '../ring/vring-virtqueue.js';
import { NET_DEVICE } from '../../stack/net-device.js';

const DEV = NET_DEVICE.offset;
const RQ = RECEIVE_QUEUE.offset;
const RQ_STATS = VIRTNET_RQ_STATS.offset;
const SQ = SEND_QUEUE.offset;
const VI = VIRTNET_INFO.offset;

const RECEIVE_MERGEABLE = new Callee('receive_mergeable');
const RECEIVE_SMALL = new Callee('receive_small');
const RECEIVE_BIG = new Callee('receive_big');
const VIRTNET_RECEIVE_DONE = new Callee('virtnet_receive_done');
const NAPI_GRO_RECEIVE = new Callee('napi_gro_receive');
const RECEIVE_BUF = new Callee('receive_buf');
const VIRTNET_RECEIVE_PACKETS = new Callee('virtnet_receive_packets');
const VIRTNET_RECEIVE_XSK_BUFS = new Callee('virtnet_receive_xsk_bufs');
const TRY_FILL_RECV = new Callee('try_fill_recv');
const VIRTNET_RECEIVE = new Callee('virtnet_receive');
const VIRTQUEUE_ENABLE_CB_PREPARE = new Callee('virtqueue_enable_cb_prepare');
const NAPI_COMPLETE_DONE = new Callee('napi_complete_done');
const VIRTQUEUE_POLL = new Callee('virtqueue_poll');

const SKB = SK_BUFF.offset;
function receiveBuf(
  kernel: KernelContext,
  vi: number,
  rq: number,
  buf: number,
  len: number,
  ctx: number,
  xdpXmit: number,
  stats: number,
): void {
  const { ram } = kernel.memory;
  const dev = ram.pointer(vi + VI.dev);
  if (len < ram.u8(vi + VI.hdr_len) + ETH_HLEN) {
    ram.add64(dev + DEV.rx_length_errors, 1);
    freeBuf(kernel, vi, rq, buf);
    return;
  }
  let skb: number;
  let flags: number;
  // the flags are saved now: a program may overwrite the header
  if (isBig(ram, vi)) {
    const header = hasBug(ram, vi, 'flags of the page') ? buf : pageAddress(ram, buf);
    flags = savedFlags(ram, vi, rq, header, buf);
    skb = kernel.invoke(RECEIVE_BIG, dev, vi, rq, buf, len, stats);
  } else {
    const mergeable = ram.u8(vi + VI.mergeable_rx_bufs) !== 0;
    const cookie = mergeable ? buf : smallAllocation(buf, ctx);
    flags = savedFlags(ram, vi, rq, buf, cookie);
    const receive = mergeable ? RECEIVE_MERGEABLE : RECEIVE_SMALL;
    skb = kernel.invoke(receive, dev, vi, rq, buf, ctx, len, xdpXmit, stats);
  }
  if (skb !== 0) kernel.invoke(VIRTNET_RECEIVE_DONE, vi, rq, skb, flags);
}

/** `virtnet_rq_free_buf`. */
function freeBuf(kernel: KernelContext, vi: number, rq: number, buf: number): void {
  const { ram } = kernel.memory;
  if (isBig(ram, vi)) {
    givePages(ram, rq, buf);
    return;
  }
  const pages = pagesOf(ram, vi);
  putPage(kernel, pages, headPage(ram, pages, buf));
}

/** Whether the checksum state is that of a frame behind a program, and not that of its header. */
function behindXdp(ram: Ram, vi: number, rq: number): boolean {
  const enabled = ram.u8(vi + VI.xdp_enabled) !== 0;
  switch (xdpChecksumOf(ram, vi)) {
    case 'base':
    case 'upstream':
      return false;
    case 'v4-literal':
      return enabled;
    case 'v4-fixed':
      return enabled && ram.pointer(rq + RQ.xdp_prog) !== 0 && !isBig(ram, vi);
  }
}

function virtnetReceiveDone(
  kernel: KernelContext,
  vi: number,
  rq: number,
  skb: number,
  saved: number,
): void {
  const { ram } = kernel.memory;
  const dev = ram.pointer(vi + VI.dev);
  const pages = pagesOf(ram, vi);
  const frameError = (): void => {
    ram.add64(dev + DEV.rx_frame_errors, 1);
    freeSkb(kernel, pages, skb);
  };
  const behind = behindXdp(ram, vi, rq);
  if (wantsHash(ram, vi)) {
    if (!behind) skbSetHash(ram, skb);
    else if (xdpChecksumOf(ram, vi) === 'v4-fixed') skbSetSavedHash(ram, rq, skb);
  }
  if (behind) {
    setProtocol(kernel, skb, dev);
    ram.set16(skb + SKB.network_header, skbHeadroom(ram, skb));
    if (setCsumAfterXdp(kernel, vi, rq, pages, skb, saved) < 0) return frameError();
    ram.set16(skb + SKB.queue_mapping, pairOf(ram, vi, rq) + 1);
  } else {
    const header = skb + SKB.cb + NET_HEADER_OFFSET.flags;
    const flags = xdpChecksumOf(ram, vi) === 'base' ? ram.u8(header) : saved;
    if ((flags & VIRTIO_NET_HDR_F_DATA_VALID) !== 0) {
      ram.set8(skb + SKB.ip_summed, CHECKSUM_UNNECESSARY);
    }
    if (!netHeaderToSkb(kernel, pages, skb, profileOf(ram, vi))) return frameError();
    ram.set16(skb + SKB.queue_mapping, pairOf(ram, vi, rq) + 1);
    setProtocol(kernel, skb, dev);
  }
  kernel.invoke(NAPI_GRO_RECEIVE, rq + RQ.napi, skb);
}

function virtnetReceivePackets(
  kernel: KernelContext,
  vi: number,
  rq: number,
  budget: number,
  xdpXmit: number,
  stats: number,
): number {
  const { ram } = kernel.memory;
  let packets = 0;
  while (packets < budget) {
    const buf = rqGetBuf(kernel, rq);
    if (buf === 0) break;
    const len = ram.u32(rq + RQ.scratch_len);
    const ctx = ram.u32(rq + RQ.scratch_ctx);
    kernel.invoke(RECEIVE_BUF, vi, rq, buf, len, ctx, xdpXmit, stats);
    packets++;
  }
  return packets;
}

function virtnetReceive(
  kernel: KernelContext,
  rq: number,
  budget: number,
  xdpXmit: number,
): number {
  const { ram } = kernel.memory;
  const vi = ram.pointer(rq + RQ.vi);
  const vq = ram.pointer(rq + RQ.vq);
  const stats = rq + RQ.scratch_stats;
  ram.zero(stats, VIRTNET_RQ_STATS.size);
  const hasChunks = ram.pointer(rq + RQ.xsk_pool) !== 0;
  const receive = hasChunks ? VIRTNET_RECEIVE_XSK_BUFS : VIRTNET_RECEIVE_PACKETS;
  const packets = kernel.invoke(receive, vi, rq, budget, xdpXmit, stats);
  const size = ram.u32(vq + VRING_VIRTQUEUE.offset.num);
  if (virtqueueNumFree(kernel.memory, vq) > Math.min(budget, size) / 2) {
    if (kernel.invoke(TRY_FILL_RECV, vi, rq, 0) === 0) ram.set8(rq + RQ.refill_due, 1);
  }
  ram.setWord(stats + RQ_STATS.packets, packets);
  // all of virtnet_rq_stats: u64 counters
  for (let at = 0; at < VIRTNET_RQ_STATS.size; at += 8) {
    ram.add64(rq + RQ.stats + at, ram.s32(stats + at));
  }
  return packets;
}

function virtnetPoll(kernel: KernelContext, napi: number, budget: number): number {
  const { ram } = kernel.memory;
  const rq = napi - RQ.napi;
  const vi = ram.pointer(rq + RQ.vi);
  const vq = ram.pointer(rq + RQ.vq);
  const xdpXmit = rq + RQ.scratch_xdp_xmit;
  ram.set32(xdpXmit, 0);

  pollCleantx(kernel, vi, pairOf(ram, vi, rq));

  const received = kernel.invoke(VIRTNET_RECEIVE, rq, budget, xdpXmit);
  const inNapi = rq + RQ.packets_in_napi;
  ram.set32(inNapi, ram.u32(inNapi) + received);
  const pending = ram.u32(xdpXmit);
  const redirected = (pending & VIRTIO_XDP_REDIR) !== 0;
  const flushesLate = hasBug(ram, vi, 'flush after completion');
  if (redirected && !flushesLate) kernel.invoke('xdp_do_flush');

  if (received < budget) {
    // virtqueue_napi_complete: what came in between is not lost
    const opaque = kernel.invoke(VIRTQUEUE_ENABLE_CB_PREPARE, vq);
    kernel.invoke(NAPI_COMPLETE_DONE, napi, received);
    if (kernel.invoke(VIRTQUEUE_POLL, vq, opaque) !== 0) napiSchedule(kernel, napi, vq);
  }
  if (redirected && flushesLate) kernel.invoke('xdp_do_flush');
  if ((pending & VIRTIO_XDP_TX) !== 0) {
    const sq = xdpSendQueue(kernel, vi);
    if (kick(kernel, ram.pointer(sq + SQ.vq))) {
      ram.add64(sq + SQ.stats + VIRTNET_SQ_STATS.offset.kicks, 1);
    }
  }
  return received;
}

function skbRecvDone(kernel: KernelContext, vq: number): void {
  const { ram } = kernel.memory;
  const vi = ram.pointer(vq + VRING_VIRTQUEUE.offset.vdev);
  const pair = ram.u32(vq + VRING_VIRTQUEUE.offset.index) >> 1;
  napiSchedule(kernel, receiveQueue(ram, vi, pair) + RQ.napi, vq);
}

export const receiveFunctions: readonly KernelFunction[] = [
  atomic({
    prototype: 'bool napi_complete_done(struct napi_struct *n, int work_done)',
    body: ({ memory: { ram } }, napi) => {
      const state = napi + NAPI_STRUCT.offset.state;
      ram.set32(state, ram.u32(state) & ~NAPIF_STATE_SCHED);
      return 1;
    },
  }),
  atomic({
    prototype: 'void skb_recv_done(struct virtqueue *rvq)',
    calls: true,
    body: skbRecvDone,
  }),
  atomic({
    prototype: 'int virtnet_poll(struct napi_struct *napi, int budget)',
    calls: true,
    body: virtnetPoll,
  }),
  atomic({
    prototype: 'int virtnet_receive(struct receive_queue *rq, int budget, unsigned int *xdp_xmit)',
    calls: true,
    body: virtnetReceive,
  }),
  atomic({
    prototype:
      'int virtnet_receive_packets(struct virtnet_info *vi, struct receive_queue *rq, int budget, ' +
      'unsigned int *xdp_xmit, struct virtnet_rq_stats *stats)',
    calls: true,
    body: virtnetReceivePackets,
  }),
  atomic({
    prototype:
      'void receive_buf(struct virtnet_info *vi, struct receive_queue *rq, void *buf, ' +
      'unsigned int len, void **ctx, unsigned int *xdp_xmit, struct virtnet_rq_stats *stats)',
    numbers: ['ctx'],
    calls: true,
    body: receiveBuf,
  }),
  atomic({
    prototype:
      'void virtnet_receive_done(struct virtnet_info *vi, struct receive_queue *rq, ' +
      'struct sk_buff *skb, u8 flags)',
    calls: true,
    body: virtnetReceiveDone,
  }),
];
