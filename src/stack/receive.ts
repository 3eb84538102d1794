/**
 * Where skbs enter the stack, and its end here: a list per device from which the lab reads them.
 *
 * Reference: net/ethernet/eth.c (eth_type_trans), net/core/dev.c (netif_receive_skb_list). Leaves out
 * protocols: an skb stays in its device's list until `takeSink`.
 */
import type { Ram } from '../cpu/ram.js';
import { atomic, type KernelContext, type KernelFunction } from '../kernel/function.js';
import { NET_DEVICE } from './net-device.js';
import { ETH_HLEN } from './skb-geometry.js';
import { SK_BUFF, skbHeadroom, skbPull } from './skb.js';

const SKB = SK_BUFF.offset;
const DEV = NET_DEVICE.offset;
const PACKET = { HOST: 0, BROADCAST: 1, MULTICAST: 2, OTHERHOST: 3 } as const;
const ETH_P_802_3 = 1;
const ETH_P_802_2 = 4;
const ETH_P_802_3_MIN = 0x600;

/** Appends an skb to what its device received. */
export function sinkSkb(ram: Ram, dev: number, skb: number): void {
  const tail = ram.pointer(dev + DEV.sink_tail);
  ram.setPointer(skb + SKB.next, 0);
  ram.setPointer(tail === 0 ? dev + DEV.sink_head : tail + SKB.next, skb);
  ram.setPointer(dev + DEV.sink_tail, skb);
}

/** Takes all that a device received: the first skb, 0 for none. */
export function takeSink(ram: Ram, dev: number): number {
  const first = ram.pointer(dev + DEV.sink_head);
  ram.setPointer(dev + DEV.sink_head, 0);
  ram.setPointer(dev + DEV.sink_tail, 0);
  return first;
}

/** Returns the protocol in network order, as the `__be16` of the prototype has it. */
function ethTypeTrans(kernel: KernelContext, skb: number, dev: number): number {
  const { ram } = kernel.memory;
  const data = ram.pointer(skb + SKB.data);
  ram.setPointer(skb + SKB.dev, dev);
  ram.set16(skb + SKB.mac_header, skbHeadroom(ram, skb));
  skbPull(ram, skb, ETH_HLEN);
  // the destination address: four bytes and two
  const first = ram.u32(data);
  const rest = ram.u16(data + 4);
  const own = dev + DEV.dev_addr;
  let type: number = PACKET.HOST;
  if (first === 0xffffffff && rest === 0xffff) type = PACKET.BROADCAST;
  else if ((first & 1) !== 0) type = PACKET.MULTICAST;
  else if (first !== ram.u32(own) || rest !== ram.u16(own + 4)) type = PACKET.OTHERHOST;
  ram.set8(skb + SKB.pkt_type, type);

  let protocol = (ram.u8(data + 12) << 8) | ram.u8(data + 13);
  if (protocol < ETH_P_802_3_MIN) {
    const novell = ram.u32(skb + SKB.len) >= 2 && ram.u16(data + ETH_HLEN) === 0xffff;
    protocol = novell ? ETH_P_802_3 : ETH_P_802_2;
  }
  return ((protocol & 0xff) << 8) | (protocol >> 8);
}

/** A list of skbs of any devices, linked by `next`, behind a pointer. */
function netifReceiveSkbList(kernel: KernelContext, list: number): void {
  const { ram } = kernel.memory;
  for (let skb = ram.pointer(list); skb !== 0;) {
    const next = ram.pointer(skb + SKB.next);
    sinkSkb(ram, ram.pointer(skb + SKB.dev), skb);
    skb = next;
  }
  ram.setPointer(list, 0);
}

export const stackReceiveFunctions: readonly KernelFunction[] = [
  atomic({
    prototype: '__be16 eth_type_trans(struct sk_buff *skb, struct net_device *dev)',
    body: ethTypeTrans,
  }),
  atomic({
    prototype: 'void netif_receive_skb_list(struct list_head *head)',
    body: netifReceiveSkbList,
  }),
];
