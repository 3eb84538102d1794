/**
 * The receive path from interrupt to stack: napi poll, one buffer, the finished skb.
 *
 * Reference: drivers/net/virtio_net.c of 6.12 (skb_recv_done, virtnet_poll, virtnet_receive,
 * virtnet_receive_packets, receive_buf, virtnet_receive_done), net/ethernet/eth.c (eth_type_trans). The
 * stack behind napi_gro_receive is a list in kernel memory from which the lab reads the frames. Leaves
 * out GRO, RSS hash, dynamic interrupt moderation, AF_XDP.
 */
import {
  call,
  type BodyGenerator,
  type KernelContext,
  type KernelFunction,
} from '../kernel/function.js';
import { ETH_HLEN } from './net-geometry.js';
import { NET_HEADER_OFFSET, VIRTIO_NET_HDR_F_DATA_VALID } from './net-header.js';
import { netHeaderToSkb } from './net-header-skb.js';
import {
  DEV,
  RQ,
  RQ_STATS,
  SQ,
  VI,
  count,
  isXdpRawBufferQueue,
  kick,
  napiSchedule,
  pairOf,
  pagesOf,
  receiveQueue,
  rqGetBuf,
  sendQueue,
  xdpSendQueue,
} from './net-driver-common.js';
import { freeOldXmit } from './net-driver-xdp.js';
import {
  NAPIF_STATE_SCHED,
  NAPI_STRUCT,
  RQ_STATS_NAMES,
  VIRTIO_XDP_REDIR,
  VIRTIO_XDP_TX,
  VIRTNET_RQ_STATS,
  VIRTNET_SQ_STATS,
} from './net-structs.js';
import { CHECKSUM_UNNECESSARY, SK_BUFF, freeSkb, skbHeadroom, skbPull } from './skb.js';
import { VRING_VIRTQUEUE, virtqueueNumFree } from './split-ring-driver.js';
import { toInt, toUint } from './struct.js';

const SKB = SK_BUFF.offset;
const PACKET = { HOST: 0, BROADCAST: 1, MULTICAST: 2, OTHERHOST: 3 } as const;
const ETH_P_802_3 = 1;
const ETH_P_802_2 = 4;
const ETH_P_802_3_MIN = 0x600;
const GRO_NORMAL = 3n;

function* receiveBuf(
  kernel: KernelContext,
  vi = 0n,
  rq = 0n,
  buf = 0n,
  len = 0n,
  ctx = 0n,
  xdpXmit = 0n,
  stats = 0n,
): BodyGenerator<void> {
  const { memory } = kernel;
  const dev = memory.read64(vi + VI.dev);
  if (toUint(len) < memory.read8(vi + VI.hdr_len) + ETH_HLEN) {
    count(memory, dev + DEV.rx_length_errors);
    const pages = pagesOf(kernel, vi);
    pages.put(pages.headPage(buf));
    return;
  }
  // saved now: a program may overwrite the header
  const flags = memory.read8(buf + BigInt(NET_HEADER_OFFSET.flags));
  const mergeable = memory.read8(vi + VI.mergeable_rx_bufs) !== 0;
  const receive = mergeable ? 'receive_mergeable' : 'receive_small';
  const skb = yield* call(receive, dev, vi, rq, buf, ctx, len, xdpXmit, stats);
  if (skb !== 0n) yield* call('virtnet_receive_done', vi, rq, skb, BigInt(flags));
}

function* virtnetReceiveDone(
  kernel: KernelContext,
  vi = 0n,
  rq = 0n,
  skb = 0n,
  flags = 0n,
): BodyGenerator<void> {
  const { memory } = kernel;
  const dev = memory.read64(vi + VI.dev);
  const pages = pagesOf(kernel, vi);
  if ((toUint(flags) & VIRTIO_NET_HDR_F_DATA_VALID) !== 0) {
    memory.write8(skb + SKB.ip_summed, CHECKSUM_UNNECESSARY);
  }
  if (!netHeaderToSkb(kernel, pages, skb)) {
    count(memory, dev + DEV.rx_frame_errors);
    freeSkb(kernel, pages, skb);
    return;
  }
  memory.write16(skb + SKB.queue_mapping, pairOf(memory, vi, rq, 'rx') + 1);
  const protocol = toUint(yield* call('eth_type_trans', skb, dev));
  memory.write16(skb + SKB.protocol, ((protocol & 0xff) << 8) | ((protocol >> 8) & 0xff));
  yield* call('napi_gro_receive', rq + RQ.napi, skb);
}

/** Returns the protocol in network order, as the `__be16` of the prototype has it. */
function ethTypeTrans(kernel: KernelContext, skb = 0n, dev = 0n): bigint {
  const { memory } = kernel;
  const data = memory.read64(skb + SKB.data);
  memory.write64(skb + SKB.dev, dev);
  memory.write16(skb + SKB.mac_header, skbHeadroom(memory, skb));
  skbPull(memory, skb, ETH_HLEN);
  const header = memory.readBytes(data, ETH_HLEN);
  const own = memory.readBytes(dev + DEV.dev_addr, 6);
  const destination = header.subarray(0, 6);
  let type: number = PACKET.HOST;
  if (destination.every((byte) => byte === 0xff)) type = PACKET.BROADCAST;
  else if (((destination[0] ?? 0) & 1) !== 0) type = PACKET.MULTICAST;
  else if (destination.some((byte, i) => byte !== own[i])) type = PACKET.OTHERHOST;
  memory.write8(skb + SKB.pkt_type, type);

  let protocol = ((header[12] ?? 0) << 8) | (header[13] ?? 0);
  if (protocol < ETH_P_802_3_MIN) {
    const rest = memory.read32(skb + SKB.len);
    const novell = rest >= 2 && memory.read16(data + BigInt(ETH_HLEN)) === 0xffff;
    protocol = novell ? ETH_P_802_3 : ETH_P_802_2;
  }
  return BigInt(((protocol & 0xff) << 8) | (protocol >> 8));
}

function napiGroReceive(kernel: KernelContext, napi = 0n, skb = 0n): bigint {
  const { memory } = kernel;
  const vi = memory.read64(napi - RQ.napi + RQ.vi);
  const tail = memory.read64(vi + VI.sink_tail);
  memory.write64(skb + SKB.next, 0n);
  memory.write64(tail === 0n ? vi + VI.sink_head : tail + SKB.next, skb);
  memory.write64(vi + VI.sink_tail, skb);
  return GRO_NORMAL;
}

function* virtnetReceivePackets(
  kernel: KernelContext,
  vi = 0n,
  rq = 0n,
  budget = 0n,
  xdpXmit = 0n,
  stats = 0n,
): BodyGenerator {
  const { memory } = kernel;
  const most = toInt(budget);
  let packets = 0;
  while (packets < most) {
    const buf = yield* rqGetBuf(kernel, rq);
    if (buf === 0n) break;
    const len = BigInt(memory.read32(rq + RQ.scratch_len));
    const ctx = memory.read64(rq + RQ.scratch_ctx);
    yield* call('receive_buf', vi, rq, buf, len, ctx, xdpXmit, stats);
    packets++;
  }
  return BigInt(packets);
}

function* virtnetReceive(kernel: KernelContext, rq = 0n, budget = 0n, xdpXmit = 0n): BodyGenerator {
  const { memory } = kernel;
  const vi = memory.read64(rq + RQ.vi);
  const vq = memory.read64(rq + RQ.vq);
  const stats = rq + RQ.scratch_stats;
  memory.writeBytes(stats, new Uint8Array(VIRTNET_RQ_STATS.size));
  const packets = yield* call('virtnet_receive_packets', vi, rq, budget, xdpXmit, stats);
  const size = memory.read32(vq + VRING_VIRTQUEUE.offset.num);
  if (virtqueueNumFree(memory, vq) > Math.min(toInt(budget), size) / 2) {
    yield* call('try_fill_recv', vi, rq, 0n);
  }
  memory.write64(stats + RQ_STATS.packets, packets);
  for (const name of RQ_STATS_NAMES) {
    const offset = RQ_STATS[name];
    count(memory, rq + RQ.stats + offset, Number(memory.read64(stats + offset)));
  }
  return packets;
}

function* virtnetPoll(kernel: KernelContext, napi = 0n, budget = 0n): BodyGenerator {
  const { memory } = kernel;
  const rq = napi - RQ.napi;
  const vi = memory.read64(rq + RQ.vi);
  const vq = memory.read64(rq + RQ.vq);
  const xdpXmit = rq + RQ.scratch_xdp_xmit;
  memory.write32(xdpXmit, 0);

  // virtnet_poll_cleantx: sent frames of the pair's own queue, unless only XDP uses it
  const pair = pairOf(memory, vi, rq, 'rx');
  if (!isXdpRawBufferQueue(memory, vi, pair)) {
    yield* freeOldXmit(kernel, vi, sendQueue(memory, vi, pair));
  }

  const received = toInt(yield* call('virtnet_receive', rq, budget, xdpXmit));
  const inNapi = rq + RQ.packets_in_napi;
  memory.write32(inNapi, memory.read32(inNapi) + received);
  const pending = memory.read32(xdpXmit);
  if ((pending & VIRTIO_XDP_REDIR) !== 0) yield* call('xdp_do_flush');

  if (received < toInt(budget)) {
    // virtqueue_napi_complete: what came in between is not lost
    const opaque = yield* call('virtqueue_enable_cb_prepare', vq);
    const state = napi + NAPI_STRUCT.offset.state;
    memory.write32(state, memory.read32(state) & ~NAPIF_STATE_SCHED);
    if (toUint(yield* call('virtqueue_poll', vq, opaque)) !== 0) yield* napiSchedule(kernel, rq);
  }
  if ((pending & VIRTIO_XDP_TX) !== 0) {
    const sq = xdpSendQueue(kernel, vi);
    if (yield* kick(memory.read64(sq + SQ.vq))) {
      count(memory, sq + SQ.stats + VIRTNET_SQ_STATS.offset.kicks);
    }
  }
  return BigInt(received);
}

function* skbRecvDone(kernel: KernelContext, vq = 0n): BodyGenerator<void> {
  const { memory } = kernel;
  const vi = memory.read64(vq + VRING_VIRTQUEUE.offset.vdev);
  const pair = memory.read32(vq + VRING_VIRTQUEUE.offset.index) >> 1;
  yield* napiSchedule(kernel, receiveQueue(memory, vi, pair));
}

export const receiveFunctions: readonly KernelFunction[] = [
  {
    name: 'skb_recv_done',
    prototype: 'void skb_recv_done(struct virtqueue *rvq)',
    parameters: 1,
    body: skbRecvDone,
  },
  {
    name: 'virtnet_poll',
    prototype: 'int virtnet_poll(struct napi_struct *napi, int budget)',
    parameters: 2,
    body: virtnetPoll,
  },
  {
    name: 'virtnet_receive',
    prototype: 'int virtnet_receive(struct receive_queue *rq, int budget, unsigned int *xdp_xmit)',
    parameters: 3,
    body: virtnetReceive,
  },
  {
    name: 'virtnet_receive_packets',
    prototype:
      'int virtnet_receive_packets(struct virtnet_info *vi, struct receive_queue *rq, int budget, ' +
      'unsigned int *xdp_xmit, struct virtnet_rq_stats *stats)',
    parameters: 5,
    body: virtnetReceivePackets,
  },
  {
    name: 'receive_buf',
    prototype:
      'void receive_buf(struct virtnet_info *vi, struct receive_queue *rq, void *buf, ' +
      'unsigned int len, void **ctx, unsigned int *xdp_xmit, struct virtnet_rq_stats *stats)',
    parameters: 7,
    body: receiveBuf,
  },
  {
    name: 'virtnet_receive_done',
    prototype:
      'void virtnet_receive_done(struct virtnet_info *vi, struct receive_queue *rq, ' +
      'struct sk_buff *skb, u8 flags)',
    parameters: 4,
    body: virtnetReceiveDone,
  },
  {
    name: 'eth_type_trans',
    prototype: '__be16 eth_type_trans(struct sk_buff *skb, struct net_device *dev)',
    parameters: 2,
    body: ethTypeTrans,
  },
  {
    name: 'napi_gro_receive',
    prototype: 'gro_result_t napi_gro_receive(struct napi_struct *napi, struct sk_buff *skb)',
    parameters: 2,
    body: napiGroReceive,
  },
];
