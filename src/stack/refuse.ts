/**
 * How the receive functions of a protocol end: what they return, and a packet that they drop and count.
 *
 * Reference: NET_RX_* in include/linux/netdevice.h; the `drop:` and `csum_error:` ends of ip_rcv_core and
 * ip6_rcv_core.
 */
import type { KernelContext } from '../kernel/function.js';
import { dropSkb, skbNet, type DropReason, type StackHost } from './host.js';
import { count, type MibName } from './net.js';

export const NET_RX_SUCCESS = 0;
const NET_RX_DROP = 1;

/** Counts, where there is a counter, and drops; `where` is the function that a tracer of drops would name. */
export type Refuse = (
  kernel: KernelContext,
  skb: number,
  counter: MibName | undefined,
  reason: DropReason,
  where: string,
) => number;

/** Gives NET_RX_DROP. */
export function refuseOn(host: StackHost): Refuse {
  return (kernel, skb, counter, reason, where) => {
    if (counter) count(kernel.memory.ram, skbNet(kernel, skb), counter);
    dropSkb(kernel, host, skb, reason, where);
    return NET_RX_DROP;
  };
}
