/* Calls a kernel function by name; a pinned map; pointers in global data. */
#include "bpf.h"

enum xdp_rss_hash_type { XDP_RSS_L4 = 8 };

extern int bpf_xdp_metadata_rx_hash(const struct xdp_md *ctx, u32 *hash,
				    enum xdp_rss_hash_type *rss_type) SEC(".ksyms");

SEC("xdp")
int uses_kfunc(struct xdp_md *ctx)
{
	u32 hash = 0;
	enum xdp_rss_hash_type type = 0;

	return bpf_xdp_metadata_rx_hash(ctx, &hash, &type) ? XDP_ABORTED : XDP_PASS;
}

struct {
	MAP_UINT(type, BPF_MAP_TYPE_ARRAY);
	MAP_UINT(max_entries, 1);
	MAP_UINT(key_size, 4);
	MAP_UINT(value_size, 24);
	MAP_UINT(pinning, 1);
} pinned SEC(".maps");

const char *words[] = { "one", "two" };

SEC("xdp")
int plain(struct xdp_md *ctx)
{
	return XDP_PASS;
}

LICENSE("GPL");
