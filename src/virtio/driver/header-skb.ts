/**
 * What a virtio_net_hdr means for an skb: checksum state and segmentation.
 *
 * Reference: include/linux/virtio_net.h of 6.12 (virtio_net_hdr_to_skb), skb_partial_csum_set. Works on
 * an skb whose network header is not set yet, as in the receive path: there the kernel does not probe
 * headers of segmented packets without NEEDS_CSUM. A zero header changes nothing but the mac header. 6.1
 * does not know UDP_L4 and takes any csum_start (`DriverProfile`).
 */
import type { KernelContext } from '../../kernel/function.js';
import {
  NET_HEADER_OFFSET,
  VIRTIO_NET_HDR_F_NEEDS_CSUM,
  VIRTIO_NET_HDR_GSO_ECN,
  VIRTIO_NET_HDR_GSO_NONE,
  VIRTIO_NET_HDR_GSO_TCPV4,
  VIRTIO_NET_HDR_GSO_TCPV6,
  VIRTIO_NET_HDR_GSO_UDP,
  VIRTIO_NET_HDR_GSO_UDP_L4,
} from '../net-header.js';
import type { DriverProfile } from './profiles.js';
import { skbPartialCsumSet } from '../../stack/checksum.js';
import {
  SKB_GSO_DODGY,
  SKB_GSO_TCPV4,
  SKB_GSO_TCPV6,
  SKB_GSO_TCP_ECN,
  SKB_GSO_UDP,
  SKB_GSO_UDP_L4,
} from '../../stack/segment.js';
import { SKB_SHARED_INFO, SK_BUFF, skbHeadroom, skbMayPull, skbShinfo } from '../../stack/skb.js';

interface GsoKind {
  /** `skb_shared_info.gso_type` bit. */
  readonly skbType: number;
  /** Least bytes of network and transport header. */
  readonly network: number;
  readonly transport: number;
  /** Where the checksum must lie in the transport header, if PARTIAL. */
  readonly csumOffset: number | undefined;
  readonly needsCsum: boolean;
  /** gso_size counts the transport header too. */
  readonly sizeWithTransport: boolean;
}

const GSO_BY_FRAGS = 0xffff;

const TCP = { transport: 20, csumOffset: 16, needsCsum: false, sizeWithTransport: false } as const;
const GSO_KINDS: ReadonlyMap<number, GsoKind> = new Map<number, GsoKind>([
  [VIRTIO_NET_HDR_GSO_TCPV4, { ...TCP, skbType: SKB_GSO_TCPV4, network: 20 }],
  [VIRTIO_NET_HDR_GSO_TCPV6, { ...TCP, skbType: SKB_GSO_TCPV6, network: 40 }],
  [
    VIRTIO_NET_HDR_GSO_UDP,
    {
      skbType: SKB_GSO_UDP,
      network: 20,
      transport: 8,
      csumOffset: undefined,
      needsCsum: false,
      sizeWithTransport: true,
    },
  ],
  [
    VIRTIO_NET_HDR_GSO_UDP_L4,
    {
      skbType: SKB_GSO_UDP_L4,
      network: 20,
      transport: 8,
      csumOffset: 6,
      needsCsum: true,
      sizeWithTransport: false,
    },
  ],
]);

const SKB = SK_BUFF.offset;

/** Applies the header in the skb's control block. False: the header is not possible (-EINVAL). */
export function netHeaderToSkb(
  kernel: KernelContext,
  pages: number,
  skb: number,
  profile: DriverProfile,
): boolean {
  const { ram } = kernel.memory;
  const header = skb + SKB.cb;
  const gsoType = ram.u8(header + NET_HEADER_OFFSET.gso_type);
  const gsoSize = ram.u16(header + NET_HEADER_OFFSET.gso_size);
  let kind: GsoKind | undefined;
  if (gsoType !== VIRTIO_NET_HDR_GSO_NONE) {
    kind = GSO_KINDS.get(gsoType & ~VIRTIO_NET_HDR_GSO_ECN);
    if (!kind || gsoSize === 0) return false;
    if (kind.skbType === SKB_GSO_UDP_L4 && !profile.knowsUdpL4) return false;
  }
  ram.set16(skb + SKB.mac_header, skbHeadroom(ram, skb));

  const transport = kind?.transport ?? 0;
  let network = kind?.network ?? 20;
  let headers = 0;
  const partial = (ram.u8(header + NET_HEADER_OFFSET.flags) & VIRTIO_NET_HDR_F_NEEDS_CSUM) !== 0;
  const offset = ram.u16(header + NET_HEADER_OFFSET.csum_offset);
  if (partial) {
    const start = ram.u16(header + NET_HEADER_OFFSET.csum_start);
    if (!skbMayPull(kernel, pages, skb, start + Math.max(transport, offset + 2))) return false;
    if (!skbPartialCsumSet(ram, skb, start, offset)) return false;
    if (profile.checksCsumStart && start < network) return false;
    network = Math.max(network, start);
    headers = network + transport;
    if (!skbMayPull(kernel, pages, skb, headers)) return false;
  } else if (kind) {
    headers = network + transport;
    if (!skbMayPull(kernel, pages, skb, headers)) return false;
  }

  if (!kind) return true;
  if (kind.needsCsum && !partial) return false;
  if (partial && kind.csumOffset !== undefined && offset !== kind.csumOffset) return false;
  if (gsoSize === GSO_BY_FRAGS) return false;
  const before = kind.sizeWithTransport ? headers - transport : headers;
  if (ram.u32(skb + SKB.len) - before > gsoSize) {
    const shinfo = skbShinfo(ram, skb);
    const ecn = (gsoType & VIRTIO_NET_HDR_GSO_ECN) !== 0 ? SKB_GSO_TCP_ECN : 0;
    ram.set16(shinfo + SKB_SHARED_INFO.offset.gso_size, gsoSize);
    ram.set32(shinfo + SKB_SHARED_INFO.offset.gso_type, kind.skbType | ecn | SKB_GSO_DODGY);
  }
  return true;
}
