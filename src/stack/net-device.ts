/**
 * `struct net_device`: what drivers and the stack share of a network device.
 *
 * Names of fields are those of include/linux/netdevice.h; the offsets are ours, except `ifindex`, which
 * is where the BPF floor expects it. Feature bits have the numbers of include/linux/netdev_features.h.
 * A device without `nd_net` has no stack behind it: what it receives is linked from `sink_head`. Leaves
 * out queues, qdiscs and operations: there is one kind of driver, entered through `start_xmit`.
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
  reserved: BPF_NET_DEVICE.ifindex - 56,
  ifindex: 'u32',
  features: 'u32',
  /** struct net, or 0. */
  nd_net: 'u64',
  /** Program of generic XDP, or 0. */
  xdp_prog: 'u64',
  tx_dropped: 'u64',
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
