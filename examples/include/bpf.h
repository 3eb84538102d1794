/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * All that the examples need of BPF, without libbpf or kernel headers: types, section and map macros,
 * helpers by number, the XDP context, byte order. Include it before everything else.
 */
#ifndef TRAMPOLAB_BPF_H
#define TRAMPOLAB_BPF_H

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef signed int s32;
typedef signed long long s64;

#define SEC(name) __attribute__((section(name), used))
#define INLINE static inline __attribute__((always_inline))
#define NOINLINE __attribute__((noinline))
#define LICENSE(text) char program_license[] SEC("license") = text

/* Maps: a number is an array length, a type is a pointer (see the BTF of any object). */
#define MAP_UINT(name, value) int (*name)[value]
#define MAP_TYPE(name, type) type *name
#define MAP(name_, type_, key_, value_, entries_)                                                  \
	struct {                                                                                   \
		MAP_UINT(type, type_);                                                             \
		MAP_UINT(max_entries, entries_);                                                   \
		MAP_TYPE(key, key_);                                                               \
		MAP_TYPE(value, value_);                                                           \
	} name_ SEC(".maps")

enum {
	BPF_MAP_TYPE_HASH = 1,
	BPF_MAP_TYPE_ARRAY = 2,
	BPF_MAP_TYPE_PROG_ARRAY = 3,
	BPF_MAP_TYPE_PERCPU_HASH = 5,
	BPF_MAP_TYPE_PERCPU_ARRAY = 6,
	BPF_MAP_TYPE_DEVMAP = 14,
	BPF_MAP_TYPE_CPUMAP = 16,
	BPF_MAP_TYPE_XSKMAP = 17,
	BPF_MAP_TYPE_DEVMAP_HASH = 25,
};

enum { BPF_ANY = 0, BPF_NOEXIST = 1, BPF_EXIST = 2 };

/* Helpers: a call of address N is a call of helper N. */
static void *(*bpf_map_lookup_elem)(const void *map, const void *key) = (void *)1;
static long (*bpf_map_update_elem)(const void *map, const void *key, const void *value,
				   u64 flags) = (void *)2;
static long (*bpf_map_delete_elem)(const void *map, const void *key) = (void *)3;
static u64 (*bpf_ktime_get_ns)(void) = (void *)5;
static long (*bpf_trace_printk)(const char *format, u32 size, ...) = (void *)6;
static u32 (*bpf_get_smp_processor_id)(void) = (void *)8;
static long (*bpf_redirect)(u32 ifindex, u64 flags) = (void *)23;
static long (*bpf_xdp_adjust_head)(void *ctx, int delta) = (void *)44;
static long (*bpf_redirect_map)(void *map, u64 key, u64 flags) = (void *)51;
static u64 (*bpf_get_func_ip)(void *ctx) = (void *)173;
static long (*bpf_get_func_arg)(void *ctx, u32 n, u64 *value) = (void *)183;
static long (*bpf_get_func_ret)(void *ctx, u64 *value) = (void *)184;
static u64 (*bpf_get_func_arg_cnt)(void *ctx) = (void *)185;

/* Flags of bpf_redirect_map; its lower two bits are the verdict of a miss. */
enum { BPF_F_BROADCAST = 8, BPF_F_EXCLUDE_INGRESS = 16 };

/* Values of devmaps and cpumaps; programs are named by descriptor. */
struct bpf_devmap_val {
	u32 ifindex;
	s32 program;
};

struct bpf_cpumap_val {
	u32 qsize;
	s32 program;
};

enum xdp_action { XDP_ABORTED, XDP_DROP, XDP_PASS, XDP_TX, XDP_REDIRECT };

struct xdp_md {
	u32 data;
	u32 data_end;
	u32 data_meta;
	u32 ingress_ifindex;
	u32 rx_queue_index;
	u32 egress_ifindex;
};

#define PTR(field) ((void *)(long)(field))

/* BPF is little-endian here, the network is not. */
#define bpf_htons(x) __builtin_bswap16(x)
#define bpf_ntohs(x) __builtin_bswap16(x)
#define bpf_htonl(x) __builtin_bswap32(x)

#endif
