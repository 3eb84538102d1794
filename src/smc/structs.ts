/**
 * SMC's structures in kernel memory.
 *
 * Names of structures and fields are those of net/smc and include/net/smc.h of 6.12; offsets are ours, except
 * of what goes over the wire or through the device: the CDC record, `struct smcd_dmb`, `struct smcd_gid`, and
 * `struct sock`, which is the lab's (`bpf/socket.ts`). Fields called `scratch_*` are what Linux has on its
 * stack and passes by address.
 */
import { SOCK } from '../bpf/socket.js';
import { struct } from '../common/struct.js';

export const SMCD_GID = struct({ gid: 'u64', gid_ext: 'u64' });

export const SMCD_DMB = struct({
  dmb_tok: 'u64',
  rgid: 'u64',
  dmb_len: 'u32',
  sba_idx: 'u32',
  vlan_valid: 'u32',
  vlan_id: 'u32',
  cpu_addr: 'u64',
  dma_addr: 'u64',
});

/** Function pointers; those that a device does not have are NULL. */
export const SMCD_OPS = struct({
  query_remote_gid: 'u64',
  register_dmb: 'u64',
  unregister_dmb: 'u64',
  move_data: 'u64',
  supports_v2: 'u64',
  get_local_gid: 'u64',
  get_chid: 'u64',
  add_vlan_id: 'u64',
  del_vlan_id: 'u64',
  signal_event: 'u64',
  support_dmb_nocopy: 'u64',
  attach_dmb: 'u64',
  detach_dmb: 'u64',
});

export const SMCD_DEV = struct({
  ops: 'u64',
  priv: 'u64',
  /** smcd_dev_list */
  list: 'u64',
  /** struct smc_connection *conn[max_dmbs] by sba_idx */
  conn: 'u64',
  pnetid: 16,
  /** First link group. */
  lgr_list: 'u64',
  lgr_cnt: 'u32',
  going_away: 'u8',
});

/** What the device itself has: struct smc_lo_dev, and the same for the model of ISM. */
export const SMC_LO_DEV = struct({
  smcd: 'u64',
  chid: 'u16',
  local_gid: SMCD_GID.size,
  /** DECLARE_BITMAP, bytes here */
  sba_idx_mask: 'u64',
  dmb_ht: 'u64',
  dmb_cnt: 'u32',
  max_dmbs: 'u32',
});

export const SMC_LO_DMB_NODE = struct({
  list: 'u64',
  token: 'u64',
  len: 'u32',
  sba_idx: 'u32',
  cpu_addr: 'u64',
  dma_addr: 'u64',
  refcnt: 'u32',
});

export const SMC_BUF_DESC = struct({
  list: 'u64',
  cpu_addr: 'u64',
  len: 'u32',
  used: 'u32',
  sba_idx: 'u32',
  token: 'u64',
  dma_addr: 'u64',
});

/** Lists of buffers by compressed size. */
export const BUF_LISTS = 7;

export const SMC_LINK_GROUP = struct({
  list: 'u64',
  smcd: 'u64',
  peer_gid: SMCD_GID.size,
  id: 'u32',
  role: 'u32',
  conns_num: 'u32',
  refcnt: 'u32',
  vlan_id: 'u16',
  smc_version: 'u8',
  sync_err: 'u8',
  freeing: 'u8',
  terminating: 'u8',
  peer_shutdown: 'u8',
  peer_os: 'u8',
  peer_smc_release: 'u8',
  negotiated_eid: 32,
  /** First connection; smc_connection.alert_node. */
  conns_all: 'u64',
  sndbufs: 8 * BUF_LISTS,
  rmbs: 8 * BUF_LISTS,
});

/** union smc_host_cursor */
export const SMC_HOST_CURSOR = struct({ reserved: 'u16', wrap: 'u16', count: 'u32' });

/** struct smc_host_cdc_msg, what SMC-D has of it. */
export const SMC_HOST_CDC_MSG = struct({
  prod: SMC_HOST_CURSOR.size,
  cons: SMC_HOST_CURSOR.size,
  prod_flags: 'u8',
  conn_state_flags: 'u8',
});

/** struct smcd_cdc_msg as it lies at the head of a DMB: counts are packed behind their u16. */
export const SMCD_CDC_MSG = {
  type: 0,
  prod_wrap: 8,
  prod_count: 10,
  cons_wrap: 16,
  cons_count: 18,
  prod_flags: 22,
  conn_state_flags: 23,
  size: 32,
} as const;

export const SMC_CONNECTION = struct({
  lgr: 'u64',
  /** Next in smc_link_group.conns_all. */
  alert_node: 'u64',
  alert_token_local: 'u32',
  peer_rmbe_size: 'u32',
  peer_rmbe_space: 'u32',
  peer_rmbe_idx: 'u32',
  peer_token: 'u64',
  sndbuf_desc: 'u64',
  rmb_desc: 'u64',
  rmbe_update_limit: 'u32',
  rmbe_size_comp: 'u8',
  urg_state: 'u8',
  urg_tx_pend: 'u8',
  urg_rx_skip_pend: 'u8',
  urg_rx_byte: 'u8',
  killed: 'u8',
  freed: 'u8',
  tx_work_pending: 'u8',
  close_work_pending: 'u8',
  local_tx_ctrl: SMC_HOST_CDC_MSG.size,
  local_rx_ctrl: SMC_HOST_CDC_MSG.size,
  tx_curs_prep: SMC_HOST_CURSOR.size,
  tx_curs_sent: SMC_HOST_CURSOR.size,
  tx_curs_fin: SMC_HOST_CURSOR.size,
  rx_curs_confirmed: SMC_HOST_CURSOR.size,
  urg_curs: SMC_HOST_CURSOR.size,
  tx_off: 'u32',
  rx_off: 'u32',
  sndbuf_space: 'u32',
  bytes_to_rcv: 'u32',
  /** 1 while somebody holds it. */
  send_lock: 'u32',
  /** struct tasklet_struct: TASKLET_STATE_SCHED. */
  rx_tsklet: 8,
  close_work: 8,
  scratch_cdc_tx: 32,
  scratch_cdc_rx: 32,
  scratch_timeo: 'u64',
});

export const SMC_SOCK = struct({
  sk: SOCK.size,
  clcsock: 'u64',
  /** The socket whose connection this will be, for `accept`. */
  listen_smc: 'u64',
  use_fallback: 'u8',
  connect_nonblock: 'u8',
  sk_shutdown: 'u8',
  /** SOCK_DEAD, SOCK_DONE, SOCK_URGINLINE */
  sk_flags: 'u8',
  fallback_rsn: 'u32',
  peer_diagnosis: 'u32',
  sk_err: 'u32',
  sk_rcvbuf: 'u32',
  sk_sndbuf: 'u32',
  /** SOCK_SNDBUF_LOCK, SOCK_RCVBUF_LOCK: sizes that somebody asked for. */
  sk_userlocks: 'u8',
  /** TCP_CORK */
  nonagle: 'u32',
  sk_socket: 'u64',
  accept_head: 'u64',
  accept_tail: 'u64',
  accept_next: 'u64',
  smc_listen_work: 8,
  conn: SMC_CONNECTION.size,
});

export const SOCKET = struct({ state: 'u32', type: 'u16', flags: 'u8', file: 'u64', sk: 'u64' });

/** What a file descriptor leads to; `private_data`: the socket that calls on it go to. */
export const FILE = struct({ private_data: 'u64' });

/** User memory is outside the kernel's: `iov_offset` counts in what the caller has (`Smc.user`). */
export const MSGHDR = struct({ msg_flags: 'u32', iov_offset: 'u32', iov_len: 'u32' });

export const SOCKADDR_IN = struct({ sin_family: 'u16', sin_port: 'u16', sin_addr: 'u32' });

/** What BPF programs and the SYN's option look at; streams of bytes are outside (`socket/tcp.ts`). */
export const TCP_SOCK = struct({
  inet_conn: SOCK.size,
  sk_socket: 'u64',
  syn_smc: 'u8',
  sk_flags: 'u8',
  nonagle: 'u32',
  sk_rcvbuf: 'u32',
  sk_sndbuf: 'u32',
});
export const INET_REQUEST_SOCK = struct({ req: SOCK.commonSize, smc_ok: 'u8' });

/** An event that waits for its kworker: struct smc_ism_event_work with its ism_event. */
export const SMC_ISM_EVENT_WORK = struct({
  work: 8,
  smcd: 'u64',
  type: 'u32',
  code: 'u32',
  tok: 'u64',
  info: 'u64',
});

/** SMC_MAX_ISM_DEVS + 1: slot 0 is the device of v1. */
export const ISM_SLOTS = 9;

export const SMC_INIT_INFO = struct({
  is_smcd: 'u8',
  smc_type_v1: 'u8',
  smc_type_v2: 'u8',
  first_contact_peer: 'u8',
  first_contact_local: 'u8',
  /** SMC_V1 1, SMC_V2 2, in bits: what is still possible. */
  smcd_version: 'u8',
  smcr_version: 'u8',
  release_nr: 'u8',
  ism_offered_cnt: 'u8',
  ism_selected: 'u8',
  feature_mask: 'u16',
  vlan_id: 'u16',
  rc: 'u32',
  negotiated_eid: 32,
  ism_dev: 8 * ISM_SLOTS,
  ism_peer_gid: SMCD_GID.size * ISM_SLOTS,
  ism_chid: 2 * ISM_SLOTS,
});

export const SMC_HS_CTRL = {
  flags: 0,
  syn_option: 8,
  synack_option: 16,
  name: 24,
  size: 40,
} as const;

/** sk_flags bits. */
export const SOCK_DEAD = 1;
export const SOCK_DONE = 2;
export const SOCK_URGINLINE = 4;

/** A bit of socket.flags: a sender wants to know when there is room. */
export const SOCK_NOSPACE = 4;

/** sk_userlocks bits. */
export const SOCK_SNDBUF_LOCK = 1;
export const SOCK_RCVBUF_LOCK = 2;
