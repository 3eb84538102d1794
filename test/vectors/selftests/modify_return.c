/* SPDX-License-Identifier: GPL-2.0-or-later */
/* fentry, fmod_ret and fexit on bpf_modify_return_test and _test2, in this sequence. */
#include "selftest.h"

static s32 sequence;
s32 input_retval;
u64 fentry_result, fmod_ret_result, fexit_result;
s32 fexit_seen;

SEC("fentry/bpf_modify_return_test")
int modify_entry(u64 *ctx)
{
	sequence++;
	fentry_result = sequence == 1;
	return 0;
}

SEC("fmod_ret/bpf_modify_return_test")
int modify_return(u64 *ctx)
{
	sequence++;
	/* nobody has given a result yet */
	fmod_ret_result = sequence == 2 && ARG(s32, 2) == 0;
	return input_retval;
}

SEC("fexit/bpf_modify_return_test")
int modify_exit(u64 *ctx)
{
	sequence++;
	fexit_seen = ARG(s32, 2);
	fexit_result = sequence == 3 && fexit_seen == (input_retval ? input_retval : 4);
	return 0;
}

LICENSE("GPL");
