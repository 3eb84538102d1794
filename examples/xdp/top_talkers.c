/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Counts bytes by IPv4 source address in objects of its own: each lies in a tree, sorted by address, and is kept
 * by a map too. With more than MAX_TALKERS addresses the lowest leaves the tree. Passes everything.
 */
#include "net.h"
#include "objects.h"

#define MAX_TALKERS 8

struct talker {
	struct bpf_rb_node node;
	struct bpf_refcount references;
	u32 address;
	u64 packets;
	u64 bytes;
};

struct known {
	struct talker __kptr *talker;
};

MAP(talkers, BPF_MAP_TYPE_HASH, u32, struct known, 64);

private(tree) struct bpf_spin_lock lock;
private(tree) struct bpf_rb_root tree __contains(talker, node);

u64 total, in_tree, dropped;

static _Bool less(struct bpf_rb_node *a, const struct bpf_rb_node *b)
{
	return container_of(a, struct talker, node)->address <
	       container_of(b, struct talker, node)->address;
}

/* A talker that is new: in the map, and in the tree with a second reference. */
static int add(u32 address)
{
	struct known none = {}, *known;
	struct talker *talker, *old;
	struct bpf_rb_node *first;

	if (bpf_map_update_elem(&talkers, &address, &none, BPF_NOEXIST))
		return -1;
	known = bpf_map_lookup_elem(&talkers, &address);
	if (!known)
		return -1;
	talker = bpf_obj_new(struct talker);
	if (!talker)
		return -1;
	talker->address = address;
	talker->packets = 0;
	talker->bytes = 0;
	old = bpf_kptr_xchg(&known->talker, bpf_refcount_acquire(talker));
	if (old)
		bpf_obj_drop(old);
	bpf_spin_lock(&lock);
	bpf_rbtree_add(&tree, &talker->node, less);
	in_tree++;
	first = in_tree > MAX_TALKERS ? bpf_rbtree_first(&tree) : 0;
	if (first)
		first = bpf_rbtree_remove(&tree, first);
	bpf_spin_unlock(&lock);
	if (first) {
		in_tree--;
		dropped++;
		bpf_obj_drop(container_of(first, struct talker, node));
	}
	return 0;
}

SEC("xdp")
int top_talkers(struct xdp_md *ctx)
{
	void *data = PTR(ctx->data), *end = PTR(ctx->data_end);
	struct eth_header *eth = data;
	struct ipv4_header *ip = (void *)(eth + 1);
	struct known *known;
	struct talker *talker;
	u32 address;

	if ((void *)(ip + 1) > end || eth->type != bpf_htons(ETH_P_IP))
		return XDP_PASS;
	address = __builtin_bswap32(ip->source);
	if (!bpf_map_lookup_elem(&talkers, &address) && add(address))
		return XDP_PASS;
	known = bpf_map_lookup_elem(&talkers, &address);
	if (!known)
		return XDP_PASS;
	bpf_rcu_read_lock();
	talker = known->talker;
	if (talker) {
		talker->packets++;
		talker->bytes += end - data;
		total += end - data;
	}
	bpf_rcu_read_unlock();
	return XDP_PASS;
}

LICENSE("GPL");
