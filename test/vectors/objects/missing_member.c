// A member that the kernel does not have, read on every path and where it is asked for first.
#include "bpf.h"

#define CORE __attribute__((preserve_access_index))

struct xdp_buff { int no_such_member; } CORE;

SEC("fentry/bpf_fentry_test2") int reads(unsigned long *ctx)
{
	struct xdp_buff *xdp = (void *)ctx[0];

	return xdp->no_such_member;
}

SEC("fentry/bpf_fentry_test2") int asks(unsigned long *ctx)
{
	struct xdp_buff *xdp = (void *)ctx[0];

	return __builtin_preserve_field_info(xdp->no_such_member, 2) ? xdp->no_such_member : 0;
}

LICENSE("GPL");
