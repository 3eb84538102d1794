/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Asks the device for each packet's hash, and counts packets by its type.
 * Key: enum xdp_rss_hash_type (25: TCP over IPv4); 255: the device gave no hash.
 * A program that asks has to be bound to the device: trampolab xdp --dev-bound --rss.
 *
 * rx_hash_late takes the Ethernet header off first. virtio-net looks for its own header right below the packet,
 * so that it then takes the source address for the hash.
 */
#include "kfuncs.h"

#define NO_HASH 255

struct hashed {
	u64 packets;
	u32 last_hash;
	s32 last_error;
};

MAP(by_type, BPF_MAP_TYPE_ARRAY, u32, struct hashed, 256);

INLINE int count(struct xdp_md *ctx)
{
	enum xdp_rss_hash_type type = 0;
	struct hashed *hashed;
	u32 hash = 0, key;
	int error;

	error = bpf_xdp_metadata_rx_hash(ctx, &hash, &type);
	key = error ? NO_HASH : type & 0xff;
	hashed = bpf_map_lookup_elem(&by_type, &key);
	if (!hashed)
		return XDP_ABORTED;
	hashed->packets++;
	hashed->last_hash = hash;
	hashed->last_error = error;
	return XDP_PASS;
}

SEC("xdp")
int rx_hash(struct xdp_md *ctx)
{
	return count(ctx);
}

SEC("xdp")
int rx_hash_late(struct xdp_md *ctx)
{
	if (bpf_xdp_adjust_head(ctx, 14))
		return XDP_ABORTED;
	return count(ctx);
}

LICENSE("GPL");
