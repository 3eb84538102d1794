/* SPDX-License-Identifier: GPL-2.0-or-later */
/* fexit on bpf_fentry_test1 .. 8: arguments as they were at entry, and the result behind them. */
#include "selftest.h"

struct bpf_fentry_test_t {
	struct bpf_fentry_test_t *a;
};

u64 test1_result, test2_result, test3_result, test4_result;
u64 test5_result, test6_result, test7_result, test8_result;

SEC("fexit/bpf_fentry_test1")
int exit1(u64 *ctx)
{
	test1_result = ARG(s32, 0) == 1 && ARG(s32, 1) == 2;
	return 0;
}

SEC("fexit/bpf_fentry_test2")
int exit2(u64 *ctx)
{
	test2_result = ARG(s32, 0) == 2 && ctx[1] == 3 && ARG(s32, 2) == 5;
	return 0;
}

SEC("fexit/bpf_fentry_test3")
int exit3(u64 *ctx)
{
	test3_result = ARG(u8, 0) == 4 && ARG(s32, 1) == 5 && ctx[2] == 6 && ARG(s32, 3) == 15;
	return 0;
}

SEC("fexit/bpf_fentry_test4")
int exit4(u64 *ctx)
{
	test4_result = ctx[0] == 7 && ARG(u8, 1) == 8 && ARG(s32, 2) == 9 && ctx[3] == 10 &&
		       ARG(s32, 4) == 34;
	return 0;
}

SEC("fexit/bpf_fentry_test5")
int exit5(u64 *ctx)
{
	test5_result = ctx[0] == 11 && ctx[1] == 12 && ARG(s16, 2) == 13 && ARG(s32, 3) == 14 &&
		       ctx[4] == 15 && ARG(s32, 5) == 65;
	return 0;
}

SEC("fexit/bpf_fentry_test6")
int exit6(u64 *ctx)
{
	test6_result = ctx[0] == 16 && ctx[1] == 17 && ARG(s16, 2) == 18 && ARG(s32, 3) == 19 &&
		       ctx[4] == 20 && ctx[5] == 21 && ARG(s32, 6) == 111;
	return 0;
}

SEC("fexit/bpf_fentry_test7")
int exit7(u64 *ctx)
{
	struct bpf_fentry_test_t *arg = (void *)ctx[0];

	if (!arg)
		test7_result = 1;
	return 0;
}

SEC("fexit/bpf_fentry_test8")
int exit8(u64 *ctx)
{
	struct bpf_fentry_test_t *arg = (void *)ctx[0];

	if (!arg->a)
		test8_result = 1;
	return 0;
}

LICENSE("GPL");
