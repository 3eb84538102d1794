/**
 * The driver's part of initialisation: which of a device's features it takes.
 *
 * Reference: drivers/virtio/virtio.c (virtio_dev_probe), drivers/net/virtio_net.c (features, features_legacy,
 * virtnet_validate). The driver takes what both sides know. A device that offers commands without a control
 * queue is refused (-EINVAL, FAILED); an MTU below 68 and STANDBY without a MAC are left out. The driver does
 * not look whether GUEST_TSO4 comes with GUEST_CSUM: such a device refuses FEATURES_OK.
 *
 * Usage:
 *   const { features, config } = negotiate(kernel, device, '6.12', wanted);
 */
import { KernelError } from '../../common/errors.js';
import type { KernelContext } from '../../kernel/function.js';
import { decodeNetConfig, type NetConfig } from '../net-config.js';
import {
  VIRTIO_NET_FEATURES,
  featureMask,
  featureNames,
  hasFeature,
  type VirtioNetFeature,
} from '../net-features.js';
import { VIRTIO_CONFIG_S, type VirtioTransport } from '../transport.js';
import type { VirtioNetVersion } from './profiles.js';

const COMMON: readonly VirtioNetFeature[] = [
  'CSUM',
  'GUEST_CSUM',
  'CTRL_GUEST_OFFLOADS',
  'MTU',
  'MAC',
  'GUEST_TSO4',
  'GUEST_TSO6',
  'GUEST_ECN',
  'GUEST_UFO',
  'HOST_TSO4',
  'HOST_TSO6',
  'HOST_ECN',
  'HOST_UFO',
  'MRG_RXBUF',
  'STATUS',
  'CTRL_VQ',
  'CTRL_RX',
  'CTRL_VLAN',
  'GUEST_ANNOUNCE',
  'MQ',
  'CTRL_MAC_ADDR',
  'NOTF_COAL',
  'HASH_REPORT',
  'RSS',
  'STANDBY',
  'SPEED_DUPLEX',
  // the ring's
  'INDIRECT_DESC',
  'EVENT_IDX',
  'VERSION_1',
  'ACCESS_PLATFORM',
  'RING_PACKED',
  'ORDER_PLATFORM',
  'RING_RESET',
  // newer than these kernels, and taken so that it can be tried
  'IN_ORDER',
];

const SINCE_6_12: readonly VirtioNetFeature[] = [
  'GUEST_USO4',
  'GUEST_USO6',
  'HOST_USO',
  'GUEST_HDRLEN',
  'VQ_NOTF_COAL',
  'DEVICE_STATS',
  'NOTIFICATION_DATA',
];

const SINCE_6_18: readonly VirtioNetFeature[] = [
  'GUEST_UDP_TUNNEL_GSO',
  'GUEST_UDP_TUNNEL_GSO_CSUM',
  'HOST_UDP_TUNNEL_GSO',
  'HOST_UDP_TUNNEL_GSO_CSUM',
];

/** Taken from a device that does not offer VERSION_1, besides. */
const LEGACY: readonly VirtioNetFeature[] = ['GSO', 'ANY_LAYOUT'];

/** What each version's driver and ring know. */
const KNOWN: Readonly<Record<VirtioNetVersion, bigint>> = {
  '6.1': featureMask(COMMON),
  '6.12': featureMask([...COMMON, ...SINCE_6_12]),
  '6.18': featureMask([...COMMON, ...SINCE_6_12, ...SINCE_6_18]),
};

/** Features that make no sense without a control queue: `virtnet_validate_features`. */
const NEED_CONTROL_QUEUE: readonly VirtioNetFeature[] = [
  'CTRL_RX',
  'CTRL_VLAN',
  'GUEST_ANNOUNCE',
  'MQ',
  'CTRL_MAC_ADDR',
  'RSS',
  'HASH_REPORT',
  'NOTF_COAL',
  'VQ_NOTF_COAL',
];

const MIN_MTU = 68;
const S = VIRTIO_CONFIG_S;

export interface Negotiated {
  readonly features: bigint;
  readonly config: NetConfig;
}

/**
 * From reset to FEATURES_OK. Throws KernelError, with FAILED in the device's status, when the driver refuses the
 * device (-EINVAL) or the device the features (-ENODEV).
 */
export function negotiate(
  kernel: KernelContext,
  device: VirtioTransport,
  version: VirtioNetVersion,
): Negotiated {
  const fail = (errno: 'EINVAL' | 'ENODEV', why: string): never => {
    device.writeStatus(device.status | S.FAILED);
    throw new KernelError(errno, `virtio_net: ${why}`);
  };
  device.writeStatus(0);
  device.writeStatus(S.ACKNOWLEDGE);
  device.writeStatus(S.ACKNOWLEDGE | S.DRIVER);
  const offered = device.offeredFeatures;
  const legacy = !hasFeature(offered, 'VERSION_1');
  let features = offered & (KNOWN[version] | (legacy ? featureMask(LEGACY) : 0n));

  if (!hasFeature(features, 'CTRL_VQ')) {
    const odd = NEED_CONTROL_QUEUE.find((name) => hasFeature(features, name));
    if (odd) {
      fail('EINVAL', `device advertises feature VIRTIO_NET_F_${odd} but not VIRTIO_NET_F_CTRL_VQ`);
    }
  }
  const config = decodeNetConfig(device.readConfig());
  if (hasFeature(features, 'MTU') && config.mtu < MIN_MTU) features &= ~VIRTIO_NET_FEATURES.MTU;
  if (hasFeature(features, 'STANDBY') && !hasFeature(features, 'MAC')) {
    kernel.printk(
      'virtio_net virtio0: device advertises feature VIRTIO_NET_F_STANDBY but not ' +
        'VIRTIO_NET_F_MAC, disabling standby',
    );
    features &= ~VIRTIO_NET_FEATURES.STANDBY;
  }
  device.writeFeatures(features);
  if (legacy) return { features, config };
  device.writeStatus(device.status | S.FEATURES_OK);
  if ((device.status & S.FEATURES_OK) === 0) {
    fail('ENODEV', `device refuses features: ${featureNames(features).join(' ')}`);
  }
  return { features, config };
}

/** From reset to FEATURES_OK with features that were agreed on before. */
export function resume(device: VirtioTransport, features: bigint): void {
  device.writeStatus(0);
  device.writeStatus(S.ACKNOWLEDGE);
  device.writeStatus(S.ACKNOWLEDGE | S.DRIVER);
  device.writeFeatures(features);
  if (hasFeature(features, 'VERSION_1')) device.writeStatus(device.status | S.FEATURES_OK);
}
