/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Packet headers as they are on the wire, big-endian fields and all. */
#ifndef TRAMPOLAB_NET_H
#define TRAMPOLAB_NET_H

#include "bpf.h"

#define ETH_P_IP 0x0800
#define ETH_P_ARP 0x0806
#define ETH_P_8021Q 0x8100
#define ETH_P_IPV6 0x86dd
#define ETH_P_8021AD 0x88a8

#define IPPROTO_ICMP 1
#define IPPROTO_IPIP 4
#define IPPROTO_TCP 6
#define IPPROTO_UDP 17
#define IPPROTO_ICMPV6 58

struct eth_header {
	u8 destination[6];
	u8 source[6];
	u16 type;
};

struct vlan_tag {
	u16 tci;
	u16 type;
};

struct ipv4_header {
	u8 version_ihl;
	u8 tos;
	u16 total_length;
	u16 id;
	u16 fragment;
	u8 ttl;
	u8 protocol;
	u16 checksum;
	u32 source;
	u32 destination;
};

struct ipv6_header {
	u32 version_class_flow;
	u16 payload_length;
	u8 next_header;
	u8 hop_limit;
	u8 source[16];
	u8 destination[16];
};

/* First bytes of both TCP and UDP. */
struct ports {
	u16 source;
	u16 destination;
};

#define IPV4_FRAGMENT_OFFSET bpf_htons(0x1fff)

#endif
