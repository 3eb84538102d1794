/**
 * `struct net_device`: what drivers and the stack share of a network device.
 *
 * Names of fields are those of include/linux/netdevice.h; the offsets are ours, except `ifindex`, which
 * is where the BPF floor expects it. What a device receives and nobody takes is linked from `sink_head`.
 */
import { NET_DEVICE as BPF_NET_DEVICE } from '../bpf/xdp-buff.js';
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
  /** IFF_*. */
  flags: 'u32',
  /** NETDEV_XDP_ACT_*. */
  xdp_features: 'u32',
  /** struct xdp_dev_bulk_queue of each CPU. */
  xdp_bulkq: 'u64',
  /** Skbs received that nobody took yet, first and last, linked by sk_buff.next. */
  sink_head: 'u64',
  sink_tail: 'u64',
});

export const IFF_UP = 1;

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
