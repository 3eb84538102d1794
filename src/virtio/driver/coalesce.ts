/**
 * Interrupt moderation: how many packets and microseconds the device may gather.
 *
 * Reference: drivers/net/virtio_net.c of 6.12 (virtnet_send_tx_notf_coal_cmds,
 * virtnet_send_rx_notf_coal_cmds, virtnet_send_ctrl_coal_vq_cmd, virtnet_get_coalesce's per-queue query). Leaves
 * out dynamic moderation (net_dim).
 */
import { ERRNO } from '../../common/errno.js';
import { atomic, type KernelContext, type KernelFunction } from '../../kernel/function.js';
import {
  VIRTIO_NET_CTRL_NOTF_COAL,
  VIRTIO_NET_CTRL_NOTF_COAL_RX_SET,
  VIRTIO_NET_CTRL_NOTF_COAL_TX_SET,
  VIRTIO_NET_CTRL_NOTF_COAL_VQ_GET,
  VIRTIO_NET_CTRL_NOTF_COAL_VQ_SET,
} from '../device/control/commands.js';
import { negotiated } from './common.js';
import { controlData, controlReply, sendCommand, sendCommandReply } from './control.js';

function setAll(
  kernel: KernelContext,
  vi: number,
  command: number,
  usecs: number,
  packets: number,
): number {
  const { ram } = kernel.memory;
  if (!negotiated(ram, vi, 'NOTF_COAL')) return -ERRNO.EOPNOTSUPP;
  const data = controlData(ram, vi);
  ram.set32(data, packets);
  ram.set32(data + 4, usecs);
  const sent = sendCommand(kernel, vi, VIRTIO_NET_CTRL_NOTF_COAL, command, [[data, 8]]);
  return sent ? 0 : -ERRNO.EINVAL;
}

function setQueue(
  kernel: KernelContext,
  vi: number,
  vqn: number,
  usecs: number,
  packets: number,
): number {
  const { ram } = kernel.memory;
  if (!negotiated(ram, vi, 'VQ_NOTF_COAL')) return -ERRNO.EOPNOTSUPP;
  const data = controlData(ram, vi);
  ram.set16(data, vqn);
  ram.set16(data + 2, 0);
  ram.set32(data + 4, packets);
  ram.set32(data + 8, usecs);
  const command = VIRTIO_NET_CTRL_NOTF_COAL_VQ_SET;
  const sent = sendCommand(kernel, vi, VIRTIO_NET_CTRL_NOTF_COAL, command, [[data, 12]]);
  return sent ? 0 : -ERRNO.EINVAL;
}

function getQueue(kernel: KernelContext, vi: number, vqn: number, result: number): number {
  const { ram } = kernel.memory;
  if (!negotiated(ram, vi, 'VQ_NOTF_COAL')) return -ERRNO.EOPNOTSUPP;
  const data = controlData(ram, vi);
  ram.set16(data, vqn);
  ram.set16(data + 2, 0);
  const command = VIRTIO_NET_CTRL_NOTF_COAL_VQ_GET;
  if (!sendCommandReply(kernel, vi, VIRTIO_NET_CTRL_NOTF_COAL, command, [[data, 4]], 8)) {
    return -ERRNO.EINVAL;
  }
  ram.copy(result, controlReply(ram, vi), 8);
  return 0;
}

export const coalesceFunctions: readonly KernelFunction[] = [
  atomic({
    prototype:
      'int virtnet_send_tx_notf_coal_cmds(struct virtnet_info *vi, u32 max_usecs, u32 max_packets)',
    calls: true,
    body: (kernel, vi, usecs, packets) =>
      setAll(kernel, vi, VIRTIO_NET_CTRL_NOTF_COAL_TX_SET, usecs, packets),
  }),
  atomic({
    prototype:
      'int virtnet_send_rx_notf_coal_cmds(struct virtnet_info *vi, u32 max_usecs, u32 max_packets)',
    calls: true,
    body: (kernel, vi, usecs, packets) =>
      setAll(kernel, vi, VIRTIO_NET_CTRL_NOTF_COAL_RX_SET, usecs, packets),
  }),
  atomic({
    prototype:
      'int virtnet_send_ctrl_coal_vq_cmd(struct virtnet_info *vi, u16 vqn, u32 max_usecs, ' +
      'u32 max_packets)',
    calls: true,
    body: setQueue,
  }),
  atomic({
    prototype:
      'int virtnet_get_vq_coal(struct virtnet_info *vi, u16 vqn, struct virtio_net_ctrl_coal *coal)',
    calls: true,
    body: getQueue,
  }),
];
