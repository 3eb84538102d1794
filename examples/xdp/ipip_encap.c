/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Puts IPv4 packets for listed addresses into IP-in-IP and sends them out again (XDP_TX), as a load
 * balancer does. The hash `tunnels` maps an inner destination to the tunnel to use; everything else
 * passes. `sent` counts encapsulated packets by inner protocol.
 */
#include "net.h"

struct tunnel {
	u32 source;
	u32 destination;
	u8 next_hop[6];
	u8 pad[2];
};

MAP(tunnels, BPF_MAP_TYPE_HASH, u32, struct tunnel, 256);
MAP(sent, BPF_MAP_TYPE_PERCPU_ARRAY, u32, u64, 256);

/* Adds the carries in until none is left: two rounds are enough for ten words, and are needed. */
INLINE u16 checksum_of(const struct ipv4_header *ip)
{
	const u16 *words = (const u16 *)ip;
	u32 sum = 0;

#pragma unroll
	for (int i = 0; i < 10; i++)
		sum += words[i];
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

SEC("xdp.frags")
int ipip_encap(struct xdp_md *ctx)
{
	void *end = PTR(ctx->data_end);
	struct eth_header *eth = PTR(ctx->data);
	struct ipv4_header *inner = (void *)(eth + 1);
	struct ipv4_header *outer;
	struct tunnel *tunnel;
	u32 destination, protocol;
	u16 inner_length;
	u8 old_destination[6];
	u64 *count;

	if ((void *)(inner + 1) > end || eth->type != bpf_htons(ETH_P_IP))
		return XDP_PASS;
	destination = inner->destination;
	tunnel = bpf_map_lookup_elem(&tunnels, &destination);
	if (!tunnel)
		return XDP_PASS;
	inner_length = bpf_ntohs(inner->total_length);
	protocol = inner->protocol;
	__builtin_memcpy(old_destination, eth->destination, 6);

	if (bpf_xdp_adjust_head(ctx, -(int)sizeof(*outer)))
		return XDP_DROP;
	/* the packet has moved: all pointers are new, all bounds unchecked */
	end = PTR(ctx->data_end);
	eth = PTR(ctx->data);
	outer = (void *)(eth + 1);
	if ((void *)(outer + 1) > end)
		return XDP_DROP;

	__builtin_memcpy(eth->destination, tunnel->next_hop, 6);
	__builtin_memcpy(eth->source, old_destination, 6);
	eth->type = bpf_htons(ETH_P_IP);
	outer->version_ihl = 0x45;
	outer->tos = 0;
	outer->total_length = bpf_htons(inner_length + sizeof(*outer));
	outer->id = 0;
	outer->fragment = 0;
	outer->ttl = 64;
	outer->protocol = IPPROTO_IPIP;
	outer->checksum = 0;
	outer->source = tunnel->source;
	outer->destination = tunnel->destination;
	outer->checksum = checksum_of(outer);

	count = bpf_map_lookup_elem(&sent, &protocol);
	if (count)
		*count += 1;
	return XDP_TX;
}

LICENSE("GPL");
