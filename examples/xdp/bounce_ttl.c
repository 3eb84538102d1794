/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Sends IPv4 packets back where they came from, one hop older: swaps the MAC addresses, decrements
 * TTL and mends the header checksum incrementally (RFC 1624). A packet whose time is up is dropped;
 * anything else passes.
 */
#include "net.h"

/* What happened, by index: 0 bounced, 1 expired, 2 passed. */
MAP(outcomes, BPF_MAP_TYPE_ARRAY, u32, u64, 3);

enum { BOUNCED, EXPIRED, PASSED };

INLINE int outcome(u32 what, int verdict)
{
	u64 *count = bpf_map_lookup_elem(&outcomes, &what);

	if (count)
		__sync_fetch_and_add(count, 1);
	return verdict;
}

SEC("xdp")
int bounce_ttl(struct xdp_md *ctx)
{
	void *end = PTR(ctx->data_end);
	struct eth_header *eth = PTR(ctx->data);
	struct ipv4_header *ip = (void *)(eth + 1);
	u8 address[6];
	u32 sum;

	if ((void *)(ip + 1) > end || eth->type != bpf_htons(ETH_P_IP))
		return outcome(PASSED, XDP_PASS);
	if (ip->ttl <= 1)
		return outcome(EXPIRED, XDP_DROP);

	/* TTL is the high byte of its word, so the word loses 0x100: HC' = HC + 0x100, carry added */
	ip->ttl--;
	sum = (u32)bpf_ntohs(ip->checksum) + 0x100;
	sum = (sum & 0xffff) + (sum >> 16);
	ip->checksum = bpf_htons((u16)sum);

	__builtin_memcpy(address, eth->destination, 6);
	__builtin_memcpy(eth->destination, eth->source, 6);
	__builtin_memcpy(eth->source, address, 6);
	return outcome(BOUNCED, XDP_TX);
}

LICENSE("GPL");
