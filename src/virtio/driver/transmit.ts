/**
 * Transmit: an skb with a virtio_net_hdr in front into the send queue.
 *
 * Reference: drivers/net/virtio_net.c (start_xmit, xmit_skb), include/linux/virtio_net.h
 * (virtio_net_hdr_from_skb). The header says what the skb says: NEEDS_CSUM with csum_start and csum_offset
 * for a PARTIAL one, segmentation type and size for one that stands for several. A ring that is full
 * drops the skb. When what was sent is taken back is in `transmit-napi.ts`.
 */
import { Callee, atomic, type KernelContext, type KernelFunction } from '../../kernel/function.js';
import { checksumStartOffset } from '../../stack/checksum.js';
import {
  SKB_GSO_TCPV4,
  SKB_GSO_TCPV6,
  SKB_GSO_TCP_ECN,
  SKB_GSO_UDP_L4,
} from '../../stack/segment.js';
import {
  CHECKSUM_PARTIAL,
  SKB_SHARED_INFO,
  SK_BUFF,
  fragAddress,
  fragLength,
  freeSkb,
  pskbExpandHead,
  skbHeadlen,
  skbHeadroom,
  skbPull,
  skbPush,
  skbShinfo,
} from '../../stack/skb.js';
import { SCATTERLIST, VRING_VIRTQUEUE } from '../ring/vring-virtqueue.js';
import {
  NET_HEADER_OFFSET,
  VIRTIO_NET_HDR_F_NEEDS_CSUM,
  VIRTIO_NET_HDR_GSO_ECN,
  VIRTIO_NET_HDR_GSO_TCPV4,
  VIRTIO_NET_HDR_GSO_TCPV6,
  VIRTIO_NET_HDR_GSO_UDP_L4,
} from '../net-header.js';
import { kick, pagesOf, sendQueue } from './common.js';
import { VIRTNET_SQ_STATS, SEND_QUEUE, VIRTNET_INFO } from './structs.js';
import { checkSqFullAndDisable, reclaim, usesNapi } from './transmit-napi.js';
import { freeOldXmit } from './xdp.js';
import { NET_DEVICE } from '../../stack/net-device.js';

const DEV = NET_DEVICE.offset;
const SQ = SEND_QUEUE.offset;
const VI = VIRTNET_INFO.offset;

const VIRTQUEUE_ADD_OUTBUF = new Callee('virtqueue_add_outbuf');
const VIRTQUEUE_DISABLE_CB = new Callee('virtqueue_disable_cb');

const NETDEV_TX_OK = 0;
/** What an skb without room for the header gets in front. */
const MORE_HEADROOM = 64;

const SKB = SK_BUFF.offset;
const SHINFO = SKB_SHARED_INFO.offset;
const SG = SCATTERLIST.offset;
const SQ_STATS = VIRTNET_SQ_STATS.offset;

const GSO_TYPES: readonly (readonly [number, number])[] = [
  [SKB_GSO_TCPV4, VIRTIO_NET_HDR_GSO_TCPV4],
  [SKB_GSO_TCPV6, VIRTIO_NET_HDR_GSO_TCPV6],
  [SKB_GSO_UDP_L4, VIRTIO_NET_HDR_GSO_UDP_L4],
];

/** `virtio_net_hdr_from_skb`: fills the zeroed header at `header`; the skb's data is its Ethernet header. */
function headerFromSkb(kernel: KernelContext, skb: number, header: number): void {
  const { ram } = kernel.memory;
  const H = NET_HEADER_OFFSET;
  const shinfo = skbShinfo(ram, skb);
  const gsoSize = ram.u16(shinfo + SHINFO.gso_size);
  if (gsoSize !== 0) {
    const type = ram.u32(shinfo + SHINFO.gso_type);
    const gso = GSO_TYPES.find(([bit]) => (type & bit) !== 0)?.[1] ?? 0;
    const ecn = (type & SKB_GSO_TCP_ECN) !== 0 ? VIRTIO_NET_HDR_GSO_ECN : 0;
    ram.set8(header + H.gso_type, gso | ecn);
    ram.set16(header + H.hdr_len, skbHeadlen(ram, skb));
    ram.set16(header + H.gso_size, gsoSize);
  }
  if (ram.u8(skb + SKB.ip_summed) !== CHECKSUM_PARTIAL) return;
  ram.set8(header + H.flags, VIRTIO_NET_HDR_F_NEEDS_CSUM);
  ram.set16(header + H.csum_start, checksumStartOffset(ram, skb));
  ram.set16(header + H.csum_offset, ram.u16(skb + SKB.csum_offset));
}

/** `xmit_skb`: negative when the queue has no room. */
function xmitSkb(kernel: KernelContext, vi: number, sq: number, skb: number): number {
  const { ram } = kernel.memory;
  const headerSize = ram.u8(vi + VI.hdr_len);
  if (skbHeadroom(ram, skb) < headerSize) {
    pskbExpandHead(kernel, pagesOf(ram, vi), skb, MORE_HEADROOM, 0);
  }
  const header = ram.pointer(skb + SKB.data) - headerSize;
  ram.zero(header, headerSize);
  headerFromSkb(kernel, skb, header);
  skbPush(ram, skb, headerSize);
  const sg = sq + SQ.sg;
  ram.setPointer(sg + SG.address, header);
  ram.set32(sg + SG.length, skbHeadlen(ram, skb));
  const shinfo = skbShinfo(ram, skb);
  const frags = ram.u8(shinfo + SHINFO.nr_frags);
  for (let i = 0; i < frags; i++) {
    const piece = sg + (i + 1) * SCATTERLIST.size;
    ram.setPointer(piece + SG.address, fragAddress(ram, shinfo, i));
    ram.set32(piece + SG.length, fragLength(ram, shinfo, i));
  }
  skbPull(ram, skb, headerSize);
  return kernel.invoke(VIRTQUEUE_ADD_OUTBUF, ram.pointer(sq + SQ.vq), sg, frags + 1, skb, 0);
}

function startXmit(kernel: KernelContext, skb: number, dev: number): number {
  const { ram } = kernel.memory;
  const vi = ram.pointer(dev + DEV.priv);
  // netdev_core_pick_tx: the pair it came in on
  const pair = Math.max(0, ram.u16(skb + SKB.queue_mapping) - 1);
  const sq = sendQueue(ram, vi, pair % ram.u16(vi + VI.curr_queue_pairs));
  const more = ram.u8(dev + DEV.xmit_more) !== 0;
  const useNapi = usesNapi(kernel, sq);
  if (useNapi && !more) {
    reclaim(kernel, sq, 0);
  } else {
    if (useNapi) kernel.invoke(VIRTQUEUE_DISABLE_CB, ram.pointer(sq + SQ.vq));
    kernel.invoke('free_old_xmit', sq, 0, 0);
  }
  if (xmitSkb(kernel, vi, sq, skb) < 0) {
    ram.add64(dev + DEV.tx_dropped, 1);
    freeSkb(kernel, pagesOf(ram, vi), skb);
    return NETDEV_TX_OK;
  }
  checkSqFullAndDisable(kernel, sq);
  if ((!more || ram.u8(sq + SQ.stopped) !== 0) && kick(kernel, ram.pointer(sq + SQ.vq)))
    ram.add64(sq + SQ.stats + SQ_STATS.kicks, 1);
  return NETDEV_TX_OK;
}

export const transmitFunctions: readonly KernelFunction[] = [
  atomic({
    prototype: 'void free_old_xmit(struct send_queue *sq, struct netdev_queue *txq, bool in_napi)',
    calls: true,
    body: (kernel, sq) => {
      const { ram } = kernel.memory;
      const vq = ram.pointer(sq + SQ.vq);
      freeOldXmit(kernel, ram.pointer(vq + VRING_VIRTQUEUE.offset.vdev), sq);
    },
  }),
  atomic({
    prototype: 'int start_xmit(struct sk_buff *skb, struct net_device *dev)',
    calls: true,
    body: startXmit,
  }),
];
