/* Loops that end by themselves: numbers from an iterator, and may_goto. */
#include "kfuncs.h"

u64 sums[8];
u32 limit = 10;
char bytes[64];

/* sums[0]: 0..9; sums[1]: with break and continue; sums[2]: rounds of bpf_repeat. */
SEC("xdp")
int counts(struct xdp_md *ctx)
{
	int i;
	u64 sum = 0, odd = 0, rounds = 0;

	bpf_for(i, 0, limit)
		sum += i;
	bpf_for(i, 0, 100) {
		if (i % 2 == 0)
			continue;
		if (i > 7)
			break;
		odd += i;
	}
	bpf_repeat(17)
		rounds++;
	sums[0] = sum;
	sums[1] = odd;
	sums[2] = rounds;
	return XDP_PASS;
}

/* A loop in a loop; the index is proved for the array. */
SEC("xdp")
int nested(struct xdp_md *ctx)
{
	int i, k;

	bpf_for(i, 0, 8) {
		bpf_for(k, 0, 8)
			bytes[i * 8 + k] = i ^ k;
	}
	return bytes[8 * 5 + 3];
}

static NOINLINE int add_all(struct bpf_iter_num *it)
{
	int *next, sum = 0;

	while ((next = bpf_iter_num_next(it)))
		sum += *next;
	return sum;
}

/* The iterator is in the frame of the caller. */
SEC("xdp")
int in_caller(struct xdp_md *ctx)
{
	struct bpf_iter_num it;
	int sum;

	bpf_iter_num_new(&it, 5, 8);
	sum = add_all(&it);
	bpf_iter_num_destroy(&it);
	return sum;
}

/* An end in front of the start, and too far: no round, an errno. */
SEC("xdp")
int wrong_range(struct xdp_md *ctx)
{
	struct bpf_iter_num it;
	int error, rounds = 0;

	error = bpf_iter_num_new(&it, 3, 1);
	while (bpf_iter_num_next(&it))
		rounds++;
	bpf_iter_num_destroy(&it);
	sums[3] = error;
	sums[4] = rounds;
	error = bpf_iter_num_new(&it, -5000000, 5000000);
	while (bpf_iter_num_next(&it))
		rounds++;
	bpf_iter_num_destroy(&it);
	sums[5] = error;
	sums[6] = rounds;
	return XDP_PASS;
}

/* Bytes of a packet, as many as there are: no bound that a verifier could unroll. */
SEC("xdp")
int packet_sum(struct xdp_md *ctx)
{
	u8 *data = PTR(ctx->data), *end = PTR(ctx->data_end);
	int i;
	u32 sum = 0;

	bpf_for(i, 0, 1500) {
		if (data + i + 1 > end)
			break;
		sum += data[i];
	}
	return sum;
}

SEC("xdp")
int with_may_goto(struct xdp_md *ctx)
{
	u32 i, sum = 0;

	for (i = 0; i < limit && can_loop; i++)
		sum += i;
	for (i = 0;; i++) {
		if (i == 50)
			break;
		cond_break;
		sum++;
	}
	return sum;
}
LICENSE("GPL");
