/**
 * Ethernet: what protocol a frame is and whom it is for; VLAN tags.
 *
 * Reference: net/ethernet/eth.c (eth_type_trans), net/core/skbuff.c (skb_vlan_untag). A VLAN tag stays in
 * the frame until the stack takes it out; VLAN devices are left out, so only tags of VLAN 0 (priority)
 * lead on.
 */
import { atomic, type KernelContext, type KernelFunction } from '../kernel/function.js';
import { ETH, ETH_P_8021AD, ETH_P_8021Q, be16 } from './headers.js';
import { NET_DEVICE } from './net-device.js';
import { skbPages } from './host.js';
import { ETH_HLEN } from './skb-geometry.js';
import { SK_BUFF, skbHeadroom, skbMayPull, skbPull } from './skb.js';

export const PACKET = { HOST: 0, BROADCAST: 1, MULTICAST: 2, OTHERHOST: 3 } as const;

const ETH_P_802_3 = 1;
const ETH_P_802_2 = 4;
const ETH_P_802_3_MIN = 0x600;
const VLAN_HLEN = 4;
const VLAN_VID_MASK = 0xfff;

const SKB = SK_BUFF.offset;
const DEV = NET_DEVICE.offset;

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

  let protocol = be16(ram, data + ETH.protocol);
  if (protocol < ETH_P_802_3_MIN) {
    const novell = ram.u32(skb + SKB.len) >= 2 && ram.u16(data + ETH_HLEN) === 0xffff;
    protocol = novell ? ETH_P_802_3 : ETH_P_802_2;
  }
  return swap16(protocol);
}

/** Sets `skb->protocol` from eth_type_trans. */
export function setProtocol(kernel: KernelContext, skb: number, dev: number): void {
  const protocol = swap16(kernel.invoke('eth_type_trans', skb, dev));
  kernel.memory.ram.set16(skb + SKB.protocol, protocol);
}

export function isVlan(protocol: number): boolean {
  return protocol === ETH_P_8021Q || protocol === ETH_P_8021AD;
}

/**
 * `skb_vlan_untag`: takes the tag out, so that the addresses lie in front of what it carries. Returns
 * the VLAN's number; -1 for a frame that is too short.
 */
export function vlanUntag(kernel: KernelContext, skb: number): number {
  const { ram } = kernel.memory;
  if (!skbMayPull(kernel, skbPages(kernel, skb), skb, VLAN_HLEN + 2)) return -1;
  const tag = ram.pointer(skb + SKB.data);
  const tci = be16(ram, tag);
  ram.set16(skb + SKB.protocol, be16(ram, tag + 2));
  const mac = ram.pointer(skb + SKB.head) + ram.u16(skb + SKB.mac_header);
  skbPull(ram, skb, VLAN_HLEN);
  ram.copy(mac + VLAN_HLEN, mac, ETH.protocol);
  ram.set16(skb + SKB.mac_header, ram.u16(skb + SKB.mac_header) + VLAN_HLEN);
  return tci & VLAN_VID_MASK;
}

function swap16(value: number): number {
  return ((value & 0xff) << 8) | (value >> 8);
}

export const ethernetFunctions: readonly KernelFunction[] = [
  atomic({
    prototype: '__be16 eth_type_trans(struct sk_buff *skb, struct net_device *dev)',
    body: ethTypeTrans,
  }),
];
