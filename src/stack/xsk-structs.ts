/**
 * AF_XDP's structures in kernel memory: socket and buffer pool.
 *
 * Names of fields are those of include/net/xdp_sock.h and xsk_buff_pool.h of 6.12; the offsets are ours.
 */
import { struct } from '../common/struct.js';

/** `struct xsk_buff_pool`: a UMEM in use. */
export const XSK_POOL = struct({
  /** The memory, its chunks and the headroom in each. */
  addrs: 'u64',
  addrs_cnt: 'u32',
  chunk_size: 'u32',
  headroom: 'u32',
  fq: 'u64',
  cq: 'u64',
  /** Chunks taken from the fill ring and not used: addresses in the UMEM. */
  free_list: 'u64',
  free_list_cnt: 'u32',
});

/** `struct xdp_sock`. */
export const XDP_SOCK = struct({
  dev: 'u64',
  queue_id: 'u32',
  state: 'u32',
  /** The device receives into the UMEM. */
  zc: 'u32',
  pool: 'u64',
  rx: 'u64',
  tx: 'u64',
  flush_node: 'u64',
  /** It is in the list of those to flush. */
  listed: 'u32',
  rx_dropped: 'u64',
  rx_queue_full: 'u64',
});

/** `struct netdev_bpf` of the command XDP_SETUP_XSK_POOL. */
export const NETDEV_BPF = struct({ pool: 'u64', queue_id: 'u16' });

export const XSK_BOUND = 1;
