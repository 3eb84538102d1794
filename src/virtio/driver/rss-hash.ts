/**
 * What the driver makes of a reported hash: the skb's, and that of bpf_xdp_metadata_rx_hash.
 *
 * Reference: drivers/net/virtio_net.c of 6.12 (virtio_skb_set_hash, virtnet_xdp_rx_hash), enum
 * xdp_rss_hash_type of include/net/xdp.h. The metadata function looks for the virtio_net_hdr right below the
 * packet's first byte: behind a bpf_xdp_adjust_head it reads whatever lies there now, and with RSS but without
 * HASH_REPORT, whose header of 12 bytes has no hash, the packet's first bytes.
 *
 *   report       skb    rss_type                     | report       skb   rss_type
 *   1  IPv4      L3     L3_IPV4               = 1    | 6  UDPv6     L4    L3_IPV6|L4|UDP          = 42
 *   2  TCPv4     L4     L3_IPV4|L4|TCP        = 25   | 7  IPv6_EX   L3    L3_IPV6|DYNHDR          = 6
 *   3  UDPv4     L4     L3_IPV4|L4|UDP        = 41   | 8  TCPv6_EX  L4    L3_IPV6|DYNHDR|L4|TCP   = 30
 *   4  IPv6      L3     L3_IPV6               = 2    | 9  UDPv6_EX  L4    L3_IPV6|DYNHDR|L4|UDP   = 46
 *   5  TCPv6     L4     L3_IPV6|L4|TCP        = 26   | 0, 10 and up       none, 0
 */
import { XDP_BUFF, XDP_RXQ_INFO } from '../../bpf/xdp-buff.js';
import { XDP_RSS_HASH_TYPE as RSS } from '../../bpf/kfuncs/types.js';
import { ERRNO } from '../../common/errno.js';
import type { Ram } from '../../cpu/ram.js';
import { atomic, type KernelFunction } from '../../kernel/function.js';
import { VIRTIO_NET_HASH_REPORT as REPORT } from '../../net/rss/types.js';
import { NETIF_F_HI, NET_DEVICE } from '../../stack/net-device.js';
import { SK_BUFF } from '../../stack/skb.js';
import { NET_HEADER_OFFSET } from '../net-header.js';
import { RECEIVE_QUEUE, VIRTNET_INFO } from './structs.js';

const DEV = NET_DEVICE.offset;
const RQ = RECEIVE_QUEUE.offset;
const VI = VIRTNET_INFO.offset;

const L4_TCP = RSS.XDP_RSS_L4 | RSS.XDP_RSS_L4_TCP;
const L4_UDP = RSS.XDP_RSS_L4 | RSS.XDP_RSS_L4_UDP;
const IPV6_EX = RSS.XDP_RSS_L3_IPV6 | RSS.XDP_RSS_L3_DYNHDR;

/** `virtnet_xdp_rss_type`, by report. */
const XDP_RSS_TYPES: readonly number[] = [
  0,
  RSS.XDP_RSS_L3_IPV4,
  RSS.XDP_RSS_L3_IPV4 | L4_TCP,
  RSS.XDP_RSS_L3_IPV4 | L4_UDP,
  RSS.XDP_RSS_L3_IPV6,
  RSS.XDP_RSS_L3_IPV6 | L4_TCP,
  RSS.XDP_RSS_L3_IPV6 | L4_UDP,
  IPV6_EX,
  IPV6_EX | L4_TCP,
  IPV6_EX | L4_UDP,
];

/** What the stack is told a hash covers: `l4_hash` of an skb is set for PKT_HASH_TYPE_L4. */
const PKT_HASH_TYPE_NONE = 0;
const PKT_HASH_TYPE_L3 = 2;
const PKT_HASH_TYPE_L4 = 3;

/** By report. */
const PKT_HASH_TYPES: readonly number[] = XDP_RSS_TYPES.map((type) => {
  if (type === 0) return PKT_HASH_TYPE_NONE;
  return (type & RSS.XDP_RSS_L4) !== 0 ? PKT_HASH_TYPE_L4 : PKT_HASH_TYPE_L3;
});

const SKB = SK_BUFF.offset;

/** Whether `ethtool -K rxhash on`, and the device reports. */
export function wantsHash(ram: Ram, vi: number): boolean {
  const features = ram.u32(ram.pointer(vi + VI.dev) + DEV.features_hi);
  return (features & NETIF_F_HI.RXHASH) !== 0 && ram.u8(vi + VI.has_rss_hash_report) !== 0;
}

/** `virtio_skb_set_hash`: from the header that receive_small and its like left in `cb`. */
export function skbSetHash(ram: Ram, skb: number): void {
  const header = skb + SKB.cb;
  const report = ram.u16(header + NET_HEADER_OFFSET.hash_report);
  setHash(ram, skb, report, ram.u32(header + NET_HEADER_OFFSET.hash_value));
}

/** The fixed v4 patch, in front of a program: it may overwrite the header, and `cb` is zero behind it. */
export function saveHash(ram: Ram, vi: number, rq: number, header: number): void {
  if (!wantsHash(ram, vi)) return;
  ram.set16(rq + RQ.scratch_hash_report, ram.u16(header + NET_HEADER_OFFSET.hash_report));
  ram.set32(rq + RQ.scratch_hash_value, ram.u32(header + NET_HEADER_OFFSET.hash_value));
}

/** Behind it. */
export function skbSetSavedHash(ram: Ram, rq: number, skb: number): void {
  const report = ram.u16(rq + RQ.scratch_hash_report);
  setHash(ram, skb, report, ram.u32(rq + RQ.scratch_hash_value));
}

/** `skb_set_hash` takes the value of every type; that of none is the header's, which is 0. */
function setHash(ram: Ram, skb: number, report: number, value: number): void {
  ram.set8(skb + SKB.l4_hash, PKT_HASH_TYPES[report] === PKT_HASH_TYPE_L4 ? 1 : 0);
  ram.set32(skb + SKB.hash, value);
}

export const rssHashFunctions: readonly KernelFunction[] = [
  atomic({
    prototype:
      'int virtnet_xdp_rx_hash(const struct xdp_md *_ctx, u32 *hash, ' +
      'enum xdp_rss_hash_type *rss_type)',
    body: ({ memory: { ram } }, xdp, hash, rssType) => {
      const dev = ram.pointer(ram.pointer(xdp + XDP_BUFF.rxq) + XDP_RXQ_INFO.dev);
      if ((ram.u32(dev + DEV.features_hi) & NETIF_F_HI.RXHASH) === 0) return -ERRNO.ENODATA;
      const vi = ram.pointer(dev + DEV.priv);
      const header = ram.pointer(xdp + XDP_BUFF.data) - ram.u8(vi + VI.hdr_len);
      const report = ram.u16(header + NET_HEADER_OFFSET.hash_report);
      ram.set32(rssType, XDP_RSS_TYPES[report] ?? XDP_RSS_TYPES[REPORT.NONE] ?? 0);
      ram.set32(hash, ram.u32(header + NET_HEADER_OFFSET.hash_value));
      return 0;
    },
  }),
];
