/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A prog array that the object fills itself: `entry` goes on with `low`, that with `high`. Slot 1 stays empty,
 * `other` is in no array.
 */
#include "selftest.h"

int low(struct xdp_md *ctx);
int high(struct xdp_md *ctx);

struct {
	int (*type)[BPF_MAP_TYPE_PROG_ARRAY];
	int (*max_entries)[3];
	int (*key_size)[sizeof(u32)];
	int (*values[])(struct xdp_md *ctx);
} jumps SEC(".maps") = {
	.values = { [0] = low, [2] = high },
};

u32 slot;

SEC("xdp")
int entry(struct xdp_md *ctx)
{
	bpf_tail_call(ctx, &jumps, slot);
	return 1;
}

SEC("xdp")
int low(struct xdp_md *ctx)
{
	slot = 2;
	bpf_tail_call(ctx, &jumps, slot);
	return 0;
}

SEC("xdp")
int high(struct xdp_md *ctx)
{
	return 2;
}

SEC("xdp")
int other(struct xdp_md *ctx)
{
	return 3;
}

LICENSE("GPL");
