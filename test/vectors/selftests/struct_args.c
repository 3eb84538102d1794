/* SPDX-License-Identifier: GPL-2.0-or-later */
/* fentry and fexit on functions with structures by value and many arguments: registers and slots of ctx. */
#include "selftest.h"

#define SLOTS 13

struct seen {
	u64 count;
	u64 slots[SLOTS];
	u64 result;
	s64 result_status;
};

struct seen entry1, entry2, entry3, entry4, entry5, entry7, entry8, entry9, many7, many11;
struct seen exit1, exit4, exit8, exit9, exit7m, exit11m;

INLINE int look(u64 *ctx, struct seen *seen)
{
	seen->count = bpf_get_func_arg_cnt(ctx);
#pragma unroll
	for (u32 i = 0; i < SLOTS; i++)
		if (bpf_get_func_arg(ctx, i, &seen->slots[i]))
			seen->slots[i] = 0;
	seen->result_status = bpf_get_func_ret(ctx, &seen->result);
	return 0;
}

#define WATCH(name, kind, function, to)                                                            \
	SEC(kind "/bpf_testmod_" function) int name(u64 *ctx)                                      \
	{                                                                                          \
		return look(ctx, &to);                                                             \
	}

WATCH(on_entry1, "fentry", "test_struct_arg_1", entry1)
WATCH(on_exit1, "fexit", "test_struct_arg_1", exit1)
WATCH(on_entry2, "fentry", "test_struct_arg_2", entry2)
WATCH(on_entry3, "fentry", "test_struct_arg_3", entry3)
WATCH(on_entry4, "fentry", "test_struct_arg_4", entry4)
WATCH(on_exit4, "fexit", "test_struct_arg_4", exit4)
WATCH(on_entry5, "fentry", "test_struct_arg_5", entry5)
WATCH(on_entry7, "fentry", "test_struct_arg_7", entry7)
WATCH(on_entry8, "fentry", "test_struct_arg_8", entry8)
WATCH(on_exit8, "fexit", "test_struct_arg_8", exit8)
WATCH(on_entry9, "fentry", "test_struct_arg_9", entry9)
WATCH(on_exit9, "fexit", "test_struct_arg_9", exit9)
WATCH(on_many7, "fentry", "fentry_test7", many7)
WATCH(on_many7_exit, "fexit", "fentry_test7", exit7m)
WATCH(on_many11, "fentry", "fentry_test11", many11)
WATCH(on_many11_exit, "fexit", "fentry_test11", exit11m)

LICENSE("GPL");
