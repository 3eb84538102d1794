/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Spreads IPv4 flows over the CPUs that `cpus` lists: both directions of a flow go to the same one. What has no
 * entry passes on this CPU. `count_here`, a program for entries of `cpus`, runs on the other CPU and counts the
 * packets there.
 */
#include "net.h"

#define CPUS 4

MAP(cpus, BPF_MAP_TYPE_CPUMAP, u32, struct bpf_cpumap_val, CPUS);
MAP(seen, BPF_MAP_TYPE_PERCPU_ARRAY, u32, u64, 1);

SEC("xdp")
int redirect_cpu(struct xdp_md *ctx)
{
	void *end = PTR(ctx->data_end);
	struct eth_header *eth = PTR(ctx->data);
	struct ipv4_header *ip = (void *)(eth + 1);
	u32 hash;

	if ((void *)(ip + 1) > end || eth->type != bpf_htons(ETH_P_IP))
		return XDP_PASS;
	hash = ip->source ^ ip->destination;
	hash ^= hash >> 16;
	hash ^= hash >> 8;
	return bpf_redirect_map(&cpus, hash % CPUS, XDP_PASS);
}

SEC("xdp/cpumap")
int count_here(struct xdp_md *ctx)
{
	u32 key = 0;
	u64 *count = bpf_map_lookup_elem(&seen, &key);

	if (count)
		*count += 1;
	return XDP_PASS;
}

LICENSE("GPL");
