/* SPDX-License-Identifier: GPL-2.0-or-later */
/* bpf_get_func_arg_cnt, _arg and _ret in all kinds; bpf_get_func_ip; attach cookies. */
#include "selftest.h"

#define EINVAL 22
#define EOPNOTSUPP 95

u64 test1_result, test2_result, test3_result, test4_result;
u64 ip_entry, ip_exit, ip_modify;
u64 cookie_entry, cookie_exit, cookie_modify;

SEC("fentry/bpf_fentry_test1")
int args_entry(u64 *ctx)
{
	u64 count = bpf_get_func_arg_cnt(ctx), a = 0, z = 0, ret = 0;

	test1_result = count == 1;
	test1_result &= bpf_get_func_arg(ctx, 0, &a) == 0 && (s32)a == 1;
	test1_result &= bpf_get_func_arg(ctx, 1, &z) == -EINVAL;
	test1_result &= bpf_get_func_ret(ctx, &ret) == -EOPNOTSUPP;
	ip_entry = bpf_get_func_ip(ctx);
	cookie_entry = bpf_get_attach_cookie(ctx);
	return 0;
}

SEC("fexit/bpf_fentry_test2")
int args_exit(u64 *ctx)
{
	u64 count = bpf_get_func_arg_cnt(ctx), a = 0, b = 0, z = 0, ret = 0;

	test2_result = count == 2;
	test2_result &= bpf_get_func_arg(ctx, 0, &a) == 0 && (s32)a == 2;
	test2_result &= bpf_get_func_arg(ctx, 1, &b) == 0 && b == 3;
	test2_result &= bpf_get_func_arg(ctx, 2, &z) == -EINVAL;
	test2_result &= bpf_get_func_ret(ctx, &ret) == 0 && ret == 5;
	ip_exit = bpf_get_func_ip(ctx);
	cookie_exit = bpf_get_attach_cookie(ctx);
	return 0;
}

SEC("fmod_ret/bpf_modify_return_test")
int args_modify(u64 *ctx)
{
	u64 count = bpf_get_func_arg_cnt(ctx), a = 0, b = 0, z = 0, ret = 1;

	test3_result = count == 2;
	test3_result &= bpf_get_func_arg(ctx, 0, &a) == 0 && (s32)a == 1;
	test3_result &= bpf_get_func_arg(ctx, 1, &b) == 0 && b != 0;
	test3_result &= bpf_get_func_arg(ctx, 2, &z) == -EINVAL;
	test3_result &= bpf_get_func_ret(ctx, &ret) == 0 && ret == 0;
	ip_modify = bpf_get_func_ip(ctx);
	cookie_modify = bpf_get_attach_cookie(ctx);
	return 1234;
}

SEC("fexit/bpf_modify_return_test")
int args_modified(u64 *ctx)
{
	u64 count = bpf_get_func_arg_cnt(ctx), ret = 0;

	test4_result = count == 2 && bpf_get_func_ret(ctx, &ret) == 0 && ret == 1234;
	return 0;
}

LICENSE("GPL");
