/**
 * Where received skbs end: read as frames, then freed.
 *
 * Without a network stack behind the device napi_gro_receive links skbs into a list in kernel memory;
 * here the lab takes them out. Beside the bytes it shows what the stack would see of each: checksum state, headroom,
 * truesize.
 */
import type { Ram } from '../../cpu/ram.js';
import type { KernelContext } from '../../kernel/function.js';
import { ETH_HLEN } from '../../stack/skb-geometry.js';
import { pagesOf } from './common.js';
import {
  SKB_SHARED_INFO,
  SK_BUFF,
  freeSkb,
  skbBytes,
  skbHeadroom,
  skbShinfo,
} from '../../stack/skb.js';
import { NET_DEVICE } from '../../stack/net-device.js';
import { VIRTNET_INFO } from './structs.js';

const DEV = NET_DEVICE.offset;
const VI = VIRTNET_INFO.offset;

/** A received frame and its skb's state behind eth_type_trans. */
export interface DeliveredFrame {
  /** From the Ethernet header on. */
  readonly frame: Uint8Array;
  /** What the program left in front of the packet with bpf_xdp_adjust_meta. */
  readonly metadata: Uint8Array;
  /** Queue pair it came from. */
  readonly queue: number;
  /** Ethertype. */
  readonly protocol: number;
  /** PACKET_HOST 0, BROADCAST 1, MULTICAST 2, OTHERHOST 3. */
  readonly pktType: number;
  /** CHECKSUM_NONE 0, UNNECESSARY 1, PARTIAL 3. */
  readonly ipSummed: number;
  readonly csumStart: number;
  readonly csumOffset: number;
  readonly headroom: number;
  readonly len: number;
  readonly dataLen: number;
  readonly truesize: number;
  readonly nrFrags: number;
  readonly gsoSize: number;
  /** SKB_GSO_* bits. */
  readonly gsoType: number;
  /** As the device reported it, with rx-hashing on; 0 without. */
  readonly skbHash: number;
  /** The hash is over ports too. */
  readonly l4Hash: boolean;
}

/** Sees a frame: bytes [start, end) of `bytes`, from queue pair `queue`. */
export type FrameVisitor = (bytes: Uint8Array, start: number, end: number, queue: number) => void;

const SKB = SK_BUFF.offset;
const SHINFO = SKB_SHARED_INFO.offset;

/**
 * Takes all frames that reached the stack since the last call and shows each to `visit`, as bytes
 * [start, end) of `bytes`, which are the frame's only during the call. Returns how many.
 */
export function drainDelivered(kernel: KernelContext, vi: number, visit?: FrameVisitor): number {
  const { ram } = kernel.memory;
  const pages = pagesOf(ram, vi);
  let count = 0;
  for (let skb = takeList(ram, vi); skb !== 0;) {
    const next = ram.pointer(skb + SKB.next);
    if (visit) show(ram, skb, visit);
    freeSkb(kernel, pages, skb);
    skb = next;
    count++;
  }
  return count;
}

/** Takes all frames that reached the stack since the last call. */
export function takeDelivered(kernel: KernelContext, vi: number): readonly DeliveredFrame[] {
  const { ram } = kernel.memory;
  const frames: DeliveredFrame[] = [];
  for (let skb = takeList(ram, vi); skb !== 0;) {
    const next = ram.pointer(skb + SKB.next);
    frames.push(readFrame(ram, skb));
    freeSkb(kernel, pagesOf(ram, vi), skb);
    skb = next;
  }
  return frames;
}

function takeList(ram: Ram, vi: number): number {
  const dev = ram.pointer(vi + VI.dev);
  const first = ram.pointer(dev + DEV.sink_head);
  ram.setPointer(dev + DEV.sink_head, 0);
  ram.setPointer(dev + DEV.sink_tail, 0);
  return first;
}

function show(ram: Ram, skb: number, visit: FrameVisitor): void {
  const queue = ram.u16(skb + SKB.queue_mapping) - 1;
  if (ram.u32(skb + SKB.data_len) > 0) {
    const frame = frameBytes(ram, skb);
    visit(frame, 0, frame.length, queue);
    return;
  }
  const data = ram.pointer(skb + SKB.data);
  visit(ram.bytes, data - ETH_HLEN, data + ram.u32(skb + SKB.len), queue);
}

function frameBytes(ram: Ram, skb: number): Uint8Array {
  if (ram.u32(skb + SKB.data_len) === 0) {
    const data = ram.pointer(skb + SKB.data);
    return ram.slice(data - ETH_HLEN, ETH_HLEN + ram.u32(skb + SKB.len));
  }
  const payload = skbBytes(ram, skb);
  const frame = new Uint8Array(ETH_HLEN + payload.length);
  frame.set(ram.slice(ram.pointer(skb + SKB.data) - ETH_HLEN, ETH_HLEN));
  frame.set(payload, ETH_HLEN);
  return frame;
}

/** What an skb says, its data behind the Ethernet header. */
export function readFrame(ram: Ram, skb: number): DeliveredFrame {
  const start = ram.pointer(skb + SKB.data) - ETH_HLEN;
  const shinfo = skbShinfo(ram, skb);
  const metaLength = ram.u8(shinfo + SHINFO.meta_len);
  return {
    frame: frameBytes(ram, skb),
    metadata: ram.slice(start - metaLength, metaLength),
    queue: ram.u16(skb + SKB.queue_mapping) - 1,
    protocol: ram.u16(skb + SKB.protocol),
    pktType: ram.u8(skb + SKB.pkt_type),
    ipSummed: ram.u8(skb + SKB.ip_summed),
    csumStart: ram.u16(skb + SKB.csum_start),
    csumOffset: ram.u16(skb + SKB.csum_offset),
    headroom: skbHeadroom(ram, skb),
    len: ram.u32(skb + SKB.len),
    dataLen: ram.u32(skb + SKB.data_len),
    truesize: ram.u32(skb + SKB.truesize),
    nrFrags: ram.u8(shinfo + SHINFO.nr_frags),
    gsoSize: ram.u16(shinfo + SHINFO.gso_size),
    gsoType: ram.u32(shinfo + SHINFO.gso_type),
    skbHash: ram.u32(skb + SKB.hash) >>> 0,
    l4Hash: ram.u8(skb + SKB.l4_hash) !== 0,
  };
}
