/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The same on bpf_modify_return_test2, which has seven arguments (6.12). */
#include "selftest.h"

static s32 sequence;
s32 input_retval;
u64 fentry_result, fmod_ret_result, fexit_result;

SEC("fentry/bpf_modify_return_test2")
int modify_entry2(u64 *ctx)
{
	sequence++;
	fentry_result = sequence == 1;
	return 0;
}

SEC("fmod_ret/bpf_modify_return_test2")
int modify_return2(u64 *ctx)
{
	sequence++;
	fmod_ret_result = sequence == 2 && ARG(s32, 7) == 0;
	return input_retval;
}

SEC("fexit/bpf_modify_return_test2")
int modify_exit2(u64 *ctx)
{
	sequence++;
	fexit_result = sequence == 3 && ARG(s32, 7) == (input_retval ? input_retval : 29);
	return 0;
}

LICENSE("GPL");
