/**
 * Redirects to devices: per-CPU bulk queues of frames, sent 16 at a time, with a program on the way out.
 *
 * Reference: kernel/bpf/devmap.c of 6.12 (__xdp_enqueue, bq_enqueue, bq_xmit_all, __dev_flush,
 * dev_map_enqueue, dev_map_enqueue_multi, dev_map_bpf_prog_run). A queue takes the receiving device and the
 * program of its first frame for all that are in it. Leaves out upper devices (bonding) in the exclusion of
 * the ingress, and notification of unregistered devices.
 *
 * | refused because                                    | errno       |
 * | the device takes no frames (NDO_XMIT)              | -EOPNOTSUPP |
 * | it takes no frames in several buffers              | -EOPNOTSUPP |
 * | broadcast of a frame in several buffers            | -EOPNOTSUPP |
 * | it is down                                         | -ENETDOWN   |
 * | the frame is longer than mtu + header + VLAN tag   | -EMSGSIZE   |
 * | a copy for a broadcast does not fit a page         | -ENOMEM     |
 */
import { ERRNO } from '../common/errno.js';
import { struct } from '../common/struct.js';
import type { Ram } from '../cpu/ram.js';
import { isRedirectMap } from '../bpf/maps/map.js';
import { XDP_BUFF, XDP_RXQ_INFO } from '../bpf/xdp-buff.js';
import { atomic, type KernelContext, type KernelFunction } from '../kernel/function.js';
import {
  DEV_MAP_BULK_SIZE,
  IFF_UP,
  NETDEV_XDP_ACT,
  NET_DEVICE,
  XDP_DEV_BULK_QUEUE,
} from './net-device.js';
import { NET_CONTEXT } from './net-context.js';
import type { NetStack } from './net-stack.js';
import { ETH_HLEN } from './skb-geometry.js';
import {
  cloneFrame,
  frameHasFrags,
  frameLength,
  frameToXdpBuff,
  returnFrame,
  updateFrame,
} from './xdp-frame.js';
import { XDP_ABORTED, XDP_PASS } from './xdp-verdict.js';

const VLAN_HLEN = 4;
const XDP_XMIT_FLUSH = 1;

/** What an entry of a devmap points to. */
export const BPF_DTAB_NETDEV = struct({ dev: 'u64', xdp_prog: 'u64' });

const BQ = XDP_DEV_BULK_QUEUE.offset;
const DTAB = BPF_DTAB_NETDEV.offset;
const DEV = NET_DEVICE.offset;

/** `__dev_map_alloc_node`: the kernel's object behind an entry. */
export function createDtabNetdev({ kernel }: NetStack, dev: number, prog: number): number {
  const { ram } = kernel.memory;
  const dst = kernel.physical.alloc(BPF_DTAB_NETDEV.size);
  ram.setPointer(dst + DTAB.dev, dev);
  ram.setPointer(dst + DTAB.xdp_prog, prog);
  return dst;
}

/** Why a device does not take a frame: a negative errno, or 0. */
function refuses(ram: Ram, dev: number, frame: number): number {
  const features = ram.u32(dev + DEV.xdp_features);
  if ((features & NETDEV_XDP_ACT.NDO_XMIT) === 0) return -ERRNO.EOPNOTSUPP;
  if ((features & NETDEV_XDP_ACT.NDO_XMIT_SG) === 0 && frameHasFrags(ram, frame)) {
    return -ERRNO.EOPNOTSUPP;
  }
  return deviceForwards(ram, dev, frameLength(ram, frame));
}

/** `xdp_ok_fwd_dev`: 0, -ENETDOWN or -EMSGSIZE. */
export function deviceForwards(ram: Ram, dev: number, length: number): number {
  if ((ram.u32(dev + DEV.flags) & IFF_UP) === 0) return -ERRNO.ENETDOWN;
  return length > ram.u32(dev + DEV.mtu) + ETH_HLEN + VLAN_HLEN ? -ERRNO.EMSGSIZE : 0;
}

export function devmapFunctions(stack: NetStack): readonly KernelFunction[] {
  function xmitAll(kernel: KernelContext, bq: number, flags: number): void {
    const { ram } = kernel.memory;
    const count = ram.u32(bq + BQ.count);
    if (count === 0) return;
    const dev = ram.pointer(bq + BQ.dev);
    const from = ram.pointer(bq + BQ.dev_rx);
    const prog = ram.pointer(bq + BQ.xdp_prog);
    const toSend =
      prog === 0 ? count : kernel.invoke('dev_map_bpf_prog_run', prog, bq + BQ.q, count, dev, from);
    let sent = 0;
    if (toSend > 0) {
      const op = stack.devices.ops(dev).ndo_xdp_xmit;
      sent = op ? kernel.invoke(op, dev, toSend, bq + BQ.q, flags) : -ERRNO.EOPNOTSUPP;
    }
    const err = Math.min(sent, 0);
    sent = Math.max(sent, 0);
    for (let i = sent; i < toSend; i++) {
      returnFrame(kernel, stack.pages, ram.pointer(bq + BQ.q + 8 * i));
    }
    ram.set32(bq + BQ.count, 0);
    if (stack.events) {
      const [fromIndex, to] = [ram.u32(from + DEV.ifindex), ram.u32(dev + DEV.ifindex)];
      stack.trace({ name: 'xdp_devmap_xmit', from: fromIndex, to, sent, drops: count - sent, err });
    }
  }

  function enqueueInto(
    kernel: KernelContext,
    dev: number,
    frame: number,
    from: number,
    prog: number,
  ): void {
    const { ram } = kernel.memory;
    const bq = ram.pointer(dev + DEV.xdp_bulkq) + kernel.currentCpu * XDP_DEV_BULK_QUEUE.size;
    if (ram.u32(bq + BQ.count) === DEV_MAP_BULK_SIZE) xmitAll(kernel, bq, 0);
    if (ram.pointer(bq + BQ.dev_rx) === 0) {
      ram.setPointer(bq + BQ.dev_rx, from);
      ram.setPointer(bq + BQ.xdp_prog, prog);
      const list = stack.context + NET_CONTEXT.dev_map_flush_list;
      ram.setPointer(bq + BQ.flush_node, ram.pointer(list));
      ram.setPointer(list, bq);
    }
    const count = ram.u32(bq + BQ.count);
    ram.setPointer(bq + BQ.q + 8 * count, frame);
    ram.set32(bq + BQ.count, count + 1);
  }

  function enqueue(
    kernel: KernelContext,
    dev: number,
    frame: number,
    from: number,
    prog: number,
  ): number {
    const refused = refuses(kernel.memory.ram, dev, frame);
    if (refused === 0) enqueueInto(kernel, dev, frame, from, prog);
    return refused;
  }

  function enqueueMulti(
    kernel: KernelContext,
    frame: number,
    from: number,
    map: number,
    excludeIngress: number,
  ): number {
    const { ram } = kernel.memory;
    if (frameHasFrags(ram, frame)) return -ERRNO.EOPNOTSUPP;
    let last = 0;
    for (const dst of targetsOf(stack, ram.physToVirt(map))) {
      const dev = ram.pointer(dst + DTAB.dev);
      if (refuses(ram, dev, frame) !== 0) continue;
      if (excludeIngress !== 0 && dev === from) continue;
      if (last !== 0) {
        const clone = cloneFrame(kernel, stack.pages, frame);
        if (clone === 0) return -ERRNO.ENOMEM;
        const prog = ram.pointer(last + DTAB.xdp_prog);
        enqueueInto(kernel, ram.pointer(last + DTAB.dev), clone, from, prog);
      }
      last = dst;
    }
    if (last === 0) returnFrame(kernel, stack.pages, frame);
    else {
      const prog = ram.pointer(last + DTAB.xdp_prog);
      enqueueInto(kernel, ram.pointer(last + DTAB.dev), frame, from, prog);
    }
    return 0;
  }

  function runProgram(
    kernel: KernelContext,
    prog: number,
    frames: number,
    count: number,
    dev: number,
    from: number,
  ): number {
    const { ram } = kernel.memory;
    const { context } = stack;
    const xdp = context + NET_CONTEXT.scratch_xdp;
    const rxq = context + NET_CONTEXT.scratch_rxq;
    ram.zero(rxq, XDP_RXQ_INFO.size);
    ram.setPointer(rxq + XDP_RXQ_INFO.dev, from);
    ram.setPointer(context + NET_CONTEXT.scratch_txq, dev);
    let kept = 0;
    for (let i = 0; i < count; i++) {
      const frame = ram.pointer(frames + 8 * i);
      frameToXdpBuff(ram, frame, xdp);
      ram.setPointer(xdp + XDP_BUFF.rxq, rxq);
      ram.setPointer(xdp + XDP_BUFF.txq, context + NET_CONTEXT.scratch_txq);
      const action = stack.runXdp(prog, xdp);
      if (action === XDP_PASS && updateFrame(ram, frame, xdp)) {
        ram.setPointer(frames + 8 * kept++, frame);
        continue;
      }
      if (action > XDP_PASS) kernel.invoke('bpf_warn_invalid_xdp_action', dev, prog, action);
      if (action === XDP_ABORTED || action > XDP_PASS) {
        stack.trace({ name: 'xdp_exception', ifindex: ram.u32(dev + DEV.ifindex), action });
      }
      returnFrame(kernel, stack.pages, frame);
    }
    return kept;
  }

  return [
    atomic({
      prototype:
        'int dev_xdp_enqueue(struct net_device *dev, struct xdp_frame *xdpf, ' +
        'struct net_device *dev_rx)',
      calls: true,
      body: (kernel, dev, frame, from) => enqueue(kernel, dev, frame, from, 0),
    }),
    atomic({
      prototype:
        'int dev_map_enqueue(struct bpf_dtab_netdev *dst, struct xdp_frame *xdpf, ' +
        'struct net_device *dev_rx)',
      calls: true,
      body: (kernel, dst, frame, from) => {
        const { ram } = kernel.memory;
        const prog = ram.pointer(dst + DTAB.xdp_prog);
        return enqueue(kernel, ram.pointer(dst + DTAB.dev), frame, from, prog);
      },
    }),
    atomic({
      prototype:
        'int dev_map_enqueue_multi(struct xdp_frame *xdpf, struct net_device *dev_rx, ' +
        'struct bpf_map *map, bool exclude_ingress)',
      calls: true,
      body: enqueueMulti,
    }),
    atomic({
      prototype:
        'int dev_map_bpf_prog_run(struct bpf_prog *xdp_prog, struct xdp_frame **frames, int n, ' +
        'struct net_device *tx_dev, struct net_device *rx_dev)',
      calls: true,
      body: runProgram,
    }),
    atomic({
      prototype: 'void bq_xmit_all(struct xdp_dev_bulk_queue *bq, u32 flags)',
      calls: true,
      body: xmitAll,
    }),
    atomic({
      prototype: 'void __dev_flush(struct list_head *flush_list)',
      calls: true,
      body: (kernel, list) => {
        const { ram } = kernel.memory;
        for (let bq = ram.pointer(list); bq !== 0;) {
          const next = ram.pointer(bq + BQ.flush_node);
          kernel.invoke('bq_xmit_all', bq, XDP_XMIT_FLUSH);
          ram.setPointer(bq + BQ.dev_rx, 0);
          ram.setPointer(bq + BQ.xdp_prog, 0);
          ram.setPointer(bq + BQ.flush_node, 0);
          bq = next;
        }
        ram.setPointer(list, 0);
      },
    }),
  ];
}

/** The kernel's objects behind all entries of the map at `address`. */
export function targetsOf(stack: NetStack, address: bigint): Iterable<number> {
  const map = stack.bpf?.mapAt(address);
  return map && isRedirectMap(map) ? map.targets() : [];
}
