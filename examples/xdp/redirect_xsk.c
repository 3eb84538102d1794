/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Gives UDP over IPv4 to the AF_XDP socket of the receive queue, if `sockets` has one; the rest passes.
 */
#include "net.h"

MAP(sockets, BPF_MAP_TYPE_XSKMAP, u32, u32, 64);

SEC("xdp")
int redirect_xsk(struct xdp_md *ctx)
{
	void *end = PTR(ctx->data_end);
	struct eth_header *eth = PTR(ctx->data);
	struct ipv4_header *ip = (void *)(eth + 1);

	if ((void *)(ip + 1) > end || eth->type != bpf_htons(ETH_P_IP))
		return XDP_PASS;
	if (ip->protocol != IPPROTO_UDP)
		return XDP_PASS;
	return bpf_redirect_map(&sockets, ctx->rx_queue_index, XDP_PASS);
}

LICENSE("GPL");
