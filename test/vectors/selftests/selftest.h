/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * For programs that are attached to functions: arguments by number, counters and results as global data.
 * ctx[n] is argument n in its register; narrow arguments are cut by a cast.
 */
#include "bpf.h"

typedef signed short s16;
typedef signed char s8;

#define ARG(type, n) ((type)ctx[n])
#define KSYM __attribute__((section(".ksyms")))

/* The part of struct pt_regs that user space knows: what kprobe programs get. */
struct user_pt_regs {
	u64 regs[31];
	u64 sp;
	u64 pc;
	u64 pstate;
};

static u64 (*bpf_get_attach_cookie)(void *ctx) = (void *)174;
static long (*bpf_tail_call)(void *ctx, const void *map, u32 index) = (void *)12;
