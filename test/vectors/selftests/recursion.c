/* SPDX-License-Identifier: GPL-2.0-or-later */
/* fentry on htab_map_delete_elem that deletes again from inside: the inner call is a miss. */
#include "selftest.h"

MAP(hash1, BPF_MAP_TYPE_HASH, u32, u64, 1);
MAP(hash2, BPF_MAP_TYPE_HASH, u32, u64, 1);

u64 pass1, pass2;

SEC("fentry/htab_map_delete_elem")
int on_delete(u64 *ctx)
{
	u32 key = 0;

	if (ctx[0] == (u64)&hash1) {
		pass1++;
		return 0;
	}
	if (ctx[0] == (u64)&hash2) {
		pass2++;
		bpf_map_delete_elem(&hash2, &key);
		return 0;
	}
	return 0;
}

/* what user space does: one delete */
SEC("socket")
int delete1(void *ctx)
{
	u32 key = 0;

	return bpf_map_delete_elem(&hash1, &key);
}

SEC("socket")
int delete2(void *ctx)
{
	u32 key = 0;

	return bpf_map_delete_elem(&hash2, &key);
}

LICENSE("GPL");
