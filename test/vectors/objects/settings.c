// What a loader sets before it loads: constants, members, elements, and a map that has no size of its own.
#include "bpf.h"

enum mode { MODE_PASS = 2, MODE_DROP = 1 };

struct rule {
	u16 port;
	union { u32 address; u8 octets[4]; };
};

const volatile enum mode mode = MODE_PASS;
const volatile int offset = 5;
const volatile _Bool strict = 0;
const volatile struct { struct rule rules[2]; u8 first : 4; } config = {};

struct {
	MAP_UINT(type, BPF_MAP_TYPE_ARRAY);
	MAP_TYPE(key, u32);
	MAP_TYPE(value, u64);
} counts SEC(".maps");

SEC("xdp") int verdict(struct xdp_md *ctx)
{
	u32 key = 0;
	u64 *count = bpf_map_lookup_elem(&counts, &key);

	if (count) *count += offset + config.rules[1].port + config.rules[0].octets[3] + config.first;
	return strict ? XDP_ABORTED : mode;
}

/* another program in the object, which is not for XDP */
SEC("fentry/bpf_fentry_test2") int other(unsigned long *ctx)
{
	return 0;
}

LICENSE("GPL");
