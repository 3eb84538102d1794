/* Objects that programs allocate, in lists, trees and maps: programs that run. */
#include "objects.h"

struct item {
	u64 key;
	struct bpf_list_node link;
	u64 value;
};

struct leaf {
	u64 key;
	struct bpf_rb_node node;
};

/* In a list and in a tree at once. */
struct shared {
	struct bpf_refcount count;
	struct bpf_list_node link;
	struct bpf_rb_node node;
	u64 key;
};

struct counter {
	u64 packets;
	u64 bytes;
};

struct inner {
	struct bpf_list_node link;
	u64 key;
};

struct outer {
	struct bpf_list_node link;
	struct bpf_spin_lock lock;
	struct bpf_list_head items __contains(inner, link);
};

struct slot {
	struct item __kptr *item;
	struct counter __percpu_kptr *counters;
	u64 plain;
};

struct chain {
	struct bpf_spin_lock lock;
	struct bpf_list_head items __contains(item, link);
};

struct task_slot {
	struct task_struct __kptr *owned;
	struct task_struct __kptr_untrusted *seen;
};

private(list) struct bpf_spin_lock list_lock;
private(list) struct bpf_list_head list __contains(item, link);
private(tree) struct bpf_spin_lock tree_lock;
private(tree) struct bpf_rb_root tree __contains(leaf, node);
private(both) struct bpf_spin_lock both_lock;
private(both) struct bpf_list_head both_list __contains(shared, link);
private(both) struct bpf_rb_root both_tree __contains(shared, node);
private(nested) struct bpf_spin_lock nested_lock;
private(nested) struct bpf_list_head nested_list __contains(outer, link);

MAP(slots, BPF_MAP_TYPE_ARRAY, u32, struct slot, 2);
MAP(chains, BPF_MAP_TYPE_HASH, u32, struct chain, 4);
MAP(tasks, BPF_MAP_TYPE_HASH, u32, struct task_slot, 2);

u64 seen[16];

SEC("xdp")
int queue(struct xdp_md *ctx)
{
	struct bpf_list_node *node;
	struct item *item;
	int i;

	for (i = 0; i < 3; i++) {
		item = bpf_obj_new(struct item);
		if (!item)
			return XDP_ABORTED;
		item->key = i + 1;
		item->value = 10 * i;
		bpf_spin_lock(&list_lock);
		bpf_list_push_back(&list, &item->link);
		bpf_spin_unlock(&list_lock);
	}
	bpf_spin_lock(&list_lock);
	node = bpf_list_pop_front(&list);
	bpf_spin_unlock(&list_lock);
	if (!node)
		return XDP_ABORTED;
	item = container_of(node, struct item, link);
	seen[0] = item->key;
	seen[1] = item->value;
	bpf_obj_drop(item);
	bpf_spin_lock(&list_lock);
	node = bpf_list_pop_back(&list);
	bpf_spin_unlock(&list_lock);
	if (!node)
		return XDP_ABORTED;
	item = container_of(node, struct item, link);
	seen[2] = item->key;
	bpf_obj_drop(item);
	return XDP_PASS;
}

SEC("xdp")
int ends(struct xdp_md *ctx)
{
	struct bpf_list_node *node;

	bpf_spin_lock(&list_lock);
	node = bpf_list_front(&list);
	if (node)
		seen[0] = container_of(node, struct item, link)->key;
	node = bpf_list_back(&list);
	if (node)
		seen[1] = container_of(node, struct item, link)->key;
	bpf_spin_unlock(&list_lock);
	return XDP_PASS;
}

static _Bool less(struct bpf_rb_node *a, const struct bpf_rb_node *b)
{
	return container_of(a, struct leaf, node)->key < container_of(b, struct leaf, node)->key;
}

static int insert(u64 key)
{
	struct leaf *leaf = bpf_obj_new(struct leaf);

	if (!leaf)
		return 1;
	leaf->key = key;
	bpf_spin_lock(&tree_lock);
	bpf_rbtree_add(&tree, &leaf->node, less);
	bpf_spin_unlock(&tree_lock);
	return 0;
}

SEC("xdp")
int sorted(struct xdp_md *ctx)
{
	struct bpf_rb_node *node;
	struct leaf *leaf;
	int i;

	if (insert(5) || insert(1) || insert(9) || insert(3) || insert(7))
		return XDP_ABORTED;
	for (i = 0; i < 4; i++) {
		bpf_spin_lock(&tree_lock);
		node = bpf_rbtree_first(&tree);
		if (!node) {
			bpf_spin_unlock(&tree_lock);
			return XDP_ABORTED;
		}
		node = bpf_rbtree_remove(&tree, node);
		bpf_spin_unlock(&tree_lock);
		if (!node)
			return XDP_ABORTED;
		leaf = container_of(node, struct leaf, node);
		seen[i] = leaf->key;
		bpf_obj_drop(leaf);
	}
	return XDP_PASS;
}

SEC("xdp")
int walked(struct xdp_md *ctx)
{
	struct bpf_rb_node *top, *left, *right;

	if (insert(2) || insert(1) || insert(3))
		return XDP_ABORTED;
	bpf_spin_lock(&tree_lock);
	top = bpf_rbtree_root(&tree);
	if (!top)
		goto out;
	seen[0] = container_of(top, struct leaf, node)->key;
	left = bpf_rbtree_left(&tree, top);
	if (!left)
		goto out;
	seen[1] = container_of(left, struct leaf, node)->key;
	right = bpf_rbtree_right(&tree, top);
	if (!right)
		goto out;
	seen[2] = container_of(right, struct leaf, node)->key;
out:
	bpf_spin_unlock(&tree_lock);
	return XDP_PASS;
}

static _Bool less_shared(struct bpf_rb_node *a, const struct bpf_rb_node *b)
{
	return container_of(a, struct shared, node)->key <
	       container_of(b, struct shared, node)->key;
}

SEC("xdp")
int counted(struct xdp_md *ctx)
{
	struct shared *object = bpf_obj_new(struct shared), *other;
	struct bpf_list_node *node;

	if (!object)
		return XDP_ABORTED;
	object->key = 7;
	other = bpf_refcount_acquire(object);
	bpf_spin_lock(&both_lock);
	bpf_list_push_front(&both_list, &object->link);
	seen[1] = bpf_rbtree_add(&both_tree, &other->node, less_shared);
	node = bpf_list_pop_front(&both_list);
	bpf_spin_unlock(&both_lock);
	if (!node)
		return XDP_ABORTED;
	object = container_of(node, struct shared, link);
	seen[0] = object->key;
	bpf_obj_drop(object);
	return XDP_PASS;
}

/* What is in a list already is dropped. */
SEC("xdp")
int twice(struct xdp_md *ctx)
{
	struct shared *object = bpf_obj_new(struct shared), *other;

	if (!object)
		return XDP_ABORTED;
	other = bpf_refcount_acquire(object);
	bpf_spin_lock(&both_lock);
	seen[0] = bpf_list_push_front(&both_list, &object->link);
	seen[1] = bpf_list_push_back(&both_list, &other->link);
	bpf_spin_unlock(&both_lock);
	return XDP_PASS;
}

SEC("xdp")
int in_lists(struct xdp_md *ctx)
{
	struct outer *outer = bpf_obj_new(struct outer);
	struct inner *inner;

	if (!outer)
		return XDP_ABORTED;
	inner = bpf_obj_new(struct inner);
	if (!inner) {
		bpf_obj_drop(outer);
		return XDP_ABORTED;
	}
	inner->key = 1;
	bpf_spin_lock(&outer->lock);
	bpf_list_push_front(&outer->items, &inner->link);
	bpf_spin_unlock(&outer->lock);
	bpf_spin_lock(&nested_lock);
	bpf_list_push_front(&nested_list, &outer->link);
	bpf_spin_unlock(&nested_lock);
	return XDP_PASS;
}

SEC("xdp")
int stash(struct xdp_md *ctx)
{
	u32 key = 0;
	struct slot *slot = bpf_map_lookup_elem(&slots, &key);
	struct item *item, *old;

	if (!slot)
		return XDP_ABORTED;
	item = bpf_obj_new(struct item);
	if (!item)
		return XDP_ABORTED;
	item->key = 42;
	old = bpf_kptr_xchg(&slot->item, item);
	seen[0] = 0;
	if (old) {
		seen[0] = old->key;
		bpf_obj_drop(old);
	}
	slot->plain++;
	return XDP_PASS;
}

/* Read under RCU, which an XDP program always is. */
SEC("xdp")
int glance(struct xdp_md *ctx)
{
	u32 key = 0;
	struct slot *slot = bpf_map_lookup_elem(&slots, &key);
	struct item *item;

	if (!slot)
		return XDP_ABORTED;
	bpf_rcu_read_lock();
	item = slot->item;
	seen[0] = item ? item->key : 1;
	bpf_rcu_read_unlock();
	return XDP_PASS;
}

SEC("xdp")
int per_cpu(struct xdp_md *ctx)
{
	u32 key = 1;
	struct slot *slot = bpf_map_lookup_elem(&slots, &key);
	struct counter __percpu_kptr *fresh;
	struct counter *mine;

	if (!slot)
		return XDP_ABORTED;
	if (!slot->counters) {
		fresh = bpf_percpu_obj_new(struct counter);
		if (!fresh)
			return XDP_ABORTED;
		fresh = bpf_kptr_xchg(&slot->counters, fresh);
		if (fresh)
			bpf_percpu_obj_drop(fresh);
	}
	bpf_rcu_read_lock();
	fresh = slot->counters;
	if (fresh) {
		mine = bpf_this_cpu_ptr(fresh);
		mine->packets++;
		seen[0] = mine->packets;
		mine = bpf_per_cpu_ptr(fresh, 0);
		if (mine)
			seen[1] = mine->packets;
	}
	bpf_rcu_read_unlock();
	return XDP_PASS;
}

SEC("xdp")
int chained(struct xdp_md *ctx)
{
	struct chain none = {};
	struct chain *chain;
	struct item *item;
	u32 key = 3;

	bpf_map_update_elem(&chains, &key, &none, BPF_NOEXIST);
	chain = bpf_map_lookup_elem(&chains, &key);
	if (!chain)
		return XDP_ABORTED;
	item = bpf_obj_new(struct item);
	if (!item)
		return XDP_ABORTED;
	item->key = 11;
	bpf_spin_lock(&chain->lock);
	bpf_list_push_front(&chain->items, &item->link);
	bpf_spin_unlock(&chain->lock);
	return XDP_PASS;
}

SEC("xdp")
int unchain(struct xdp_md *ctx)
{
	u32 key = 3;

	seen[0] = bpf_map_delete_elem(&chains, &key);
	return XDP_PASS;
}

SEC("xdp")
int owner(struct xdp_md *ctx)
{
	struct task_struct *task = bpf_task_acquire(bpf_get_current_task_btf());
	struct task_slot none = {};
	struct task_slot *slot;
	u32 key = 0;

	if (!task)
		return XDP_ABORTED;
	bpf_map_update_elem(&tasks, &key, &none, BPF_NOEXIST);
	slot = bpf_map_lookup_elem(&tasks, &key);
	if (!slot) {
		bpf_task_release(task);
		return XDP_ABORTED;
	}
	slot->seen = task;
	task = bpf_kptr_xchg(&slot->owned, task);
	if (task)
		bpf_task_release(task);
	seen[0] = slot->seen == slot->owned;
	return XDP_PASS;
}

LICENSE("GPL");
