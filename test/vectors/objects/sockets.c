/* Look-ups of sockets by the packet's ends, reads of what they find, SYN cookies. */
#include "net.h"

struct bpf_sock {
	u32 bound_dev_if, family, type, protocol, mark, priority;
	u32 src_ip4, src_ip6[4];
	u32 src_port;
	u16 dst_port, padding;
	u32 dst_ip4, dst_ip6[4];
	u32 state;
	s32 rx_queue_mapping;
};

struct bpf_sock_tuple {
	u8 saddr[4], daddr[4];
	u16 sport, dport;
};

static struct bpf_sock *(*bpf_sk_lookup_tcp)(void *ctx, void *tuple, u32 size, u64 netns,
					     u64 flags) = (void *)84;
static struct bpf_sock *(*bpf_sk_lookup_udp)(void *ctx, void *tuple, u32 size, u64 netns,
					     u64 flags) = (void *)85;
static long (*bpf_sk_release)(void *sk) = (void *)86;
static struct bpf_sock *(*bpf_skc_lookup_tcp)(void *ctx, void *tuple, u32 size, u64 netns,
					      u64 flags) = (void *)99;
static long (*bpf_tcp_check_syncookie)(void *sk, void *iph, u32 iph_len, void *th,
				       u32 th_len) = (void *)100;
static s64 (*bpf_tcp_gen_syncookie)(void *sk, void *iph, u32 iph_len, void *th,
				    u32 th_len) = (void *)110;
static s64 (*bpf_tcp_raw_gen_syncookie_ipv4)(void *iph, void *th, u32 th_len) = (void *)204;
static long (*bpf_tcp_raw_check_syncookie_ipv4)(void *iph, void *th) = (void *)206;

u64 seen[16];

/* Ethernet, IPv4 and TCP or UDP headers at the packet's start. */
#define IP_AT 14
#define L4_AT 34
#define TCP_SIZE 24
#define CURRENT_NETNS ((u64)-1)

INLINE int tuple_of(struct xdp_md *ctx, struct bpf_sock_tuple *tuple)
{
	u8 *data = PTR(ctx->data);

	if (data + L4_AT + TCP_SIZE > (u8 *)PTR(ctx->data_end))
		return 0;
	__builtin_memcpy(tuple, data + IP_AT + 12, 8);
	__builtin_memcpy(&tuple->sport, data + L4_AT, 4);
	return 1;
}

/* Every field of a socket, whole. */
SEC("xdp")
int fields(struct xdp_md *ctx)
{
	struct bpf_sock_tuple tuple;
	struct bpf_sock *sk;

	if (!tuple_of(ctx, &tuple))
		return XDP_ABORTED;
	sk = bpf_sk_lookup_tcp(ctx, &tuple, sizeof(tuple), CURRENT_NETNS, 0);
	if (!sk)
		return XDP_DROP;
	seen[0] = sk->bound_dev_if;
	seen[1] = sk->family;
	seen[2] = sk->type;
	seen[3] = sk->protocol;
	seen[4] = sk->mark;
	seen[5] = sk->priority;
	seen[6] = sk->src_ip4;
	seen[7] = sk->src_port;
	seen[8] = sk->dst_port;
	seen[9] = sk->dst_ip4;
	seen[10] = sk->state;
	seen[11] = (u32)sk->rx_queue_mapping;
	seen[12] = ((volatile u8 *)&sk->src_ip4)[3];
	seen[13] = ((volatile u16 *)&sk->src_ip4)[1];
	seen[14] = ((volatile u8 *)&sk->dst_port)[1];
	seen[15] = *(volatile u8 *)&sk->state;
	bpf_sk_release(sk);
	return XDP_PASS;
}

/* What each look-up finds: the state of the socket, 0 for none. */
SEC("xdp")
int found(struct xdp_md *ctx)
{
	struct bpf_sock_tuple tuple;
	struct bpf_sock *sk;

	if (!tuple_of(ctx, &tuple))
		return XDP_ABORTED;
	sk = bpf_sk_lookup_tcp(ctx, &tuple, sizeof(tuple), CURRENT_NETNS, 0);
	if (sk) {
		seen[0] = sk->state;
		bpf_sk_release(sk);
	}
	sk = bpf_skc_lookup_tcp(ctx, &tuple, sizeof(tuple), CURRENT_NETNS, 0);
	if (sk) {
		seen[1] = sk->state;
		bpf_sk_release(sk);
	}
	sk = bpf_sk_lookup_udp(ctx, &tuple, sizeof(tuple), CURRENT_NETNS, 0);
	if (sk) {
		seen[2] = sk->state;
		bpf_sk_release(sk);
	}
	/* another namespace, a flag, a size that is neither */
	sk = bpf_sk_lookup_tcp(ctx, &tuple, sizeof(tuple), 7, 0);
	if (sk) {
		seen[3] = sk->state;
		bpf_sk_release(sk);
	}
	sk = bpf_sk_lookup_tcp(ctx, &tuple, sizeof(tuple), CURRENT_NETNS, 1);
	if (sk) {
		seen[4] = sk->state;
		bpf_sk_release(sk);
	}
	sk = bpf_sk_lookup_tcp(ctx, &tuple, 8, CURRENT_NETNS, 0);
	if (sk) {
		seen[5] = sk->state;
		bpf_sk_release(sk);
	}
	return XDP_PASS;
}

/* A cookie for the SYN in the packet, with the listening socket and without. */
SEC("xdp")
int make(struct xdp_md *ctx)
{
	struct bpf_sock_tuple tuple;
	struct bpf_sock *sk;
	u8 *data;

	if (!tuple_of(ctx, &tuple))
		return XDP_ABORTED;
	sk = bpf_skc_lookup_tcp(ctx, &tuple, sizeof(tuple), CURRENT_NETNS, 0);
	if (!sk)
		return XDP_DROP;
	data = PTR(ctx->data);
	if (data + L4_AT + TCP_SIZE > (u8 *)PTR(ctx->data_end)) {
		bpf_sk_release(sk);
		return XDP_ABORTED;
	}
	seen[0] = bpf_tcp_gen_syncookie(sk, data + IP_AT, 20, data + L4_AT, TCP_SIZE);
	bpf_sk_release(sk);
	seen[1] = bpf_tcp_raw_gen_syncookie_ipv4(data + IP_AT, data + L4_AT, TCP_SIZE);
	return XDP_TX;
}

/* The answer to it. */
SEC("xdp")
int check(struct xdp_md *ctx)
{
	struct bpf_sock_tuple tuple;
	struct bpf_sock *sk;
	u8 *data;

	if (!tuple_of(ctx, &tuple))
		return XDP_ABORTED;
	sk = bpf_skc_lookup_tcp(ctx, &tuple, sizeof(tuple), CURRENT_NETNS, 0);
	if (!sk)
		return XDP_DROP;
	data = PTR(ctx->data);
	if (data + L4_AT + TCP_SIZE > (u8 *)PTR(ctx->data_end)) {
		bpf_sk_release(sk);
		return XDP_ABORTED;
	}
	seen[0] = bpf_tcp_check_syncookie(sk, data + IP_AT, 20, data + L4_AT, TCP_SIZE);
	bpf_sk_release(sk);
	seen[1] = bpf_tcp_raw_check_syncookie_ipv4(data + IP_AT, data + L4_AT);
	return XDP_PASS;
}

LICENSE("GPL");
