/* The CPU that a program runs on: a call that newer JITs put code in the place of. */
#include "bpf.h"

SEC("xdp")
int processor(struct xdp_md *ctx)
{
	return bpf_get_smp_processor_id() + XDP_DROP;
}

LICENSE("GPL");
