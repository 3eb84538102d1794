/**
 * Checksum offload beside XDP, in its variants: what a frame's virtio_net_hdr means when a program ran.
 *
 * Reference: drivers/net/virtio_net.c before the change (6.1), the fourth version of "virtio-net: support
 * coexistence of XDP and GUEST_CSUM" (netdev, June 2023, not merged), and what was merged in its place
 * (6.6 stable, 6.10).
 *
 * | variant    | NEEDS_CSUM                                 | DATA_VALID                           |
 * | ---------- | ------------------------------------------ | ------------------------------------ |
 * | base       | the program runs, the skb is NONE          | lost: NONE                           |
 * | v4-literal | checksum looked for anew behind the program| UNNECESSARY                          |
 * | v4-fixed   | the same, else where it was before         | UNNECESSARY                          |
 * | upstream   | dropped in front of the program            | UNNECESSARY                          |
 *
 * The literal fourth version reads the flags at the buffer's cookie, which only in mergeable mode is the
 * header: in small mode it is the allocation, in big mode a page structure. It asks whether XDP is enabled
 * where it means whether a program ran. `v4-fixed` reads the header, asks whether a program ran, and
 * where no TCP or UDP checksum is found (VLAN tag, tunnel made by the program) or the device meant another
 * one (an inner header), keeps the place that the header told, as generic XDP does; the length in the
 * pseudo-header is that of the IP header, so that padding does not count. It saves the reported hash, too, which the
 * literal one leaves out behind XDP, and all others lose with the header. Both trust the program with
 * DATA_VALID, as upstream does.
 */
import { ERRNO } from '../../common/errno.js';
import type { Ram } from '../../cpu/ram.js';
import type { KernelContext } from '../../kernel/function.js';
import { checksumSetup } from '../../stack/checksum-setup.js';
import { checksumStartOffset, skbPartialCsumSet } from '../../stack/checksum.js';
import { ETH_P_IP, IPV4, IPV6, be16 } from '../../stack/headers.js';
import { ETH_HLEN } from '../../stack/skb-geometry.js';
import { CHECKSUM_NONE, CHECKSUM_UNNECESSARY, SK_BUFF, skbHeadlen } from '../../stack/skb.js';
import {
  NET_HEADER_OFFSET,
  VIRTIO_NET_HDR_F_DATA_VALID,
  VIRTIO_NET_HDR_F_NEEDS_CSUM,
} from '../net-header.js';
import { VIRTNET_RX_PAD } from './geometry.js';
import { xdpChecksumOf } from './profiles.js';
import { saveHash } from './rss-hash.js';
import { RECEIVE_QUEUE, VIRTNET_INFO } from './structs.js';

const RQ = RECEIVE_QUEUE.offset;
const VI = VIRTNET_INFO.offset;

const SKB = SK_BUFF.offset;

/** Whether a frame is dropped in front of the program because its checksum is partial. */
export function partialMustNotRun(ram: Ram, vi: number, header: number): boolean {
  if (xdpChecksumOf(ram, vi) !== 'upstream') return false;
  return (ram.u8(header + NET_HEADER_OFFSET.flags) & VIRTIO_NET_HDR_F_NEEDS_CSUM) !== 0;
}

/**
 * The flags that receive_buf saves before a program can overwrite the header. `header` is where it lies,
 * `allocation` where the buffer's memory begins (small mode) or the page structure lies (big mode); in
 * mergeable mode the header.
 */
export function savedFlags(
  ram: Ram,
  vi: number,
  rq: number,
  header: number,
  cookie: number,
): number {
  const H = NET_HEADER_OFFSET;
  switch (xdpChecksumOf(ram, vi)) {
    case 'base':
    case 'upstream':
      return ram.u8(header + H.flags);
    case 'v4-literal': {
      const enabled = ram.u8(vi + VI.xdp_enabled) !== 0;
      return ram.u8((enabled ? cookie : header) + H.flags);
    }
    case 'v4-fixed':
      ram.set16(rq + RQ.scratch_csum_start, ram.u16(header + H.csum_start));
      ram.set16(rq + RQ.scratch_csum_offset, ram.u16(header + H.csum_offset));
      saveHash(ram, vi, rq, header);
      return ram.u8(header + H.flags);
  }
}

/** The allocation that a small-mode header lies in. */
export function smallAllocation(header: number, headroom: number): number {
  return header - VIRTNET_RX_PAD - headroom;
}

/**
 * `virtnet_set_csum_after_xdp`: the checksum state of an skb that a program let pass. Data points at L3.
 * Negative: the frame is in error.
 */
export function setCsumAfterXdp(
  kernel: KernelContext,
  vi: number,
  rq: number,
  pages: number,
  skb: number,
  flags: number,
): number {
  const { ram } = kernel.memory;
  if ((flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) !== 0) {
    if (xdpChecksumOf(ram, vi) === 'v4-literal') return checksumSetup(kernel, pages, skb, true);
    return setupOrKeep(kernel, rq, pages, skb);
  }
  if ((flags & VIRTIO_NET_HDR_F_DATA_VALID) !== 0) {
    ram.set8(skb + SKB.ip_summed, CHECKSUM_UNNECESSARY);
  }
  return 0;
}

/** Looks for the checksum anew; where that leads elsewhere, keeps the one that the device named. */
function setupOrKeep(kernel: KernelContext, rq: number, pages: number, skb: number): number {
  const { ram } = kernel.memory;
  // from L3 on, as the program left the data
  const moved = ram.s32(rq + RQ.scratch_moved);
  const start = ram.u16(rq + RQ.scratch_csum_start) - moved - ETH_HLEN;
  const offset = ram.u16(rq + RQ.scratch_csum_offset);
  const length = ram.u32(skb + SKB.len);
  const header = ram.pointer(skb + SKB.data);
  // padding behind the packet is no part of its L4 length
  const told = packetLength(ram, skb, header);
  if (told <= length && told <= skbHeadlen(ram, skb)) ram.set32(skb + SKB.len, told);
  const found = checksumSetup(kernel, pages, skb, false) === 0;
  const same = found && checksumStartOffset(ram, skb) === start;
  const recalculated = same && checksumSetup(kernel, pages, skb, true) === 0;
  ram.set32(skb + SKB.len, length);
  if (recalculated) return 0;
  ram.set8(skb + SKB.ip_summed, CHECKSUM_NONE);
  if (start < 0 || !skbPartialCsumSet(ram, skb, start, offset)) return -ERRNO.EPROTO;
  return 0;
}

function packetLength(ram: Ram, skb: number, header: number): number {
  if (ram.u16(skb + SKB.protocol) === ETH_P_IP) return be16(ram, header + IPV4.tot_len);
  return IPV6.size + be16(ram, header + IPV6.payload_len);
}
