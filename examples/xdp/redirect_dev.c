/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Sends packets out of other devices by IP protocol: `ports` is a devmap with the protocol as key, and
 * everything without an entry passes. IPv6 goes to every device of `mirrors` but the one it came from.
 * `stamp_source`, a program for entries of `ports`, runs as frames leave: it writes the device's ifindex into
 * the last byte of the source address and counts what it saw; frames of less than 60 bytes do not leave.
 */
#include "net.h"

MAP(ports, BPF_MAP_TYPE_DEVMAP, u32, struct bpf_devmap_val, 256);
MAP(mirrors, BPF_MAP_TYPE_DEVMAP_HASH, u32, u32, 8);
MAP(stamped, BPF_MAP_TYPE_ARRAY, u32, u64, 16);

SEC("xdp")
int redirect_dev(struct xdp_md *ctx)
{
	void *end = PTR(ctx->data_end);
	struct eth_header *eth = PTR(ctx->data);
	struct ipv4_header *ip = (void *)(eth + 1);

	if ((void *)(eth + 1) > end)
		return XDP_PASS;
	if (eth->type == bpf_htons(ETH_P_IPV6))
		return bpf_redirect_map(&mirrors, 0, BPF_F_BROADCAST | BPF_F_EXCLUDE_INGRESS);
	if ((void *)(ip + 1) > end || eth->type != bpf_htons(ETH_P_IP))
		return XDP_PASS;
	return bpf_redirect_map(&ports, ip->protocol, XDP_PASS);
}

SEC("xdp/devmap")
int stamp_source(struct xdp_md *ctx)
{
	void *end = PTR(ctx->data_end);
	struct eth_header *eth = PTR(ctx->data);
	u32 out = ctx->egress_ifindex;
	u64 *count;

	if ((void *)eth + 60 > end)
		return XDP_DROP;
	eth->source[5] = out;
	count = bpf_map_lookup_elem(&stamped, &out);
	if (count)
		__sync_fetch_and_add(count, 1);
	return XDP_PASS;
}

LICENSE("GPL");
