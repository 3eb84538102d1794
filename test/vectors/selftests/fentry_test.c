/* SPDX-License-Identifier: GPL-2.0-or-later */
/* fentry on bpf_fentry_test1 .. 8: each checks the arguments that the test run passes. */
#include "selftest.h"

struct bpf_fentry_test_t {
	struct bpf_fentry_test_t *a;
};

u64 test1_result, test2_result, test3_result, test4_result;
u64 test5_result, test6_result, test7_result, test8_result;

SEC("fentry/bpf_fentry_test1")
int test1(u64 *ctx)
{
	test1_result = ARG(s32, 0) == 1;
	return 0;
}

SEC("fentry/bpf_fentry_test2")
int test2(u64 *ctx)
{
	test2_result = ARG(s32, 0) == 2 && ctx[1] == 3;
	return 0;
}

SEC("fentry/bpf_fentry_test3")
int test3(u64 *ctx)
{
	test3_result = ARG(u8, 0) == 4 && ARG(s32, 1) == 5 && ctx[2] == 6;
	return 0;
}

SEC("fentry/bpf_fentry_test4")
int test4(u64 *ctx)
{
	test4_result = ctx[0] == 7 && ARG(u8, 1) == 8 && ARG(s32, 2) == 9 && ctx[3] == 10;
	return 0;
}

SEC("fentry/bpf_fentry_test5")
int test5(u64 *ctx)
{
	test5_result = ctx[0] == 11 && ctx[1] == 12 && ARG(s16, 2) == 13 && ARG(s32, 3) == 14 &&
		       ctx[4] == 15;
	return 0;
}

SEC("fentry/bpf_fentry_test6")
int test6(u64 *ctx)
{
	test6_result = ctx[0] == 16 && ctx[1] == 17 && ARG(s16, 2) == 18 && ARG(s32, 3) == 19 &&
		       ctx[4] == 20 && ctx[5] == 21;
	return 0;
}

SEC("fentry/bpf_fentry_test7")
int test7(u64 *ctx)
{
	struct bpf_fentry_test_t *arg = (void *)ctx[0];
	u64 through;

	/* a load through NULL gives 0; C would not let it stand */
	asm volatile("%0 = *(u64 *)(%1 + 0)" : "=r"(through) : "r"(arg));
	if (!arg)
		test7_result = 1;
	return 0;
}

SEC("fentry/bpf_fentry_test8")
int test8(u64 *ctx)
{
	struct bpf_fentry_test_t *arg = (void *)ctx[0];

	if (arg->a == 0)
		test8_result = 1;
	return 0;
}

LICENSE("GPL");
