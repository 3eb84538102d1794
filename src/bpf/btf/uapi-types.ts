/**
 * Types that programs share with every kernel: contexts, packet headers, XDP actions.
 *
 * Programs built against a `vmlinux.h` relocate their accesses to these too, so a table without them
 * would refuse `ip->saddr`. Layouts: include/uapi/linux/{bpf,if_ether,ip,ipv6,tcp,udp,icmp}.h. Bit fields
 * are counted from the low bit, as on little-endian machines.
 *
 * Usage:
 *   declareUapiTypes(new BtfBuilder()).build();
 */
import type { BtfBuilder, FieldDeclaration } from './builder.js';

type Fields = Readonly<Record<string, FieldDeclaration>>;

/** Consecutive u32 fields. */
function words(...names: readonly string[]): Record<string, FieldDeclaration> {
  return Object.fromEntries(names.map((name, i) => [name, ['__u32', 4 * i] as const]));
}

const XDP_MD = words(
  'data',
  'data_end',
  'data_meta',
  'ingress_ifindex',
  'rx_queue_index',
  'egress_ifindex',
);

const SK_BUFF: Fields = {
  ...words(
    'len',
    'pkt_type',
    'mark',
    'queue_mapping',
    'protocol',
    'vlan_present',
    'vlan_tci',
    'vlan_proto',
    'priority',
    'ingress_ifindex',
    'ifindex',
    'tc_index',
  ),
  cb: ['__u32[5]', 48],
  hash: ['__u32', 68],
  tc_classid: ['__u32', 72],
  data: ['__u32', 76],
  data_end: ['__u32', 80],
  napi_id: ['__u32', 84],
  family: ['__u32', 88],
  remote_ip4: ['__u32', 92],
  local_ip4: ['__u32', 96],
  remote_ip6: ['__u32[4]', 100],
  local_ip6: ['__u32[4]', 116],
  remote_port: ['__u32', 132],
  local_port: ['__u32', 136],
  data_meta: ['__u32', 140],
  tstamp: ['__u64', 152],
  wire_len: ['__u32', 160],
  gso_segs: ['__u32', 164],
  gso_size: ['__u32', 176],
  tstamp_type: ['__u8', 180],
  hwtstamp: ['__u64', 184],
};

const IPHDR: Fields = {
  ihl: ['__u8', 0, 0, 4],
  version: ['__u8', 0, 4, 4],
  tos: ['__u8', 1],
  tot_len: ['__be16', 2],
  id: ['__be16', 4],
  frag_off: ['__be16', 6],
  ttl: ['__u8', 8],
  protocol: ['__u8', 9],
  check: ['__sum16', 10],
  saddr: ['__be32', 12],
  daddr: ['__be32', 16],
};

const IPV6HDR: Fields = {
  priority: ['__u8', 0, 0, 4],
  version: ['__u8', 0, 4, 4],
  flow_lbl: ['__u8[3]', 1],
  payload_len: ['__be16', 4],
  nexthdr: ['__u8', 6],
  hop_limit: ['__u8', 7],
  saddr: ['struct in6_addr', 8],
  daddr: ['struct in6_addr', 24],
};

const TCP_FLAGS = ['fin', 'syn', 'rst', 'psh', 'ack', 'urg', 'ece', 'cwr'];

const TCPHDR: Fields = {
  source: ['__be16', 0],
  dest: ['__be16', 2],
  seq: ['__be32', 4],
  ack_seq: ['__be32', 8],
  res1: ['__u16', 12, 0, 4],
  doff: ['__u16', 12, 4, 4],
  ...Object.fromEntries(TCP_FLAGS.map((name, i) => [name, ['__u16', 12, 8 + i, 1] as const])),
  window: ['__be16', 14],
  check: ['__sum16', 16],
  urg_ptr: ['__be16', 18],
};

/** Name, bytes, fields. */
const STRUCTS: readonly (readonly [string, number, Fields])[] = [
  ['xdp_md', 24, XDP_MD],
  ['__sk_buff', 192, SK_BUFF],
  [
    'ethhdr',
    14,
    {
      h_dest: ['unsigned char[6]', 0],
      h_source: ['unsigned char[6]', 6],
      h_proto: ['__be16', 12],
    },
  ],
  ['vlan_hdr', 4, { h_vlan_TCI: ['__be16', 0], h_vlan_encapsulated_proto: ['__be16', 2] }],
  ['iphdr', 20, IPHDR],
  ['ipv6hdr', 40, IPV6HDR],
  ['tcphdr', 20, TCPHDR],
  [
    'udphdr',
    8,
    { source: ['__be16', 0], dest: ['__be16', 2], len: ['__be16', 4], check: ['__sum16', 6] },
  ],
  [
    'icmphdr',
    8,
    { type: ['__u8', 0], code: ['__u8', 1], checksum: ['__sum16', 2], un: ['union icmp_un', 4] },
  ],
];

export function declareUapiTypes(builder: BtfBuilder): BtfBuilder {
  builder.enum('xdp_action', {
    XDP_ABORTED: 0,
    XDP_DROP: 1,
    XDP_PASS: 2,
    XDP_TX: 3,
    XDP_REDIRECT: 4,
  });
  builder.union('in6_addr_u', 16, {
    u6_addr8: ['__u8[16]', 0],
    u6_addr16: ['__be16[8]', 0],
    u6_addr32: ['__be32[4]', 0],
  });
  builder.struct('in6_addr', 16, { in6_u: ['union in6_addr_u', 0] });
  builder.struct('icmp_echo', 4, { id: ['__be16', 0], sequence: ['__be16', 2] });
  builder.union('icmp_un', 4, { echo: ['struct icmp_echo', 0], gateway: ['__be32', 0] });
  for (const [name, size, fields] of STRUCTS) builder.struct(name, size, fields);
  return builder;
}
