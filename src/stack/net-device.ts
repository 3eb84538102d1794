/**
 * `struct net_device`: what drivers and the stack share of a network device.
 *
 * Names of fields are those of include/linux/netdevice.h; the offsets are ours, except `ifindex`, which
 * is where the BPF floor expects it. Feature bits have the numbers of include/linux/netdev_features.h.
 * A device without `nd_net` has no stack behind it: what it receives is linked from `sink_head`. Leaves
 * out queues and qdiscs; operations are in `netdev.ts`.
 */
import { NET_DEVICE as BPF_NET_DEVICE, XDP_BUFF, XDP_RXQ_INFO } from '../bpf/xdp-buff.js';
import { struct } from '../common/struct.js';

export const NET_DEVICE = struct({
  name: 16,
  /** The driver's own structure: netdev_priv(). */
  priv: 'u64',
  dev_addr: 8,
  mtu: 'u32',
  rx_length_errors: 'u64',
  rx_frame_errors: 'u64',
  scratch_gap: BPF_NET_DEVICE.ifindex - 56,
  ifindex: 'u32',
  /** In use: bits 0 to 31, and 32 up. */
  features: 'u32',
  features_hi: 'u32',
  /** Switchable, and asked for: all 64 bits. */
  hw_features: 'u64',
  wanted_features: 'u64',
  /** IFF_UP, IFF_PROMISC, IFF_ALLMULTI. */
  flags: 'u32',
  /** Further unicast and multicast addresses, 8 bytes each: arrays and their lengths. */
  uc_count: 'u32',
  mc_count: 'u32',
  uc: 'u64',
  mc: 'u64',
  /** struct net, or 0. */
  nd_net: 'u64',
  /** Table of the page chunks of its skbs, or 0: that of its struct net. */
  pages: 'u64',
  /** Program of generic XDP, or 0. */
  xdp_prog: 'u64',
  tx_dropped: 'u64',
  /**
   * XDP in the core as 6.1 has it: generic XDP makes every packet linear, and frames of several buffers may be
   * redirected to cpumaps only.
   */
  xdp_as_6_1: 'u8',
  /** Another skb follows at once (in Linux softnet_data.xmit.more of the CPU). */
  xmit_more: 'u8',
  /** NETDEV_XDP_ACT_*. */
  xdp_features: 'u32',
  /** struct xdp_dev_bulk_queue of each CPU. */
  xdp_bulkq: 'u64',
  /** Skbs received while there is no stack, first and last, linked by sk_buff.next. */
  sink_head: 'u64',
  sink_tail: 'u64',
  /** What generic XDP keeps on the stack. */
  scratch_rxq: XDP_RXQ_INFO.size,
  scratch_xdp: XDP_BUFF.size,
});

export const NETIF_F_IP_CSUM = 1 << 1;
export const NETIF_F_HW_CSUM = 1 << 3;
export const NETIF_F_IPV6_CSUM = 1 << 4;
export const NETIF_F_TSO = 1 << 16;
/** Segments whose header fields nobody has checked may be left to the device. */
export const NETIF_F_GSO_ROBUST = 1 << 17;
export const NETIF_F_TSO_ECN = 1 << 18;
export const NETIF_F_TSO6 = 1 << 20;
/** Bits of the upper half, in `features_hi`. */
export const NETIF_F_HI = {
  RXHASH: 1 << (39 - 32),
  RXCSUM: 1 << (40 - 32),
  GRO_HW: 1 << (55 - 32),
};

export const IFF_UP = 1;
export const IFF_PROMISC = 0x100;
export const IFF_ALLMULTI = 0x200;

/** Bits of `xdp_features` (include/uapi/linux/netdev.h). */
export const NETDEV_XDP_ACT = {
  BASIC: 1,
  REDIRECT: 2,
  /** It takes frames that others redirect to it. */
  NDO_XMIT: 4,
  RX_SG: 32,
  /** Frames in several buffers, too. */
  NDO_XMIT_SG: 64,
} as const;

/** Frames that a bulk queue holds. */
export const DEV_MAP_BULK_SIZE = 16;

/** `struct xdp_dev_bulk_queue`: frames on their way to a device, one per CPU. */
export const XDP_DEV_BULK_QUEUE = struct({
  q: 8 * DEV_MAP_BULK_SIZE,
  /** The next queue to flush. */
  flush_node: 'u64',
  dev: 'u64',
  dev_rx: 'u64',
  xdp_prog: 'u64',
  count: 'u32',
});
