/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Programs on pkt_access and its functions: fentry, fexit, and replacements of globals. */
#include "selftest.h"

struct net_device {
	int ifindex;
} __attribute__((preserve_access_index));

struct xdp_rxq_info {
	struct net_device *dev;
	u32 queue_index;
} __attribute__((preserve_access_index));

struct xdp_buff {
	void *data;
	void *data_end;
	struct xdp_rxq_info *rxq;
} __attribute__((preserve_access_index));

u64 main_entry, main_exit, sub1, sub2, sub3;
u64 new_len, new_ifindex, new_constant;

SEC("fentry/pkt_access")
int on_main_entry(u64 *ctx)
{
	struct xdp_buff *xdp = (void *)ctx[0];

	main_entry = xdp->rxq->dev->ifindex;
	return 0;
}

SEC("fexit/pkt_access")
int on_main(u64 *ctx)
{
	struct xdp_buff *xdp = (void *)ctx[0];

	main_exit = (xdp->data_end - xdp->data) << 8 | ARG(u8, 1);
	return 0;
}

SEC("fexit/subprog1")
int on_sub1(u64 *ctx)
{
	sub1 = ARG(u32, 1);
	return 0;
}

SEC("fexit/subprog2")
int on_sub2(u64 *ctx)
{
	sub2 = (ctx[0] & 0xff) << 32 | ARG(u32, 2);
	return 0;
}

SEC("fexit/subprog3")
int on_sub3(u64 *ctx)
{
	sub3 = (ctx[0] & 0xff) << 32 | ARG(u32, 2);
	return 0;
}

SEC("freplace/get_packet_len")
int new_get_packet_len(struct xdp_md *ctx)
{
	int len = (void *)(long)ctx->data_end - (void *)(long)ctx->data;

	new_len = len;
	return len;
}

SEC("freplace/get_ifindex")
int new_get_ifindex(int val, struct xdp_md *ctx, int var)
{
	int ifindex = ctx->ingress_ifindex;

	new_ifindex = val << 8 | ifindex;
	return ifindex * val * var;
}

SEC("freplace/get_constant")
int new_get_constant(long val)
{
	new_constant = 1;
	return val - 122;
}

SEC("freplace/get_constant")
int wrong_count(long val, int more)
{
	return val;
}

SEC("freplace/get_constant")
long wrong_result(long val)
{
	return val;
}

SEC("freplace/get_constant")
int wrong_size(int val)
{
	return val;
}

LICENSE("GPL");
