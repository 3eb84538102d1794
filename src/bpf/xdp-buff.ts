/**
 * `struct xdp_buff` and what it points to: what an XDP program's context really is.
 *
 * A program written against `struct xdp_md` is rewritten on loading to read this struct, and the XDP
 * helpers work on it. Reference: include/net/xdp.h of 6.12 (xdp_buff, xdp_rxq_info, xdp_frame). Of
 * `struct net_device` only the ifindex is modelled; its offset is this lab's choice, because in a
 * real kernel it changes with the configuration. A packet of several buffers
 * has the flag and the array of fragments of `struct skb_shared_info` at the end of its first buffer; the
 * page pointer of a fragment is here the address of the page itself. Left out: memory models, the tx queue.
 *
 * Usage:
 *   const xdp = XdpBuff.create(host, { ifindex: 1, queueIndex: 0 });
 *   xdp.setFrame(buffer.address, buffer.size, 256, packet.length);
 *   interpreter.run(xdp.address);
 */
import type { Memory } from '../cpu/memory.js';
import type { BpfHost } from './host.js';

/** Byte offsets in `struct xdp_buff`, 6.12. */
export const XDP_BUFF = {
  data: 0,
  dataEnd: 8,
  dataMeta: 16,
  dataHardStart: 24,
  rxq: 32,
  txq: 40,
  /** u32 */
  frameSize: 48,
  /** u32 */
  flags: 52,
  size: 56,
} as const;

/** Byte offsets in `struct xdp_rxq_info`, 6.12. */
export const XDP_RXQ_INFO = {
  dev: 0,
  /** u32 */
  queueIndex: 8,
  /** u32 */
  regState: 12,
  /** u32: MEM_TYPE_* of the buffers */
  memType: 16,
  /** u32: size of a fragment's buffer; 0 when fragments cannot grow. */
  fragSize: 28,
  /** Ours, in the padding: the pool that chunks of memory of this type are from. */
  xskPool: 40,
  size: 64,
} as const;

/** The model's `struct net_device`: only what a rewritten context access reads. */
export const NET_DEVICE = {
  /** s32 */
  ifindex: 224,
  size: 256,
} as const;

/** sizeof(struct xdp_frame): stays free in front of the packet and its metadata. */
export const XDP_FRAME_SIZE = 40;
/** Bytes of an Ethernet header: what a packet has at least. */
export const ETH_HLEN = 14;
/** SKB_DATA_ALIGN(sizeof(struct skb_shared_info)) on 64 bit: stays free at the frame's end. */
export const SKB_SHARED_INFO_SIZE = 320;
/** Byte offsets in `struct skb_shared_info`, 6.12, and in its `skb_frag_t`. */
export const SKB_SHARED_INFO = {
  /** u8 */
  nrFrags: 2,
  /** u32: bytes in all fragments; bytes of their buffers. */
  xdpFragsSize: 36,
  xdpFragsTruesize: 40,
  frags: 48,
} as const;

export const SKB_FRAG = { page: 0, length: 8, offset: 12, size: 16 } as const;

/** MAX_SKB_FRAGS */
export const MAX_SKB_FRAGS = 17;
/** XDP_FLAGS_HAS_FRAGS in `xdp_buff.flags` */
export const XDP_FLAGS_HAS_FRAGS = 1;

/** One fragment of a packet. */
export interface XdpFragment {
  /** Where its bytes begin. */
  readonly address: bigint;
  readonly length: number;
}

/** Headroom that drivers leave in front of a packet. */
export const XDP_PACKET_HEADROOM = 256;

/** Verdicts by value: `XDP_ACTIONS[2] === 'XDP_PASS'`. Every other value counts as aborted. */
export const XDP_ACTIONS = [
  'XDP_ABORTED',
  'XDP_DROP',
  'XDP_PASS',
  'XDP_TX',
  'XDP_REDIRECT',
] as const;

/** Typed access to one `struct xdp_buff` in memory. */
export class XdpBuff {
  readonly memory: Memory;
  /** What R1 holds when the program starts. */
  readonly address: bigint;

  constructor(memory: Memory, address: bigint) {
    this.memory = memory;
    this.address = address;
  }

  /** Allocates an xdp_buff with its rxq info and device behind it, ending at a page end. */
  static create(
    host: BpfHost,
    device: { readonly ifindex: number; readonly queueIndex: number },
  ): XdpBuff {
    const { memory } = host;
    const dev = host.allocate('net_device', NET_DEVICE.size).address;
    const rxq = host.allocate('xdp_rxq_info', XDP_RXQ_INFO.size).address;
    const buff = new XdpBuff(memory, host.allocate('xdp_buff', XDP_BUFF.size).address);
    memory.write32(dev + BigInt(NET_DEVICE.ifindex), device.ifindex);
    memory.write64(rxq + BigInt(XDP_RXQ_INFO.dev), dev);
    memory.write32(rxq + BigInt(XDP_RXQ_INFO.queueIndex), device.queueIndex);
    memory.write64(buff.address + BigInt(XDP_BUFF.rxq), rxq);
    return buff;
  }

  /** xdp_init_buff and xdp_prepare_buff: a packet of `length` bytes at `hardStart + headroom`. */
  setFrame(hardStart: bigint, frameSize: number, headroom: number, length: number): void {
    const data = hardStart + BigInt(headroom);
    this.#write(XDP_BUFF.data, data);
    this.#write(XDP_BUFF.dataEnd, data + BigInt(length));
    this.#write(XDP_BUFF.dataMeta, data);
    this.#write(XDP_BUFF.dataHardStart, hardStart);
    this.memory.write32(this.address + BigInt(XDP_BUFF.frameSize), frameSize);
    this.memory.write32(this.address + BigInt(XDP_BUFF.flags), 0);
  }

  get data(): bigint {
    return this.#read(XDP_BUFF.data);
  }

  get dataEnd(): bigint {
    return this.#read(XDP_BUFF.dataEnd);
  }

  get dataMeta(): bigint {
    return this.#read(XDP_BUFF.dataMeta);
  }

  get dataHardStart(): bigint {
    return this.#read(XDP_BUFF.dataHardStart);
  }

  get frameSize(): number {
    return this.memory.read32(this.address + BigInt(XDP_BUFF.frameSize));
  }

  /** Makes the fragments a part of the packet, after `setFrame`; each has a buffer of its own. */
  setFragments(fragments: readonly XdpFragment[]): void {
    const { memory, sharedInfo } = this;
    let total = 0;
    for (const [index, { address, length }] of fragments.entries()) {
      const at = sharedInfo + BigInt(SKB_SHARED_INFO.frags + SKB_FRAG.size * index);
      memory.write64(at, address);
      memory.write32(at + BigInt(SKB_FRAG.length), length);
      memory.write32(at + BigInt(SKB_FRAG.offset), 0);
      total += length;
    }
    memory.write8(sharedInfo + BigInt(SKB_SHARED_INFO.nrFrags), fragments.length);
    memory.write32(sharedInfo + BigInt(SKB_SHARED_INFO.xdpFragsSize), total);
    const flags = fragments.length > 0 ? XDP_FLAGS_HAS_FRAGS : 0;
    memory.write32(this.address + BigInt(XDP_BUFF.flags), flags);
  }

  /** The device that the packet came in on. */
  get ifindex(): number {
    const rxq = this.#read(XDP_BUFF.rxq);
    const dev = this.memory.read64(rxq + BigInt(XDP_RXQ_INFO.dev));
    return this.memory.read32(dev + BigInt(NET_DEVICE.ifindex));
  }

  /** Address of the `struct skb_shared_info` behind the first buffer. */
  get sharedInfo(): bigint {
    return this.dataHardStart + BigInt(this.frameSize - SKB_SHARED_INFO_SIZE);
  }

  get fragments(): readonly XdpFragment[] {
    const { memory, sharedInfo } = this;
    const flags = memory.read32(this.address + BigInt(XDP_BUFF.flags));
    if ((flags & XDP_FLAGS_HAS_FRAGS) === 0) return [];
    const count = memory.read8(sharedInfo + BigInt(SKB_SHARED_INFO.nrFrags));
    return Array.from({ length: count }, (_, index) => {
      const at = sharedInfo + BigInt(SKB_SHARED_INFO.frags + SKB_FRAG.size * index);
      const offset = memory.read32(at + BigInt(SKB_FRAG.offset));
      return {
        address: memory.read64(at) + BigInt(offset),
        length: memory.read32(at + BigInt(SKB_FRAG.length)),
      };
    });
  }

  /** Bytes of the packet, fragments included. */
  get length(): number {
    const linear = Number(this.dataEnd - this.data);
    return this.fragments.reduce((total, { length }) => total + length, linear);
  }

  /** A copy of the packet as it is now, fragments included. */
  packet(): Uint8Array {
    const linear = this.memory.readBytes(this.data, Number(this.dataEnd - this.data));
    const { fragments } = this;
    if (fragments.length === 0) return linear;
    const packet = new Uint8Array(this.length);
    packet.set(linear);
    let at = linear.length;
    for (const { address, length } of fragments) {
      packet.set(this.memory.readBytes(address, length), at);
      at += length;
    }
    return packet;
  }

  #read(offset: number): bigint {
    return this.memory.read64(this.address + BigInt(offset));
  }

  #write(offset: number, value: bigint): void {
    this.memory.write64(this.address + BigInt(offset), value);
  }
}
