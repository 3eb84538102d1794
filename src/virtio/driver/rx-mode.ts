/**
 * What the driver asks the device to let through, and the link's announcement.
 *
 * Reference: drivers/net/virtio_net.c of 6.12 (virtnet_set_rx_mode, virtnet_set_mac_address,
 * virtnet_vlan_rx_add_vid, virtnet_vlan_rx_kill_vid, virtnet_ack_link_announce, virtnet_config_changed_work).
 * A refusal by the device is a line in the log, except for the MAC address and VLANs, whose caller gets
 * -EINVAL. Leaves out the work queue that 6.12 sends the filter from: the commands are the same.
 */
import { ERRNO } from '../../common/errno.js';
import { atomic, type KernelContext, type KernelFunction } from '../../kernel/function.js';
import { IFF_ALLMULTI, IFF_PROMISC, NET_DEVICE } from '../../stack/net-device.js';
import {
  VIRTIO_NET_CTRL_ANNOUNCE,
  VIRTIO_NET_CTRL_ANNOUNCE_ACK,
  VIRTIO_NET_CTRL_MAC,
  VIRTIO_NET_CTRL_MAC_ADDR_SET,
  VIRTIO_NET_CTRL_MAC_TABLE_SET,
  VIRTIO_NET_CTRL_RX,
  VIRTIO_NET_CTRL_RX_ALLMULTI,
  VIRTIO_NET_CTRL_RX_PROMISC,
  VIRTIO_NET_CTRL_VLAN,
  VIRTIO_NET_CTRL_VLAN_ADD,
  VIRTIO_NET_CTRL_VLAN_DEL,
} from '../device/control/commands.js';
import { negotiated, netdevLog } from './common.js';
import { controlData, sendCommand } from './control.js';
import { VIRTNET_INFO } from './structs.js';

const DEV = NET_DEVICE.offset;
const VI = VIRTNET_INFO.offset;

function setRxMode(kernel: KernelContext, dev: number): void {
  const { memory, physical } = kernel;
  const { ram } = memory;
  const vi = ram.pointer(dev + DEV.priv);
  if (!negotiated(ram, vi, 'CTRL_RX')) return;
  const flags = ram.u32(dev + DEV.flags);
  const modes = [
    ['promisc', VIRTIO_NET_CTRL_RX_PROMISC, IFF_PROMISC],
    ['allmulti', VIRTIO_NET_CTRL_RX_ALLMULTI, IFF_ALLMULTI],
  ] as const;
  const data = controlData(ram, vi);
  for (const [name, command, flag] of modes) {
    const on = (flags & flag) !== 0;
    ram.set8(data, on ? 1 : 0);
    if (sendCommand(kernel, vi, VIRTIO_NET_CTRL_RX, command, [[data, 1]])) continue;
    netdevLog(kernel, dev, `Failed to ${on ? 'en' : 'dis'}able ${name} mode.`);
  }

  const unicast = ram.u32(dev + DEV.uc_count);
  const multicast = ram.u32(dev + DEV.mc_count);
  const buf = physical.alloc(8 + 6 * (unicast + multicast));
  const table = (at: number, count: number, list: number): number => {
    ram.set32(at, count);
    for (let i = 0; i < count; i++) ram.copy(at + 4 + 6 * i, list + 8 * i, 6);
    return 4 + 6 * count;
  };
  const first = table(buf, unicast, ram.pointer(dev + DEV.uc));
  const second = table(buf + first, multicast, ram.pointer(dev + DEV.mc));
  const sent = sendCommand(kernel, vi, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_TABLE_SET, [
    [buf, first],
    [buf + first, second],
  ]);
  if (!sent) netdevLog(kernel, dev, 'Failed to set MAC filter table.');
  physical.free(buf);
}

/** `p` is a struct sockaddr: the address is at 2. */
function setMacAddress(kernel: KernelContext, dev: number, p: number): number {
  const { ram } = kernel.memory;
  const vi = ram.pointer(dev + DEV.priv);
  const mac = p + 2;
  // multicast or all zero
  const zero = ram.u32(mac) === 0 && ram.u16(mac + 4) === 0;
  if ((ram.u8(mac) & 1) !== 0 || zero) return -ERRNO.EADDRNOTAVAIL;
  if (negotiated(ram, vi, 'CTRL_MAC_ADDR')) {
    const sent = sendCommand(kernel, vi, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET, [
      [mac, 6],
    ]);
    if (!sent) {
      kernel.printk('virtio_net virtio0: Failed to set mac address by vq command.');
      return -ERRNO.EINVAL;
    }
  }
  ram.copy(dev + DEV.dev_addr, mac, 6);
  return 0;
}

function vlan(kernel: KernelContext, dev: number, command: number, vid: number): number {
  const { ram } = kernel.memory;
  const vi = ram.pointer(dev + DEV.priv);
  if (!negotiated(ram, vi, 'CTRL_VLAN')) return -ERRNO.EOPNOTSUPP;
  const data = controlData(ram, vi);
  ram.set16(data, vid);
  if (sendCommand(kernel, vi, VIRTIO_NET_CTRL_VLAN, command, [[data, 2]])) return 0;
  const what = command === VIRTIO_NET_CTRL_VLAN_ADD ? 'add' : 'kill';
  netdevLog(kernel, dev, `Failed to ${what} VLAN ID ${vid}.`);
  return -ERRNO.EINVAL;
}

export const rxModeFunctions: readonly KernelFunction[] = [
  atomic({
    prototype: 'void virtnet_set_rx_mode(struct net_device *dev)',
    calls: true,
    body: setRxMode,
  }),
  atomic({
    prototype: 'int virtnet_set_mac_address(struct net_device *dev, void *p)',
    calls: true,
    body: setMacAddress,
  }),
  atomic({
    prototype: 'int virtnet_vlan_rx_add_vid(struct net_device *dev, __be16 proto, u16 vid)',
    calls: true,
    body: (kernel, dev, _proto, vid) => vlan(kernel, dev, VIRTIO_NET_CTRL_VLAN_ADD, vid),
  }),
  atomic({
    prototype: 'int virtnet_vlan_rx_kill_vid(struct net_device *dev, __be16 proto, u16 vid)',
    calls: true,
    body: (kernel, dev, _proto, vid) => vlan(kernel, dev, VIRTIO_NET_CTRL_VLAN_DEL, vid),
  }),
  atomic({
    prototype: 'void virtnet_ack_link_announce(struct virtnet_info *vi)',
    calls: true,
    body: (kernel, vi) => {
      const sent = sendCommand(
        kernel,
        vi,
        VIRTIO_NET_CTRL_ANNOUNCE,
        VIRTIO_NET_CTRL_ANNOUNCE_ACK,
        [],
      );
      const dev = kernel.memory.ram.pointer(vi + VI.dev);
      if (!sent) netdevLog(kernel, dev, 'Failed to ack link announce.');
    },
  }),
];
