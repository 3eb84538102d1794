/**
 * The driver's structures in kernel memory.
 *
 * Names of fields are those of drivers/net/virtio_net.c of 6.12; the offsets are ours, because nothing
 * outside the driver reads them. What Linux
 * keeps on the stack during a poll and passes by address (length, context, xdp_buff, statistics of the
 * round) lies in `receive_queue.scratch_*`: a queue is polled by one CPU at a time.
 */
import { XDP_BUFF, XDP_RXQ_INFO } from '../../bpf/xdp-buff.js';
import { struct } from '../../common/struct.js';
import { SCATTERLIST } from '../ring/vring-virtqueue.js';
import { MAX_SKB_FRAGS } from '../../stack/skb-geometry.js';

/** u64 counters of a receive queue, in the order of `virtnet_rq_stats_desc`. */
export const RQ_STATS_NAMES = [
  'packets',
  'bytes',
  'drops',
  'xdp_packets',
  'xdp_tx',
  'xdp_redirects',
  'xdp_drops',
  'kicks',
] as const;

/** u64 counters of a send queue, in the order of `virtnet_sq_stats_desc`. */
export const SQ_STATS_NAMES = [
  'packets',
  'bytes',
  'xdp_tx',
  'xdp_tx_drops',
  'kicks',
  'tx_timeouts',
  'stop',
  'wake',
] as const;

function counters<Name extends string>(names: readonly Name[]) {
  return struct(Object.fromEntries(names.map((name) => [name, 'u64'])) as Record<Name, 'u64'>);
}

export const VIRTNET_RQ_STATS = counters(RQ_STATS_NAMES);
export const VIRTNET_SQ_STATS = counters(SQ_STATS_NAMES);

export const NAPI_STRUCT = struct({ state: 'u32', weight: 'u32' });
/** In `napi_struct.state`: a poll is due. */
export const NAPIF_STATE_SCHED = 1;

export const VIRTNET_INFO = struct({
  dev: 'u64',
  /** Arrays of max_queue_pairs. */
  rq: 'u64',
  sq: 'u64',
  max_queue_pairs: 'u16',
  curr_queue_pairs: 'u16',
  xdp_queue_pairs: 'u16',
  hdr_len: 'u8',
  mergeable_rx_bufs: 'u8',
  any_header_sg: 'u8',
  xdp_enabled: 'u8',
  /** The lack of XDP queues was spoken of already. */
  warned_queues: 'u8',
  nr_cpu_ids: 'u32',
  /** Version and checksum variant: see `profiles.ts`. */
  profile: 'u8',
  xdp_checksum: 'u8',
  /** See `bugs.ts`. */
  bugs: 'u32',
  /** Negotiated feature bits, 0 to 63 and 64 up. */
  features: 'u64',
  features_hi: 'u64',
  has_cvq: 'u8',
  big_packets: 'u8',
  /** Pages of a big-mode buffer behind its first. */
  big_packets_num_skbfrags: 'u16',
  has_rss: 'u8',
  has_rss_hash_report: 'u8',
  rss_key_size: 'u8',
  /** An indirection table was set by the user. */
  rss_configured: 'u8',
  /** `RSS_FAULTS`, as bits. */
  rss_faults: 'u8',
  rss_indir_table_size: 'u16',
  /** VIRTIO_NET_S_LINK_UP and ANNOUNCE as last read. */
  status: 'u16',
  rss_hash_types_supported: 'u32',
  rss_hash_types_saved: 'u32',
  /** Masks of GUEST_OFFLOADS_SET: what should be on, and what could be. */
  guest_offloads: 'u64',
  guest_offloads_capable: 'u64',
  cvq: 'u64',
  /** struct control_buf. */
  ctrl: 'u64',
  /** u16 indirection table, then the hash key. */
  rss: 'u64',
  /** Root of the table of page chunks: its own, or that of its network namespace. */
  pages: 'u64',
});

export const RECEIVE_QUEUE = struct({
  vq: 'u64',
  napi: NAPI_STRUCT.size,
  /** struct bpf_prog, or 0. */
  xdp_prog: 'u64',
  /** struct xsk_buff_pool whose chunks are the buffers, or 0. */
  xsk_pool: 'u64',
  /** There were no buffers to fill it with: the refill work is scheduled. */
  refill_due: 'u8',
  stats: VIRTNET_RQ_STATS.size,
  /** ewma_pkt_len. */
  mrg_avg_pkt_len: 'u32',
  min_buf_len: 'u32',
  /** page_frag alloc_frag: page, offset. */
  frag_page: 'u64',
  frag_offset: 'u32',
  packets_in_napi: 'u32',
  sg: SCATTERLIST.size * (MAX_SKB_FRAGS + 2),
  /** Pages kept for big mode, linked by `page.private`. */
  pages: 'u64',
  vi: 'u64',
  xdp_rxq: XDP_RXQ_INFO.size,
  scratch_len: 'u32',
  scratch_num_buf: 'u32',
  scratch_total: 'u32',
  scratch_xdp_xmit: 'u32',
  scratch_ctx: 'u64',
  scratch_frame: 'u64',
  scratch_page: 'u64',
  scratch_frame_sz: 'u32',
  /** How far the program moved the data: new address - old one. */
  scratch_moved: 'u32',
  /** Of the frame's virtio_net_hdr. */
  scratch_csum_start: 'u16',
  scratch_csum_offset: 'u16',
  scratch_hash_report: 'u16',
  scratch_hash_value: 'u32',
  scratch_stats: VIRTNET_RQ_STATS.size,
  scratch_xdp: XDP_BUFF.size,
});

export const SEND_QUEUE = struct({
  vq: 'u64',
  napi: NAPI_STRUCT.size,
  sg: SCATTERLIST.size * (MAX_SKB_FRAGS + 2),
  stats: VIRTNET_SQ_STATS.size,
  /** __QUEUE_STATE_DRV_XOFF of the netdev_queue. */
  stopped: 'u8',
  scratch_len: 'u32',
});

/** What `bpf(2)` hands to a driver to say why it refuses: a text of up to 127 bytes. */
export const NETLINK_EXT_ACK = struct({ msg: 128 });

/** Bits of the `xdp_xmit` word of a poll. */
export const VIRTIO_XDP_TX = 1;
export const VIRTIO_XDP_REDIR = 2;
/** Tags a queue cookie that is an xdp_frame. */
export const VIRTIO_XDP_FLAG = 1;
