/**
 * Attaching an XDP program to a virtio-net device: what is refused, and in which order things change.
 *
 * Reference: drivers/net/virtio_net.c of 6.12 (virtnet_xdp_set). Buffers already posted stay as they are:
 * frames that arrive in them are copied into a page with headroom. Leaves out the control queue: the
 * number of queue pairs is told to the device directly, and there are no guest offloads to clear.
 */
import { ERRNO } from '../../common/errno.js';
import { atomic, type KernelContext, type KernelFunction } from '../../kernel/function.js';
import { xdpMaximumMtu } from './geometry.js';
import { DEV, RQ, VI, napiSchedule, receiveQueue, type VirtioNetHost } from './common.js';
import { NETDEV_XDP_ACT } from '../../stack/net-device.js';
import { BPF_PROG } from '../../stack/xdp-program.js';
import { NETLINK_EXT_ACK } from './structs.js';

/** Feature bits by name: those that this driver and device know. */
export const VIRTIO_NET_FEATURES = {
  GUEST_CSUM: 1n << 1n,
  CTRL_GUEST_OFFLOADS: 1n << 2n,
  GUEST_TSO4: 1n << 7n,
  GUEST_TSO6: 1n << 8n,
  GUEST_ECN: 1n << 9n,
  GUEST_UFO: 1n << 10n,
  MRG_RXBUF: 1n << 15n,
  INDIRECT_DESC: 1n << 28n,
  EVENT_IDX: 1n << 29n,
  VERSION_1: 1n << 32n,
  GUEST_USO4: 1n << 54n,
  GUEST_USO6: 1n << 55n,
} as const;

export type VirtioNetFeature = keyof typeof VIRTIO_NET_FEATURES;

/** While a program is attached there are queues for frames of other devices. */
const TAKES_FRAMES = NETDEV_XDP_ACT.NDO_XMIT | NETDEV_XDP_ACT.NDO_XMIT_SG;

const F = VIRTIO_NET_FEATURES;
const GUEST_OFFLOADS =
  F.GUEST_CSUM |
  F.GUEST_TSO4 |
  F.GUEST_TSO6 |
  F.GUEST_ECN |
  F.GUEST_UFO |
  F.GUEST_USO4 |
  F.GUEST_USO6;

export function attachFunctions(host: VirtioNetHost): readonly KernelFunction[] {
  function virtnetXdpSet(kernel: KernelContext, dev: number, prog: number, extack: number): number {
    const { ram } = kernel.memory;
    const vi = ram.pointer(dev + DEV.priv);
    const refusal = refuse(kernel, dev, vi, prog);
    if (refusal) {
      if (extack !== 0) writeExtack(kernel, extack, refusal.why);
      return -ERRNO[refusal.errno];
    }
    const attached = ram.pointer(receiveQueue(ram, vi, 0) + RQ.xdp_prog);
    if (prog === 0 && attached === 0) return 0;

    const pairs = ram.u16(vi + VI.curr_queue_pairs) - ram.u16(vi + VI.xdp_queue_pairs);
    const most = ram.u16(vi + VI.max_queue_pairs);
    let xdpPairs = prog === 0 ? 0 : ram.u32(vi + VI.nr_cpu_ids);
    if (pairs + xdpPairs > most) {
      if (ram.u8(vi + VI.warned_queues) === 0) {
        ram.set8(vi + VI.warned_queues, 1);
        kernel.printk(
          `virtio_net: XDP requests ${pairs + xdpPairs} queue pairs but there are ${most}: ` +
            'XDP_TX and XDP_REDIRECT share locked transmit queues',
        );
      }
      xdpPairs = 0;
    }

    const setProgram = (): void => {
      for (let i = 0; i < most; i++) ram.setPointer(receiveQueue(ram, vi, i) + RQ.xdp_prog, prog);
    };
    if (prog === 0) setProgram();
    host.setQueuePairs(vi, pairs + xdpPairs);
    ram.set16(vi + VI.curr_queue_pairs, pairs + xdpPairs);
    ram.set16(vi + VI.xdp_queue_pairs, xdpPairs);
    ram.set8(vi + VI.xdp_enabled, prog === 0 ? 0 : 1);
    // xdp_features_set_redirect_target, xdp_features_clear_redirect_target
    const others = ram.u32(dev + DEV.xdp_features) & ~TAKES_FRAMES;
    ram.set32(dev + DEV.xdp_features, others | (prog === 0 ? 0 : TAKES_FRAMES));
    if (prog !== 0) setProgram();
    for (let i = 0; i < most; i++) napiSchedule(kernel, receiveQueue(ram, vi, i));
    return 0;
  }

  return [
    atomic({
      prototype:
        'int virtnet_xdp_set(struct net_device *dev, struct bpf_prog *prog, ' +
        'struct netlink_ext_ack *extack)',
      calls: true,
      body: virtnetXdpSet,
    }),
  ];
}

interface Refusal {
  readonly errno: 'EOPNOTSUPP' | 'EINVAL';
  readonly why: string;
}

function refuse(kernel: KernelContext, dev: number, vi: number, prog: number): Refusal | undefined {
  const { ram } = kernel.memory;
  const features = ram.u64(vi + VI.features);
  if ((features & F.CTRL_GUEST_OFFLOADS) === 0n && (features & GUEST_OFFLOADS) !== 0n) {
    return {
      errno: 'EOPNOTSUPP',
      why: "Can't set XDP while host is implementing GRO_HW/CSUM, disable GRO_HW/CSUM first",
    };
  }
  const mergeable = ram.u8(vi + VI.mergeable_rx_bufs) !== 0;
  if (mergeable && ram.u8(vi + VI.any_header_sg) === 0) {
    return {
      errno: 'EINVAL',
      why: 'XDP expects header/data in single page, any_header_sg required',
    };
  }
  if (prog === 0 || ram.u32(prog + BPF_PROG.offset.xdp_has_frags) !== 0) return undefined;
  if (ram.u32(dev + DEV.mtu) <= xdpMaximumMtu()) return undefined;
  return { errno: 'EINVAL', why: 'MTU too large to enable XDP without frags' };
}

function writeExtack(kernel: KernelContext, extack: number, why: string): void {
  const { ram } = kernel.memory;
  ram.zero(extack, NETLINK_EXT_ACK.size);
  ram.bytes.set(new TextEncoder().encode(why).subarray(0, NETLINK_EXT_ACK.size - 1), extack);
}
