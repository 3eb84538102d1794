/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Tail calls. `loop` calls itself until the limit. `tree` has a subprogram that tail-calls `tree` again, twice
 * in a row: since 6.12 all share one count; before, each return of a subprogram forgets. `most` ends that.
 */
#include "selftest.h"

MAP(jumps, BPF_MAP_TYPE_PROG_ARRAY, u32, u32, 3);

u64 loops, visits, most;

SEC("socket/loop")
int loop(void *ctx)
{
	loops++;
	bpf_tail_call(ctx, &jumps, 0);
	return 1;
}

static NOINLINE int again(void *ctx)
{
	volatile int result = 1;

	bpf_tail_call(ctx, &jumps, 1);
	return result;
}

SEC("socket/tree")
int tree(void *ctx)
{
	volatile int result = 0;

	if (visits == most)
		return 0;
	visits++;
	result += again(ctx);
	result += again(ctx);
	return result;
}

LICENSE("GPL");
