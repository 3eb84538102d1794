/* Callbacks of both kinds: a power of two found by bpf_loop, the busiest one by bpf_for_each_map_elem. */
#include "bpf.h"

static long (*bpf_loop)(u32 count, void *callback, void *ctx, u64 flags) = (void *)181;
static long (*bpf_for_each_map_elem)(void *map, void *callback, void *ctx, u64 flags) = (void *)164;

MAP(sizes, BPF_MAP_TYPE_ARRAY, u32, u64, 16);
MAP(busiest, BPF_MAP_TYPE_ARRAY, u32, u64, 1);

struct search {
	u32 size;
	u32 power;
	u64 most;
	u32 key;
};

static long find_power(u32 index, void *data)
{
	struct search *search = data;

	search->power = index;
	return (search->size >> index) <= 1;
}

static long find_busiest(void *map, u32 *key, u64 *value, void *data)
{
	struct search *search = data;

	if (*value > search->most) {
		search->most = *value;
		search->key = *key;
	}
	return 0;
}

SEC("xdp")
int packet_sizes(struct xdp_md *ctx)
{
	struct search search = { .size = ctx->data_end - ctx->data };
	u32 zero = 0;
	u64 *count;

	bpf_loop(16, find_power, &search, 0);
	count = bpf_map_lookup_elem(&sizes, &search.power);
	if (!count)
		return XDP_ABORTED;
	(*count)++;
	bpf_for_each_map_elem(&sizes, find_busiest, &search, 0);
	count = bpf_map_lookup_elem(&busiest, &zero);
	if (!count)
		return XDP_ABORTED;
	*count = search.key;
	return XDP_PASS;
}

LICENSE("GPL");
