/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Counts what virtio-net receives, by size, after receive_buf has returned:
 *
 *   static void receive_buf(struct virtnet_info *vi, struct receive_queue *rq, void *buf,
 *                           unsigned int len, void **ctx, unsigned int *xdp_xmit,
 *                           struct virtnet_rq_stats *stats);
 *
 * `len` includes the virtio-net header. Bucket 0 holds up to 64 bytes, each further one twice that.
 */
#include "bpf.h"

#define BUCKETS 12
#define ARG_LEN 3

struct bucket {
	u64 packets;
	u64 bytes;
};

MAP(sizes, BPF_MAP_TYPE_ARRAY, u32, struct bucket, BUCKETS);

u64 total_packets, total_bytes;

SEC("fexit/receive_buf")
int receive_sizes(u64 *ctx)
{
	u32 length = (u32)ctx[ARG_LEN];
	u32 index = 0;
	struct bucket *bucket;

#pragma unroll
	for (int i = 0; i < BUCKETS - 1; i++)
		index += length > (64u << i);
	bucket = bpf_map_lookup_elem(&sizes, &index);
	if (!bucket)
		return 0;
	bucket->packets++;
	bucket->bytes += length;
	total_packets++;
	total_bytes += length;
	return 0;
}

LICENSE("GPL");
