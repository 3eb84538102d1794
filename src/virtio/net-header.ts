/**
 * `struct virtio_net_hdr` in its layouts, flags and segmentation types by name.
 *
 * Reference: virtio 1.x, "Network Device", "Device Operation". The device writes one in front of each
 * received frame and reads one in front of each transmitted frame. Little-endian throughout. Leaves out
 * the tunnel and IPsec fields behind the hash.
 *
 * Usage:
 *   const header = encodeNetHeader({ flags: VIRTIO_NET_HDR_F_DATA_VALID }, 12);
 *   describeNetHeader(decodeNetHeader(header));   // 'DATA_VALID'
 */
import { viewOf } from '../common/bytes.js';
import { InputError } from '../common/errors.js';

/** The checksum at csum_start + csum_offset holds the pseudo-header sum only. */
export const VIRTIO_NET_HDR_F_NEEDS_CSUM = 1;
/** The device verified the outermost checksum. */
export const VIRTIO_NET_HDR_F_DATA_VALID = 2;
const VIRTIO_NET_HDR_F_RSC_INFO = 4;

export const VIRTIO_NET_HDR_GSO_NONE = 0;
export const VIRTIO_NET_HDR_GSO_TCPV4 = 1;
export const VIRTIO_NET_HDR_GSO_UDP = 3;
export const VIRTIO_NET_HDR_GSO_TCPV6 = 4;
export const VIRTIO_NET_HDR_GSO_UDP_L4 = 5;
export const VIRTIO_NET_HDR_GSO_ECN = 0x80;

/** Bytes of each layout. */
export const NET_HEADER_SIZE = {
  /** Legacy without MRG_RXBUF. */
  virtio_net_hdr: 10,
  /** VERSION_1 or MRG_RXBUF: with num_buffers. */
  virtio_net_hdr_v1: 12,
  /** HASH_REPORT: with hash_value and hash_report. */
  virtio_net_hdr_v1_hash: 20,
  /** UDP_TUNNEL_GSO: with outer_th_offset and inner_nh_offset. */
  virtio_net_hdr_v1_hash_tunnel: 24,
} as const;

/** Offsets of the fields, the same in every layout that has them. */
export const NET_HEADER_OFFSET = {
  flags: 0,
  gso_type: 1,
  hdr_len: 2,
  gso_size: 4,
  csum_start: 6,
  csum_offset: 8,
  num_buffers: 10,
  hash_value: 12,
  hash_report: 16,
} as const;

export interface NetHeader {
  readonly flags: number;
  readonly gso_type: number;
  readonly hdr_len: number;
  readonly gso_size: number;
  readonly csum_start: number;
  readonly csum_offset: number;
  readonly num_buffers: number;
}

/** The header's bytes; fields not given are 0. */
export function encodeNetHeader(
  fields: Partial<NetHeader>,
  size: number = NET_HEADER_SIZE.virtio_net_hdr_v1,
): Uint8Array {
  const bytes = new Uint8Array(size);
  const view = viewOf(bytes);
  view.setUint8(0, fields.flags ?? 0);
  view.setUint8(1, fields.gso_type ?? 0);
  view.setUint16(2, fields.hdr_len ?? 0, true);
  view.setUint16(4, fields.gso_size ?? 0, true);
  view.setUint16(6, fields.csum_start ?? 0, true);
  view.setUint16(8, fields.csum_offset ?? 0, true);
  if (size >= 12) view.setUint16(10, fields.num_buffers ?? 0, true);
  return bytes;
}

export function decodeNetHeader(bytes: Uint8Array): NetHeader {
  if (bytes.length < 10) throw new InputError(`virtio_net_hdr of ${bytes.length} bytes`);
  const view = viewOf(bytes);
  return {
    flags: view.getUint8(0),
    gso_type: view.getUint8(1),
    hdr_len: view.getUint16(2, true),
    gso_size: view.getUint16(4, true),
    csum_start: view.getUint16(6, true),
    csum_offset: view.getUint16(8, true),
    num_buffers: bytes.length >= 12 ? view.getUint16(10, true) : 1,
  };
}

const FLAG_NAMES: readonly (readonly [number, string])[] = [
  [VIRTIO_NET_HDR_F_NEEDS_CSUM, 'NEEDS_CSUM'],
  [VIRTIO_NET_HDR_F_DATA_VALID, 'DATA_VALID'],
  [VIRTIO_NET_HDR_F_RSC_INFO, 'RSC_INFO'],
];

const GSO_NAMES: readonly (readonly [number, string])[] = [
  [VIRTIO_NET_HDR_GSO_TCPV4, 'TCPV4'],
  [VIRTIO_NET_HDR_GSO_UDP, 'UDP'],
  [VIRTIO_NET_HDR_GSO_TCPV6, 'TCPV6'],
  [VIRTIO_NET_HDR_GSO_UDP_L4, 'UDP_L4'],
];

/** One line: `NEEDS_CSUM csum_start 34 csum_offset 6`; `none` for a zero header. */
export function describeNetHeader(header: NetHeader): string {
  const words: string[] = [];
  for (const [bit, name] of FLAG_NAMES) if ((header.flags & bit) !== 0) words.push(name);
  const unknown = header.flags & ~7;
  if (unknown !== 0) words.push(`flags 0x${unknown.toString(16)}`);
  if ((header.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) !== 0) {
    words.push(`csum_start ${header.csum_start} csum_offset ${header.csum_offset}`);
  }
  if (header.gso_type !== VIRTIO_NET_HDR_GSO_NONE) {
    const base = header.gso_type & ~VIRTIO_NET_HDR_GSO_ECN;
    const name = GSO_NAMES.find(([type]) => type === base)?.[1] ?? `type ${base}`;
    const ecn = (header.gso_type & VIRTIO_NET_HDR_GSO_ECN) !== 0 ? '|ECN' : '';
    words.push(`gso ${name}${ecn} size ${header.gso_size}`);
  }
  return words.length > 0 ? words.join(' ') : 'none';
}
