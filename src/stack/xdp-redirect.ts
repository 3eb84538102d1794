/**
 * Carrying out what bpf_redirect and bpf_redirect_map asked for, and flushing what that queued.
 *
 * Reference: net/core/filter.c of 6.12 (xdp_do_redirect, xdp_do_generic_redirect, xdp_do_flush). The order of
 * a poll matters: xdp_do_flush comes before napi_complete_done, or another CPU may poll while this one's bulk
 * queues still hold frames. A generic redirect takes an skb whose data begins at the Ethernet header: see
 * `generic-redirect.ts`. 6.1 redirects frames of several buffers to cpumaps only (`xdp_as_6_1` of the device).
 *
 * | no redirect helper ran, or its map is of no such type | -EBADRQC   |
 * | no device with that ifindex                           | -EINVAL    |
 * | no room for the xdp_frame in front of the packet      | -EOVERFLOW |
 * | what the target says                                  | devmap.ts, cpumap.ts, xsk.ts |
 */
import {
  BPF_F_BROADCAST,
  BPF_F_EXCLUDE_INGRESS,
  BPF_REDIRECT_INFO,
  NO_MAP,
} from '../bpf/redirect-info.js';
import { BPF_MAP_TYPE } from '../bpf/maps/map.js';
import { ERRNO } from '../common/errno.js';
import type { Ram } from '../cpu/ram.js';
import { atomic, type KernelContext, type KernelFunction } from '../kernel/function.js';
import { BPF_DTAB_NETDEV, deviceForwards } from './devmap.js';
import { NET_DEVICE } from './net-device.js';
import { NET_CONTEXT } from './net-context.js';
import type { NetStack } from './net-stack.js';
import { SK_BUFF } from './skb.js';
import { xdpBuffHasFrags } from './xdp-frame.js';
import { convertBuffToFrame, dropConverted, releaseConverted } from './xsk-frame.js';

const INFO = BPF_REDIRECT_INFO.offset;
const SKB = SK_BUFF.offset;

/** What bpf_redirect_info said, taken out of it. */
interface Asked {
  mapType: number;
  mapId: number;
  flags: number;
  /** Physical address of the kernel's object behind the entry, or 0. */
  target: number;
  index: number;
}

export function redirectFunctions(stack: NetStack): readonly KernelFunction[] {
  // filled anew by each redirect, so that none makes an object
  const asked: Asked = { mapType: 0, mapId: 0, flags: 0, target: 0, index: 0 };

  /** Takes what was asked for; a second redirect finds nothing. */
  function take(kernel: KernelContext): Asked {
    const { ram } = kernel.memory;
    const info = stack.redirectInfo;
    asked.mapType = ram.u32(info + INFO.map_type);
    asked.mapId = ram.u32(info + INFO.map_id);
    asked.flags = ram.u32(info + INFO.flags);
    asked.target = ram.pointer(info + INFO.tgt_value);
    asked.index = ram.u32(info + INFO.tgt_index);
    ram.set32(info + INFO.map_id, 0);
    ram.set32(info + INFO.flags, 0);
    ram.set32(info + INFO.map_type, 0);
    return asked;
  }

  /** The map whose entries all get the packet. */
  function takeMap(ram: Ram): number {
    const at = stack.redirectInfo + INFO.map;
    const map = ram.pointer(at);
    ram.setPointer(at, 0);
    return map;
  }

  /** `__xdp_do_redirect_frame` and `__xdp_do_redirect_xsk`. */
  function carryOut(kernel: KernelContext, dev: number, xdp: number): number {
    const { ram } = kernel.memory;
    const { mapType, target } = asked;
    if (mapType === BPF_MAP_TYPE.XSKMAP) return kernel.invoke('__xsk_map_redirect', target, xdp);
    const frame = convertBuffToFrame(kernel, stack.pages, xdp);
    if (frame === 0) return -ERRNO.EOVERFLOW;
    const result = enqueue(kernel, dev, frame);
    if (result === 0) releaseConverted(ram, xdp);
    else dropConverted(kernel, stack.pages, xdp, frame);
    return result;
  }

  /** The frame goes to what was asked for. */
  function enqueue(kernel: KernelContext, dev: number, frame: number): number {
    const { ram } = kernel.memory;
    const { mapType, mapId, flags, target, index } = asked;
    switch (mapType) {
      case BPF_MAP_TYPE.DEVMAP:
      case BPF_MAP_TYPE.DEVMAP_HASH: {
        if ((flags & BPF_F_BROADCAST) === 0) {
          return kernel.invoke('dev_map_enqueue', target, frame, dev);
        }
        const exclude = (flags & BPF_F_EXCLUDE_INGRESS) === 0 ? 0 : 1;
        return kernel.invoke('dev_map_enqueue_multi', frame, dev, takeMap(ram), exclude);
      }
      case BPF_MAP_TYPE.CPUMAP:
        return kernel.invoke('cpu_map_enqueue', target, frame, dev);
      default: {
        if (mapId !== NO_MAP) return -ERRNO.EBADRQC;
        const to = stack.devices.byIndex(index);
        return to === 0 ? -ERRNO.EINVAL : kernel.invoke('dev_xdp_enqueue', to, frame, dev);
      }
    }
  }

  /** 6.1: what was asked for stays, and no tracepoint speaks. */
  function refusesFrags(kernel: KernelContext, xdp: number): boolean {
    const { ram } = kernel.memory;
    const mapType = ram.u32(stack.redirectInfo + INFO.map_type);
    return xdpBuffHasFrags(ram, xdp) && mapType !== BPF_MAP_TYPE.CPUMAP;
  }

  function trace(kernel: KernelContext, dev: number, err: number): void {
    if (!stack.events) return;
    const { ram } = kernel.memory;
    const { mapType, mapId, target, index } = asked;
    const inMap = mapType !== 0;
    const isDevmap = mapType === BPF_MAP_TYPE.DEVMAP || mapType === BPF_MAP_TYPE.DEVMAP_HASH;
    const toDev = isDevmap && target !== 0 ? ram.pointer(target + BPF_DTAB_NETDEV.offset.dev) : 0;
    stack.trace({
      name: err === 0 ? 'xdp_redirect' : 'xdp_redirect_err',
      ifindex: ram.u32(dev + NET_DEVICE.offset.ifindex),
      to: inMap ? toDev && ram.u32(toDev + NET_DEVICE.offset.ifindex) : index,
      mapId: inMap ? mapId : 0,
      mapIndex: inMap ? index : 0,
      err,
    });
  }

  /** The skb goes to the device that bpf_redirect named. */
  function send(kernel: KernelContext, skb: number, dev: number, prog: number): number {
    const { ram } = kernel.memory;
    const refused = deviceForwards(ram, dev, ram.u32(skb + SKB.len));
    if (refused !== 0) return refused;
    ram.setPointer(skb + SKB.dev, dev);
    kernel.invoke('generic_xdp_tx', skb, prog);
    return 0;
  }

  /** `xdp_do_generic_redirect_map`, and the device that bpf_redirect named. */
  function carryOutGeneric(
    kernel: KernelContext,
    dev: number,
    skb: number,
    xdp: number,
    prog: number,
  ): number {
    const { ram } = kernel.memory;
    const { mapType, mapId, flags, target, index } = asked;
    switch (mapType) {
      case BPF_MAP_TYPE.DEVMAP:
      case BPF_MAP_TYPE.DEVMAP_HASH: {
        if ((flags & BPF_F_BROADCAST) === 0) {
          return kernel.invoke('dev_map_generic_redirect', target, skb, prog);
        }
        const exclude = (flags & BPF_F_EXCLUDE_INGRESS) === 0 ? 0 : 1;
        return kernel.invoke('dev_map_redirect_multi', dev, skb, prog, takeMap(ram), exclude);
      }
      case BPF_MAP_TYPE.XSKMAP:
        return kernel.invoke('xsk_generic_rcv', target, xdp, skb);
      case BPF_MAP_TYPE.CPUMAP:
        return kernel.invoke('cpu_map_generic_redirect', target, skb);
      default: {
        if (mapType !== 0 || mapId !== NO_MAP) return -ERRNO.EBADRQC;
        const to = stack.devices.byIndex(index);
        return to === 0 ? -ERRNO.EINVAL : send(kernel, skb, to, prog);
      }
    }
  }

  return [
    atomic({
      prototype:
        'int xdp_do_redirect(struct net_device *dev, struct xdp_buff *xdp, ' +
        'const struct bpf_prog *xdp_prog)',
      calls: true,
      body: (kernel, dev, xdp) => {
        const isOld = kernel.memory.ram.u8(dev + NET_DEVICE.offset.xdp_as_6_1) !== 0;
        if (isOld && refusesFrags(kernel, xdp)) {
          return -ERRNO.EOPNOTSUPP;
        }
        take(kernel);
        const result = carryOut(kernel, dev, xdp);
        trace(kernel, dev, result);
        return result;
      },
    }),
    atomic({
      prototype:
        'int xdp_do_generic_redirect(struct net_device *dev, struct sk_buff *skb, ' +
        'struct xdp_buff *xdp, const struct bpf_prog *xdp_prog)',
      calls: true,
      body: (kernel, dev, skb, xdp, prog) => {
        take(kernel);
        const result = carryOutGeneric(kernel, dev, skb, xdp, prog);
        trace(kernel, dev, result);
        return result;
      },
    }),
    atomic({
      prototype: 'void xdp_do_flush(void)',
      calls: true,
      body: (kernel) => {
        const { ram } = kernel.memory;
        const { context } = stack;
        for (const [list, flush] of FLUSHES) {
          const head = context + NET_CONTEXT[list];
          if (ram.pointer(head) !== 0) kernel.invoke(flush, head);
        }
      },
    }),
  ];
}

/** In the order of `xdp_do_flush`. */
const FLUSHES = [
  ['dev_map_flush_list', '__dev_flush'],
  ['cpu_map_flush_list', '__cpu_map_flush'],
  ['xskmap_map_flush_list', '__xsk_map_flush'],
] as const;
