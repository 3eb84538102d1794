/**
 * `struct xdp_frame`: an xdp_buff that outlives its poll, kept in the headroom of its own buffer.
 *
 * Reference: include/net/xdp.h and net/core/xdp.c of 6.12 (xdp_convert_buff_to_frame, xdp_return_frame).
 * 40 bytes; they must be free in front of the packet and its metadata. Leaves out memory models: all
 * memory is reference-counted pages.
 *
 * Usage:
 *   const frame = xdpBuffToFrame(memory, xdp);        // 0n when there is no room
 *   returnFrame(memory, pages, frame);
 */
import { SKB_SHARED_INFO_SIZE, XDP_BUFF, XDP_FRAME_SIZE } from '../bpf/xdp-buff.js';
import type { Memory } from '../cpu/memory.js';
import type { PageTable } from './page-frag.js';
import { SKB_SHARED_INFO, putFrags } from './skb.js';
import { struct } from './struct.js';

/** Bit of xdp_buff.flags and xdp_frame.flags: the packet has fragments. */
export const XDP_FLAGS_HAS_FRAGS = 1;

/** `struct xdp_frame`, 6.12. */
export const XDP_FRAME = struct({
  data: 'u64',
  len: 'u16',
  headroom: 'u16',
  metasize: 'u32',
  mem: 8,
  dev_rx: 'u64',
  frame_sz: 'u32',
  flags: 'u32',
});

/** `struct xdp_buff` with offsets that add to addresses. */
export const XDP = {
  data: BigInt(XDP_BUFF.data),
  dataEnd: BigInt(XDP_BUFF.dataEnd),
  dataMeta: BigInt(XDP_BUFF.dataMeta),
  dataHardStart: BigInt(XDP_BUFF.dataHardStart),
  rxq: BigInt(XDP_BUFF.rxq),
  txq: BigInt(XDP_BUFF.txq),
  frameSize: BigInt(XDP_BUFF.frameSize),
  flags: BigInt(XDP_BUFF.flags),
} as const;

const FRAME = XDP_FRAME.offset;

/** `xdp_init_buff` and `xdp_prepare_buff`. */
export function prepareXdpBuff(
  memory: Memory,
  xdp: bigint,
  buff: {
    readonly hardStart: bigint;
    readonly headroom: number;
    readonly length: number;
    readonly frameSize: number;
    readonly rxq: bigint;
  },
): void {
  const data = buff.hardStart + BigInt(buff.headroom);
  memory.write64(xdp + XDP.data, data);
  memory.write64(xdp + XDP.dataEnd, data + BigInt(buff.length));
  memory.write64(xdp + XDP.dataMeta, data);
  memory.write64(xdp + XDP.dataHardStart, buff.hardStart);
  memory.write64(xdp + XDP.rxq, buff.rxq);
  memory.write64(xdp + XDP.txq, 0n);
  memory.write32(xdp + XDP.frameSize, buff.frameSize);
  memory.write32(xdp + XDP.flags, 0);
}

/** `xdp_get_shared_info_from_buff`, which is also the end of what the packet may use. */
export function xdpBuffShinfo(memory: Memory, xdp: bigint): bigint {
  const hardStart = memory.read64(xdp + XDP.dataHardStart);
  return hardStart + BigInt(memory.read32(xdp + XDP.frameSize) - SKB_SHARED_INFO_SIZE);
}

export function xdpBuffHasFrags(memory: Memory, xdp: bigint): boolean {
  return (memory.read32(xdp + XDP.flags) & XDP_FLAGS_HAS_FRAGS) !== 0;
}

/** Bytes of metadata in front of the packet; 0 when it does not support any. */
export function xdpBuffMetaSize(memory: Memory, xdp: bigint): number {
  const size = memory.read64(xdp + XDP.data) - memory.read64(xdp + XDP.dataMeta);
  return size > 0n ? Number(size) : 0;
}

/** Makes a frame of the buffer at its hard start; 0n when head- or tailroom does not suffice. */
export function xdpBuffToFrame(memory: Memory, xdp: bigint): bigint {
  const frame = memory.read64(xdp + XDP.dataHardStart);
  const data = memory.read64(xdp + XDP.data);
  const dataEnd = memory.read64(xdp + XDP.dataEnd);
  const headroom = Number(data - frame);
  const metasize = xdpBuffMetaSize(memory, xdp);
  const flags = memory.read32(xdp + XDP.flags);
  if (headroom - metasize < XDP_FRAME_SIZE) return 0n;
  if (dataEnd > xdpBuffShinfo(memory, xdp)) return 0n;
  memory.write64(frame + FRAME.data, data);
  memory.write16(frame + FRAME.len, Number(dataEnd - data));
  memory.write16(frame + FRAME.headroom, headroom - XDP_FRAME_SIZE);
  memory.write32(frame + FRAME.metasize, metasize);
  memory.write64(frame + FRAME.mem, 0n);
  const rxq = memory.read64(xdp + XDP.rxq);
  memory.write64(frame + FRAME.dev_rx, memory.read64(rxq));
  memory.write32(frame + FRAME.frame_sz, memory.read32(xdp + XDP.frameSize));
  memory.write32(frame + FRAME.flags, flags);
  return frame;
}

export function frameHasFrags(memory: Memory, frame: bigint): boolean {
  return (memory.read32(frame + FRAME.flags) & XDP_FLAGS_HAS_FRAGS) !== 0;
}

/** `xdp_get_shared_info_from_frame`. */
export function frameShinfo(memory: Memory, frame: bigint): bigint {
  return frame + BigInt(memory.read32(frame + FRAME.frame_sz) - SKB_SHARED_INFO_SIZE);
}

/** `xdp_get_frame_len`: linear part and fragments. */
export function frameLength(memory: Memory, frame: bigint): number {
  const linear = memory.read16(frame + FRAME.len);
  if (!frameHasFrags(memory, frame)) return linear;
  return linear + memory.read32(frameShinfo(memory, frame) + SKB_SHARED_INFO.offset.xdp_frags_size);
}

/** `xdp_return_frame`: gives back the frame's pages. */
export function returnFrame(memory: Memory, pages: PageTable, frame: bigint): void {
  if (frameHasFrags(memory, frame)) putFrags(memory, pages, frameShinfo(memory, frame));
  pages.put(pages.headPage(frame));
}
