/**
 * AF_XDP: packets into a process's memory, and out of it.
 *
 * Reference: net/xdp/xsk.c of 6.12 (__xsk_map_redirect, xsk_rcv, __xsk_rcv, xsk_rcv_zc, xsk_generic_rcv,
 * __xsk_map_flush, xsk_generic_xmit). In copy mode a packet is copied to a chunk from the fill ring, 256 bytes and
 * the UMEM's headroom from its start, metadata in front; a chunk that was taken in vain goes to the pool's free
 * list. Without the copy the packet lies in a chunk already, and only a descriptor is written. Leaves out sending
 * without a copy, packets in several chunks, shared UMEM, unaligned chunks; a completion is submitted when the
 * device has the skb, in Linux when that is freed.
 *
 * | refused because                                 | errno    | counter             |
 * | the socket is not bound                         | -ENXIO   |                     |
 * | it is bound to another device or queue          | -EINVAL  |                     |
 * | the packet is longer than a chunk's room        | -ENOSPC  | rx_dropped          |
 * | the fill ring is empty                          | -ENOMEM  | rx_dropped, rx_fill_ring_empty_descs |
 * | the rx ring is full                             | -ENOBUFS | rx_ring_full        |
 */
import {
  SKB_SHARED_INFO_SIZE,
  XDP_BUFF,
  XDP_PACKET_HEADROOM,
  XDP_RXQ_INFO,
} from '../bpf/xdp-buff.js';
import { ERRNO } from '../common/errno.js';
import type { Ram } from '../cpu/ram.js';
import { atomic, type KernelContext, type KernelFunction } from '../kernel/function.js';
import { IFF_UP, NET_DEVICE } from './net-device.js';
import { NET_CONTEXT } from './net-context.js';
import type { NetStack } from './net-stack.js';
import { skbDataAlign } from './skb-geometry.js';
import {
  SKB_SHARED_INFO,
  SK_BUFF,
  allocSkbHead,
  fragAddress,
  fragLength,
  freeSkb,
  skbPut,
} from './skb.js';
import { NO_CHUNK, allocChunk, freeChunk, poolOfXdpBuff, rxFrameSize } from './xsk-pool.js';
import { XDP_SOCK, XSK_BOUND, XSK_POOL } from './xsk-structs.js';
import { XDP_DESC, XQ, consume, peek, release, reserve, submit } from './xsk-queue.js';
import { xdpBuffHasFrags, xdpBuffMetaSize, xdpBuffShinfo } from './xdp-frame.js';

const TX_BATCH_SIZE = 32;
const NETDEV_TX_BUSY = 16;

const XS = XDP_SOCK.offset;
const POOL = XSK_POOL.offset;
const DESC = XDP_DESC.offset;
const SKB = SK_BUFF.offset;
const NET_SKB_PAD = 64;

function packetLength(ram: Ram, xdp: number): number {
  const linear = ram.pointer(xdp + XDP_BUFF.dataEnd) - ram.pointer(xdp + XDP_BUFF.data);
  if (!xdpBuffHasFrags(ram, xdp)) return linear;
  return linear + ram.u32(xdpBuffShinfo(ram, xdp) + SKB_SHARED_INFO.offset.xdp_frags_size);
}

/** `xsk_copy_xdp`: metadata and packet to a place in front of which there is room for the metadata. */
function copyPacket(ram: Ram, xdp: number, to: number): void {
  const data = ram.pointer(xdp + XDP_BUFF.data);
  const metaSize = xdpBuffMetaSize(ram, xdp);
  const linear = ram.pointer(xdp + XDP_BUFF.dataEnd) - data;
  ram.copy(to - metaSize, data - metaSize, metaSize + linear);
  if (!xdpBuffHasFrags(ram, xdp)) return;
  const shinfo = xdpBuffShinfo(ram, xdp);
  let at = to + linear;
  for (let i = 0; i < ram.u8(shinfo + SKB_SHARED_INFO.offset.nr_frags); i++) {
    const length = fragLength(ram, shinfo, i);
    ram.copy(at, fragAddress(ram, shinfo, i), length);
    at += length;
  }
}

function describe(ram: Ram, desc: number, address: number, length: number): void {
  ram.setWord(desc + DESC.addr, address);
  ram.set32(desc + DESC.len, length);
  ram.set32(desc + DESC.options, 0);
}

/** The next valid descriptor of the tx ring (`xskq_cons_peek_desc`); 0 when there is none. */
function peekDesc(ram: Ram, tx: number, pool: number): number {
  for (;;) {
    const desc = peek(ram, tx);
    if (desc === 0) return 0;
    const address = ram.u53(desc + DESC.addr);
    const length = ram.u32(desc + DESC.len);
    const chunkSize = ram.u32(pool + POOL.chunk_size);
    const fits = length > 0 && (address % chunkSize) + length <= chunkSize;
    if (fits && address < ram.u32(pool + POOL.addrs_cnt) && ram.u32(desc + DESC.options) === 0) {
      return desc;
    }
    ram.add64(tx + XQ.invalid_descs, 1);
    consume(ram, tx);
  }
}

export function xskFunctions(stack: NetStack): readonly KernelFunction[] {
  /** `xsk_rcv_check`. */
  function check(ram: Ram, xs: number, xdp: number, length: number): number {
    if (ram.u32(xs + XS.state) !== XSK_BOUND) return -ERRNO.ENXIO;
    const rxq = ram.pointer(xdp + XDP_BUFF.rxq);
    const isHere =
      ram.pointer(xs + XS.dev) === ram.pointer(rxq + XDP_RXQ_INFO.dev) &&
      ram.u32(xs + XS.queue_id) === ram.u32(rxq + XDP_RXQ_INFO.queueIndex);
    if (!isHere) return -ERRNO.EINVAL;
    if (length <= rxFrameSize(ram, ram.pointer(xs + XS.pool))) return 0;
    ram.add64(xs + XS.rx_dropped, 1);
    return -ERRNO.ENOSPC;
  }

  /** `__xsk_rcv`. */
  function receive(ram: Ram, xs: number, xdp: number, length: number): number {
    const pool = ram.pointer(xs + XS.pool);
    const chunk = allocChunk(ram, pool);
    if (chunk === NO_CHUNK) {
      ram.add64(xs + XS.rx_dropped, 1);
      return -ERRNO.ENOMEM;
    }
    const within = chunk + ram.u32(pool + POOL.headroom) + XDP_PACKET_HEADROOM;
    copyPacket(ram, xdp, ram.pointer(pool + POOL.addrs) + within);
    const desc = reserve(ram, ram.pointer(xs + XS.rx));
    if (desc === 0) {
      ram.add64(xs + XS.rx_queue_full, 1);
      freeChunk(ram, pool, chunk);
      return -ERRNO.ENOBUFS;
    }
    describe(ram, desc, within, length);
    return 0;
  }

  /** `xsk_rcv_zc`: the chunk is the process's. */
  function receiveChunk(ram: Ram, xs: number, xdp: number, length: number): number {
    const desc = reserve(ram, ram.pointer(xs + XS.rx));
    if (desc === 0) {
      ram.add64(xs + XS.rx_queue_full, 1);
      return -ERRNO.ENOBUFS;
    }
    const umem = ram.pointer(ram.pointer(xs + XS.pool) + POOL.addrs);
    describe(ram, desc, ram.pointer(xdp + XDP_BUFF.data) - umem, length);
    return 0;
  }

  function xskRcv(kernel: KernelContext, xs: number, xdp: number): number {
    const { ram } = kernel.memory;
    const length = packetLength(ram, xdp);
    const checked = check(ram, xs, xdp, length);
    if (checked !== 0) return checked;
    if (poolOfXdpBuff(ram, xdp) !== 0) return receiveChunk(ram, xs, xdp, length);
    const result = receive(ram, xs, xdp, length);
    if (result !== 0) return result;
    // the packet is in the process's memory: xdp_return_buff
    if (xdpBuffHasFrags(ram, xdp)) {
      const shinfo = xdpBuffShinfo(ram, xdp);
      for (let i = 0; i < ram.u8(shinfo + SKB_SHARED_INFO.offset.nr_frags); i++) {
        stack.putPageAt(fragAddress(ram, shinfo, i));
      }
    }
    stack.putPageAt(ram.pointer(xdp + XDP_BUFF.dataHardStart));
    return 0;
  }

  /** `xsk_flush`: descriptors become visible, and the fill ring's slots free. */
  function flush(ram: Ram, xs: number): void {
    submit(ram, ram.pointer(xs + XS.rx));
    release(ram, ram.pointer(ram.pointer(xs + XS.pool) + POOL.fq));
  }

  function genericXmit(kernel: KernelContext, xs: number): number {
    const { ram } = kernel.memory;
    const tx = ram.pointer(xs + XS.tx);
    const pool = ram.pointer(xs + XS.pool);
    const dev = ram.pointer(xs + XS.dev);
    const op = stack.devices.ops(dev).ndo_start_xmit;
    if (!op) return -ERRNO.EOPNOTSUPP;
    const cq = ram.pointer(pool + POOL.cq);
    let result = 0;
    for (let batch = TX_BATCH_SIZE; ; batch--) {
      const desc = peekDesc(ram, tx, pool);
      if (desc === 0) break;
      const entry = batch === 0 ? 0 : reserve(ram, cq);
      if (entry === 0) {
        result = -ERRNO.EAGAIN;
        break;
      }
      const address = ram.u53(desc + DESC.addr);
      const length = ram.u32(desc + DESC.len);
      const skb = allocSkbHead(
        kernel,
        skbDataAlign(NET_SKB_PAD + length) + SKB_SHARED_INFO_SIZE,
        NET_SKB_PAD,
      );
      ram.setPointer(skb + SKB.dev, dev);
      // as for a queue that a packet came in on: 0 is none
      ram.set16(skb + SKB.queue_mapping, ram.u32(xs + XS.queue_id) + 1);
      const to = skbPut(kernel, skb, length);
      ram.copy(to, ram.pointer(pool + POOL.addrs) + address, length);
      if (kernel.invoke(op, skb, dev) === NETDEV_TX_BUSY) {
        freeSkb(kernel, stack.pages, skb);
        ram.set32(cq + XQ.cached_prod, ram.u32(cq + XQ.cached_prod) - 1);
        result = -ERRNO.EAGAIN;
        break;
      }
      ram.setWord(entry, address);
      consume(ram, tx);
    }
    submit(ram, cq);
    release(ram, tx);
    return result;
  }

  return [
    atomic({
      prototype: 'int xsk_rcv(struct xdp_sock *xs, struct xdp_buff *xdp)',
      calls: true,
      body: xskRcv,
    }),
    atomic({
      prototype: 'int __xsk_map_redirect(struct xdp_sock *xs, struct xdp_buff *xdp)',
      calls: true,
      body: (kernel, xs, xdp) => {
        const { ram } = kernel.memory;
        const result = kernel.invoke('xsk_rcv', xs, xdp);
        if (result !== 0 || ram.u32(xs + XS.listed) !== 0) return result;
        const list = stack.context + NET_CONTEXT.xskmap_map_flush_list;
        ram.set32(xs + XS.listed, 1);
        ram.setPointer(xs + XS.flush_node, ram.pointer(list));
        ram.setPointer(list, xs);
        return 0;
      },
    }),
    atomic({
      prototype: 'void __xsk_map_flush(struct list_head *flush_list)',
      calls: true,
      body: (kernel, list) => {
        const { ram } = kernel.memory;
        for (let xs = ram.pointer(list); xs !== 0;) {
          const next = ram.pointer(xs + XS.flush_node);
          flush(ram, xs);
          ram.set32(xs + XS.listed, 0);
          xs = next;
        }
        ram.setPointer(list, 0);
      },
    }),
    atomic({
      prototype:
        'int xsk_generic_rcv(struct xdp_sock *xs, struct xdp_buff *xdp, struct sk_buff *skb)',
      calls: true,
      body: (kernel, xs, xdp, skb) => {
        const { ram } = kernel.memory;
        const length = packetLength(ram, xdp);
        const result = check(ram, xs, xdp, length) || receive(ram, xs, xdp, length);
        if (result !== 0) return result;
        flush(ram, xs);
        freeSkb(kernel, stack.pages, skb);
        return 0;
      },
    }),
    atomic({
      prototype: 'int xsk_generic_xmit(struct xdp_sock *xs)',
      calls: true,
      body: (kernel, xs) => {
        const { ram } = kernel.memory;
        if (ram.u32(xs + XS.state) !== XSK_BOUND) return -ERRNO.ENXIO;
        const flags = ram.u32(ram.pointer(xs + XS.dev) + NET_DEVICE.offset.flags);
        if ((flags & IFF_UP) === 0) return -ERRNO.ENETDOWN;
        return ram.pointer(xs + XS.tx) === 0 ? -ERRNO.ENOBUFS : genericXmit(kernel, xs);
      },
    }),
  ];
}
