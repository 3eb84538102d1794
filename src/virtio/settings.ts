/**
 * What a user sets on a virtio-net device with ip and ethtool.
 *
 * Reference: net/core/dev.c, net/ethtool/ioctl.c (ethtool_set_one_feature: features that the driver cannot
 * switch answer -EOPNOTSUPP; one that was wanted and is not in use answers ETHTOOL_F_WISH),
 * net/core/dev_addr_lists.c. The changes themselves are kernel functions of the driver.
 *
 * Usage:
 *   setNetdevFeature(kernel, dev, 'rx-gro-hw', false);   // 0
 *   netdevFeature(ram, dev, 'rx-gro-hw');                // { available: true, requested: false, active: false }
 */
import { ERRNO } from '../common/errno.js';
import type { Ram } from '../cpu/ram.js';
import type { KernelContext } from '../kernel/function.js';
import { IFF_ALLMULTI, IFF_PROMISC, NET_DEVICE } from '../stack/net-device.js';

const DEV = NET_DEVICE.offset;

/** Features of a net_device by the names of ethtool, with their bit numbers. */
export const NETDEV_FEATURES = {
  'tx-checksum-ip-generic': 3,
  'rx-lro': 15,
  'tx-tcp-segmentation': 16,
  'tx-tcp-ecn-segmentation': 18,
  'tx-tcp6-segmentation': 20,
  'rx-hashing': 39,
  'rx-checksum': 40,
  'rx-gro-hw': 55,
} as const;

export type NetdevFeature = keyof typeof NETDEV_FEATURES;

export interface NetdevFeatureState {
  /** The user can switch it. */
  readonly available: boolean;
  readonly requested: boolean;
  readonly active: boolean;
}

/** A feature was asked for that is not in use. */
export const ETHTOOL_F_WISH = 2;

function bit(ram: Ram, at: number, number: number): boolean {
  return ((ram.u32(at + 4 * (number >> 5)) >>> (number & 31)) & 1) !== 0;
}

export function netdevFeature(ram: Ram, dev: number, name: NetdevFeature): NetdevFeatureState {
  const number = NETDEV_FEATURES[name];
  return {
    available: bit(ram, dev + DEV.hw_features, number),
    requested: bit(ram, dev + DEV.wanted_features, number),
    active: bit(ram, dev + DEV.features, number),
  };
}

/** `ethtool -K`: 0, ETHTOOL_F_WISH, or -EOPNOTSUPP. */
export function setNetdevFeature(
  kernel: KernelContext,
  dev: number,
  name: NetdevFeature,
  on: boolean,
): number {
  const { ram } = kernel.memory;
  const number = NETDEV_FEATURES[name];
  if (!bit(ram, dev + DEV.hw_features, number)) return -ERRNO.EOPNOTSUPP;
  const word = dev + DEV.wanted_features + 4 * (number >> 5);
  const mask = 1 << (number & 31);
  ram.set32(word, on ? ram.u32(word) | mask : ram.u32(word) & ~mask);
  kernel.invoke('__netdev_update_features', dev);
  return bit(ram, dev + DEV.features, number) === on ? 0 : ETHTOOL_F_WISH;
}

export interface RxSettings {
  readonly promisc?: boolean;
  readonly allmulti?: boolean;
  /** Further addresses to receive. */
  readonly unicast?: readonly Uint8Array[];
  readonly multicast?: readonly Uint8Array[];
}

/** `ip link set promisc on`, `ip maddr add`: sets all four and has the driver tell the device. */
export function setRxMode(kernel: KernelContext, dev: number, settings: RxSettings): void {
  const { memory, physical } = kernel;
  const { ram } = memory;
  const flags = ram.u32(dev + DEV.flags) & ~(IFF_PROMISC | IFF_ALLMULTI);
  const promisc = settings.promisc === true ? IFF_PROMISC : 0;
  const allmulti = settings.allmulti === true ? IFF_ALLMULTI : 0;
  ram.set32(dev + DEV.flags, flags | promisc | allmulti);
  const lists = [
    [DEV.uc, DEV.uc_count, settings.unicast ?? []],
    [DEV.mc, DEV.mc_count, settings.multicast ?? []],
  ] as const;
  for (const [field, count, addresses] of lists) {
    const before = ram.pointer(dev + field);
    if (before !== 0) physical.free(before);
    const list = addresses.length === 0 ? 0 : physical.alloc(8 * addresses.length);
    for (const [i, mac] of addresses.entries()) ram.bytes.set(mac.subarray(0, 6), list + 8 * i);
    ram.setPointer(dev + field, list);
    ram.set32(dev + count, addresses.length);
  }
  kernel.invoke('virtnet_set_rx_mode', dev);
}

/** `ip link set address`: 0 or a negative errno. */
export function setMacAddress(kernel: KernelContext, dev: number, mac: Uint8Array): number {
  const { memory, physical } = kernel;
  // struct sockaddr: family, then the address
  const sockaddr = physical.alloc(16);
  memory.ram.bytes.set(mac.subarray(0, 6), sockaddr + 2);
  const result = kernel.invoke('virtnet_set_mac_address', dev, sockaddr);
  physical.free(sockaddr);
  return result;
}
