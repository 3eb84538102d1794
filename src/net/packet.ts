/**
 * Builders for frames: Ethernet with VLAN tags, ARP, IPv4, IPv6, UDP, TCP, ICMP, IP in IP.
 *
 * Each builder returns header plus payload, so that layers nest from the inside out. Lengths and
 * checksums are computed; `checksum: 'partial'` leaves the pseudo-header sum in the field, as a sender
 * with checksum offload does. Reference: IEEE 802.3/802.1Q, RFC 826, 791, 8200, 768, 9293, 792, 4443,
 * 2003. Left out: TCP options, IPv6 extension headers other than the fragment header.
 *
 * Usage:
 *   const ends = { source: '10.0.0.1', destination: '10.0.0.2' };
 *   const frame = ethernet({ type: ETHERTYPE.IPV4 },
 *     ipv4(ends, { protocol: IPPROTO.UDP }, udp(ends, { sourcePort: 1000, destinationPort: 2000 }, payload)));
 */
import { InputError } from '../common/errors.js';
import { viewOf } from '../common/bytes.js';
import { parseIp, parseMac } from './address.js';
import {
  completeChecksum,
  internetChecksum,
  partialChecksum,
  pseudoHeaderSum,
} from './checksum.js';

/** EtherTypes (include/uapi/linux/if_ether.h). */
export const ETHERTYPE = {
  IPV4: 0x0800,
  ARP: 0x0806,
  VLAN: 0x8100,
  IPV6: 0x86dd,
  QINQ: 0x88a8,
} as const;

/** IP protocol numbers (include/uapi/linux/in.h). */
export const IPPROTO = {
  ICMP: 1,
  IPIP: 4,
  TCP: 6,
  UDP: 17,
  IPV6: 41,
  FRAGMENT: 44,
  GRE: 47,
  ICMPV6: 58,
} as const;

/** TCP flag bits. */
export const TCP_FLAG = { FIN: 1, SYN: 2, RST: 4, PSH: 8, ACK: 16, URG: 32 } as const;

/** Source and destination address as text, both IPv4 or both IPv6. */
export interface Endpoints {
  readonly source: string;
  readonly destination: string;
}

/** How an L4 checksum field is filled; `none` leaves 0. */
export type ChecksumState = 'complete' | 'partial' | 'none';

const DEFAULT_SOURCE_MAC = '02:00:00:00:00:01';
const DEFAULT_DESTINATION_MAC = '02:00:00:00:00:02';

export function concatBytes(...parts: readonly Uint8Array[]): Uint8Array {
  const bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}

export interface EthernetOptions {
  /** Default 02:00:00:00:00:01. */
  readonly source?: string;
  /** Default 02:00:00:00:00:02. */
  readonly destination?: string;
  /** Type of the payload. */
  readonly type: number;
  /** VLAN tags from the outside in; two or more use 802.1ad for all but the last. */
  readonly vlans?: readonly number[];
}

export function ethernet(options: EthernetOptions, payload: Uint8Array): Uint8Array {
  const tags = options.vlans ?? [];
  const header = new Uint8Array(14 + 4 * tags.length);
  const view = viewOf(header);
  header.set(parseMac(options.destination ?? DEFAULT_DESTINATION_MAC), 0);
  header.set(parseMac(options.source ?? DEFAULT_SOURCE_MAC), 6);
  for (const [i, tci] of tags.entries()) {
    view.setUint16(12 + 4 * i, i === tags.length - 1 ? ETHERTYPE.VLAN : ETHERTYPE.QINQ);
    view.setUint16(14 + 4 * i, tci);
  }
  view.setUint16(header.length - 2, options.type);
  return concatBytes(header, payload);
}

export interface ArpOptions extends Endpoints {
  /** Default request. */
  readonly operation?: 'request' | 'reply';
  readonly sourceMac?: string;
  /** Default all zeros. */
  readonly targetMac?: string;
}

/** An Ethernet/IPv4 ARP message (28 bytes). */
export function arp(options: ArpOptions): Uint8Array {
  const message = new Uint8Array(28);
  message.set([0, 1, 8, 0, 6, 4, 0, options.operation === 'reply' ? 2 : 1]);
  message.set(parseMac(options.sourceMac ?? DEFAULT_SOURCE_MAC), 8);
  message.set(parseIp(options.source), 14);
  message.set(parseMac(options.targetMac ?? '00:00:00:00:00:00'), 18);
  message.set(parseIp(options.destination), 24);
  return message;
}

export interface Ipv4Options {
  readonly protocol: number;
  /** Default 64. */
  readonly ttl?: number;
  readonly tos?: number;
  readonly id?: number;
  readonly dontFragment?: boolean;
  readonly moreFragments?: boolean;
  /** In bytes, a multiple of 8. */
  readonly fragmentOffset?: number;
  /** Header options, a multiple of 4 bytes, at most 40. */
  readonly options?: Uint8Array;
}

export function ipv4(ends: Endpoints, options: Ipv4Options, payload: Uint8Array): Uint8Array {
  const extra = options.options ?? new Uint8Array(0);
  if (extra.length % 4 !== 0 || extra.length > 40) {
    throw new InputError(`IPv4 options of ${extra.length} bytes: must be a multiple of 4 up to 40`);
  }
  const header = new Uint8Array(20 + extra.length);
  const view = viewOf(header);
  header[0] = 0x40 | (header.length / 4);
  header[1] = options.tos ?? 0;
  view.setUint16(2, header.length + payload.length);
  view.setUint16(4, options.id ?? 0);
  const flags = (options.dontFragment ? 0x4000 : 0) | (options.moreFragments ? 0x2000 : 0);
  view.setUint16(6, flags | ((options.fragmentOffset ?? 0) >>> 3));
  header[8] = options.ttl ?? 64;
  header[9] = options.protocol;
  header.set(addressOf(ends.source, 4), 12);
  header.set(addressOf(ends.destination, 4), 16);
  header.set(extra, 20);
  view.setUint16(10, internetChecksum(header));
  return concatBytes(header, payload);
}

export interface Ipv6Options {
  readonly nextHeader: number;
  /** Default 64. */
  readonly hopLimit?: number;
  readonly trafficClass?: number;
  readonly flowLabel?: number;
}

export function ipv6(ends: Endpoints, options: Ipv6Options, payload: Uint8Array): Uint8Array {
  const header = new Uint8Array(40);
  const view = viewOf(header);
  view.setUint32(
    0,
    (6 << 28) | ((options.trafficClass ?? 0) << 20) | ((options.flowLabel ?? 0) & 0xfffff),
  );
  view.setUint16(4, payload.length);
  header[6] = options.nextHeader;
  header[7] = options.hopLimit ?? 64;
  header.set(addressOf(ends.source, 16), 8);
  header.set(addressOf(ends.destination, 16), 24);
  return concatBytes(header, payload);
}

/** An IPv6 fragment header in front of `payload`; goes under next header 44. */
export function ipv6Fragment(
  options: {
    readonly nextHeader: number;
    readonly offset: number;
    readonly more: boolean;
    readonly id: number;
  },
  payload: Uint8Array,
): Uint8Array {
  const header = new Uint8Array(8);
  header[0] = options.nextHeader;
  viewOf(header).setUint16(2, (options.offset & 0xfff8) | (options.more ? 1 : 0));
  viewOf(header).setUint32(4, options.id);
  return concatBytes(header, payload);
}

export interface UdpOptions {
  readonly sourcePort: number;
  readonly destinationPort: number;
  /** Default complete. */
  readonly checksum?: ChecksumState;
}

export function udp(ends: Endpoints, options: UdpOptions, payload: Uint8Array): Uint8Array {
  const segment = concatBytes(new Uint8Array(8), payload);
  const view = viewOf(segment);
  view.setUint16(0, options.sourcePort);
  view.setUint16(2, options.destinationPort);
  view.setUint16(4, segment.length);
  view.setUint16(6, transportChecksum(ends, IPPROTO.UDP, segment, options.checksum));
  return segment;
}

export interface TcpOptions {
  readonly sourcePort: number;
  readonly destinationPort: number;
  readonly sequence?: number;
  readonly acknowledgement?: number;
  /** TCP_FLAG bits; default ACK. */
  readonly flags?: number;
  /** Default 65535. */
  readonly window?: number;
  /** Default complete. */
  readonly checksum?: ChecksumState;
}

export function tcp(ends: Endpoints, options: TcpOptions, payload: Uint8Array): Uint8Array {
  const segment = concatBytes(new Uint8Array(20), payload);
  const view = viewOf(segment);
  view.setUint16(0, options.sourcePort);
  view.setUint16(2, options.destinationPort);
  view.setUint32(4, options.sequence ?? 0);
  view.setUint32(8, options.acknowledgement ?? 0);
  segment[12] = 5 << 4;
  segment[13] = options.flags ?? TCP_FLAG.ACK;
  view.setUint16(14, options.window ?? 65535);
  view.setUint16(16, transportChecksum(ends, IPPROTO.TCP, segment, options.checksum));
  return segment;
}

export interface IcmpOptions {
  readonly type: number;
  readonly code?: number;
  readonly id?: number;
  readonly sequence?: number;
}

/** ICMPv4 in the shape of an echo: id and sequence in the second word. */
export function icmp(options: IcmpOptions, payload: Uint8Array): Uint8Array {
  const message = icmpMessage(options, payload);
  viewOf(message).setUint16(2, internetChecksum(message));
  return message;
}

/** ICMPv6 in the shape of an echo; its checksum covers the IPv6 pseudo-header. */
export function icmpv6(ends: Endpoints, options: IcmpOptions, payload: Uint8Array): Uint8Array {
  const message = icmpMessage(options, payload);
  viewOf(message).setUint16(2, transportChecksum(ends, IPPROTO.ICMPV6, message, 'complete'));
  return message;
}

function icmpMessage(options: IcmpOptions, payload: Uint8Array): Uint8Array {
  const message = concatBytes(new Uint8Array(8), payload);
  const view = viewOf(message);
  message[0] = options.type;
  message[1] = options.code ?? 0;
  view.setUint16(4, options.id ?? 0);
  view.setUint16(6, options.sequence ?? 0);
  return message;
}

function transportChecksum(
  ends: Endpoints,
  protocol: number,
  segment: Uint8Array,
  state: ChecksumState = 'complete',
): number {
  const source = parseIp(ends.source);
  const pseudo = pseudoHeaderSum(source, parseIp(ends.destination), protocol, segment.length);
  switch (state) {
    case 'complete':
      return completeChecksum(pseudo, segment, protocol);
    case 'partial':
      return partialChecksum(pseudo);
    case 'none':
      return 0;
  }
}

function addressOf(text: string, size: 4 | 16): Uint8Array {
  const bytes = parseIp(text);
  if (bytes.length !== size) {
    throw new InputError(`'${text}' is not an IPv${size === 4 ? 4 : 6} address`);
  }
  return bytes;
}
