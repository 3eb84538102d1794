/**
 * Guest offloads and the device features that depend on them.
 *
 * Reference: drivers/net/virtio_net.c of 6.12 (virtnet_set_guest_offloads, virtnet_clear_guest_offloads,
 * virtnet_restore_guest_offloads, virtnet_set_features), net/core/dev.c (__netdev_update_features,
 * dev_disable_gro_hw). `guest_offloads` is the mask that should be on while no program is attached. The
 * v4 patch takes GUEST_CSUM out of the masks; `v4-literal` then clears it all the same, because "none" is
 * sent as 0; `v4-fixed` leaves it on. Of netdev_fix_features only GRO_HW's need of RXCSUM and
 * TSO's of checksums are here.
 */
import { ERRNO } from '../../common/errno.js';
import type { Ram } from '../../cpu/ram.js';
import { atomic, type KernelContext, type KernelFunction } from '../../kernel/function.js';
import {
  NETIF_F_HI,
  NETIF_F_HW_CSUM,
  NETIF_F_TSO,
  NETIF_F_TSO6,
  NETIF_F_TSO_ECN,
  NET_DEVICE,
} from '../../stack/net-device.js';
import {
  VIRTIO_NET_CTRL_GUEST_OFFLOADS,
  VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET,
} from '../device/control/commands.js';
import { featureMask, type VirtioNetFeature } from '../net-features.js';
import { negotiated, netdevLog } from './common.js';
import { controlData, sendCommand } from './control.js';
import { xdpChecksumOf } from './profiles.js';
import { setHashTypes } from './rss.js';
import { VIRTNET_INFO } from './structs.js';

const DEV = NET_DEVICE.offset;
const VI = VIRTNET_INFO.offset;

/** Offloads whose frames are larger than what was on the wire. */
const GRO_HW: readonly VirtioNetFeature[] = [
  'GUEST_TSO4',
  'GUEST_TSO6',
  'GUEST_ECN',
  'GUEST_UFO',
  'GUEST_USO4',
  'GUEST_USO6',
];

/** What the driver takes for offloads; bit 59 is none by the standard, and sent all the same. */
const GUEST_OFFLOADS: readonly VirtioNetFeature[] = [...GRO_HW, 'GUEST_CSUM', 'GUEST_HDRLEN'];

const ALL_TSO = NETIF_F_TSO | NETIF_F_TSO6 | NETIF_F_TSO_ECN;
const GRO_HW_MASK = featureMask(GRO_HW);
const GUEST_CSUM_MASK = featureMask(['GUEST_CSUM']);

/** Whether the driver leaves GUEST_CSUM alone when a program is attached. */
export function keepsGuestChecksum(ram: Ram, vi: number): boolean {
  const variant = xdpChecksumOf(ram, vi);
  return variant === 'v4-literal' || variant === 'v4-fixed';
}

/** At probe: `guest_offloads`, as negotiated. */
export function initGuestOffloads(ram: Ram, vi: number): void {
  let mask = 0n;
  for (const feature of GUEST_OFFLOADS) {
    if (feature === 'GUEST_CSUM' && keepsGuestChecksum(ram, vi)) continue;
    if (negotiated(ram, vi, feature)) mask |= featureMask([feature]);
  }
  ram.set64(vi + VI.guest_offloads, mask);
  ram.set64(vi + VI.guest_offloads_capable, mask);
}

/** GUEST_CSUM where the fixed v4 patch has to say that it stays on. */
function kept(ram: Ram, vi: number): bigint {
  const fixed = xdpChecksumOf(ram, vi) === 'v4-fixed';
  return fixed && negotiated(ram, vi, 'GUEST_CSUM') ? GUEST_CSUM_MASK : 0n;
}

function setMask(kernel: KernelContext, vi: number, mask: bigint): number {
  const low = Number(mask & 0xffffffffn);
  return kernel.invoke('virtnet_set_guest_offloads', vi, low, Number(mask >> 32n));
}

function virtnetSetGuestOffloads(
  kernel: KernelContext,
  vi: number,
  low: number,
  high: number,
): number {
  const { ram } = kernel.memory;
  const data = controlData(ram, vi);
  ram.set32(data, low);
  ram.set32(data + 4, high);
  const sent = sendCommand(
    kernel,
    vi,
    VIRTIO_NET_CTRL_GUEST_OFFLOADS,
    VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET,
    [[data, 8]],
  );
  if (sent) return 0;
  netdevLog(kernel, ram.pointer(vi + VI.dev), 'Fail to set guest offload.');
  return -ERRNO.EINVAL;
}

function virtnetSetFeatures(
  kernel: KernelContext,
  dev: number,
  _low: number,
  high: number,
): number {
  const { ram } = kernel.memory;
  const vi = ram.pointer(dev + DEV.priv);
  const changed = ram.u32(dev + DEV.features_hi) ^ high;
  if ((changed & NETIF_F_HI.GRO_HW) !== 0) {
    const result = switchGroHw(kernel, vi, (high & NETIF_F_HI.GRO_HW) !== 0);
    if (result !== 0) return result;
  }
  if ((changed & NETIF_F_HI.RXHASH) === 0) return 0;
  const on = (high & NETIF_F_HI.RXHASH) !== 0;
  setHashTypes(ram, vi, on ? ram.u32(vi + VI.rss_hash_types_saved) : 0);
  return kernel.invoke('virtnet_commit_rss_command', vi) === 0 ? -ERRNO.EINVAL : 0;
}

function switchGroHw(kernel: KernelContext, vi: number, on: boolean): number {
  const { ram } = kernel.memory;
  if (ram.u8(vi + VI.xdp_enabled) !== 0) return -ERRNO.EBUSY;
  const capable = ram.u64(vi + VI.guest_offloads_capable);
  const offloads = on ? capable : capable & ~GRO_HW_MASK;
  const result = setMask(kernel, vi, offloads | kept(ram, vi));
  if (result !== 0) return result;
  ram.set64(vi + VI.guest_offloads, offloads);
  return 0;
}

/** What is wanted of the switchable features, without what other features forbid. */
function netdevUpdateFeatures(kernel: KernelContext, dev: number): number {
  const { ram } = kernel.memory;
  const current = ram.u64(dev + DEV.features);
  const switchable = ram.u64(dev + DEV.hw_features);
  let next = (current & ~switchable) | (ram.u64(dev + DEV.wanted_features) & switchable);
  const high = Number(next >> 32n);
  const groHw = (high & NETIF_F_HI.GRO_HW) !== 0;
  if (groHw && (high & NETIF_F_HI.RXCSUM) === 0) next &= ~(BigInt(NETIF_F_HI.GRO_HW) << 32n);
  if ((next & BigInt(NETIF_F_HW_CSUM)) === 0n) next &= ~BigInt(ALL_TSO);
  if (next === current) return 0;
  const low = Number(next & 0xffffffffn);
  const result = kernel.invoke('virtnet_set_features', dev, low, Number(next >> 32n));
  if (result < 0) {
    const mask = (value: bigint): string => `0x${value.toString(16).padStart(16, '0')}`;
    netdevLog(
      kernel,
      dev,
      `set_features() failed (${result}); wanted ${mask(next)}, left ${mask(current)}`,
    );
    return -1;
  }
  ram.set64(dev + DEV.features, next);
  return 1;
}

export const offloadFunctions: readonly KernelFunction[] = [
  atomic({
    prototype: 'int virtnet_set_guest_offloads(struct virtnet_info *vi, u64 offloads)',
    halves: ['offloads'],
    calls: true,
    body: virtnetSetGuestOffloads,
  }),
  atomic({
    prototype: 'int virtnet_clear_guest_offloads(struct virtnet_info *vi)',
    calls: true,
    body: (kernel, vi) => {
      const { ram } = kernel.memory;
      return ram.u64(vi + VI.guest_offloads) === 0n ? 0 : setMask(kernel, vi, kept(ram, vi));
    },
  }),
  atomic({
    prototype: 'int virtnet_restore_guest_offloads(struct virtnet_info *vi)',
    calls: true,
    body: (kernel, vi) => {
      const { ram } = kernel.memory;
      const offloads = ram.u64(vi + VI.guest_offloads);
      return offloads === 0n ? 0 : setMask(kernel, vi, offloads | kept(ram, vi));
    },
  }),
  atomic({
    prototype: 'int virtnet_set_features(struct net_device *dev, netdev_features_t features)',
    halves: ['features'],
    calls: true,
    body: virtnetSetFeatures,
  }),
  atomic({
    prototype: 'int __netdev_update_features(struct net_device *dev)',
    calls: true,
    body: netdevUpdateFeatures,
  }),
  atomic({
    // generic XDP is installed with it, and never gives the feature back
    prototype: 'void dev_disable_gro_hw(struct net_device *dev)',
    calls: true,
    body: (kernel, dev) => {
      const { ram } = kernel.memory;
      const wanted = dev + DEV.wanted_features + 4;
      ram.set32(wanted, ram.u32(wanted) & ~NETIF_F_HI.GRO_HW);
      kernel.invoke('__netdev_update_features', dev);
    },
  }),
];
