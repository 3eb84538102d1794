/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Counts packets and bytes by IP protocol in a per-CPU array, and passes everything.
 * Key: the protocol of IPv4, the next header of IPv6; 255 for all that is neither.
 */
#include "net.h"

#define NOT_IP 255

struct counter {
	u64 packets;
	u64 bytes;
};

MAP(counters, BPF_MAP_TYPE_PERCPU_ARRAY, u32, struct counter, 256);

SEC("xdp")
int count_protocols(struct xdp_md *ctx)
{
	void *data = PTR(ctx->data);
	void *end = PTR(ctx->data_end);
	struct eth_header *eth = data;
	struct counter *counter;
	u32 protocol = NOT_IP;

	if ((void *)(eth + 1) <= end) {
		if (eth->type == bpf_htons(ETH_P_IP)) {
			struct ipv4_header *ip = (void *)(eth + 1);

			if ((void *)(ip + 1) <= end)
				protocol = ip->protocol;
		} else if (eth->type == bpf_htons(ETH_P_IPV6)) {
			struct ipv6_header *ip = (void *)(eth + 1);

			if ((void *)(ip + 1) <= end)
				protocol = ip->next_header;
		}
	}
	counter = bpf_map_lookup_elem(&counters, &protocol);
	if (!counter)
		return XDP_ABORTED;
	counter->packets++;
	counter->bytes += end - data;
	return XDP_PASS;
}

LICENSE("GPL");
