/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Drops TCP and UDP packets to listed ports (IPv4 without options, IPv6 without extension headers).
 * The hash `drop_list` maps a destination port in host byte order to the packets dropped so far; user
 * space (or a test) puts ports in.
 */
#include "net.h"

MAP(drop_list, BPF_MAP_TYPE_HASH, u16, u64, 64);

SEC("xdp")
int drop_ports(struct xdp_md *ctx)
{
	void *end = PTR(ctx->data_end);
	struct eth_header *eth = PTR(ctx->data);
	struct ports *ports;
	u64 *dropped;
	u8 protocol;
	u16 port;

	if ((void *)(eth + 1) > end)
		return XDP_PASS;
	if (eth->type == bpf_htons(ETH_P_IP)) {
		struct ipv4_header *ip = (void *)(eth + 1);

		if ((void *)(ip + 1) > end || ip->version_ihl != 0x45)
			return XDP_PASS;
		/* only the first fragment has ports */
		if (ip->fragment & IPV4_FRAGMENT_OFFSET)
			return XDP_PASS;
		protocol = ip->protocol;
		ports = (void *)(ip + 1);
	} else if (eth->type == bpf_htons(ETH_P_IPV6)) {
		struct ipv6_header *ip = (void *)(eth + 1);

		if ((void *)(ip + 1) > end)
			return XDP_PASS;
		protocol = ip->next_header;
		ports = (void *)(ip + 1);
	} else {
		return XDP_PASS;
	}
	if (protocol != IPPROTO_TCP && protocol != IPPROTO_UDP)
		return XDP_PASS;
	if ((void *)(ports + 1) > end)
		return XDP_PASS;
	port = bpf_ntohs(ports->destination);
	dropped = bpf_map_lookup_elem(&drop_list, &port);
	if (!dropped)
		return XDP_PASS;
	__sync_fetch_and_add(dropped, 1);
	return XDP_DROP;
}

LICENSE("GPL");
