/**
 * Protocol headers as the stack reads them: offsets of fields, in network byte order.
 *
 * Reference: include/uapi/linux/if_ether.h, ip.h, ipv6.h, tcp.h, udp.h, in.h.
 */
import type { Ram } from '../cpu/ram.js';

export const ETH_P_IP = 0x0800;
export const ETH_P_IPV6 = 0x86dd;
export const ETH_P_8021Q = 0x8100;
export const ETH_P_8021AD = 0x88a8;

export const ETH = { destination: 0, source: 6, protocol: 12 } as const;

export const IPV4 = {
  /** Version above, header length in words below. */
  version_ihl: 0,
  tos: 1,
  tot_len: 2,
  id: 4,
  frag_off: 6,
  ttl: 8,
  protocol: 9,
  check: 10,
  saddr: 12,
  daddr: 16,
  size: 20,
} as const;
export const IP_DF = 0x4000;
/** More fragments, or an offset: it is a fragment. */
export const IP_MF_OFFSET = 0x3fff;

export const IPV6 = {
  /** Version above, traffic class below. */
  version: 0,
  payload_len: 4,
  nexthdr: 6,
  hop_limit: 7,
  saddr: 8,
  daddr: 24,
  size: 40,
} as const;
/** In the fragment header: offset and M. */
export const IP6_MF_OFFSET = 0xfff9;

export const TCP = {
  source: 0,
  dest: 2,
  seq: 4,
  ack_seq: 8,
  doff: 12,
  flags: 13,
  window: 14,
  check: 16,
  size: 20,
} as const;
export const TCP_FLAG = { FIN: 1, SYN: 2, RST: 4, PSH: 8, ACK: 16, CWR: 128 } as const;

export const UDP = { source: 0, dest: 2, len: 4, check: 6, size: 8 } as const;

export const IPPROTO = {
  HOPOPTS: 0,
  IPIP: 4,
  TCP: 6,
  UDP: 17,
  ROUTING: 43,
  FRAGMENT: 44,
  AH: 51,
  NONE: 59,
  DSTOPTS: 60,
} as const;

export function be16(ram: Ram, at: number): number {
  return (ram.u8(at) << 8) | ram.u8(at + 1);
}

export function setBe16(ram: Ram, at: number, value: number): void {
  ram.set8(at, value >>> 8);
  ram.set8(at + 1, value);
}

export function be32(ram: Ram, at: number): number {
  return be16(ram, at) * 0x10000 + be16(ram, at + 2);
}

export function setBe32(ram: Ram, at: number, value: number): void {
  setBe16(ram, at, Math.floor(value / 0x10000));
  setBe16(ram, at + 2, value);
}
