/* A callback that reads the context through a pointer to its caller's stack; global and static functions. */
#include "bpf.h"

static long (*bpf_loop)(u32 count, void *callback, void *ctx, u64 flags) = (void *)181;

struct walk {
	struct xdp_md *ctx;
	u32 sum;
};

static long add_byte(u32 index, void *data)
{
	struct walk *walk = data;
	u8 *packet = PTR(walk->ctx->data);

	if ((void *)(packet + 64) > PTR(walk->ctx->data_end))
		return 1;
	walk->sum += packet[index & 63];
	return 0;
}

NOINLINE int twice(int value)
{
	asm volatile("" : "+r"(value));
	return value * 2;
}

static NOINLINE int four_times(int value)
{
	asm volatile("" : "+r"(value));
	return twice(value) + twice(value);
}

SEC("xdp")
int sum_bytes(struct xdp_md *ctx)
{
	struct walk walk = { .ctx = ctx };

	bpf_loop(64, add_byte, &walk, 0);
	return four_times(walk.sum) & 1 ? XDP_ABORTED : XDP_PASS;
}

LICENSE("GPL");
