/* SPDX-License-Identifier: GPL-2.0-or-later */
/* bpf_get_func_ip in all kinds of programs that have it; arguments, result and pc in pt_regs; attach cookies. */
#include "selftest.h"

u64 ip_fentry, ip_fexit, ip_kprobe, ip_kretprobe, ip_fmod_ret, ip_inside = 1;
u64 kprobe_args[3], kprobe_pc, kretprobe_result, inside_x0, inside_pc;
u64 cookie_kprobe, cookie_kretprobe;

SEC("fentry/bpf_fentry_test1")
int on_fentry(u64 *ctx)
{
	ip_fentry = bpf_get_func_ip(ctx);
	return 0;
}

SEC("fexit/bpf_fentry_test2")
int on_fexit(u64 *ctx)
{
	ip_fexit = bpf_get_func_ip(ctx);
	return 0;
}

SEC("kprobe/bpf_fentry_test3")
int on_kprobe(struct user_pt_regs *regs)
{
	ip_kprobe = bpf_get_func_ip(regs);
	cookie_kprobe = bpf_get_attach_cookie(regs);
	for (int i = 0; i < 3; i++)
		kprobe_args[i] = regs->regs[i];
	kprobe_pc = regs->pc;
	return 0;
}

SEC("kretprobe/bpf_fentry_test4")
int on_kretprobe(struct user_pt_regs *regs)
{
	ip_kretprobe = bpf_get_func_ip(regs);
	cookie_kretprobe = bpf_get_attach_cookie(regs);
	kretprobe_result = regs->regs[0];
	return 0;
}

SEC("fmod_ret/bpf_modify_return_test")
int on_fmod_ret(u64 *ctx)
{
	ip_fmod_ret = bpf_get_func_ip(ctx);
	return 0;
}

/* behind mov x9, x30 and the patch site */
SEC("kprobe/bpf_fentry_test6+0x8")
int on_inside(struct user_pt_regs *regs)
{
	ip_inside = bpf_get_func_ip(regs);
	inside_x0 = regs->regs[0];
	inside_pc = regs->pc;
	return 0;
}

LICENSE("GPL");
