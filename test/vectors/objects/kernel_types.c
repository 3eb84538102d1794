// CO-RE against the lab's own types: fields of kernel structs, flavours, bit fields, what is missing.
#include "bpf.h"

#define CORE __attribute__((preserve_access_index))
#define exists(field) __builtin_preserve_field_info(field, 2)
#define offset(field) __builtin_preserve_field_info(field, 0)
#define size(field) __builtin_preserve_field_info(field, 1)
#define is_signed(field) __builtin_preserve_field_info(field, 3)
#define left(field) __builtin_preserve_field_info(field, 4)
#define right(field) __builtin_preserve_field_info(field, 5)

struct net_device___short { int ifindex; } CORE;
struct xdp_rxq_info { u32 queue_index; struct net_device___short *dev; } CORE;
/* frame_sz is a u32 in the kernel: the load must become narrower */
struct xdp_buff { struct xdp_rxq_info *rxq; unsigned long frame_sz; int no_such_field; } CORE;
struct iphdr { unsigned char version : 4; unsigned char ihl : 4; unsigned short check; } CORE;
struct in6_addr___any { int x; } CORE;
struct sk_buff___other { char cb[48]; } CORE;
struct nowhere { int a; } CORE;
enum xdp_action___mine { XDP_PASS___mine = 77, XDP_NEVER___mine = 5 };

struct result {
	u32 rxq, ifindex, frame_size, missing, version_offset, version_size, version_left, version_right, is_signed,
	      cb7, type_here, type_gone, pass, never, buff_size, read;
} result;

SEC("fentry/bpf_fentry_test2") int kernel_types(unsigned long *ctx)
{
	struct xdp_buff *xdp = (void *)ctx[0];

	result.rxq = offset(xdp->rxq);
	result.ifindex = offset(((struct net_device___short *)0)->ifindex);
	result.frame_size = size(xdp->frame_sz);
	result.missing = exists(xdp->no_such_field);
	result.version_offset = offset(((struct iphdr *)0)->version);
	result.version_size = size(((struct iphdr *)0)->version);
	result.version_left = left(((struct iphdr *)0)->version);
	result.version_right = right(((struct iphdr *)0)->version);
	result.is_signed = is_signed(((struct net_device___short *)0)->ifindex);
	result.cb7 = offset(((struct sk_buff___other *)0)->cb[7]);
	result.type_here = __builtin_preserve_type_info(*(struct in6_addr___any *)0, 0);
	result.type_gone = __builtin_preserve_type_info(*(struct nowhere *)0, 0);
	result.pass = __builtin_preserve_enum_value(*(enum xdp_action___mine *)XDP_PASS___mine, 1);
	result.never = __builtin_preserve_enum_value(*(enum xdp_action___mine *)XDP_NEVER___mine, 0);
	result.buff_size = __builtin_preserve_type_info(*(struct xdp_buff *)0, 1);
	result.read = xdp->frame_sz;
	return 0;
}
char _license[] SEC("license") = "GPL";
