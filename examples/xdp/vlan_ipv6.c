/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Looks for IPv6 under up to two VLAN tags and walks its extension headers in a subprogram. Drops
 * packets of VLAN `blocked_vlan` and those with more extension headers than it follows; counts in
 * global data.
 */
#include "net.h"

#define MAX_EXTENSIONS 4

/* Read-only for the program: changed before loading. */
const volatile u16 blocked_vlan = 666;

struct {
	u64 untagged;
	u64 tagged;
	u64 double_tagged;
} vlans;

u64 tcp_packets, udp_packets, icmp_packets, other_packets;
u64 extension_headers;
/* Port that TCP or UDP packets went to last, and a value that is not zero at the start. */
u16 last_port = 0xffff;

/* What stands behind the IPv6 header: its protocol, or -1 when there is no end to extensions. */
static NOINLINE int upper_protocol(struct xdp_md *ctx, u32 offset, u8 next, u32 *upper)
{
	void *end = PTR(ctx->data_end);

#pragma unroll
	for (int i = 0; i < MAX_EXTENSIONS; i++) {
		u8 *header = PTR(ctx->data) + offset;

		/* hop-by-hop, routing, fragment, destination options */
		if (next != 0 && next != 43 && next != 44 && next != 60) {
			*upper = offset;
			return next;
		}
		if (offset > 512 || (void *)(header + 8) > end)
			return -1;
		extension_headers++;
		offset += next == 44 ? 8 : 8 + header[1] * 8;
		next = header[0];
	}
	return -1;
}

SEC("xdp")
int vlan_ipv6(struct xdp_md *ctx)
{
	void *data = PTR(ctx->data);
	void *end = PTR(ctx->data_end);
	struct eth_header *eth = data;
	struct ipv6_header *ip;
	struct ports *ports;
	u32 offset = sizeof(*eth);
	u32 tags = 0, upper = 0;
	u16 type;
	int protocol;

	if ((void *)(eth + 1) > end)
		return XDP_DROP;
	type = eth->type;
#pragma unroll
	for (int i = 0; i < 2; i++) {
		struct vlan_tag *tag = data + offset;

		if (type != bpf_htons(ETH_P_8021Q) && type != bpf_htons(ETH_P_8021AD))
			break;
		if ((void *)(tag + 1) > end)
			return XDP_DROP;
		if ((bpf_ntohs(tag->tci) & 0xfff) == blocked_vlan)
			return XDP_DROP;
		type = tag->type;
		offset += sizeof(*tag);
		tags++;
	}
	if (type != bpf_htons(ETH_P_IPV6))
		return XDP_PASS;
	ip = data + offset;
	if ((void *)(ip + 1) > end)
		return XDP_DROP;
	if (tags == 0)
		vlans.untagged++;
	else if (tags == 1)
		vlans.tagged++;
	else
		vlans.double_tagged++;

	protocol = upper_protocol(ctx, offset + sizeof(*ip), ip->next_header, &upper);
	if (protocol < 0)
		return XDP_DROP;
	switch (protocol) {
	case IPPROTO_TCP:
		tcp_packets++;
		break;
	case IPPROTO_UDP:
		udp_packets++;
		break;
	case IPPROTO_ICMPV6:
		icmp_packets++;
		return XDP_PASS;
	default:
		other_packets++;
		return XDP_PASS;
	}
	if (upper > 600)
		return XDP_PASS;
	ports = data + upper;
	if ((void *)(ports + 1) <= end)
		last_port = bpf_ntohs(ports->destination);
	return XDP_PASS;
}

LICENSE("GPL");
