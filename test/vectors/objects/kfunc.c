/* Calls a kernel function by name. */
#include "bpf.h"

extern int bpf_xdp_metadata_rx_hash(const struct xdp_md *ctx, u32 *hash, u32 *type) SEC(".ksyms");

SEC("xdp")
int uses_kfunc(struct xdp_md *ctx)
{
	u32 hash = 0, type = 0;

	return bpf_xdp_metadata_rx_hash(ctx, &hash, &type) ? XDP_ABORTED : XDP_PASS;
}

SEC("xdp")
int plain(struct xdp_md *ctx)
{
	return XDP_PASS;
}

LICENSE("GPL");
