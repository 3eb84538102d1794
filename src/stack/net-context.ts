/**
 * `struct bpf_net_context`: what redirects keep until the end of a poll.
 *
 * Reference: include/linux/filter.h of 6.12. Linux has it on the stack of the poll; here each CPU has one, and in
 * it what Linux has on the stack while a program runs on frames. Lists are of bulk queues, linked by their
 * `flush_node`.
 */
import { BPF_REDIRECT_INFO } from '../bpf/redirect-info.js';
import { XDP_BUFF, XDP_RXQ_INFO } from '../bpf/xdp-buff.js';
import { struct } from '../common/struct.js';

/** Frames that a kernel thread of a cpumap takes at once. */
export const CPUMAP_BATCH = 8;

/** `struct xdp_cpumap_stats`: what became of a batch. */
export const XDP_CPUMAP_STATS = struct({ redirect: 'u32', pass: 'u32', drop: 'u32' });

export const BPF_NET_CONTEXT = struct({
  ri: BPF_REDIRECT_INFO.size,
  dev_map_flush_list: 'u64',
  cpu_map_flush_list: 'u64',
  xskmap_map_flush_list: 'u64',
  scratch_xdp: XDP_BUFF.size,
  scratch_rxq: XDP_RXQ_INFO.size,
  /** struct xdp_txq_info: dev. */
  scratch_txq: 8,
  /** Of cpu_map_kthread_run: frames, their skbs' list, what became of them. */
  scratch_frames: 8 * CPUMAP_BATCH,
  scratch_list: 'u64',
  scratch_stats: XDP_CPUMAP_STATS.size,
});

export const NET_CONTEXT = BPF_NET_CONTEXT.offset;
