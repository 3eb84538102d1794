/* Kernel functions that are there or not, sections, pointers to structs of the kernel. */
#include "kfuncs.h"

extern int bpf_not_there(int number) __ksym __weak;
extern int bpf_iter_num_new___wrong(struct bpf_iter_num *it) __ksym __weak;
extern u32 bpf_dynptr_size___mine(const struct bpf_dynptr *p) __ksym __weak;

u64 seen[8];

SEC("xdp")
int there_or_not(struct xdp_md *ctx)
{
	seen[0] = bpf_ksym_exists(bpf_iter_num_new);
	seen[1] = bpf_ksym_exists(bpf_not_there);
	if (bpf_ksym_exists(bpf_not_there))
		seen[2] = bpf_not_there(1);
	/* of that name, but with other arguments; with a flavour */
	seen[3] = bpf_ksym_exists(bpf_iter_num_new___wrong);
	seen[4] = bpf_ksym_exists(bpf_dynptr_size___mine);
	return XDP_PASS;
}

SEC("xdp")
int sections(struct xdp_md *ctx)
{
	bpf_rcu_read_lock();
	bpf_preempt_disable();
	bpf_preempt_disable();
	seen[0]++;
	bpf_preempt_enable();
	bpf_preempt_enable();
	bpf_rcu_read_unlock();
	return XDP_PASS;
}

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
struct net_device {
	int ifindex;
};

struct xdp_rxq_info {
	struct net_device *dev;
	u32 queue_index;
};

struct xdp_buff {
	void *data;
	void *data_end;
	void *data_meta;
	void *data_hard_start;
	struct xdp_rxq_info *rxq;
	u32 frame_sz;
};
#pragma clang attribute pop

/* The kernel's struct behind the context. */
SEC("xdp")
int context(struct xdp_md *ctx)
{
	struct xdp_buff *xdp = bpf_cast_to_kern_ctx(ctx);

	seen[0] = xdp->data_end - xdp->data;
	seen[1] = xdp->data - xdp->data_hard_start;
	seen[2] = xdp->rxq->queue_index;
	seen[3] = xdp->rxq->dev->ifindex;
	return XDP_PASS;
}

/* Any address as a struct of the kernel: a load where nothing is gives 0. */
SEC("xdp")
int cast(struct xdp_md *ctx)
{
	u32 type = __builtin_btf_type_id(*(struct xdp_buff *)0, 1);
	struct xdp_buff *nowhere = bpf_rdonly_cast((void *)0x1000, type);
	struct xdp_buff *xdp = bpf_rdonly_cast(bpf_cast_to_kern_ctx(ctx), type);

	seen[0] = xdp->frame_sz;
	seen[1] = nowhere->frame_sz;
	return XDP_PASS;
}

/* What the device knows of the packet. */
SEC("xdp")
int metadata(struct xdp_md *ctx)
{
	u64 timestamp = 0;
	u32 hash = 0;
	u16 protocol = 0, tci = 0;
	enum xdp_rss_hash_type type = 0;

	seen[0] = bpf_xdp_metadata_rx_timestamp(ctx, &timestamp);
	seen[1] = bpf_xdp_metadata_rx_hash(ctx, &hash, &type);
	seen[2] = hash;
	seen[3] = type;
	seen[4] = bpf_xdp_metadata_rx_vlan_tag(ctx, &protocol, &tci);
	return XDP_PASS;
}
LICENSE("GPL");
