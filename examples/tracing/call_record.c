/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Records any function's calls without knowing its prototype: address, number of arguments, each
 * argument, return value, through bpf_get_func_ip, _arg_cnt, _arg and _ret. Attached here to
 * bpf_fentry_test3(char a, int b, u64 c); fmod_ret shows the way to change a result.
 */
#include "bpf.h"

#define MAX_ARGS 6

struct record {
	u64 address;
	u64 count;
	u64 arguments[MAX_ARGS];
	u64 result;
	s64 result_status;
	u64 calls;
};

MAP(records, BPF_MAP_TYPE_HASH, u64, struct record, 16);

/* What fmod_ret answers for bpf_modify_return_test; 0 lets the function run. */
s32 answer;

INLINE int record_call(void *ctx)
{
	struct record record = {};
	u64 address = bpf_get_func_ip(ctx);
	struct record *before = bpf_map_lookup_elem(&records, &address);

	record.address = address;
	record.count = bpf_get_func_arg_cnt(ctx);
#pragma unroll
	for (u32 i = 0; i < MAX_ARGS; i++)
		if (bpf_get_func_arg(ctx, i, &record.arguments[i]))
			record.arguments[i] = 0;
	record.result_status = bpf_get_func_ret(ctx, &record.result);
	record.calls = before ? before->calls + 1 : 1;
	bpf_map_update_elem(&records, &address, &record, BPF_ANY);
	return 0;
}

SEC("fexit/bpf_fentry_test3")
int record_exit(u64 *ctx)
{
	return record_call(ctx);
}

SEC("fentry/bpf_fentry_test1")
int record_entry(u64 *ctx)
{
	return record_call(ctx);
}

SEC("fmod_ret/bpf_modify_return_test")
int modify_return(u64 *ctx)
{
	return answer;
}

LICENSE("GPL");
