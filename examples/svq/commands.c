/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Watches control commands on their way through a shadow virtqueue: what the queue and its backend look
 * like when a command arrives, and how many descriptors the shadow ring has left when it is in there.
 * Structures and their fields are QEMU's, found by CO-RE.
 */
#include "bpf.h"

#define CORE __attribute__((preserve_access_index))

struct vring {
	u32 num;
} CORE;

struct VirtQueueElement {
	u32 index;
	u32 out_num;
	u32 in_num;
} CORE;

struct vhost_vdpa_shared {
	u8 shadow_data;
} CORE;

struct vhost_vdpa {
	u32 index;
	u32 address_space_id;
	u8 shadow_vqs_enabled;
	struct vhost_vdpa_shared *shared;
} CORE;

struct VhostVDPAState {
	struct vhost_vdpa vhost_vdpa;
	u8 cvq_isolated;
	u8 started;
} CORE;

struct VhostShadowVirtqueue {
	struct vring vring;
	struct VhostVDPAState *ops_opaque;
	u16 shadow_avail_idx;
	u16 last_used_idx;
	s32 num_free;
} CORE;

u32 commands;
u32 segments;
u32 address_space;
u32 is_isolated;
u32 shadows_data;
u32 ring_size;
u32 fewest_free = ~0u;
u32 published;

SEC("fentry/vhost_vdpa_net_handle_ctrl_avail")
int command_arrives(u64 *ctx)
{
	struct VhostShadowVirtqueue *svq = (void *)ctx[0];
	struct VirtQueueElement *elem = (void *)ctx[1];
	struct VhostVDPAState *state = (void *)ctx[2];

	commands++;
	segments += elem->out_num + elem->in_num;
	ring_size = svq->vring.num;
	address_space = state->vhost_vdpa.address_space_id;
	is_isolated = state->cvq_isolated;
	shadows_data = state->vhost_vdpa.shared->shadow_data;
	return 0;
}

SEC("fexit/vhost_svq_add")
int command_added(u64 *ctx)
{
	struct VhostShadowVirtqueue *svq = (void *)ctx[0];
	u32 free = svq->num_free;

	if (free < fewest_free)
		fewest_free = free;
	published = svq->shadow_avail_idx;
	return 0;
}

LICENSE("GPL");
