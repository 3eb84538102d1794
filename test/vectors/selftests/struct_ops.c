/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A TCP congestion control in BPF, and the operations of the kernel's own dummy. */
#include "selftest.h"

struct sock {
	u32 snd_cwnd;
	u32 snd_ssthresh;
} __attribute__((preserve_access_index));

struct bpf_dummy_ops_state {
	int val;
} __attribute__((preserve_access_index));

struct tcp_congestion_ops {
	u32 (*ssthresh)(struct sock *sk);
	void (*cong_avoid)(struct sock *sk, u32 ack, u32 acked);
	u32 (*undo_cwnd)(struct sock *sk);
	void (*init)(struct sock *sk);
	u32 flags;
	char name[16];
};

struct bpf_dummy_ops {
	int (*test_1)(struct bpf_dummy_ops_state *cb);
	int (*test_2)(struct bpf_dummy_ops_state *cb, int a1, unsigned short a2, char a3,
		      unsigned long a4);
	int (*test_sleepable)(struct bpf_dummy_ops_state *cb);
};

u64 inits, avoids, acked_in_all;
u64 args[5];

SEC("struct_ops/lab_init")
int lab_init(u64 *ctx)
{
	inits++;
	return 0;
}

SEC("struct_ops/lab_ssthresh")
int lab_ssthresh(u64 *ctx)
{
	struct sock *sk = (void *)ctx[0];
	u32 half = sk->snd_cwnd / 2;

	return half > 2 ? half : 2;
}

SEC("struct_ops/lab_cong_avoid")
int lab_cong_avoid(u64 *ctx)
{
	avoids++;
	acked_in_all += ARG(u32, 2);
	return 0;
}

SEC("struct_ops/lab_undo_cwnd")
int lab_undo_cwnd(u64 *ctx)
{
	struct sock *sk = (void *)ctx[0];

	return sk->snd_cwnd;
}

SEC("struct_ops/test_1")
int test_1(u64 *ctx)
{
	struct bpf_dummy_ops_state *state = (void *)ctx[0];

	if (!state)
		return 0xf2f3f4f5;
	return state->val;
}

SEC("struct_ops/test_2")
int test_2(u64 *ctx)
{
	args[0] = ctx[0];
	args[1] = ARG(s32, 1);
	args[2] = ARG(u16, 2);
	args[3] = ARG(u8, 3);
	args[4] = ctx[4];
	return 0;
}

SEC("struct_ops.s/test_sleepable")
int test_sleepable(u64 *ctx)
{
	return 7;
}

SEC(".struct_ops")
struct tcp_congestion_ops lab_ca = {
	.init = (void *)lab_init,
	.ssthresh = (void *)lab_ssthresh,
	.cong_avoid = (void *)lab_cong_avoid,
	.undo_cwnd = (void *)lab_undo_cwnd,
	.name = "bpf_lab",
};

SEC(".struct_ops")
struct bpf_dummy_ops dummy = {
	.test_1 = (void *)test_1,
	.test_2 = (void *)test_2,
	.test_sleepable = (void *)test_sleepable,
};

LICENSE("GPL");
