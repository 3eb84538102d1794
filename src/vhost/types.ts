/**
 * The structures of the shadow virtqueue as BTF, by QEMU's names, so that programs can follow pointers into them.
 *
 * Usage:
 *   kernel.bpf.host.types.declare(declareShadowVirtqueueTypes);
 */
import type { BtfBuilder } from '../bpf/btf/builder.js';
import { declareLayout } from '../bpf/btf/layout-types.js';
import {
  IOVEC,
  SHADOW_VIRTQUEUE,
  SVQ_DESC_STATE,
  SVQ_ELEMENT,
  VHOST_VDPA,
  VHOST_VDPA_SHARED,
  VHOST_VDPA_STATE,
  VIRT_QUEUE_ELEMENT,
  VRING,
} from './structs.js';

const ELEMENT = 'struct VirtQueueElement';
const IOV = 'struct iovec *';

export function declareShadowVirtqueueTypes(builder: BtfBuilder): void {
  declareLayout(builder, 'iovec', IOVEC, { iov_base: 'void *' });
  declareLayout(builder, 'vring', VRING, { desc: 'void *', avail: 'void *', used: 'void *' });
  declareLayout(builder, 'VirtQueueElement', VIRT_QUEUE_ELEMENT, {
    in_addr: 'u64 *',
    out_addr: 'u64 *',
    in_sg: IOV,
    out_sg: IOV,
  });
  declareLayout(builder, 'SVQElement', SVQ_ELEMENT, { elem: ELEMENT });
  declareLayout(builder, 'SVQDescState', SVQ_DESC_STATE, { elem: `${ELEMENT} *` });
  declareLayout(builder, 'vhost_vdpa_shared', VHOST_VDPA_SHARED, { shadow_data: 'bool' });
  declareLayout(builder, 'vhost_vdpa', VHOST_VDPA, {
    shadow_vqs_enabled: 'bool',
    shared: 'struct vhost_vdpa_shared *',
  });
  declareLayout(builder, 'VhostVDPAState', VHOST_VDPA_STATE, {
    vhost_vdpa: 'struct vhost_vdpa',
    cvq_cmd_out_buffer: 'void *',
    status: 'u8 *',
    always_svq: 'bool',
    cvq_isolated: 'bool',
    started: 'bool',
  });
  declareLayout(builder, 'VhostShadowVirtqueue', SHADOW_VIRTQUEUE, {
    vring: 'struct vring',
    desc_state: 'struct SVQDescState *',
    next_guest_avail_elem: `${ELEMENT} *`,
    desc_next: 'u16 *',
    ops_opaque: 'struct VhostVDPAState *',
    num_free: 's32',
    copy_descs: 'bool',
  });
}
