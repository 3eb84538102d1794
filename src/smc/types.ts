/**
 * SMC's structures as BTF, so that programs can follow pointers into them with CO-RE.
 *
 * Fields are those of the layout tables; those that are pointers or structs get their type here. `scratch_*`
 * fields are no fields of Linux and stay out.
 *
 * Usage:
 *   kernel.bpf.host.types.declare(declareSmcTypes);
 */
import type { BtfBuilder } from '../bpf/btf/builder.js';
import { declareLayout, type FieldTypes } from '../bpf/btf/layout-types.js';
import { SOCK } from '../bpf/socket.js';
import type { StructLayout } from '../common/struct.js';
import {
  FILE,
  INET_REQUEST_SOCK,
  MSGHDR,
  SMCD_DEV,
  SMCD_DMB,
  SMCD_GID,
  SMC_BUF_DESC,
  SMC_CONNECTION,
  SMC_HOST_CURSOR,
  SMC_INIT_INFO,
  SMC_LINK_GROUP,
  SMC_SOCK,
  SOCKADDR_IN,
  SOCKET,
  TCP_SOCK,
} from './structs.js';

const CURSOR = 'struct smc_host_cursor';
const CDC = 'struct smc_host_cdc_msg';

/** Types of fields that are more than a number of their size. */
const TYPES: Readonly<Record<string, FieldTypes>> = {
  smcd_dev: { list: 'struct smcd_dev *', lgr_list: 'struct smc_link_group *', pnetid: 'u8[16]' },
  smcd_dmb: { cpu_addr: 'void *' },
  smc_buf_desc: { list: 'struct smc_buf_desc *', cpu_addr: 'void *' },
  smc_link_group: {
    list: 'struct smc_link_group *',
    smcd: 'struct smcd_dev *',
    peer_gid: 'struct smcd_gid',
    negotiated_eid: 'u8[32]',
    conns_all: 'struct smc_connection *',
  },
  smc_connection: {
    lgr: 'struct smc_link_group *',
    alert_node: 'struct smc_connection *',
    sndbuf_desc: 'struct smc_buf_desc *',
    rmb_desc: 'struct smc_buf_desc *',
    local_tx_ctrl: CDC,
    local_rx_ctrl: CDC,
    tx_curs_prep: CURSOR,
    tx_curs_sent: CURSOR,
    tx_curs_fin: CURSOR,
    rx_curs_confirmed: CURSOR,
    urg_curs: CURSOR,
  },
  smc_sock: {
    sk: 'struct sock',
    clcsock: 'struct socket *',
    listen_smc: 'struct smc_sock *',
    sk_socket: 'struct socket *',
    conn: 'struct smc_connection',
  },
  socket: { file: 'struct file *', sk: 'struct sock *' },
  file: { private_data: 'void *' },
  smc_init_info: { negotiated_eid: 'u8[32]' },
  inet_request_sock: { req: 'struct request_sock' },
  tcp_sock: { inet_conn: 'struct inet_connection_sock', sk_socket: 'struct socket *' },
};

export function declareSmcTypes(builder: BtfBuilder): void {
  const add = (name: string, layout: StructLayout<string>): void => {
    declareLayout(builder, name, layout, TYPES[name]);
  };
  add('smc_host_cursor', SMC_HOST_CURSOR);
  builder.struct('smc_host_cdc_msg', 24, {
    prod: [CURSOR, 0],
    cons: [CURSOR, 8],
    prod_flags: ['u8', 16],
    conn_state_flags: ['u8', 17],
  });
  add('smcd_gid', SMCD_GID);
  add('smcd_dmb', SMCD_DMB);
  add('smcd_dev', SMCD_DEV);
  add('smc_buf_desc', SMC_BUF_DESC);
  add('smc_link_group', SMC_LINK_GROUP);
  add('smc_connection', SMC_CONNECTION);
  builder
    .struct('inet_sock', SOCK.size, { sk: ['struct sock', 0] })
    .struct('inet_connection_sock', SOCK.size, { icsk_inet: ['struct inet_sock', 0] })
    .struct('request_sock', SOCK.commonSize, { __req_common: ['struct sock_common', 0] });
  add('tcp_sock', TCP_SOCK);
  add('inet_request_sock', INET_REQUEST_SOCK);
  add('smc_sock', SMC_SOCK);
  add('file', FILE);
  add('socket', SOCKET);
  add('msghdr', MSGHDR);
  add('sockaddr_in', SOCKADDR_IN);
  add('smc_init_info', SMC_INIT_INFO);
}
