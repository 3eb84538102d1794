/**
 * Receive buffer geometry of virtio-net: how large a buffer is, where the frame lies in it.
 *
 * Reference: drivers/net/virtio_net.c of 6.12 (add_recvbuf_small, add_recvbuf_mergeable,
 * get_mergeable_buf_len, mergeable_len_to_ctx, DECLARE_EWMA(pkt_len, 0, 64)), 64-bit, 4 KiB pages, 64-byte
 * cache lines. Pure numbers, no memory.
 *
 * small, XDP on (header 12):                    mergeable, XDP on:
 *   0     pad 64                                  0     headroom 256
 *   64    headroom 256                            256   virtio_net_hdr, frame   <- posted, 3520 bytes
 *   320   virtio_net_hdr, frame  <- posted, 1530  3776  skb_shared_info 320
 *   1856  skb_shared_info 320                     4096  end
 *   2176  end
 */
import { SKB_SHARED_INFO_SIZE, XDP_PACKET_HEADROOM } from '../../bpf/xdp-buff.js';
import { PAGE_SIZE } from '../../stack/pages.js';
import { ETH_HLEN, MAX_SKB_FRAGS, skbDataAlign } from '../../stack/skb-geometry.js';

/** Ethernet header, VLAN tag, 1500 bytes. */
export const GOOD_PACKET_LEN = 1518;
/** NET_SKB_PAD + NET_IP_ALIGN. */
export const VIRTNET_RX_PAD = 64;
/** Frames up to this size are copied out of a mergeable buffer. */
export const GOOD_COPY_LEN = 128;
/** dev->max_mtu while the device does not offer VIRTIO_NET_F_MTU. */
export const MAX_MTU = 65535;
/** Bytes of a chunk that receive buffers are cut from: an order-3 allocation. */
export const PAGE_FRAG_SIZE = 32768;
/** sizeof(struct padded_vnet_hdr): where the frame begins in a big-mode page. */
export const PADDED_VNET_HDR = 32;
const MRG_CTX_HEADER_SHIFT = 22;
const EWMA_WEIGHT_SHIFT = 6;

/** `virtnet_get_headroom`: what a buffer posted now gets. */
export function headroomFor(xdpEnabled: boolean): number {
  return xdpEnabled ? XDP_PACKET_HEADROOM : 0;
}

/** Bytes a small-mode buffer takes, skb_shared_info included. */
export function smallBufferSize(headerSize: number, headroom: number): number {
  return (
    skbDataAlign(GOOD_PACKET_LEN + headerSize + VIRTNET_RX_PAD + headroom) +
    skbDataAlign(SKB_SHARED_INFO_SIZE)
  );
}

/** Pages of a big-mode buffer behind its first. */
export function bigPacketPages(guestGso: boolean, mtu: number): number {
  return guestGso ? MAX_SKB_FRAGS : Math.ceil(mtu / PAGE_SIZE);
}

/** Bytes that a big-mode buffer of `pages` pages behind the first takes, header included. */
export function bigBufferSize(headerSize: number, pages: number): number {
  return headerSize + (pages + 1) * PAGE_SIZE - PADDED_VNET_HDR;
}

/** What stays free around a mergeable buffer's data: headroom and skb_shared_info, or nothing. */
export function mergeableRoom(headroom: number): number {
  return skbDataAlign(headroom + (headroom > 0 ? SKB_SHARED_INFO_SIZE : 0));
}

/** `get_mergeable_buf_len`: bytes posted, before a tail hole is added. */
export function mergeableLength(
  headerSize: number,
  average: number,
  minimum: number,
  room: number,
): number {
  if (room > 0) return PAGE_SIZE - room;
  const clamped = Math.min(Math.max(average, minimum), PAGE_SIZE - headerSize);
  return skbDataAlign(headerSize + clamped);
}

/**
 * `mergeable_min_buf_len`: the whole ring must hold one largest frame, and a buffer at least
 * GOOD_PACKET_LEN.
 */
export function mergeableMinimum(headerSize: number, maxMtu: number, queueSize: number): number {
  const frame = headerSize + ETH_HLEN + 4 + maxMtu;
  return Math.max(Math.max(Math.ceil(frame / queueSize), headerSize) - headerSize, GOOD_PACKET_LEN);
}

/** The context word of a mergeable buffer: headroom above bit 22, truesize below. */
export function mergeableContext(truesize: number, headroom: number): number {
  return (headroom << MRG_CTX_HEADER_SHIFT) | truesize;
}

export function contextHeadroom(ctx: number): number {
  return ctx >>> MRG_CTX_HEADER_SHIFT;
}

export function contextTruesize(ctx: number): number {
  return ctx & ((1 << MRG_CTX_HEADER_SHIFT) - 1);
}

/** The moving average of frame lengths after another frame; 0 means none yet. */
export function ewmaAdd(average: number, length: number): number {
  if (average === 0) return length;
  return ((average << EWMA_WEIGHT_SHIFT) - average + length) >>> EWMA_WEIGHT_SHIFT;
}
