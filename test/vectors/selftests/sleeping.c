/* SPDX-License-Identifier: GPL-2.0-or-later */
/* fentry and fexit on a system call in which the task sleeps. */
#include "selftest.h"

u64 fentry_count, fexit_count;

SEC("fentry/__arm64_sys_nanosleep")
int nanosleep_fentry(u64 *ctx)
{
	fentry_count++;
	return 0;
}

SEC("fexit/__arm64_sys_nanosleep")
int nanosleep_fexit(u64 *ctx)
{
	fexit_count++;
	return 0;
}

SEC("fentry.s/__arm64_sys_nanosleep")
int may_sleep(u64 *ctx)
{
	fentry_count += 100;
	return 0;
}

LICENSE("GPL");
