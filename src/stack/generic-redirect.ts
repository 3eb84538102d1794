/**
 * Redirecting skbs: what generic XDP does where native XDP has frames.
 *
 * Reference: kernel/bpf/devmap.c (dev_map_generic_redirect, dev_map_redirect_multi, dev_map_bpf_prog_run_skb),
 * generic_xdp_tx of net/core/dev.c, skb_clone of net/core/skbuff.c; 6.12. An skb's data begins at the Ethernet
 * header. There is no bulk queue: each skb is sent at once, behind the program of the devmap's entry, which may
 * only pass or drop it. A clone here has a copy of the data, so that nothing has to be unshared.
 *
 * Usage:
 *   kernel.invoke('dev_map_generic_redirect', dst, skb, prog);   // 0: the skb is gone
 */
import { SKB_SHARED_INFO_SIZE, XDP_BUFF } from '../bpf/xdp-buff.js';
import { atomic, type KernelContext, type KernelFunction } from '../kernel/function.js';
import { BPF_DTAB_NETDEV, deviceForwards, targetsOf } from './devmap.js';
import { NET_CONTEXT } from './net-context.js';
import { NET_DEVICE } from './net-device.js';
import type { NetStack } from './net-stack.js';
import { ETH_HLEN, skbDataAlign } from './skb-geometry.js';
import {
  SK_BUFF,
  allocSkbHead,
  freeSkb,
  skbCopyBits,
  skbHeadroom,
  skbPull,
  skbPush,
  skbPut,
} from './skb.js';
import { XDP_ABORTED, XDP_DROP, XDP_PASS } from './xdp-verdict.js';

const NETDEV_TX_BUSY = 16;
const SKB = SK_BUFF.offset;
const DEV = NET_DEVICE.offset;
const DTAB = BPF_DTAB_NETDEV.offset;
/** What a clone takes over: where its memory lies it has of its own. */
const CLONED = [
  'mac_header',
  'network_header',
  'transport_header',
  'protocol',
  'queue_mapping',
  'csum_start',
  'csum_offset',
] as const;

export function genericRedirectFunctions(stack: NetStack): readonly KernelFunction[] {
  /** Sends to the skb's device, which takes it or has it freed. */
  function genericXdpTx(kernel: KernelContext, skb: number): void {
    const dev = kernel.memory.ram.pointer(skb + SKB.dev);
    const op = stack.devices.ops(dev).ndo_start_xmit;
    const taken = op !== undefined && kernel.invoke(op, skb, dev) !== NETDEV_TX_BUSY;
    if (!taken) freeSkb(kernel, stack.pages, skb);
  }

  /** `dev_map_bpf_prog_run_skb`: whether the skb is still there. */
  function passes(kernel: KernelContext, dst: number, skb: number): boolean {
    const { ram } = kernel.memory;
    const prog = ram.pointer(dst + DTAB.xdp_prog);
    if (prog === 0) return true;
    const dev = ram.pointer(dst + DTAB.dev);
    const xdp = stack.context + NET_CONTEXT.scratch_xdp;
    const txq = stack.context + NET_CONTEXT.scratch_txq;
    ram.setPointer(txq, dev);
    ram.setPointer(xdp + XDP_BUFF.txq, txq);
    skbPull(ram, skb, ETH_HLEN);
    const action = kernel.invoke('bpf_prog_run_generic_xdp', skb, xdp, prog);
    if (action === XDP_PASS) {
      skbPush(ram, skb, ETH_HLEN);
      return true;
    }
    if (action > XDP_PASS) kernel.invoke('bpf_warn_invalid_xdp_action', dev, prog, action);
    if (action === XDP_ABORTED || action > XDP_DROP) {
      stack.trace({ name: 'xdp_exception', ifindex: ram.u32(dev + DEV.ifindex), action });
    }
    freeSkb(kernel, stack.pages, skb);
    return false;
  }

  function redirect(kernel: KernelContext, dst: number, skb: number, prog: number): number {
    const { ram } = kernel.memory;
    const dev = ram.pointer(dst + DTAB.dev);
    const refused = deviceForwards(ram, dev, ram.u32(skb + SKB.len));
    if (refused !== 0) return refused;
    if (!passes(kernel, dst, skb)) return 0;
    ram.setPointer(skb + SKB.dev, dev);
    kernel.invoke('generic_xdp_tx', skb, prog);
    return 0;
  }

  function redirectMulti(
    kernel: KernelContext,
    from: number,
    skb: number,
    prog: number,
    map: number,
    excludeIngress: number,
  ): number {
    const { ram } = kernel.memory;
    let last = 0;
    for (const dst of targetsOf(stack, ram.physToVirt(map))) {
      const dev = ram.pointer(dst + DTAB.dev);
      if (deviceForwards(ram, dev, ram.u32(skb + SKB.len)) !== 0) continue;
      if (excludeIngress !== 0 && dev === from) continue;
      if (last !== 0) {
        const clone = kernel.invoke('skb_clone', skb, 0);
        kernel.invoke('dev_map_generic_redirect', last, clone, prog);
      }
      last = dst;
    }
    if (last !== 0) return kernel.invoke('dev_map_generic_redirect', last, skb, prog);
    freeSkb(kernel, stack.pages, skb);
    return 0;
  }

  return [
    atomic({
      prototype: 'void generic_xdp_tx(struct sk_buff *skb, const struct bpf_prog *xdp_prog)',
      calls: true,
      body: genericXdpTx,
    }),
    atomic({
      prototype:
        'int dev_map_generic_redirect(struct bpf_dtab_netdev *dst, struct sk_buff *skb, ' +
        'const struct bpf_prog *xdp_prog)',
      calls: true,
      body: redirect,
    }),
    atomic({
      prototype:
        'int dev_map_redirect_multi(struct net_device *dev, struct sk_buff *skb, ' +
        'const struct bpf_prog *xdp_prog, struct bpf_map *map, bool exclude_ingress)',
      calls: true,
      body: redirectMulti,
    }),
    atomic({
      prototype: 'struct sk_buff *skb_clone(struct sk_buff *skb, gfp_t gfp_mask)',
      body: cloneSkb,
    }),
  ];
}

/** `skb_clone`: all bytes in one piece. */
function cloneSkb(kernel: KernelContext, skb: number): number {
  const { ram } = kernel.memory;
  const length = ram.u32(skb + SKB.len);
  const headroom = skbHeadroom(ram, skb);
  const end = skbDataAlign(Math.max(ram.u32(skb + SKB.end), headroom + length));
  const clone = allocSkbHead(kernel, end + SKB_SHARED_INFO_SIZE, headroom);
  skbCopyBits(ram, skb, 0, skbPut(kernel, clone, length), length);
  for (const field of CLONED) ram.set16(clone + SKB[field], ram.u16(skb + SKB[field]));
  for (const field of ['ip_summed', 'pkt_type'] as const) {
    ram.set8(clone + SKB[field], ram.u8(skb + SKB[field]));
  }
  ram.setPointer(clone + SKB.dev, ram.pointer(skb + SKB.dev));
  return clone;
}
