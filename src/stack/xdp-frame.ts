/**
 * `struct xdp_frame`: an xdp_buff that outlives its poll, kept in the headroom of its own buffer.
 *
 * Reference: include/net/xdp.h and net/core/xdp.c of 6.12 (xdp_convert_buff_to_frame,
 * xdp_convert_frame_to_buff, xdp_update_frame_from_buff, xdpf_clone, xdp_return_frame).
 * 40 bytes; they must be free in front of the packet and its metadata. Leaves out memory models: all
 * memory is reference-counted pages.
 *
 * Usage:
 *   const frame = xdpBuffToFrame(ram, xdp);        // 0 when there is no room
 *   returnFrame(kernel, pages, frame);
 */
import {
  SKB_SHARED_INFO_SIZE,
  XDP_BUFF,
  XDP_FLAGS_HAS_FRAGS,
  XDP_FRAME_SIZE,
} from '../bpf/xdp-buff.js';
import type { Ram } from '../cpu/ram.js';
import type { KernelContext } from '../kernel/function.js';
import { PAGE_SIZE, allocPage, headPage, pageAddress, putPage } from './pages.js';
import { SKB_SHARED_INFO, fragAddress, fragLength, putFrags } from './skb.js';
import { struct } from '../common/struct.js';

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

const FRAME = XDP_FRAME.offset;
const BUFF = XDP_BUFF;

/** `xdp_init_buff` and `xdp_prepare_buff`. */
export function prepareXdpBuff(
  ram: Ram,
  xdp: number,
  rxq: number,
  hardStart: number,
  headroom: number,
  length: number,
  frameSize: number,
): void {
  const data = hardStart + headroom;
  ram.setPointer(xdp + BUFF.data, data);
  ram.setPointer(xdp + BUFF.dataEnd, data + length);
  ram.setPointer(xdp + BUFF.dataMeta, data);
  ram.setPointer(xdp + BUFF.dataHardStart, hardStart);
  ram.setPointer(xdp + BUFF.rxq, rxq);
  ram.setPointer(xdp + BUFF.txq, 0);
  ram.set32(xdp + BUFF.frameSize, frameSize);
  ram.set32(xdp + BUFF.flags, 0);
}

/** `xdp_get_shared_info_from_buff`, which is also the end of what the packet may use. */
export function xdpBuffShinfo(ram: Ram, xdp: number): number {
  const hardStart = ram.pointer(xdp + BUFF.dataHardStart);
  return hardStart + ram.u32(xdp + BUFF.frameSize) - SKB_SHARED_INFO_SIZE;
}

export function xdpBuffHasFrags(ram: Ram, xdp: number): boolean {
  return (ram.u32(xdp + BUFF.flags) & XDP_FLAGS_HAS_FRAGS) !== 0;
}

/** Bytes of metadata in front of the packet; 0 when it does not support any. */
export function xdpBuffMetaSize(ram: Ram, xdp: number): number {
  return Math.max(0, ram.pointer(xdp + BUFF.data) - ram.pointer(xdp + BUFF.dataMeta));
}

/** Makes a frame of the buffer at its hard start; 0 when head- or tailroom does not suffice. */
export function xdpBuffToFrame(ram: Ram, xdp: number): number {
  const frame = ram.pointer(xdp + BUFF.dataHardStart);
  if (!updateFrame(ram, frame, xdp)) return 0;
  ram.setPointer(frame + FRAME.mem, 0);
  const rxq = ram.pointer(xdp + BUFF.rxq);
  ram.setPointer(frame + FRAME.dev_rx, ram.pointer(rxq));
  return frame;
}

/** `xdp_update_frame_from_buff`: false when head- or tailroom does not suffice. */
export function updateFrame(ram: Ram, frame: number, xdp: number): boolean {
  const data = ram.pointer(xdp + BUFF.data);
  const dataEnd = ram.pointer(xdp + BUFF.dataEnd);
  const headroom = data - ram.pointer(xdp + BUFF.dataHardStart);
  const metasize = xdpBuffMetaSize(ram, xdp);
  if (headroom - metasize < XDP_FRAME_SIZE) return false;
  if (dataEnd > xdpBuffShinfo(ram, xdp)) return false;
  ram.setPointer(frame + FRAME.data, data);
  ram.set16(frame + FRAME.len, dataEnd - data);
  ram.set16(frame + FRAME.headroom, headroom - XDP_FRAME_SIZE);
  ram.set32(frame + FRAME.metasize, metasize);
  ram.set32(frame + FRAME.frame_sz, ram.u32(xdp + BUFF.frameSize));
  ram.set32(frame + FRAME.flags, ram.u32(xdp + BUFF.flags));
  return true;
}

/** `xdp_convert_frame_to_buff`, for a program that runs on the frame again. */
export function frameToXdpBuff(ram: Ram, frame: number, xdp: number): void {
  const data = ram.pointer(frame + FRAME.data);
  const hardStart = data - ram.u16(frame + FRAME.headroom) - XDP_FRAME_SIZE;
  ram.setPointer(xdp + BUFF.dataHardStart, hardStart);
  ram.setPointer(xdp + BUFF.data, data);
  ram.setPointer(xdp + BUFF.dataEnd, data + ram.u16(frame + FRAME.len));
  ram.setPointer(xdp + BUFF.dataMeta, data - ram.u32(frame + FRAME.metasize));
  ram.set32(xdp + BUFF.frameSize, ram.u32(frame + FRAME.frame_sz));
  ram.set32(xdp + BUFF.flags, ram.u32(frame + FRAME.flags));
}

/** `xdpf_clone`: a copy in a page of its own; 0 when it does not fit one. */
export function cloneFrame(kernel: KernelContext, pages: number, frame: number): number {
  const { ram } = kernel.memory;
  const headroom = ram.u16(frame + FRAME.headroom) + XDP_FRAME_SIZE;
  const size = headroom + ram.u16(frame + FRAME.len);
  if (size > PAGE_SIZE) return 0;
  const clone = pageAddress(ram, allocPage(kernel, pages, 1));
  const data = ram.pointer(frame + FRAME.data);
  ram.copy(clone, data - headroom, size);
  ram.copy(clone, frame, XDP_FRAME_SIZE);
  ram.setPointer(clone + FRAME.data, clone + headroom);
  ram.set32(clone + FRAME.frame_sz, PAGE_SIZE);
  return clone;
}

export function frameHasFrags(ram: Ram, frame: number): boolean {
  return (ram.u32(frame + FRAME.flags) & XDP_FLAGS_HAS_FRAGS) !== 0;
}

/** `xdp_get_shared_info_from_frame`. */
export function frameShinfo(ram: Ram, frame: number): number {
  return frame + ram.u32(frame + FRAME.frame_sz) - SKB_SHARED_INFO_SIZE;
}

/** `xdp_get_frame_len`: linear part and fragments. */
export function frameLength(ram: Ram, frame: number): number {
  const linear = ram.u16(frame + FRAME.len);
  if (!frameHasFrags(ram, frame)) return linear;
  return linear + ram.u32(frameShinfo(ram, frame) + SKB_SHARED_INFO.offset.xdp_frags_size);
}

/** A copy of the packet, fragments included. */
export function frameBytes(ram: Ram, frame: number): Uint8Array {
  const bytes = new Uint8Array(frameLength(ram, frame));
  const linear = ram.u16(frame + FRAME.len);
  bytes.set(ram.slice(ram.pointer(frame + FRAME.data), linear));
  if (!frameHasFrags(ram, frame)) return bytes;
  const shinfo = frameShinfo(ram, frame);
  let at = linear;
  for (let i = 0; i < ram.u8(shinfo + SKB_SHARED_INFO.offset.nr_frags); i++) {
    const part = ram.slice(fragAddress(ram, shinfo, i), fragLength(ram, shinfo, i));
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}

/** `xdp_return_frame`: gives back the frame's pages. */
export function returnFrame(kernel: KernelContext, pages: number, frame: number): void {
  const { ram } = kernel.memory;
  if (frameHasFrags(ram, frame)) putFrags(kernel, pages, frameShinfo(ram, frame));
  putPage(kernel, pages, headPage(ram, pages, frame));
}
