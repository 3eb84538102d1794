/**
 * An xdp_buff in a chunk of a UMEM becomes an xdp_frame: a copy in a page.
 *
 * Reference: net/core/xdp.c of 6.12 (xdp_convert_zc_to_xdp_frame, xdp_convert_buff_to_frame). The copy has no
 * headroom, so that virtio-net, which needs room for its header, sends none (-EOVERFLOW). The
 * chunk stays the caller's until the frame was taken; Linux frees it at once, and where the target then refuses
 * the frame, the driver frees it a second time.
 *
 * Usage:
 *   const frame = convertBuffToFrame(kernel, pages, xdp);      // 0 when there is no room
 *   if (taken) releaseConverted(ram, xdp);
 *   else dropConverted(kernel, pages, xdp, frame);
 */
import { XDP_BUFF, XDP_FRAME_SIZE, XDP_RXQ_INFO } from '../bpf/xdp-buff.js';
import type { Ram } from '../cpu/ram.js';
import type { KernelContext } from '../kernel/function.js';
import { PAGE_SIZE, allocPage, pageAddress } from './pages.js';
import { XDP_FRAME, returnFrame, xdpBuffMetaSize, xdpBuffToFrame } from './xdp-frame.js';
import { freeAtHardStart, poolOfXdpBuff } from './xsk-pool.js';

const FRAME = XDP_FRAME.offset;

/** `xdp_convert_buff_to_frame`: 0 when there is no room. */
export function convertBuffToFrame(kernel: KernelContext, pages: number, xdp: number): number {
  const { ram } = kernel.memory;
  if (poolOfXdpBuff(ram, xdp) === 0) return xdpBuffToFrame(ram, xdp);
  const data = ram.pointer(xdp + XDP_BUFF.data);
  const metaSize = xdpBuffMetaSize(ram, xdp);
  const length = ram.pointer(xdp + XDP_BUFF.dataEnd) - data;
  if (XDP_FRAME_SIZE + metaSize + length > PAGE_SIZE) return 0;
  const frame = pageAddress(ram, allocPage(kernel, pages, 1));
  const to = frame + XDP_FRAME_SIZE + metaSize;
  ram.zero(frame, XDP_FRAME_SIZE);
  ram.copy(to - metaSize, data - metaSize, metaSize + length);
  ram.setPointer(frame + FRAME.data, to);
  ram.set16(frame + FRAME.len, length);
  ram.set32(frame + FRAME.metasize, metaSize);
  ram.set32(frame + FRAME.frame_sz, PAGE_SIZE);
  ram.setPointer(
    frame + FRAME.dev_rx,
    ram.pointer(ram.pointer(xdp + XDP_BUFF.rxq) + XDP_RXQ_INFO.dev),
  );
  return frame;
}

/** The frame has gone its way: a chunk that it was copied from is free. */
export function releaseConverted(ram: Ram, xdp: number): void {
  const pool = poolOfXdpBuff(ram, xdp);
  if (pool !== 0) freeAtHardStart(ram, pool, ram.pointer(xdp + XDP_BUFF.dataHardStart));
}

/** Nobody took the frame: its copy is given back, the buffer stays the driver's. */
export function dropConverted(
  kernel: KernelContext,
  pages: number,
  xdp: number,
  frame: number,
): void {
  if (poolOfXdpBuff(kernel.memory.ram, xdp) !== 0) returnFrame(kernel, pages, frame);
}
