/**
 * The frames of the checksum experiments: what a device hands over, by kind.
 *
 * | kind | checksum field            | virtio_net_hdr.flags |
 * | ---- | ------------------------- | -------------------- |
 * | P    | pseudo-header's sum       | NEEDS_CSUM           |
 * | V    | complete                  | DATA_VALID           |
 * | U    | complete                  | 0                    |
 * | Vbad | wrong                     | DATA_VALID           |
 * | Ubad | wrong                     | 0                    |
 * | U0   | 0: none (UDP over IPv4)   | 0                    |
 *
 * From 10.0.0.1 to a given address; UDP 1000 to 2000, TCP a SYN from 40000 to 80.
 */
import { viewOf } from '../../common/bytes.js';
import { parseIpv4, parseIpv6 } from '../../net/address.js';
import {
  completeChecksum,
  internetChecksum,
  partialChecksum,
  pseudoHeaderSum,
} from '../../net/checksum.js';
import {
  VIRTIO_NET_HDR_F_DATA_VALID,
  VIRTIO_NET_HDR_F_NEEDS_CSUM,
  type NetHeader,
} from '../../virtio/net-header.js';

export const CSUM_KINDS = ['P', 'V', 'U', 'Vbad', 'Ubad', 'U0'] as const;
export type CsumKind = (typeof CSUM_KINDS)[number];

export const L4_KINDS = ['udp4', 'tcp4', 'udp6', 'tcp6'] as const;
export type L4Kind = (typeof L4_KINDS)[number];

export const HOST_MAC = Uint8Array.of(0x52, 0x54, 0, 0, 0, 2);
export const PEER_MAC = Uint8Array.of(0x52, 0x54, 0, 0, 0, 1);
export const UDP_PORT = 2000;
export const TCP_PORT = 80;

const UDP = 17;
const TCP = 6;
const WRONG = 0x5a5a;

export interface FrameOptions {
  readonly l4: L4Kind;
  readonly kind: CsumKind;
  readonly destination: string;
  readonly payload: number;
}

export interface CsumFrame {
  readonly frame: Uint8Array;
  readonly header: Partial<NetHeader>;
}

/** A frame and what the device says of it. */
export function buildFrame({ l4, kind, destination, payload }: FrameOptions): CsumFrame {
  const v6 = l4.endsWith('6');
  const tcp = l4.startsWith('tcp');
  const protocol = tcp ? TCP : UDP;
  const source = v6 ? parseIpv6('fd00::1') : parseIpv4('10.0.0.1');
  const target = v6 ? parseIpv6(destination) : parseIpv4(destination);
  const segment = tcp ? tcpSegment(payload) : udpDatagram(payload);
  const offset = tcp ? 16 : 6;
  const pseudo = pseudoHeaderSum(source, target, protocol, segment.length);
  const complete = completeChecksum(pseudo, segment, protocol);
  const fields: Readonly<Record<CsumKind, number>> = {
    P: partialChecksum(pseudo),
    V: complete,
    U: complete,
    Vbad: complete ^ WRONG,
    Ubad: complete ^ WRONG,
    U0: 0,
  };
  viewOf(segment).setUint16(offset, fields[kind]);
  const ip = v6
    ? ipv6Header(source, target, protocol, segment.length)
    : ipv4Header(source, target, protocol, segment.length);
  const ethernet = new Uint8Array(14);
  ethernet.set(HOST_MAC);
  ethernet.set(PEER_MAC, 6);
  viewOf(ethernet).setUint16(12, v6 ? 0x86dd : 0x0800);
  const frame = Uint8Array.from([...ethernet, ...ip, ...segment]);
  return { frame, header: headerOf(kind, 14 + ip.length, offset) };
}

/** The header fields for a kind, of a frame whose L4 header begins at `start`. */
export function headerOf(kind: CsumKind, start: number, offset: number): Partial<NetHeader> {
  switch (kind) {
    case 'P':
      return { flags: VIRTIO_NET_HDR_F_NEEDS_CSUM, csum_start: start, csum_offset: offset };
    case 'V':
    case 'Vbad':
      return { flags: VIRTIO_NET_HDR_F_DATA_VALID };
    case 'U':
    case 'Ubad':
    case 'U0':
      return {};
  }
}

export function ipv4Header(
  source: Uint8Array,
  destination: Uint8Array,
  protocol: number,
  length: number,
): Uint8Array {
  const header = new Uint8Array(20);
  const view = viewOf(header);
  header[0] = 0x45;
  view.setUint16(2, 20 + length);
  view.setUint16(6, 0x4000);
  header[8] = 64;
  header[9] = protocol;
  header.set(source, 12);
  header.set(destination, 16);
  view.setUint16(10, internetChecksum(header));
  return header;
}

function ipv6Header(
  source: Uint8Array,
  destination: Uint8Array,
  protocol: number,
  length: number,
): Uint8Array {
  const header = new Uint8Array(40);
  header[0] = 0x60;
  viewOf(header).setUint16(4, length);
  header[6] = protocol;
  header[7] = 64;
  header.set(source, 8);
  header.set(destination, 24);
  return header;
}

function udpDatagram(payload: number): Uint8Array {
  const datagram = new Uint8Array(8 + payload);
  const view = viewOf(datagram);
  view.setUint16(0, 1000);
  view.setUint16(2, UDP_PORT);
  view.setUint16(4, datagram.length);
  for (let i = 0; i < payload; i++) datagram[8 + i] = (7 * i + 1) & 0xff;
  return datagram;
}

function tcpSegment(payload: number): Uint8Array {
  const segment = new Uint8Array(20 + payload);
  const view = viewOf(segment);
  view.setUint16(0, 40000);
  view.setUint16(2, TCP_PORT);
  view.setUint32(4, 1);
  segment[12] = 0x50;
  segment[13] = 2;
  view.setUint16(14, 1000);
  for (let i = 0; i < payload; i++) segment[20 + i] = (5 * i + 3) & 0xff;
  return segment;
}
