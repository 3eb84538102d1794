/* Programs that throw, and an iterator over bits. */
#include "kfuncs.h"

extern void bpf_throw(u64 cookie) __ksym;
struct bpf_iter_bits { u64 __opaque[2]; } __attribute__((aligned(8)));
extern int bpf_iter_bits_new(struct bpf_iter_bits *it, const u64 *unsafe_ptr__ign, u32 nr_words) __ksym;
extern int *bpf_iter_bits_next(struct bpf_iter_bits *it) __ksym;
extern void bpf_iter_bits_destroy(struct bpf_iter_bits *it) __ksym;
#define __exception_cb(name) __attribute__((btf_decl_tag("exception_callback:" #name)))

u64 seen[8];
u64 words[3] = { 1, 0, 1ull << 63 | 4 };

NOINLINE int catcher(u64 cookie) { return cookie + 1; }
NOINLINE int thrower(int x)
{
	if (x & 1)
		bpf_throw(x + 5);
	return x;
}
static NOINLINE int deeper(int x)
{
	volatile int y = x;

	if (y > 3)
		bpf_throw(40);
	return y;
}
static NOINLINE int deep(int x)
{
	volatile int y = x;

	return deeper(y + 3) + 1;
}

SEC("xdp") __exception_cb(catcher) int caught(struct xdp_md *ctx) { return deep(ctx->ingress_ifindex + 9) + 2; }
SEC("xdp") int uncaught(struct xdp_md *ctx) { return deep(ctx->data_end - ctx->data) + 2; }
SEC("xdp") int through_global(struct xdp_md *ctx) { return thrower(1); }
SEC("xdp") int not_thrown(struct xdp_md *ctx) { return thrower(2); }
SEC("xdp") int always(struct xdp_md *ctx) { bpf_throw(7); return 0; }

struct {
	MAP_UINT(type, BPF_MAP_TYPE_PROG_ARRAY);
	MAP_UINT(max_entries, 1);
	MAP_UINT(key_size, sizeof(u32));
	int (*values[])(struct xdp_md *ctx);
} programs SEC(".maps") = { .values = { [0] = always } };

static long (*bpf_tail_call)(void *ctx, const void *programs, u32 index) = (void *)12;

static NOINLINE int tail(struct xdp_md *ctx)
{
	bpf_tail_call(ctx, &programs, 0);
	return ctx->ingress_ifindex + 100;
}
SEC("xdp") int from_function(struct xdp_md *ctx) { return tail(ctx) + 1; }

INLINE void sum(const u64 *from, int count, u64 *to)
{
	struct bpf_iter_bits it;
	int *bit;

	to[1] = bpf_iter_bits_new(&it, from, count);
	while ((bit = bpf_iter_bits_next(&it)))
		to[0] += 1 + *bit;
	bpf_iter_bits_destroy(&it);
}

SEC("xdp")
int bits(struct xdp_md *ctx)
{
	sum(words, 1, seen);
	sum(words, 3, seen + 2);
	sum(0, 1, seen + 4);
	sum(words, 512, seen + 6);
	return 2;
}

LICENSE("GPL");
