/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Objects that a program allocates, lists and trees of them, and pointers to them in maps. Tags in BTF need
 * clang 15 or newer: with an older one a kptr is a plain pointer.
 */
#ifndef TRAMPOLAB_OBJECTS_H
#define TRAMPOLAB_OBJECTS_H

#include "kfuncs.h"

#define __contains(type, member) __attribute__((btf_decl_tag("contains:" #type ":" #member)))
#define __kptr __attribute__((btf_type_tag("kptr")))
#define __kptr_untrusted __attribute__((btf_type_tag("kptr_untrusted")))
#define __percpu_kptr __attribute__((btf_type_tag("percpu_kptr")))

/* A lock and what it protects: global variables in a section of their own. */
#define private(name) SEC(".data." #name) __attribute__((aligned(8)))

#define offset_of(type, member) __builtin_offsetof(type, member)
#define container_of(pointer, type, member)                                                        \
	((type *)((void *)(pointer) - offset_of(type, member)))

struct bpf_spin_lock {
	u32 val;
};

struct bpf_list_head {
	u64 opaque[2];
} __attribute__((aligned(8)));

struct bpf_list_node {
	u64 opaque[3];
} __attribute__((aligned(8)));

struct bpf_rb_root {
	u64 opaque[2];
} __attribute__((aligned(8)));

struct bpf_rb_node {
	u64 opaque[4];
} __attribute__((aligned(8)));

struct bpf_refcount {
	u32 opaque[1];
} __attribute__((aligned(4)));

static void (*bpf_spin_lock)(struct bpf_spin_lock *lock) = (void *)93;
static void (*bpf_spin_unlock)(struct bpf_spin_lock *lock) = (void *)94;
static void *(*bpf_per_cpu_ptr)(const void *object, u32 cpu) = (void *)153;
static void *(*bpf_this_cpu_ptr)(const void *object) = (void *)154;
static void *(*bpf_kptr_xchg)(void *field, void *object) = (void *)194;

/* What the loader passes: meta and off. */
extern void *bpf_obj_new_impl(u64 local_type_id, void *meta) __ksym __weak;
extern void bpf_obj_drop_impl(void *object, void *meta) __ksym __weak;
extern void *bpf_refcount_acquire_impl(void *object, void *meta) __ksym __weak;
extern void *bpf_percpu_obj_new_impl(u64 local_type_id, void *meta) __ksym __weak;
extern void bpf_percpu_obj_drop_impl(void *object, void *meta) __ksym __weak;

#define bpf_obj_new(type)                                                                          \
	((type *)bpf_obj_new_impl(__builtin_btf_type_id(*(type *)0, 0), (void *)0))
#define bpf_obj_drop(object) bpf_obj_drop_impl(object, (void *)0)
#define bpf_refcount_acquire(object) bpf_refcount_acquire_impl(object, (void *)0)
#define bpf_percpu_obj_new(type)                                                                   \
	((type __percpu_kptr *)bpf_percpu_obj_new_impl(__builtin_btf_type_id(*(type *)0, 0),       \
						       (void *)0))
#define bpf_percpu_obj_drop(object) bpf_percpu_obj_drop_impl(object, (void *)0)

extern int bpf_list_push_front_impl(struct bpf_list_head *head, struct bpf_list_node *node,
				    void *meta, u64 off) __ksym __weak;
extern int bpf_list_push_back_impl(struct bpf_list_head *head, struct bpf_list_node *node,
				   void *meta, u64 off) __ksym __weak;
extern struct bpf_list_node *bpf_list_pop_front(struct bpf_list_head *head) __ksym __weak;
extern struct bpf_list_node *bpf_list_pop_back(struct bpf_list_head *head) __ksym __weak;
extern struct bpf_list_node *bpf_list_front(struct bpf_list_head *head) __ksym __weak;
extern struct bpf_list_node *bpf_list_back(struct bpf_list_head *head) __ksym __weak;

#define bpf_list_push_front(head, node) bpf_list_push_front_impl(head, node, (void *)0, 0)
#define bpf_list_push_back(head, node) bpf_list_push_back_impl(head, node, (void *)0, 0)

extern int bpf_rbtree_add_impl(struct bpf_rb_root *root, struct bpf_rb_node *node,
			       _Bool (*less)(struct bpf_rb_node *a, const struct bpf_rb_node *b),
			       void *meta, u64 off) __ksym __weak;
extern struct bpf_rb_node *bpf_rbtree_remove(struct bpf_rb_root *root,
					     struct bpf_rb_node *node) __ksym __weak;
extern struct bpf_rb_node *bpf_rbtree_first(struct bpf_rb_root *root) __ksym __weak;
extern struct bpf_rb_node *bpf_rbtree_root(struct bpf_rb_root *root) __ksym __weak;
extern struct bpf_rb_node *bpf_rbtree_left(struct bpf_rb_root *root,
					   struct bpf_rb_node *node) __ksym __weak;
extern struct bpf_rb_node *bpf_rbtree_right(struct bpf_rb_root *root,
					    struct bpf_rb_node *node) __ksym __weak;

#define bpf_rbtree_add(root, node, less) bpf_rbtree_add_impl(root, node, less, (void *)0, 0)

/* Tasks, and sets of CPUs (these for programs that trace). */
#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
struct task_struct {
	int pid;
};

struct cpumask {
	unsigned long bits[8];
};

struct bpf_cpumask {
	struct cpumask cpumask;
};
#pragma clang attribute pop

static struct task_struct *(*bpf_get_current_task_btf)(void) = (void *)158;

extern struct task_struct *bpf_task_acquire(struct task_struct *task) __ksym __weak;
extern void bpf_task_release(struct task_struct *task) __ksym __weak;

extern struct bpf_cpumask *bpf_cpumask_create(void) __ksym __weak;
extern struct bpf_cpumask *bpf_cpumask_acquire(struct bpf_cpumask *mask) __ksym __weak;
extern void bpf_cpumask_release(struct bpf_cpumask *mask) __ksym __weak;
extern u32 bpf_cpumask_first(const struct cpumask *mask) __ksym __weak;
extern u32 bpf_cpumask_weight(const struct cpumask *mask) __ksym __weak;
extern void bpf_cpumask_set_cpu(u32 cpu, struct bpf_cpumask *mask) __ksym __weak;
extern void bpf_cpumask_clear_cpu(u32 cpu, struct bpf_cpumask *mask) __ksym __weak;
extern _Bool bpf_cpumask_test_cpu(u32 cpu, const struct cpumask *mask) __ksym __weak;

#endif
