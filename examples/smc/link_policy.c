// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Which connections use SMC: TCP sockets become SMC sockets, and a policy by addresses says whether the SYN
 * and the SYN-ACK carry the SMC option. Counts released sockets and clients that fell back to TCP.
 */
#include "bpf.h"

LICENSE("GPL");

#define CORE __attribute__((preserve_access_index))

enum { AF_INET = 2, AF_INET6 = 10, SOCK_STREAM = 1, IPPROTO_TCP = 6, IPPROTO_SMC = 256, LISTEN = 10 };

struct sock_common {
	u32 skc_daddr;
	u32 skc_rcv_saddr;
	unsigned char skc_state;
} CORE;

struct sock {
	struct sock_common __sk_common;
} CORE;

struct socket {
	struct sock *sk;
} CORE;

struct smc_sock {
	struct smc_sock *listen_smc;
} CORE;

struct inet_sock {
	struct sock sk;
} CORE;

struct inet_connection_sock {
	struct inet_sock icsk_inet;
} CORE;

struct tcp_sock {
	struct inet_connection_sock inet_conn;
} CORE;

struct request_sock {
	struct sock_common __req_common;
} CORE;

struct inet_request_sock {
	struct request_sock req;
} CORE;

struct smc_hs_ctrl {
	int flags;
	int (*syn_option)(struct tcp_sock *tp);
	int (*synack_option)(const struct tcp_sock *tp, struct inet_request_sock *ireq);
	char name[16];
};

struct link {
	u32 from;
	u32 to;
};

MAP(blocked_links, BPF_MAP_TYPE_HASH, struct link, u8, 128);

u64 released;
u64 fallen_back;

SEC("fentry/smc_release")
int count_release(u64 *ctx)
{
	struct socket *socket = (struct socket *)ctx[0];

	if (socket->sk->__sk_common.skc_state != LISTEN)
		released++;
	return 0;
}

SEC("fentry/smc_switch_to_fallback")
int count_fallback(u64 *ctx)
{
	struct smc_sock *smc = (struct smc_sock *)ctx[0];

	/* the server's end has a listening socket */
	if (!smc->listen_smc)
		fallen_back++;
	return 0;
}

SEC("fmod_ret/update_socket_protocol")
int use_smc(u64 *ctx)
{
	int family = ctx[0], type = ctx[1], protocol = ctx[2];

	if (family != AF_INET && family != AF_INET6)
		return protocol;
	if ((type & 0xf) != SOCK_STREAM)
		return protocol;
	if (protocol != 0 && protocol != IPPROTO_TCP)
		return protocol;
	return IPPROTO_SMC;
}

INLINE int is_open(u32 from, u32 to)
{
	struct link link = { from, to };

	return bpf_map_lookup_elem(&blocked_links, &link) == 0;
}

SEC("struct_ops")
int syn_option(u64 *ctx)
{
	struct tcp_sock *tp = (struct tcp_sock *)ctx[0];
	struct sock_common *common = &tp->inet_conn.icsk_inet.sk.__sk_common;

	return is_open(common->skc_rcv_saddr, common->skc_daddr);
}

SEC("struct_ops")
int synack_option(u64 *ctx)
{
	struct inet_request_sock *ireq = (struct inet_request_sock *)ctx[1];
	struct sock_common *common = &ireq->req.__req_common;

	return is_open(common->skc_daddr, common->skc_rcv_saddr);
}

SEC(".struct_ops")
struct smc_hs_ctrl by_link = {
	.syn_option = (void *)syn_option,
	.synack_option = (void *)synack_option,
	.name = "by_link",
};
