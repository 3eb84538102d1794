/**
 * Names and bits of receive-side scaling: hash types, report values, tunnel types, features.
 *
 * Reference: virtio 1.4 "Network Device", "Hash calculation for incoming packets"; the v7 proposal of
 * inner-header hash (January 2023), whose tunnel bits lie in hash_types and whose feature bit is 52.
 * Bit of a hash type = 1 << (report value - 1).
 */

/** Bits of hash_types. */
export const VIRTIO_NET_HASH_TYPE = {
  IPv4: 1 << 0,
  TCPv4: 1 << 1,
  UDPv4: 1 << 2,
  IPv6: 1 << 3,
  TCPv6: 1 << 4,
  UDPv6: 1 << 5,
  IP_EX: 1 << 6,
  TCP_EX: 1 << 7,
  UDP_EX: 1 << 8,
} as const;

/** hash_types of the v7 proposal: take the inner header of such a tunnel. */
export const VIRTIO_NET_HASH_TYPE_INNER = {
  GRE_INNER: 1 << 9,
  VXLAN_INNER: 1 << 10,
  GENEVE_INNER: 1 << 11,
} as const;

/** All nine types. */
export const ALL_HASH_TYPES = 0x1ff;

/** The types that drivers/net/virtio_net.c asks for: those without extension headers. */
export const LINUX_HASH_TYPES = 0x3f;

/** Values of hash_report. */
export const VIRTIO_NET_HASH_REPORT = {
  NONE: 0,
  IPv4: 1,
  TCPv4: 2,
  UDPv4: 3,
  IPv6: 4,
  TCPv6: 5,
  UDPv6: 6,
  IPv6_EX: 7,
  TCPv6_EX: 8,
  UDPv6_EX: 9,
} as const;

/** hash_report_tunnel of the v7 proposal. */
export const VIRTIO_NET_HASH_REPORT_TUNNEL = {
  TUNNEL_NONE: 0,
  GRE: 1,
  VXLAN: 2,
  GENEVE: 3,
} as const;

/** Bits of enabled_tunnel_types (virtio 1.3 and later). */
export const VIRTIO_NET_HASH_TUNNEL_TYPE = {
  GRE_2784: 1 << 0,
  GRE_2890: 1 << 1,
  GRE_7676: 1 << 2,
  GRE_UDP: 1 << 3,
  VXLAN: 1 << 4,
  VXLAN_GPE: 1 << 5,
  GENEVE: 1 << 6,
  IPIP: 1 << 7,
  NVGRE: 1 << 8,
} as const;

export const ALL_TUNNEL_TYPES = 0x1ff;

/** The proposal of January 2023, or what virtio 1.3 standardised. */
export type InnerHashForm = 'v7' | 'final';

/** Names of the bits of a mask, by the table they come from; unknown bits as `bit N`. */
export function bitNames(mask: number, table: Readonly<Record<string, number>>): string[] {
  const names = Object.entries(table)
    .filter(([, bit]) => (mask & bit) !== 0)
    .map(([name]) => name);
  const known = Object.values(table).reduce((all, bit) => all | bit, 0);
  for (let bit = 0; bit < 32; bit++) {
    if (((mask & ~known) >>> bit) & 1) names.push(`bit ${bit}`);
  }
  return names;
}

/** The name of a report value: `TCPv4`; `none` for 0. */
export function reportName(report: number): string {
  if (report === VIRTIO_NET_HASH_REPORT.NONE) return 'none';
  const found = Object.entries(VIRTIO_NET_HASH_REPORT).find(([, value]) => value === report);
  return found?.[0] ?? `report ${report}`;
}
