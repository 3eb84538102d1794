/**
 * Which features a device may have whose queues are shadowed.
 *
 * Reference: QEMU vhost_svq_valid_features (hw/virtio/vhost-shadow-virtqueue.c) and
 * vdpa_svq_device_features (net/vhost-vdpa.c). The guest's ring must be little-endian (VERSION_1), the
 * device behind an IOMMU (ACCESS_PLATFORM); of the other bits of the transport only those that change nothing on
 * the shadow ring may be there. GUEST_ANNOUNCE is the VMM's own.
 *
 * Usage:
 *   svqProblem(deviceFeatures);        // undefined, or what stands in the way
 *   svqFeatures(deviceFeatures);       // what the guest may be offered
 */
import { featureMask, featureNames, hasFeature } from '../virtio/net-features.js';

const TRANSPORT_MASK = ((1n << 15n) - 1n) << 28n;
const TRANSPORT_NEEDED = featureMask(['VERSION_1', 'ACCESS_PLATFORM']);
const TRANSPORT_ALLOWED = featureMask(['ANY_LAYOUT', 'EVENT_IDX', 'INDIRECT_DESC']);

/** 26 is VHOST_F_LOG_ALL. */
const NET_BITS = [
  0, 1, 2, 3, 5, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 22, 23, 26, 27, 57, 60, 61,
  62, 63,
];
const NET_ALLOWED = NET_BITS.reduce((mask, bit) => mask | (1n << BigInt(bit)), 0n);

/** Why queues of a device with these features cannot be shadowed. */
export function svqProblem(features: bigint): string | undefined {
  const missing = TRANSPORT_NEEDED & ~features;
  if (missing !== 0n) return `SVQ needs ${featureNames(missing).join(', ')}`;
  const odd = features & TRANSPORT_MASK & ~TRANSPORT_NEEDED & ~TRANSPORT_ALLOWED;
  if (odd !== 0n) return `SVQ Invalid device feature flags: ${featureNames(odd).join(', ')}`;
  return undefined;
}

/** Features of a shadowed device that a guest is offered. */
export function svqFeatures(features: bigint): bigint {
  const kept = features & (NET_ALLOWED | TRANSPORT_NEEDED | TRANSPORT_ALLOWED);
  const announces = hasFeature(kept, 'CTRL_VQ') && hasFeature(kept, 'STATUS');
  return announces ? kept | featureMask(['GUEST_ANNOUNCE']) : kept;
}
