/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A target for tracing programs: a main program and global functions that it calls. */
#include "selftest.h"

NOINLINE int get_packet_len(struct xdp_md *ctx)
{
	return (void *)(long)ctx->data_end - (void *)(long)ctx->data;
}

NOINLINE int get_constant(long val)
{
	return val - 122;
}

NOINLINE int get_ifindex(int val, struct xdp_md *ctx, int var)
{
	volatile int one = 1;

	return ctx->ingress_ifindex * val * var * one;
}

NOINLINE int subprog1(struct xdp_md *ctx)
{
	return get_packet_len(ctx) * 2;
}

NOINLINE int subprog2(int val, struct xdp_md *ctx)
{
	return get_packet_len(ctx) * val;
}

NOINLINE int subprog3(int val, struct xdp_md *ctx)
{
	return get_packet_len(ctx) * get_ifindex(val, ctx, get_constant(123));
}

SEC("xdp")
int pkt_access(struct xdp_md *ctx)
{
	int len = get_packet_len(ctx);

	if (subprog1(ctx) != len * 2)
		return XDP_DROP;
	if (subprog2(2, ctx) != len * 2)
		return XDP_DROP;
	if (subprog3(3, ctx) != len * 3 * (int)ctx->ingress_ifindex)
		return XDP_DROP;
	return XDP_PASS;
}

LICENSE("GPL");
