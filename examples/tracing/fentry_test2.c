/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Watches bpf_fentry_test2(int a, u64 b) from both sides: fentry keeps the arguments in a map,
 * fexit keeps arguments and result in global data. The context is an array of u64: arguments first,
 * then the return value.
 */
#include "bpf.h"

struct call {
	u64 a;
	u64 b;
	u64 calls;
};

MAP(entries, BPF_MAP_TYPE_ARRAY, u32, struct call, 1);

u64 exit_a, exit_b, exit_calls;
s32 exit_result;

SEC("fentry/bpf_fentry_test2")
int test2_entry(u64 *ctx)
{
	u32 key = 0;
	struct call *call = bpf_map_lookup_elem(&entries, &key);

	if (!call)
		return 0;
	call->a = (u32)ctx[0];
	call->b = ctx[1];
	call->calls++;
	return 0;
}

SEC("fexit/bpf_fentry_test2")
int test2_exit(u64 *ctx)
{
	exit_a = (u32)ctx[0];
	exit_b = ctx[1];
	exit_result = (s32)ctx[2];
	exit_calls++;
	return 0;
}

LICENSE("GPL");
