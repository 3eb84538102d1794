/**
 * What the stack tells to the outside: tracepoints, and the engine of a generic XDP program.
 *
 * Reference: tracepoints skb:kfree_skb, net:net_dev_start_xmit, net:napi_gro_receive_entry,
 * xdp:xdp_exception. Reasons are the names of enum skb_drop_reason without their prefix.
 */
import type { KernelContext } from '../kernel/function.js';
import { NET_DEVICE } from './net-device.js';
import { NET } from './net.js';
import { SK_BUFF, freeSkb } from './skb.js';

/** Why an skb went no further (`enum skb_drop_reason`). */
export const DROP_REASONS = [
  'NOT_SPECIFIED',
  'NO_SOCKET',
  'PKT_TOO_SMALL',
  'TCP_CSUM',
  'UDP_CSUM',
  'OTHERHOST',
  'IP_CSUM',
  'IP_INHDR',
  'IP_NOPROTO',
  'IP_INADDRERRORS',
  'IPV6_BAD_EXTHDR',
  'PKT_TOO_BIG',
  'UNHANDLED_PROTO',
  'FRAG_REASM_TIMEOUT',
  'IP_OUTNOROUTES',
  'SKB_CSUM',
  'SKB_GSO_SEG',
  'NOMEM',
] as const;

export type DropReason = (typeof DROP_REASONS)[number];

export interface StackHost {
  /** The verdict of a program on the xdp_buff at a physical address. */
  runXdp(kernel: KernelContext, prog: number, xdp: number): number;
  /** skb:kfree_skb: an skb is dropped, why and in which function. */
  kfreeSkb(skb: number, reason: DropReason, location: string): void;
  /** net:net_dev_start_xmit: an skb is handed to a driver. */
  netDevStartXmit(skb: number, dev: number): void;
  /** net:napi_gro_receive_entry: an skb enters the stack. */
  napiGroReceiveEntry(skb: number): void;
  /** xdp:xdp_exception. */
  xdpException(dev: number, prog: number, action: number): void;
}

/** The table of page chunks that an skb's memory is counted in. */
export function skbPages(kernel: KernelContext, skb: number): number {
  const { ram } = kernel.memory;
  const dev = ram.pointer(skb + SK_BUFF.offset.dev);
  return ram.pointer(ram.pointer(dev + NET_DEVICE.offset.nd_net) + NET.offset.pages);
}

/** `struct net` of an skb's device. */
export function skbNet(kernel: KernelContext, skb: number): number {
  const { ram } = kernel.memory;
  return ram.pointer(ram.pointer(skb + SK_BUFF.offset.dev) + NET_DEVICE.offset.nd_net);
}

/** `kfree_skb_reason`. */
export function dropSkb(
  kernel: KernelContext,
  host: StackHost,
  skb: number,
  reason: DropReason,
  location: string,
): void {
  host.kfreeSkb(skb, reason, location);
  kernel.invoke('kfree_skb_reason', skb, DROP_REASONS.indexOf(reason));
}

/** `consume_skb`: an skb is done with. */
export function consumeSkb(kernel: KernelContext, skb: number): void {
  freeSkb(kernel, skbPages(kernel, skb), skb);
}
