/**
 * One end of a veth pair, the other end of which is the lab: a device that takes frames and skbs.
 *
 * Reference: drivers/net/veth.c of 6.12 (veth_xdp_xmit, veth_xmit, veth_xdp_rx). What is sent waits in the peer's
 * ring of 256 until `received` takes it. Leaves out programs of the peer, GRO, and sending towards this end.
 *
 * Usage:
 *   const veth = new VethDevice(stack, { name: 'eth1', ifindex: 3 });
 *   ...redirect...
 *   veth.received();                        // frames
 */
import { ERRNO } from '../common/errno.js';
import { struct } from '../common/struct.js';
import type { Ram } from '../cpu/ram.js';
import { atomic, type KernelFunction } from '../kernel/function.js';
import { NETDEV_XDP_ACT, NET_DEVICE } from './net-device.js';
import type { NetStack } from './net-stack.js';
import { ETH_HLEN } from './skb-geometry.js';
import { freeSkb, skbBytes } from './skb.js';
import { frameBytes, frameLength, returnFrame } from './xdp-frame.js';

const VETH_RING_SIZE = 256;
const XDP_XMIT_FLUSH = 1;
/** VETH_XDP_FLAG: tags an entry of the ring that is an xdp_frame. */
const VETH_XDP_FLAG = 1;

/** `struct veth_rq` of the peer, and its counters. */
const VETH_RQ = struct({
  head: 'u32',
  queued: 'u32',
  xdp_packets: 'u64',
  tx_packets: 'u64',
  dropped: 'u64',
  ring: 8 * VETH_RING_SIZE,
});

const RQ = VETH_RQ.offset;
const DEV = NET_DEVICE.offset;

/** False when the ring is full. */
function produce(ram: Ram, rq: number, item: number, tag: number): boolean {
  const queued = ram.u32(rq + RQ.queued);
  if (queued === VETH_RING_SIZE) return false;
  const at = rq + RQ.ring + 8 * ((ram.u32(rq + RQ.head) + queued) % VETH_RING_SIZE);
  ram.setPointer(at, item);
  ram.set8(at, ram.u8(at) | tag);
  ram.set32(rq + RQ.queued, queued + 1);
  return true;
}

export function vethFunctions(stack: NetStack): readonly KernelFunction[] {
  return [
    atomic({
      prototype:
        'int veth_xdp_xmit(struct net_device *dev, int n, struct xdp_frame **frames, u32 flags)',
      body: (kernel, dev, n, frames, flags) => {
        const { ram } = kernel.memory;
        if ((flags & ~XDP_XMIT_FLUSH) !== 0) return -ERRNO.EINVAL;
        const rq = ram.pointer(dev + DEV.priv);
        const longest = ram.u32(dev + DEV.mtu) + ETH_HLEN;
        let sent = 0;
        while (sent < n) {
          const frame = ram.pointer(frames + 8 * sent);
          if (frameLength(ram, frame) > longest || !produce(ram, rq, frame, VETH_XDP_FLAG)) break;
          sent++;
        }
        ram.add64(rq + RQ.xdp_packets, sent);
        ram.add64(rq + RQ.dropped, n - sent);
        return sent;
      },
    }),
    atomic({
      prototype: 'netdev_tx_t veth_xmit(struct sk_buff *skb, struct net_device *dev)',
      body: (kernel, skb, dev) => {
        const { ram } = kernel.memory;
        const rq = ram.pointer(dev + DEV.priv);
        if (produce(ram, rq, skb, 0)) ram.add64(rq + RQ.tx_packets, 1);
        else {
          ram.add64(rq + RQ.dropped, 1);
          freeSkb(kernel, stack.pages, skb);
        }
        return 0;
      },
    }),
  ];
}

export interface VethOptions {
  readonly name: string;
  readonly ifindex: number;
  /** Default 1500. */
  readonly mtu?: number;
  /** Default 52:54:00:00:01:00 + ifindex. */
  readonly mac?: Uint8Array;
  /** The peer takes frames of others (NDO_XMIT, NDO_XMIT_SG): it has a program or GRO. Default true. */
  readonly takesFrames?: boolean;
}

export class VethDevice {
  readonly name: string;
  readonly ifindex: number;
  /** Physical address of its net_device. */
  readonly address: number;
  readonly #stack: NetStack;

  constructor(stack: NetStack, options: VethOptions) {
    const { name, ifindex } = options;
    const { kernel } = stack;
    const { ram } = kernel.memory;
    const dev = kernel.physical.alloc(NET_DEVICE.size);
    this.#stack = stack;
    this.name = name;
    this.ifindex = ifindex;
    this.address = dev;
    const mac = options.mac ?? Uint8Array.of(0x52, 0x54, 0, 0, 1, ifindex & 0xff);
    ram.bytes.set(new TextEncoder().encode(name).subarray(0, 15), dev + DEV.name);
    ram.bytes.set(mac.subarray(0, 6), dev + DEV.dev_addr);
    ram.set32(dev + DEV.mtu, options.mtu ?? 1500);
    ram.set32(dev + DEV.ifindex, ifindex);
    ram.setPointer(dev + DEV.priv, kernel.physical.alloc(VETH_RQ.size));
    const takes = NETDEV_XDP_ACT.NDO_XMIT | NETDEV_XDP_ACT.NDO_XMIT_SG;
    const features = NETDEV_XDP_ACT.BASIC | NETDEV_XDP_ACT.REDIRECT | NETDEV_XDP_ACT.RX_SG;
    const isTaking = options.takesFrames ?? true;
    ram.set32(dev + DEV.xdp_features, features | (isTaking ? takes : 0));
    stack.registerNetdevice(dev, { ndo_xdp_xmit: 'veth_xdp_xmit', ndo_start_xmit: 'veth_xmit' });
  }

  /** What was sent to the peer since the last call. */
  received(): readonly Uint8Array[] {
    const frames: Uint8Array[] = [];
    const { kernel, pages } = this.#stack;
    const { ram } = kernel.memory;
    this.#drain((item, isFrame) => {
      frames.push(isFrame ? frameBytes(ram, item) : skbBytes(ram, item));
      if (isFrame) returnFrame(kernel, pages, item);
      else freeSkb(kernel, pages, item);
    });
    return frames;
  }

  counters(): Readonly<Record<'xdp_packets' | 'tx_packets' | 'dropped', number>> {
    const { ram } = this.#stack.kernel.memory;
    const rq = ram.pointer(this.address + DEV.priv);
    return {
      xdp_packets: ram.u53(rq + RQ.xdp_packets),
      tx_packets: ram.u53(rq + RQ.tx_packets),
      dropped: ram.u53(rq + RQ.dropped),
    };
  }

  /** `ip link set down` and `up`. */
  setUp(up: boolean): void {
    this.#stack.kernel.memory.ram.set32(this.address + DEV.flags, up ? 1 : 0);
  }

  close(): void {
    this.received();
    const { physical, memory } = this.#stack.kernel;
    const rq = memory.ram.pointer(this.address + DEV.priv);
    this.#stack.unregisterNetdevice(this.address, () => {
      physical.free(rq);
      physical.free(this.address);
    });
  }

  #drain(take: (item: number, isFrame: boolean) => void): void {
    const { ram } = this.#stack.kernel.memory;
    const rq = ram.pointer(this.address + DEV.priv);
    while (ram.u32(rq + RQ.queued) > 0) {
      const head = ram.u32(rq + RQ.head);
      const item = ram.pointer(rq + RQ.ring + 8 * head);
      ram.set32(rq + RQ.head, (head + 1) % VETH_RING_SIZE);
      ram.set32(rq + RQ.queued, ram.u32(rq + RQ.queued) - 1);
      const isFrame = (item & VETH_XDP_FLAG) !== 0;
      take(isFrame ? item - VETH_XDP_FLAG : item, isFrame);
    }
  }
}
