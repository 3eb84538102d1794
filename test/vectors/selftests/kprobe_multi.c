/* SPDX-License-Identifier: GPL-2.0-or-later */
/* One program at the entries, one at the returns of many functions: which it is says bpf_get_func_ip. */
#include "selftest.h"

#define FUNCTIONS 8

extern const void bpf_fentry_test1 KSYM;
extern const void bpf_fentry_test2 KSYM;
extern const void bpf_fentry_test3 KSYM;
extern const void bpf_fentry_test4 KSYM;
extern const void bpf_fentry_test5 KSYM;
extern const void bpf_fentry_test6 KSYM;
extern const void bpf_fentry_test7 KSYM;
extern const void bpf_fentry_test8 KSYM;

struct seen {
	u64 count;
	u64 x0;
	u64 cookie;
};

struct seen entries[FUNCTIONS], returns[FUNCTIONS];
u64 others;

INLINE void note(struct seen *all, struct user_pt_regs *regs)
{
	u64 ip = bpf_get_func_ip(regs);
	struct seen *seen = 0;

#define IS(n)                                                                                      \
	if (ip == (u64)&bpf_fentry_test##n)                                                        \
	seen = &all[n - 1]
	IS(1);
	IS(2);
	IS(3);
	IS(4);
	IS(5);
	IS(6);
	IS(7);
	IS(8);
	if (!seen) {
		others++;
		return;
	}
	seen->count++;
	seen->x0 = regs->regs[0];
	seen->cookie = bpf_get_attach_cookie(regs);
}

SEC("kprobe.multi/bpf_fentry_test?")
int on_entries(struct user_pt_regs *regs)
{
	note(entries, regs);
	return 0;
}

SEC("kretprobe.multi/bpf_fentry_test?")
int on_returns(struct user_pt_regs *regs)
{
	note(returns, regs);
	return 0;
}

LICENSE("GPL");
