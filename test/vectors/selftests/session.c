/* SPDX-License-Identifier: GPL-2.0-or-later */
/* One program at entry and at exit, with eight bytes between the two (7.3). */
#include "selftest.h"

extern _Bool bpf_session_is_return(void *ctx) KSYM;
extern u64 *bpf_session_cookie(void *ctx) KSYM;

u64 entries, returns, kept, result, count, attach_cookie;

SEC("fsession/bpf_fentry_test2")
int both(u64 *ctx)
{
	u64 *cookie = bpf_session_cookie(ctx);

	count = bpf_get_func_arg_cnt(ctx);
	attach_cookie = bpf_get_attach_cookie(ctx);
	if (!bpf_session_is_return(ctx)) {
		entries++;
		*cookie = 0x1000 + ctx[1];
		return 0;
	}
	returns++;
	kept = *cookie;
	bpf_get_func_ret(ctx, &result);
	return 0;
}

SEC("fsession/bpf_fentry_test2")
int without_cookie(u64 *ctx)
{
	if (bpf_session_is_return(ctx))
		returns += 0x100;
	else
		entries += 0x100;
	return 0;
}

LICENSE("GPL");
