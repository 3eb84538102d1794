/* SPDX-License-Identifier: GPL-2.0-or-later */
/* LSM programs: an int hook that answers, one that lets go on, a void hook. */
#include "selftest.h"

#define EPERM 1

struct cred {
	int usage;
};

s32 answer;
u64 opened, protected, freed, prot;

SEC("lsm/file_mprotect")
int file_mprotect(u64 *ctx)
{
	protected++;
	prot = ctx[2];
	return answer ? -EPERM : 0;
}

SEC("lsm.s/file_open")
int file_open(u64 *ctx)
{
	opened++;
	return 0;
}

SEC("lsm/cred_free")
int cred_free(u64 *ctx)
{
	freed++;
	return 0;
}

LICENSE("GPL");
