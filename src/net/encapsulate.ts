/**
 * Builders for tunnel headers, to put around an IP packet or a frame: GRE and its kin, VXLAN, GENEVE.
 *
 * Each gives what follows the outer IP header; UDP tunnels have no UDP checksum, as most senders leave
 * it out. Reference: RFC 2784, 2890, 7637, 8086, 7348, draft-ietf-nvo3-vxlan-gpe-12, RFC 8926. The GRE
 * checksum field is left 0.
 *
 * Usage:
 *   const ends = { source: '192.0.2.1', destination: '192.0.2.2' };
 *   ipv4(ends, { protocol: IPPROTO.GRE }, gre({ type: ETHERTYPE.IPV4 }, innerPacket));
 *   ipv4(ends, { protocol: IPPROTO.UDP }, vxlan(ends, { sourcePort: 49152 }, innerFrame));
 */
import { viewOf } from '../common/bytes.js';
import { concatBytes, ETHERTYPE, udp, type Endpoints } from './packet.js';

/** The EtherType of a bridged Ethernet frame (include/uapi/linux/if_ether.h). */
export const ETH_P_TEB = 0x6558;

/** UDP destination ports as IANA assigned them. */
export const TUNNEL_PORT = { VXLAN: 4789, VXLAN_GPE: 4790, GRE_UDP: 4754, GENEVE: 6081 } as const;

export interface GreOptions {
  /** EtherType of the payload. */
  readonly type: number;
  /** With a checksum field. */
  readonly checksum?: boolean;
  readonly key?: number;
  readonly sequence?: number;
}

/** flags u16 (C 0x8000, K 0x2000, S 0x1000) | type u16 | checksum, reserved | key | sequence. */
export function gre(options: GreOptions, payload: Uint8Array): Uint8Array {
  const words: number[] = [];
  let flags = 0;
  if (options.checksum) {
    flags |= 0x8000;
    words.push(0);
  }
  if (options.key !== undefined) {
    flags |= 0x2000;
    words.push(options.key);
  }
  if (options.sequence !== undefined) {
    flags |= 0x1000;
    words.push(options.sequence);
  }
  const header = new Uint8Array(4 + 4 * words.length);
  const view = viewOf(header);
  view.setUint16(0, flags);
  view.setUint16(2, options.type);
  for (const [i, word] of words.entries()) view.setUint32(4 + 4 * i, word);
  return concatBytes(header, payload);
}

/** GRE of a frame whose key is a subnet (24 bits) and a flow number (8 bits). */
export function nvgre(subnet: number, flow: number, frame: Uint8Array): Uint8Array {
  return gre({ type: ETH_P_TEB, key: subnet * 256 + flow }, frame);
}

export interface UdpTunnelOptions {
  readonly sourcePort: number;
  /** Default: the assigned one. */
  readonly destinationPort?: number;
  /** Network number of 24 bits. Default 0x1234. */
  readonly network?: number;
}

const DEFAULT_NETWORK = 0x1234;

function inUdp(
  ends: Endpoints,
  { sourcePort, destinationPort }: UdpTunnelOptions,
  assigned: number,
  payload: Uint8Array,
): Uint8Array {
  return udp(
    ends,
    { sourcePort, destinationPort: destinationPort ?? assigned, checksum: 'none' },
    payload,
  );
}

/** A word of 24 bits of network number and a byte. */
function networkWord({ network }: UdpTunnelOptions): number {
  return (network ?? DEFAULT_NETWORK) * 256;
}

export function greInUdp(
  ends: Endpoints,
  options: UdpTunnelOptions,
  greHeader: GreOptions,
  payload: Uint8Array,
): Uint8Array {
  return inUdp(ends, options, TUNNEL_PORT.GRE_UDP, gre(greHeader, payload));
}

/** flags u8 (I 0x08) | 0 u24 | network u24 | 0 u8. */
export function vxlan(ends: Endpoints, options: UdpTunnelOptions, frame: Uint8Array): Uint8Array {
  const header = new Uint8Array(8);
  header[0] = 0x08;
  viewOf(header).setUint32(4, networkWord(options));
  return inUdp(ends, options, TUNNEL_PORT.VXLAN, concatBytes(header, frame));
}

/** flags u8 (I 0x08, P 0x04) | 0 u16 | next protocol u8 | network u24 | 0 u8. */
export function vxlanGpe(
  ends: Endpoints,
  options: UdpTunnelOptions,
  nextProtocol: number,
  payload: Uint8Array,
): Uint8Array {
  const header = new Uint8Array(8);
  header[0] = 0x0c;
  header[3] = nextProtocol;
  viewOf(header).setUint32(4, networkWord(options));
  return inUdp(ends, options, TUNNEL_PORT.VXLAN_GPE, concatBytes(header, payload));
}

/** version(2) option words(6) | O C | type u16 | network u24 | 0 u8 | options. */
export function geneve(
  ends: Endpoints,
  options: UdpTunnelOptions & { readonly options?: Uint8Array; readonly type?: number },
  payload: Uint8Array,
): Uint8Array {
  const extra = options.options ?? new Uint8Array(0);
  const header = new Uint8Array(8);
  header[0] = extra.length / 4;
  viewOf(header).setUint16(2, options.type ?? ETH_P_TEB);
  viewOf(header).setUint32(4, networkWord(options));
  return inUdp(ends, options, TUNNEL_PORT.GENEVE, concatBytes(header, extra, payload));
}

/** The EtherType of an IP packet, by its first byte. */
export function etherTypeOf(packet: Uint8Array): number {
  return (packet[0] ?? 0) >>> 4 === 6 ? ETHERTYPE.IPV6 : ETHERTYPE.IPV4;
}
