/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Kernel functions that programs call by name, helpers on dynptrs, and loops that end by themselves:
 * bpf_for, bpf_repeat, can_loop. Prototypes must be those of the kernel: the loader compares them.
 */
#ifndef TRAMPOLAB_KFUNCS_H
#define TRAMPOLAB_KFUNCS_H

#include "bpf.h"

#define __ksym SEC(".ksyms")
#define __weak __attribute__((weak))
#define bpf_ksym_exists(symbol) (!!(symbol))

enum xdp_rss_hash_type { XDP_RSS_L3_IPV4 = 1, XDP_RSS_L4_TCP = 16 };

extern int bpf_xdp_metadata_rx_timestamp(const struct xdp_md *ctx, u64 *timestamp) __ksym __weak;
extern int bpf_xdp_metadata_rx_hash(const struct xdp_md *ctx, u32 *hash,
				    enum xdp_rss_hash_type *rss_type) __ksym __weak;
extern int bpf_xdp_metadata_rx_vlan_tag(const struct xdp_md *ctx, u16 *vlan_proto,
					u16 *vlan_tci) __ksym __weak;

/* Dynptrs. */
struct bpf_dynptr {
	u64 opaque[2];
};

extern int bpf_dynptr_from_xdp(struct xdp_md *x, u64 flags, struct bpf_dynptr *ptr) __ksym __weak;
extern void *bpf_dynptr_slice(const struct bpf_dynptr *p, u32 offset, void *buffer,
			      u32 size) __ksym __weak;
extern void *bpf_dynptr_slice_rdwr(const struct bpf_dynptr *p, u32 offset, void *buffer,
				   u32 size) __ksym __weak;
extern int bpf_dynptr_adjust(const struct bpf_dynptr *p, u32 start, u32 end) __ksym __weak;
extern _Bool bpf_dynptr_is_null(const struct bpf_dynptr *p) __ksym __weak;
extern _Bool bpf_dynptr_is_rdonly(const struct bpf_dynptr *p) __ksym __weak;
extern u32 bpf_dynptr_size(const struct bpf_dynptr *p) __ksym __weak;
extern int bpf_dynptr_clone(const struct bpf_dynptr *p, struct bpf_dynptr *clone) __ksym __weak;

static long (*bpf_dynptr_from_mem)(void *data, u32 size, u64 flags,
				   struct bpf_dynptr *ptr) = (void *)197;
static long (*bpf_ringbuf_reserve_dynptr)(void *ringbuf, u32 size, u64 flags,
					  struct bpf_dynptr *ptr) = (void *)198;
static void (*bpf_ringbuf_submit_dynptr)(struct bpf_dynptr *ptr, u64 flags) = (void *)199;
static void (*bpf_ringbuf_discard_dynptr)(struct bpf_dynptr *ptr, u64 flags) = (void *)200;
static long (*bpf_dynptr_read)(void *dst, u32 len, const struct bpf_dynptr *src, u32 offset,
			       u64 flags) = (void *)201;
static long (*bpf_dynptr_write)(const struct bpf_dynptr *dst, u32 offset, void *src, u32 len,
				u64 flags) = (void *)202;
static void *(*bpf_dynptr_data)(const struct bpf_dynptr *ptr, u32 offset, u32 len) = (void *)203;

/* Sections. */
extern void bpf_rcu_read_lock(void) __ksym __weak;
extern void bpf_rcu_read_unlock(void) __ksym __weak;
extern void bpf_preempt_disable(void) __ksym __weak;
extern void bpf_preempt_enable(void) __ksym __weak;

/* Pointers to structs of the kernel. */
extern void *bpf_cast_to_kern_ctx(void *obj) __ksym __weak;
extern void *bpf_rdonly_cast(const void *obj, u32 btf_id) __ksym __weak;

/* Numbers from a first to a last. */
struct bpf_iter_num {
	u64 opaque[1];
} __attribute__((aligned(8)));

extern int bpf_iter_num_new(struct bpf_iter_num *it, int start, int end) __ksym __weak;
extern int *bpf_iter_num_next(struct bpf_iter_num *it) __ksym __weak;
extern void bpf_iter_num_destroy(struct bpf_iter_num *it) __ksym __weak;

/* Older clangs emit no BTF for a function that only cleanup names: it is mentioned once more. */
#define ITER_NUM(start, end)                                                                       \
	struct bpf_iter_num it__ __attribute__((aligned(8), cleanup(bpf_iter_num_destroy))),       \
		*once__ __attribute__((unused)) =                                                  \
			(bpf_iter_num_new(&it__, (start), (end)), (void)bpf_iter_num_destroy,      \
			 (void *)0)

/* for (i = start; i < end; i++); break and continue work as ever. */
#define bpf_for(i, start, end)                                                                     \
	for (ITER_NUM(start, end); ({                                                              \
		     int *next__ = bpf_iter_num_next(&it__);                                       \
		     if (next__)                                                                   \
			     (i) = *next__;                                                        \
		     next__ && (i) >= (start) && (i) < (end);                                      \
	     });)

#define bpf_repeat(times) for (ITER_NUM(0, times); bpf_iter_num_next(&it__);)

/* may_goto (opcode 0xe5): jumps to `label` when the program ran round loops long enough. */
#define may_goto(label)                                                                            \
	asm volatile goto("1: .byte 0xe5; .byte 0;"                                                \
			  ".long ((%l[" #label "] - 1b - 8) / 8) & 0xffff; .short 0"               \
			  : : : : label)

/* True until then: for (...; can_loop && ...; ...). */
#define can_loop                                                                                   \
	({                                                                                         \
		__label__ stop__, on__;                                                            \
		_Bool more__ = 1;                                                                  \
		may_goto(stop__);                                                                  \
		goto on__;                                                                         \
	stop__:                                                                                    \
		more__ = 0;                                                                        \
	on__:;                                                                                     \
		more__;                                                                            \
	})

#define cond_break                                                                                 \
	({                                                                                         \
		__label__ stop__, on__;                                                            \
		may_goto(stop__);                                                                  \
		goto on__;                                                                         \
	stop__:                                                                                    \
		break;                                                                             \
	on__:;                                                                                     \
	})

#endif
