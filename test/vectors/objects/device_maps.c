// What a map of devices holds is read by programs, and written by user space only.
#include "bpf.h"

MAP(devices, BPF_MAP_TYPE_DEVMAP, u32, u32, 4);

SEC("xdp") int reads(struct xdp_md *ctx)
{
	u32 key = 1, *value = bpf_map_lookup_elem(&devices, &key);

	return value && *value ? XDP_DROP : XDP_PASS;
}

SEC("xdp") int writes(struct xdp_md *ctx)
{
	u32 key = 1, *value = bpf_map_lookup_elem(&devices, &key);

	if (value)
		*value = 5;
	return XDP_PASS;
}

LICENSE("GPL");
