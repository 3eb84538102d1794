/* Maps as they were defined before BTF. */
#include "bpf.h"

struct bpf_map_def {
	u32 type, key_size, value_size, max_entries, map_flags;
};

struct bpf_map_def SEC("maps") first = { BPF_MAP_TYPE_ARRAY, 4, 8, 2, 0 };
struct bpf_map_def SEC("maps") second = { BPF_MAP_TYPE_HASH, 8, 16, 5, 1 };

SEC("xdp_legacy")
int legacy(struct xdp_md *ctx)
{
	u32 key = 1;
	u64 wide = 2;
	u64 *value = bpf_map_lookup_elem(&first, &key);

	if (value)
		*value = ctx->rx_queue_index + 7;
	return bpf_map_lookup_elem(&second, &wide) ? XDP_DROP : XDP_PASS;
}

LICENSE("Dual BSD/GPL");
