/**
 * Telling the device how many queue pairs are in use, and how frames are spread over them.
 *
 * Reference: drivers/net/virtio_net.c of 6.12 (virtnet_set_queues). A queue-pair command ends the device's steering by table; where `rssFollowsQueues`, the
 * pairs are told with the table as long as that is the driver's own. Leaves out real_num_rx_queues.
 */
import { ERRNO } from '../../common/errno.js';
import { atomic, type KernelContext, type KernelFunction } from '../../kernel/function.js';
import { VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET } from '../device/control/commands.js';
import { negotiated, netdevLog } from './common.js';
import { controlData, sendCommand } from './control.js';
import { profileOf } from './profiles.js';
import { fillTable, syncMaxTxVq } from './rss.js';
import { NET_DEVICE } from '../../stack/net-device.js';
import { VIRTNET_INFO } from './structs.js';

const DEV = NET_DEVICE.offset;
const VI = VIRTNET_INFO.offset;

function spread(kernel: KernelContext, vi: number, pairs: number): number {
  const { ram } = kernel.memory;
  fillTable(ram, vi, pairs);
  if (kernel.invoke('virtnet_commit_rss_command', vi) === 0) {
    fillTable(ram, vi, ram.u16(vi + VI.curr_queue_pairs));
    const dev = ram.pointer(vi + VI.dev);
    netdevLog(
      kernel,
      dev,
      `Fail to set num of queue pairs to ${pairs}, because committing RSS failed`,
    );
    return -ERRNO.EINVAL;
  }
  ram.set16(vi + VI.curr_queue_pairs, pairs);
  return 0;
}

function setQueues(kernel: KernelContext, vi: number, pairs: number): number {
  const { ram } = kernel.memory;
  if (ram.u8(vi + VI.has_cvq) === 0 || !negotiated(ram, vi, 'MQ')) return 0;
  const own = ram.u8(vi + VI.has_rss) !== 0 && ram.u8(vi + VI.rss_configured) === 0;
  if (own && profileOf(ram, vi).rssFollowsQueues) return spread(kernel, vi, pairs);
  const data = controlData(ram, vi);
  ram.set16(data, pairs);
  const sent = sendCommand(kernel, vi, VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET, [
    [data, 2],
  ]);
  if (!sent) {
    netdevLog(kernel, ram.pointer(vi + VI.dev), `Fail to set num of queue pairs to ${pairs}`);
    return -ERRNO.EINVAL;
  }
  syncMaxTxVq(ram, vi, pairs);
  ram.set16(vi + VI.curr_queue_pairs, pairs);
  return 0;
}

/** `ethtool -L`: what the user may choose while no program is attached. */
function setChannels(kernel: KernelContext, dev: number, pairs: number): number {
  const { ram } = kernel.memory;
  const vi = ram.pointer(dev + DEV.priv);
  if (pairs < 1 || pairs > ram.u16(vi + VI.max_queue_pairs)) return -ERRNO.EINVAL;
  if (ram.u8(vi + VI.xdp_enabled) !== 0) return -ERRNO.EINVAL;
  return kernel.invoke('virtnet_set_queues', vi, pairs);
}

export const queueFunctions: readonly KernelFunction[] = [
  atomic({
    prototype: 'int _virtnet_set_queues(struct virtnet_info *vi, u16 queue_pairs)',
    calls: true,
    body: setQueues,
  }),
  atomic({
    prototype: 'int virtnet_set_queues(struct virtnet_info *vi, u16 queue_pairs)',
    calls: true,
    body: (kernel, vi, pairs) => kernel.invoke('_virtnet_set_queues', vi, pairs),
  }),
  atomic({
    prototype: 'int virtnet_set_channels(struct net_device *dev, unsigned int combined_count)',
    calls: true,
    body: setChannels,
  }),
];
