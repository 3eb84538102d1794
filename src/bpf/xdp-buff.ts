/**
 * `struct xdp_buff` and what it points to: what an XDP program's context really is.
 *
 * A program written against `struct xdp_md` is rewritten on loading to read this struct, and the XDP
 * helpers work on it. Reference: include/net/xdp.h of 6.12 (xdp_buff, xdp_rxq_info, xdp_frame). Of
 * `struct net_device` only the ifindex is modelled; its offset is this lab's choice, because in a
 * real kernel it changes with the configuration. Left out: fragments, memory models, the tx queue.
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
/** SKB_DATA_ALIGN(sizeof(struct skb_shared_info)) on 64 bit: stays free at the frame's end. */
export const SKB_SHARED_INFO_SIZE = 320;
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

  /** A copy of the packet as it is now. */
  packet(): Uint8Array {
    return this.memory.readBytes(this.data, Number(this.dataEnd - this.data));
  }

  #read(offset: number): bigint {
    return this.memory.read64(this.address + BigInt(offset));
  }

  #write(offset: number, value: bigint): void {
    this.memory.write64(this.address + BigInt(offset), value);
  }
}
