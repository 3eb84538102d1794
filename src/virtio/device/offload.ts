/**
 * What a host does to a frame whose checksum or segmentation the guest does not take over.
 *
 * Reference: virtio 1.4, "Network Device", "Processing of Incoming Packets" (device requirements); a Linux host
 * with a tap device (TUNSETOFFLOAD, skb_checksum_help, skb_gso_segment). Without GUEST_CSUM the
 * checksum is completed and all flags are 0; without the offload of its kind a segmented frame is cut up, and
 * with GUEST_CSUM each piece is left partial. Headers are taken where the frame has them: Ethernet,
 * IPv4 or IPv6 without extension headers. A frame that cannot be cut up is delivered whole, as one without
 * segmentation. Leaves out tunnels, VLAN tags, and UFO by IP fragments.
 *
 * Usage:
 *   for (const { header, frame } of applyOffloads(header, frame, mask)) deliver(frame, header);
 */
import { viewOf } from '../../common/bytes.js';
import {
  fold,
  internetChecksum,
  partialChecksum,
  pseudoHeaderSum,
  sumWords,
} from '../../net/checksum.js';
import { ETHERTYPE, IPPROTO, TCP_FLAG } from '../../net/packet.js';
import {
  VIRTIO_NET_HDR_F_NEEDS_CSUM,
  VIRTIO_NET_HDR_GSO_ECN,
  VIRTIO_NET_HDR_GSO_NONE,
  VIRTIO_NET_HDR_GSO_TCPV4,
  VIRTIO_NET_HDR_GSO_TCPV6,
  VIRTIO_NET_HDR_GSO_UDP,
  VIRTIO_NET_HDR_GSO_UDP_L4,
  type NetHeader,
} from '../net-header.js';
import { VIRTIO_NET_F } from '../net-features.js';

export interface OffloadedFrame {
  readonly header: Partial<NetHeader>;
  readonly frame: Uint8Array;
}

const ETH_HLEN = 14;
const CWR = 0x80;

/** Where the parts of a frame are; `undefined` when it is none that can be cut up. */
interface Layers {
  readonly isIpv4: boolean;
  readonly protocol: number;
  readonly transport: number;
  readonly payload: number;
}

/** The frames, with their headers, that reach a guest whose offloads are `offloads`. */
export function applyOffloads(
  header: Partial<NetHeader>,
  frame: Uint8Array,
  offloads: bigint,
): readonly OffloadedFrame[] {
  const checksum = has(offloads, VIRTIO_NET_F.GUEST_CSUM);
  const gsoType = header.gso_type ?? VIRTIO_NET_HDR_GSO_NONE;
  if (gsoType !== VIRTIO_NET_HDR_GSO_NONE && !takesSegments(gsoType, frame, offloads)) {
    const pieces = segment(header, frame) ?? [
      { header: { ...header, gso_type: VIRTIO_NET_HDR_GSO_NONE, gso_size: 0 }, frame },
    ];
    return checksum ? pieces : pieces.map(complete);
  }
  const whole = { header, frame };
  return [checksum ? whole : complete(whole)];
}

function has(offloads: bigint, bit: number): boolean {
  return ((offloads >> BigInt(bit)) & 1n) !== 0n;
}

function takesSegments(gsoType: number, frame: Uint8Array, offloads: bigint): boolean {
  const ecn = (gsoType & VIRTIO_NET_HDR_GSO_ECN) !== 0;
  if (ecn && !has(offloads, VIRTIO_NET_F.GUEST_ECN)) return false;
  switch (gsoType & ~VIRTIO_NET_HDR_GSO_ECN) {
    case VIRTIO_NET_HDR_GSO_TCPV4:
      return has(offloads, VIRTIO_NET_F.GUEST_TSO4);
    case VIRTIO_NET_HDR_GSO_TCPV6:
      return has(offloads, VIRTIO_NET_F.GUEST_TSO6);
    case VIRTIO_NET_HDR_GSO_UDP:
      return has(offloads, VIRTIO_NET_F.GUEST_UFO);
    case VIRTIO_NET_HDR_GSO_UDP_L4:
      return has(offloads, frame[12] === 0x86 ? VIRTIO_NET_F.GUEST_USO6 : VIRTIO_NET_F.GUEST_USO4);
    default:
      return true;
  }
}

/** `skb_checksum_help`: completes NEEDS_CSUM; a guest without GUEST_CSUM sees no flag at all. */
function complete({ header, frame }: OffloadedFrame): OffloadedFrame {
  const flags = header.flags ?? 0;
  if (flags === 0) return { header, frame };
  if ((flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) === 0)
    return { header: { ...header, flags: 0 }, frame };
  const start = header.csum_start ?? 0;
  const at = start + (header.csum_offset ?? 0);
  const done = { ...header, flags: 0, csum_start: 0, csum_offset: 0 };
  if (at + 2 > frame.length) return { header: done, frame };
  const bytes = frame.slice();
  const sum = ~fold(sumWords(bytes.subarray(start))) & 0xffff;
  viewOf(bytes).setUint16(at, sum === 0 ? 0xffff : sum);
  return { header: done, frame: bytes };
}

/** Frames of `gso_size` payload bytes, each with its own headers and a partial checksum. */
function segment(
  header: Partial<NetHeader>,
  frame: Uint8Array,
): readonly OffloadedFrame[] | undefined {
  const layers = layersOf(frame);
  const size = header.gso_size ?? 0;
  if (!layers || size === 0 || header.gso_type === VIRTIO_NET_HDR_GSO_UDP) return undefined;
  const payload = frame.length - layers.payload;
  const pieces: OffloadedFrame[] = [];
  for (let at = 0, index = 0; at < payload || index === 0; at += size, index++) {
    const end = Math.min(at + size, payload);
    const bytes = new Uint8Array(layers.payload + end - at);
    bytes.set(frame.subarray(0, layers.payload));
    bytes.set(frame.subarray(layers.payload + at, layers.payload + end), layers.payload);
    adjust(bytes, layers, at, index, end === payload);
    const csum_offset = layers.protocol === IPPROTO.TCP ? 16 : 6;
    pieces.push({
      header: { flags: VIRTIO_NET_HDR_F_NEEDS_CSUM, csum_start: layers.transport, csum_offset },
      frame: bytes,
    });
  }
  return pieces;
}

function layersOf(frame: Uint8Array): Layers | undefined {
  const view = viewOf(frame);
  if (frame.length < ETH_HLEN + 20) return undefined;
  const type = view.getUint16(12);
  const isIpv4 = type === ETHERTYPE.IPV4;
  if (!isIpv4 && type !== ETHERTYPE.IPV6) return undefined;
  const protocol = view.getUint8(ETH_HLEN + (isIpv4 ? 9 : 6));
  const transport = ETH_HLEN + (isIpv4 ? 4 * (view.getUint8(ETH_HLEN) & 15) : 40);
  const isTcp = protocol === IPPROTO.TCP;
  if (!isTcp && protocol !== IPPROTO.UDP) return undefined;
  if (frame.length < transport + (isTcp ? 20 : 8)) return undefined;
  const payload = transport + (isTcp ? 4 * (view.getUint8(transport + 12) >> 4) : 8);
  return frame.length < payload ? undefined : { isIpv4, protocol, transport, payload };
}

/** Lengths, identification, sequence number, flags and checksums of one piece. */
function adjust(
  bytes: Uint8Array,
  layers: Layers,
  offset: number,
  index: number,
  isLast: boolean,
): void {
  const view = viewOf(bytes);
  const { transport } = layers;
  const length = bytes.length - transport;
  if (layers.isIpv4) {
    view.setUint16(ETH_HLEN + 2, bytes.length - ETH_HLEN);
    view.setUint16(ETH_HLEN + 4, (view.getUint16(ETH_HLEN + 4) + index) & 0xffff);
    view.setUint16(ETH_HLEN + 10, 0);
    view.setUint16(ETH_HLEN + 10, internetChecksum(bytes.subarray(ETH_HLEN, transport)));
  } else {
    view.setUint16(ETH_HLEN + 4, length);
  }
  if (layers.protocol === IPPROTO.TCP) {
    view.setUint32(transport + 4, view.getUint32(transport + 4) + offset);
    let flags = view.getUint8(transport + 13);
    if (!isLast) flags &= ~(TCP_FLAG.FIN | TCP_FLAG.PSH);
    // congestion window reduced: said once
    if (index > 0) flags &= ~CWR;
    view.setUint8(transport + 13, flags);
  } else {
    view.setUint16(transport + 4, length);
  }
  const addresses = layers.isIpv4 ? [12, 16, 20] : [8, 24, 40];
  const [source = 0, destination = 0, end = 0] = addresses.map((at) => ETH_HLEN + at);
  const pseudo = pseudoHeaderSum(
    bytes.subarray(source, destination),
    bytes.subarray(destination, end),
    layers.protocol,
    length,
  );
  const field = transport + (layers.protocol === IPPROTO.TCP ? 16 : 6);
  view.setUint16(field, partialChecksum(pseudo));
}
