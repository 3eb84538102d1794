/**
 * Attaching an XDP program to a virtio-net device: what is refused, and in which order things change.
 *
 * Reference: drivers/net/virtio_net.c (virtnet_xdp_set). Buffers already posted stay as they are: frames
 * that arrive in them are copied into a page with headroom. A device in big mode takes a program and never
 * runs it. Leaves out NAPI being stopped meanwhile: nothing else runs here.
 *
 *   attach:  queue pairs + one per CPU, if there are so many  ->  xdp_enabled, programs set  ->  on the first
 *            attach, guest offloads off
 *   detach:  programs gone, guest offloads as before          ->  queue pairs back  ->  xdp_enabled off
 *   queue-pair command refused: a detach puts programs back and offloads off, and the caller gets -EINVAL
 */
import { ERRNO } from '../../common/errno.js';
import { atomic, type KernelContext, type KernelFunction } from '../../kernel/function.js';
import { IFF_UP, NETDEV_XDP_ACT, NET_DEVICE } from '../../stack/net-device.js';
import { BPF_PROG } from '../../stack/xdp-program.js';
import type { VirtioNetFeature } from '../net-features.js';
import { napiSchedule, negotiated, netdevLog, receiveQueue, sendQueue } from './common.js';
import { usesNapi } from './transmit-napi.js';
import { keepsGuestChecksum } from './offloads.js';
import { profileOf } from './profiles.js';
import { NETLINK_EXT_ACK, RECEIVE_QUEUE, SEND_QUEUE, VIRTNET_INFO } from './structs.js';

const DEV = NET_DEVICE.offset;
const RQ = RECEIVE_QUEUE.offset;
const SQ = SEND_QUEUE.offset;
const VI = VIRTNET_INFO.offset;

/** What a host may do to frames that a program cannot take, unless it can be told to stop. */
const HOST_OFFLOADS: readonly VirtioNetFeature[] = [
  'GUEST_TSO4',
  'GUEST_TSO6',
  'GUEST_ECN',
  'GUEST_UFO',
  'GUEST_CSUM',
  'GUEST_USO4',
  'GUEST_USO6',
];

/** While a program is attached there are queues for frames of other devices. */
const TAKES_FRAMES = NETDEV_XDP_ACT.NDO_XMIT | NETDEV_XDP_ACT.NDO_XMIT_SG;

function virtnetXdpSet(kernel: KernelContext, dev: number, prog: number, extack: number): number {
  const { ram } = kernel.memory;
  const vi = ram.pointer(dev + DEV.priv);
  const refusal = refuse(kernel, dev, vi, prog);
  if (refusal) {
    if (extack !== 0) writeExtack(kernel, extack, `virtio_net: ${refusal.why}`);
    if (refusal.log !== undefined) netdevLog(kernel, dev, refusal.log);
    return -ERRNO[refusal.errno];
  }
  const pairs = ram.u16(vi + VI.curr_queue_pairs) - ram.u16(vi + VI.xdp_queue_pairs);
  const most = ram.u16(vi + VI.max_queue_pairs);
  let xdpPairs = prog === 0 ? 0 : ram.u32(vi + VI.nr_cpu_ids);
  if (pairs + xdpPairs > most) {
    if (ram.u8(vi + VI.warned_queues) === 0) {
      ram.set8(vi + VI.warned_queues, 1);
      netdevLog(
        kernel,
        dev,
        `XDP request ${pairs + xdpPairs} queues but max is ${most}. ` +
          'XDP_TX and XDP_REDIRECT will operate in a slower locked tx mode.',
      );
    }
    xdpPairs = 0;
  }
  const attached = ram.pointer(receiveQueue(ram, vi, 0) + RQ.xdp_prog);
  if (prog === 0 && attached === 0) return 0;

  const setProgram = (program: number): void => {
    for (let i = 0; i < most; i++) ram.setPointer(receiveQueue(ram, vi, i) + RQ.xdp_prog, program);
  };
  if (prog === 0) {
    setProgram(0);
    kernel.invoke('virtnet_restore_guest_offloads', vi);
  }
  const result = kernel.invoke('virtnet_set_queues', vi, pairs + xdpPairs);
  if (result === 0) {
    ram.set16(vi + VI.xdp_queue_pairs, xdpPairs);
    ram.set8(vi + VI.xdp_enabled, prog === 0 ? 0 : 1);
    // xdp_features_set_redirect_target, xdp_features_clear_redirect_target
    const others = ram.u32(dev + DEV.xdp_features) & ~TAKES_FRAMES;
    ram.set32(dev + DEV.xdp_features, others | (prog === 0 ? 0 : TAKES_FRAMES));
    if (prog !== 0) {
      setProgram(prog);
      if (attached === 0) kernel.invoke('virtnet_clear_guest_offloads', vi);
    }
  } else if (prog === 0) {
    kernel.invoke('virtnet_clear_guest_offloads', vi);
    setProgram(attached);
  }
  if ((ram.u32(dev + DEV.flags) & IFF_UP) !== 0) {
    // virtnet_napi_enable: what came in meanwhile is not lost
    for (let i = 0; i < most; i++) {
      const rq = receiveQueue(ram, vi, i);
      napiSchedule(kernel, rq + RQ.napi, ram.pointer(rq + RQ.vq));
      const sq = sendQueue(ram, vi, i);
      if (usesNapi(kernel, sq)) napiSchedule(kernel, sq + SQ.napi, ram.pointer(sq + SQ.vq));
    }
  }
  return result;
}

interface Refusal {
  readonly errno: 'EOPNOTSUPP' | 'EINVAL';
  readonly why: string;
  readonly log?: string;
}

function refuse(kernel: KernelContext, dev: number, vi: number, prog: number): Refusal | undefined {
  const { ram } = kernel.memory;
  const blocking = HOST_OFFLOADS.some(
    (feature) =>
      negotiated(ram, vi, feature) && !(feature === 'GUEST_CSUM' && keepsGuestChecksum(ram, vi)),
  );
  if (blocking && !negotiated(ram, vi, 'CTRL_GUEST_OFFLOADS')) {
    return {
      errno: 'EOPNOTSUPP',
      why: "Can't set XDP while host is implementing GRO_HW/CSUM, disable GRO_HW/CSUM first",
    };
  }
  if (ram.u8(vi + VI.mergeable_rx_bufs) !== 0 && ram.u8(vi + VI.any_header_sg) === 0) {
    return {
      errno: 'EINVAL',
      why: 'XDP expects header/data in single page, any_header_sg required',
    };
  }
  const { xdpFrags, xdpMaximumMtu, mtuRefusal } = profileOf(ram, vi);
  if (prog === 0 || ram.u32(dev + DEV.mtu) <= xdpMaximumMtu) return undefined;
  if (xdpFrags && ram.u32(prog + BPF_PROG.offset.xdp_has_frags) !== 0) return undefined;
  return { errno: 'EINVAL', why: mtuRefusal.extack, log: `${mtuRefusal.log} ${xdpMaximumMtu}` };
}

function writeExtack(kernel: KernelContext, extack: number, why: string): void {
  const { ram } = kernel.memory;
  ram.zero(extack, NETLINK_EXT_ACK.size);
  ram.bytes.set(new TextEncoder().encode(why).subarray(0, NETLINK_EXT_ACK.size - 1), extack);
}

export const attachFunctions: readonly KernelFunction[] = [
  atomic({
    prototype:
      'int virtnet_xdp_set(struct net_device *dev, struct bpf_prog *prog, ' +
      'struct netlink_ext_ack *extack)',
    calls: true,
    body: virtnetXdpSet,
  }),
];
