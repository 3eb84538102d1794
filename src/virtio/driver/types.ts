/**
 * The driver's structures as BTF, so that programs can follow pointers into them with CO-RE.
 *
 * Fields that are pointers get their type here; all others are unsigned numbers or bytes of the size
 * that the layout tables give them. `scratch_*` fields are no fields of Linux and stay out.
 *
 * Usage:
 *   kernel.bpf.host.types.declare(declareVirtioNetTypes);
 */
import type { BtfBuilder } from '../../bpf/btf/builder.js';
import { declareLayout, type FieldTypes } from '../../bpf/btf/layout-types.js';
import {
  RECEIVE_QUEUE,
  SEND_QUEUE,
  VIRTNET_INFO,
  VIRTNET_RQ_STATS,
  VIRTNET_SQ_STATS,
} from './structs.js';
import { NET_DEVICE } from '../../stack/net-device.js';
import { SK_BUFF, SKB_SHARED_INFO } from '../../stack/skb.js';
import type { StructLayout } from '../../common/struct.js';
import { XDP_FRAME } from '../../stack/xdp-frame.js';

/** Types of fields that are more than a number of their size. */
const TYPES: ReadonlyMap<string, FieldTypes> = new Map<string, FieldTypes>([
  [
    'net_device',
    { name: 'char[16]', dev_addr: 'unsigned char[6]', mtu: 'unsigned int', ifindex: 'int' },
  ],
  [
    'virtnet_info',
    { dev: 'struct net_device *', rq: 'struct receive_queue *', sq: 'struct send_queue *' },
  ],
  [
    'receive_queue',
    {
      vq: 'struct virtqueue *',
      xdp_prog: 'struct bpf_prog *',
      vi: 'struct virtnet_info *',
      xdp_rxq: 'struct xdp_rxq_info',
      stats: 'struct virtnet_rq_stats',
    },
  ],
  ['send_queue', { vq: 'struct virtqueue *', stats: 'struct virtnet_sq_stats' }],
  [
    'sk_buff',
    {
      next: 'struct sk_buff *',
      dev: 'struct net_device *',
      head: 'unsigned char *',
      data: 'unsigned char *',
      cb: 'char[48]',
    },
  ],
  ['xdp_frame', { data: 'void *', dev_rx: 'struct net_device *' }],
]);

export function declareVirtioNetTypes(builder: BtfBuilder): void {
  declare(builder, 'virtnet_rq_stats', VIRTNET_RQ_STATS);
  declare(builder, 'virtnet_sq_stats', VIRTNET_SQ_STATS);
  declare(builder, 'net_device', NET_DEVICE);
  declare(builder, 'virtnet_info', VIRTNET_INFO);
  declare(builder, 'receive_queue', RECEIVE_QUEUE);
  declare(builder, 'send_queue', SEND_QUEUE);
  declare(builder, 'sk_buff', SK_BUFF);
  declare(builder, 'skb_shared_info', SKB_SHARED_INFO);
  declare(builder, 'xdp_frame', XDP_FRAME);
}

function declare(builder: BtfBuilder, name: string, layout: StructLayout<string>): void {
  declareLayout(builder, name, layout, TYPES.get(name));
}
