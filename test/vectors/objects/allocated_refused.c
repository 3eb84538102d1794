/* Objects that programs allocate: programs that the verifier refuses, each for the reason in its name. */
#include "objects.h"

struct item {
	u64 key;
	struct bpf_list_node link;
};

struct leaf {
	struct bpf_rb_node node;
	u64 key;
};

struct other_leaf {
	u64 key;
	struct bpf_rb_node node;
};

struct huge {
	u64 words[65];
};

struct pointing {
	u64 *where;
};

struct plain {
	u64 a;
	u64 b;
};

struct slot {
	struct plain __kptr *owned;
	struct task_struct __kptr_untrusted *seen;
	struct task_struct __kptr *task;
	struct plain __percpu_kptr *counters;
};

private(list) struct bpf_spin_lock list_lock;
private(list) struct bpf_list_head list __contains(item, link);
private(tree) struct bpf_spin_lock tree_lock;
private(tree) struct bpf_rb_root tree __contains(leaf, node);

MAP(slots, BPF_MAP_TYPE_ARRAY, u32, struct slot, 1);

u64 seen[4];

static struct slot *slot_of(void)
{
	u32 key = 0;

	return bpf_map_lookup_elem(&slots, &key);
}

SEC("xdp")
int leaked(struct xdp_md *ctx)
{
	struct plain *object = bpf_obj_new(struct plain);

	if (object)
		seen[0] = object->a;
	return XDP_PASS;
}

SEC("xdp")
int unchecked(struct xdp_md *ctx)
{
	struct plain *object = bpf_obj_new(struct plain);

	object->a = 1;
	bpf_obj_drop(object);
	return XDP_PASS;
}

SEC("xdp")
int used_after_drop(struct xdp_md *ctx)
{
	struct plain *object = bpf_obj_new(struct plain);

	if (!object)
		return XDP_PASS;
	bpf_obj_drop(object);
	return object->a;
}

SEC("xdp")
int beyond(struct xdp_md *ctx)
{
	struct plain *object = bpf_obj_new(struct plain);

	if (!object)
		return XDP_PASS;
	(&object->b)[1] = 1;
	bpf_obj_drop(object);
	return XDP_PASS;
}

SEC("xdp")
int field_written(struct xdp_md *ctx)
{
	struct item *item = bpf_obj_new(struct item);

	if (!item)
		return XDP_PASS;
	item->link.opaque[1] = 0;
	bpf_obj_drop(item);
	return XDP_PASS;
}

SEC("xdp")
int no_lock(struct xdp_md *ctx)
{
	struct item *item = bpf_obj_new(struct item);

	if (!item)
		return XDP_PASS;
	bpf_list_push_front(&list, &item->link);
	return XDP_PASS;
}

SEC("xdp")
int wrong_lock(struct xdp_md *ctx)
{
	struct item *item = bpf_obj_new(struct item);

	if (!item)
		return XDP_PASS;
	bpf_spin_lock(&tree_lock);
	bpf_list_push_front(&list, &item->link);
	bpf_spin_unlock(&tree_lock);
	return XDP_PASS;
}

SEC("xdp")
int after_unlock(struct xdp_md *ctx)
{
	struct item *item = bpf_obj_new(struct item);

	if (!item)
		return XDP_PASS;
	bpf_spin_lock(&list_lock);
	bpf_list_push_front(&list, &item->link);
	bpf_spin_unlock(&list_lock);
	return item->key;
}

SEC("xdp")
int new_under_lock(struct xdp_md *ctx)
{
	struct plain *object;

	bpf_spin_lock(&list_lock);
	object = bpf_obj_new(struct plain);
	bpf_spin_unlock(&list_lock);
	if (object)
		bpf_obj_drop(object);
	return XDP_PASS;
}

SEC("xdp")
int pushed_twice(struct xdp_md *ctx)
{
	struct item *item = bpf_obj_new(struct item);

	if (!item)
		return XDP_PASS;
	bpf_spin_lock(&list_lock);
	bpf_list_push_front(&list, &item->link);
	bpf_list_push_front(&list, &item->link);
	bpf_spin_unlock(&list_lock);
	return XDP_PASS;
}

SEC("xdp")
int pushed_null(struct xdp_md *ctx)
{
	struct bpf_list_node *node;

	bpf_spin_lock(&list_lock);
	node = bpf_list_pop_front(&list);
	bpf_list_push_front(&list, node);
	bpf_spin_unlock(&list_lock);
	return XDP_PASS;
}

static _Bool less(struct bpf_rb_node *a, const struct bpf_rb_node *b)
{
	return container_of(a, struct leaf, node)->key < container_of(b, struct leaf, node)->key;
}

static _Bool less_writes(struct bpf_rb_node *a, const struct bpf_rb_node *b)
{
	bpf_rbtree_remove(&tree, a);
	return 0;
}

static u64 less_two(struct bpf_rb_node *a, const struct bpf_rb_node *b)
{
	return 2;
}

SEC("xdp")
int other_type(struct xdp_md *ctx)
{
	struct other_leaf *leaf = bpf_obj_new(struct other_leaf);

	if (!leaf)
		return XDP_PASS;
	bpf_spin_lock(&tree_lock);
	bpf_rbtree_add(&tree, &leaf->node, less);
	bpf_spin_unlock(&tree_lock);
	return XDP_PASS;
}

SEC("xdp")
int changing_comparison(struct xdp_md *ctx)
{
	struct leaf *leaf = bpf_obj_new(struct leaf);

	if (!leaf)
		return XDP_PASS;
	bpf_spin_lock(&tree_lock);
	bpf_rbtree_add(&tree, &leaf->node, less_writes);
	bpf_spin_unlock(&tree_lock);
	return XDP_PASS;
}

SEC("xdp")
int comparison_of_two(struct xdp_md *ctx)
{
	struct leaf *leaf = bpf_obj_new(struct leaf);

	if (!leaf)
		return XDP_PASS;
	bpf_spin_lock(&tree_lock);
	bpf_rbtree_add(&tree, &leaf->node, (void *)less_two);
	bpf_spin_unlock(&tree_lock);
	return XDP_PASS;
}

SEC("xdp")
int removed_owned(struct xdp_md *ctx)
{
	struct bpf_rb_node *node;

	bpf_spin_lock(&tree_lock);
	node = bpf_rbtree_first(&tree);
	bpf_spin_unlock(&tree_lock);
	if (!node)
		return XDP_PASS;
	bpf_spin_lock(&tree_lock);
	bpf_rbtree_remove(&tree, node);
	bpf_spin_unlock(&tree_lock);
	return XDP_PASS;
}

SEC("xdp")
int not_counted(struct xdp_md *ctx)
{
	struct plain *object = bpf_obj_new(struct plain), *other;

	if (!object)
		return XDP_PASS;
	other = bpf_refcount_acquire(object);
	bpf_obj_drop(object);
	bpf_obj_drop(other);
	return XDP_PASS;
}

SEC("xdp")
int moved_drop(struct xdp_md *ctx)
{
	struct plain *object = bpf_obj_new(struct plain);

	if (!object)
		return XDP_PASS;
	bpf_obj_drop(&object->b);
	return XDP_PASS;
}

SEC("xdp")
int kptr_stored(struct xdp_md *ctx)
{
	struct slot *slot = slot_of();

	if (slot)
		slot->owned = (void *)0;
	return XDP_PASS;
}

SEC("xdp")
int kptr_half(struct xdp_md *ctx)
{
	struct slot *slot = slot_of();

	if (slot)
		seen[0] = *(volatile u32 *)&slot->owned;
	return XDP_PASS;
}

SEC("xdp")
int kptr_between(struct xdp_md *ctx)
{
	struct slot *slot = slot_of();

	if (slot)
		seen[0] = *(volatile u64 *)((void *)slot + 4);
	return XDP_PASS;
}

SEC("xdp")
int kptr_to_helper(struct xdp_md *ctx)
{
	struct slot *slot = slot_of();
	u32 key = 0;

	if (slot)
		bpf_map_update_elem(&slots, &key, slot, 0);
	return XDP_PASS;
}

SEC("xdp")
int kptr_added(struct xdp_md *ctx)
{
	struct slot *slot = slot_of();

	if (slot)
		__sync_fetch_and_add((u64 *)&slot->seen, 1);
	return XDP_PASS;
}

SEC("xdp")
int exchanged_unreferenced(struct xdp_md *ctx)
{
	struct slot *slot = slot_of();

	if (slot)
		bpf_kptr_xchg(&slot->seen, (void *)0);
	return XDP_PASS;
}

SEC("xdp")
int exchanged_leak(struct xdp_md *ctx)
{
	struct slot *slot = slot_of();

	if (slot)
		bpf_kptr_xchg(&slot->owned, (void *)0);
	return XDP_PASS;
}

SEC("xdp")
int exchanged_other_type(struct xdp_md *ctx)
{
	struct slot *slot = slot_of();
	struct item *item;

	if (!slot)
		return XDP_PASS;
	item = bpf_obj_new(struct item);
	if (!item)
		return XDP_PASS;
	item = bpf_kptr_xchg(&slot->owned, item);
	if (item)
		bpf_obj_drop(item);
	return XDP_PASS;
}

SEC("xdp")
int exchanged_borrowed(struct xdp_md *ctx)
{
	struct slot *slot = slot_of();
	struct task_struct *task;

	if (!slot)
		return XDP_PASS;
	task = bpf_kptr_xchg(&slot->task, bpf_get_current_task_btf());
	if (task)
		bpf_task_release(task);
	return XDP_PASS;
}

SEC("xdp")
int exchanged_null_or_not(struct xdp_md *ctx)
{
	struct slot *slot = slot_of();
	struct task_struct *task;

	if (!slot)
		return XDP_PASS;
	task = bpf_task_acquire(bpf_get_current_task_btf());
	task = bpf_kptr_xchg(&slot->task, task);
	if (task)
		bpf_task_release(task);
	return XDP_PASS;
}

SEC("xdp")
int exchanged_null_object(struct xdp_md *ctx)
{
	struct slot *slot = slot_of();
	struct plain *object;

	if (!slot)
		return XDP_PASS;
	object = bpf_kptr_xchg(&slot->owned, bpf_obj_new(struct plain));
	if (object)
		bpf_obj_drop(object);
	return XDP_PASS;
}

SEC("xdp")
int read_untrusted_as_owned(struct xdp_md *ctx)
{
	struct slot *slot = slot_of();
	struct task_struct *task;

	if (!slot)
		return XDP_PASS;
	task = slot->seen;
	if (!task)
		return XDP_PASS;
	task = bpf_task_acquire(task);
	if (task)
		bpf_task_release(task);
	return XDP_PASS;
}

SEC("xdp")
int after_rcu(struct xdp_md *ctx)
{
	struct slot *slot = slot_of();
	struct task_struct *task;

	if (!slot)
		return XDP_PASS;
	bpf_rcu_read_lock();
	task = slot->task;
	bpf_rcu_read_unlock();
	if (!task)
		return XDP_PASS;
	task = bpf_task_acquire(task);
	if (task)
		bpf_task_release(task);
	return XDP_PASS;
}

SEC("xdp")
int dropped_borrowed(struct xdp_md *ctx)
{
	struct slot *slot = slot_of();
	struct plain *object;

	if (!slot)
		return XDP_PASS;
	object = slot->owned;
	if (object)
		bpf_obj_drop(object);
	return XDP_PASS;
}

SEC("xdp")
int per_cpu_read(struct xdp_md *ctx)
{
	struct slot *slot = slot_of();
	struct plain *object;

	if (!slot)
		return XDP_PASS;
	object = (void *)slot->counters;
	if (object)
		seen[0] = object->a;
	return XDP_PASS;
}

SEC("xdp")
int per_cpu_huge(struct xdp_md *ctx)
{
	struct huge __percpu_kptr *object = bpf_percpu_obj_new(struct huge);

	if (object)
		bpf_percpu_obj_drop(object);
	return XDP_PASS;
}

SEC("xdp")
int per_cpu_pointing(struct xdp_md *ctx)
{
	struct pointing __percpu_kptr *object = bpf_percpu_obj_new(struct pointing);

	if (object)
		bpf_percpu_obj_drop(object);
	return XDP_PASS;
}

SEC("xdp")
int per_cpu_dropped_plain(struct xdp_md *ctx)
{
	struct plain __percpu_kptr *object = bpf_percpu_obj_new(struct plain);

	if (object)
		bpf_obj_drop(object);
	return XDP_PASS;
}

SEC("xdp")
int no_struct(struct xdp_md *ctx)
{
	u64 *number = bpf_obj_new(u64);

	if (number)
		bpf_obj_drop(number);
	return XDP_PASS;
}

LICENSE("GPL");
