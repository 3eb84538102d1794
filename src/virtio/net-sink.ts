/**
 * Where received skbs end: read as frames, then freed.
 *
 * napi_gro_receive (`net-driver-receive.ts`) links skbs into a list in kernel memory; here the lab takes
 * them out. Beside the bytes it shows what the stack would see of each: checksum state, headroom,
 * truesize.
 */
import type { KernelContext } from '../kernel/function.js';
import { ETH_HLEN } from './net-geometry.js';
import { VI, pagesOf } from './net-driver-common.js';
import { SKB_SHARED_INFO, SK_BUFF, freeSkb, skbBytes, skbHeadroom, skbShinfo } from './skb.js';

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
}

const SKB = SK_BUFF.offset;
const SHINFO = SKB_SHARED_INFO.offset;

/** Takes all frames that reached the stack since the last call. */
export function takeDelivered(kernel: KernelContext, vi: bigint): readonly DeliveredFrame[] {
  const { memory } = kernel;
  const frames: DeliveredFrame[] = [];
  let skb = memory.read64(vi + VI.sink_head);
  memory.write64(vi + VI.sink_head, 0n);
  memory.write64(vi + VI.sink_tail, 0n);
  while (skb !== 0n) {
    const next = memory.read64(skb + SKB.next);
    frames.push(readFrame(kernel, vi, skb));
    freeSkb(kernel, pagesOf(kernel, vi), skb);
    skb = next;
  }
  return frames;
}

function readFrame(kernel: KernelContext, vi: bigint, skb: bigint): DeliveredFrame {
  const { memory } = kernel;
  const payload = skbBytes(memory, pagesOf(kernel, vi), skb);
  const frame = new Uint8Array(ETH_HLEN + payload.length);
  const start = memory.read64(skb + SKB.data) - BigInt(ETH_HLEN);
  frame.set(memory.readBytes(start, ETH_HLEN));
  frame.set(payload, ETH_HLEN);
  const shinfo = skbShinfo(memory, skb);
  const metaLength = memory.read8(shinfo + SHINFO.meta_len);
  return {
    frame,
    metadata: memory.readBytes(start - BigInt(metaLength), metaLength),
    queue: memory.read16(skb + SKB.queue_mapping) - 1,
    protocol: memory.read16(skb + SKB.protocol),
    pktType: memory.read8(skb + SKB.pkt_type),
    ipSummed: memory.read8(skb + SKB.ip_summed),
    csumStart: memory.read16(skb + SKB.csum_start),
    csumOffset: memory.read16(skb + SKB.csum_offset),
    headroom: skbHeadroom(memory, skb),
    len: memory.read32(skb + SKB.len),
    dataLen: memory.read32(skb + SKB.data_len),
    truesize: memory.read32(skb + SKB.truesize),
    nrFrags: memory.read8(shinfo + SHINFO.nr_frags),
    gsoSize: memory.read16(shinfo + SHINFO.gso_size),
  };
}
