/**
 * Running an XDP program on a received frame, acting on its verdict, and XDP transmit.
 *
 * Reference: drivers/net/virtio_net.c of 6.12 (virtnet_xdp_handler, virtnet_xdp_xmit,
 * __virtnet_xdp_xmit_one, __free_old_xmit). The header of a transmitted frame is zeroed: checksum
 * knowledge does not pass. Leaves out redirect targets: without maps xdp_do_redirect refuses.
 *
 * | verdict            | receive queue                        | send queue               |
 * | PASS               | xdp_packets                          |                          |
 * | TX                 | + xdp_tx                             | xdp_tx                   |
 * | TX, no frame       | + xdp_tx xdp_drops drops             |                          |
 * | TX, ring full      | + xdp_tx                             | xdp_tx xdp_tx_drops      |
 * | TX, error          | + xdp_tx xdp_drops drops             |                          |
 * | REDIRECT, error    | + xdp_redirects xdp_drops drops      |                          |
 * | ABORTED DROP other | + xdp_drops drops                    |                          |
 */
import { ERRNO } from '../common/errno.js';
import {
  call,
  type BodyGenerator,
  type KernelContext,
  type KernelFunction,
} from '../kernel/function.js';
import {
  VIRTIO_XDP_FLAG,
  VIRTIO_XDP_REDIR,
  VIRTIO_XDP_TX,
  VIRTNET_SQ_STATS,
} from './net-structs.js';
import {
  DEV,
  RQ,
  RQ_STATS,
  SQ,
  VI,
  count,
  kick,
  pagesOf,
  receiveQueue,
  xdpSendQueue,
  type VirtioNetHost,
} from './net-driver-common.js';
import { SKB_SHARED_INFO, readFrag } from './skb.js';
import { SCATTERLIST } from './split-ring-driver.js';
import { toInt, toUint } from './struct.js';
import {
  XDP_FRAME,
  frameHasFrags,
  frameLength,
  frameShinfo,
  returnFrame,
  xdpBuffToFrame,
} from './xdp-frame.js';

const XDP_ABORTED = 0;
const XDP_DROP = 1;
export const XDP_PASS = 2;
export const XDP_TX = 3;
export const XDP_REDIRECT = 4;

const XDP_XMIT_FLUSH = 1;
const SQ_STATS = VIRTNET_SQ_STATS.offset;
const FRAME = XDP_FRAME.offset;

/** Takes finished frames off a send queue; adds to its counters (`__free_old_xmit`). */
export function* freeOldXmit(kernel: KernelContext, vi: bigint, sq: bigint): BodyGenerator<void> {
  const { memory } = kernel;
  const pages = pagesOf(kernel, vi);
  const vq = memory.read64(sq + SQ.vq);
  for (;;) {
    const cookie = yield* call('virtqueue_get_buf', vq, sq + SQ.scratch_len);
    if (cookie === 0n) return;
    const frame = cookie & ~VIRTIO_XDP_FLAG;
    count(memory, sq + SQ.stats + SQ_STATS.packets);
    count(memory, sq + SQ.stats + SQ_STATS.bytes, frameLength(memory, frame));
    returnFrame(memory, pages, frame);
  }
}

/** `__virtnet_xdp_xmit_one`: 0, -EOVERFLOW or -ENOSPC. */
function* xmitOne(
  kernel: KernelContext,
  vi: bigint,
  sq: bigint,
  frame: bigint,
): BodyGenerator<number> {
  const { memory } = kernel;
  const headerSize = memory.read8(vi + VI.hdr_len);
  const headroom = memory.read16(frame + FRAME.headroom);
  if (headroom < headerSize) return -ERRNO.EOVERFLOW;
  const data = memory.read64(frame + FRAME.data) - BigInt(headerSize);
  const length = memory.read16(frame + FRAME.len) + headerSize;
  memory.write16(frame + FRAME.headroom, headroom - headerSize);
  memory.write64(frame + FRAME.data, data);
  memory.write16(frame + FRAME.len, length);
  memory.writeBytes(data, new Uint8Array(headerSize));

  const pages = pagesOf(kernel, vi);
  const sg = sq + SQ.sg;
  memory.write64(sg + SCATTERLIST.offset.address, data);
  memory.write32(sg + SCATTERLIST.offset.length, length);
  let pieces = 1;
  if (frameHasFrags(memory, frame)) {
    const shinfo = frameShinfo(memory, frame);
    const frags = memory.read8(shinfo + SKB_SHARED_INFO.offset.nr_frags);
    for (let i = 0; i < frags; i++) {
      const frag = readFrag(memory, shinfo, i);
      const piece = sg + BigInt(pieces * SCATTERLIST.size);
      const address = pages.address(frag.page) + BigInt(frag.offset);
      memory.write64(piece + SCATTERLIST.offset.address, address);
      memory.write32(piece + SCATTERLIST.offset.length, frag.len);
      pieces++;
    }
  }
  const vq = memory.read64(sq + SQ.vq);
  const cookie = frame | VIRTIO_XDP_FLAG;
  const result = toInt(yield* call('virtqueue_add_outbuf', vq, sg, BigInt(pieces), cookie, 0n));
  return result < 0 ? -ERRNO.ENOSPC : 0;
}

function* virtnetXdpXmit(
  kernel: KernelContext,
  dev = 0n,
  n = 0n,
  frames = 0n,
  flags = 0n,
): BodyGenerator {
  const { memory } = kernel;
  const vi = memory.read64(dev + DEV.priv);
  if (memory.read64(receiveQueue(memory, vi, 0) + RQ.xdp_prog) === 0n) return BigInt(-ERRNO.ENXIO);
  const sq = xdpSendQueue(kernel, vi);
  const stats = sq + SQ.stats;
  const total = toInt(n);
  let result: number;
  if ((toUint(flags) & ~XDP_XMIT_FLUSH) !== 0) {
    result = -ERRNO.EINVAL;
  } else {
    yield* freeOldXmit(kernel, vi, sq);
    let sent = 0;
    while (sent < total) {
      const frame = memory.read64(frames + BigInt(8 * sent));
      if ((yield* xmitOne(kernel, vi, sq, frame)) < 0) break;
      sent++;
    }
    result = sent;
    if ((toUint(flags) & XDP_XMIT_FLUSH) !== 0) {
      if (yield* kick(memory.read64(sq + SQ.vq))) count(memory, stats + SQ_STATS.kicks);
    }
  }
  count(memory, stats + SQ_STATS.xdp_tx, total);
  // a negative result counts as that many more dropped, as the driver's own arithmetic has it
  count(memory, stats + SQ_STATS.xdp_tx_drops, total - result);
  return BigInt(result);
}

export function xdpFunctions(host: VirtioNetHost): readonly KernelFunction[] {
  function* virtnetXdpHandler(
    kernel: KernelContext,
    prog = 0n,
    xdp = 0n,
    dev = 0n,
    xdpXmit = 0n,
    stats = 0n,
  ): BodyGenerator {
    const { memory } = kernel;
    const action = toUint(yield* host.runner(prog).run(xdp));
    count(memory, stats + RQ_STATS.xdp_packets);
    switch (action) {
      case XDP_PASS:
      case XDP_DROP:
        return BigInt(action);
      case XDP_TX: {
        count(memory, stats + RQ_STATS.xdp_tx);
        const frame = xdpBuffToFrame(memory, xdp);
        if (frame === 0n) return BigInt(XDP_DROP);
        const vi = memory.read64(dev + DEV.priv);
        const slot = frameSlot(kernel, vi, xdp);
        memory.write64(slot, frame);
        const sent = toInt(yield* call('virtnet_xdp_xmit', dev, 1n, slot, 0n));
        if (sent < 0) {
          host.xdpException(dev, prog, action);
          return BigInt(XDP_DROP);
        }
        if (sent === 0) returnFrame(memory, pagesOf(kernel, vi), frame);
        memory.write32(xdpXmit, memory.read32(xdpXmit) | VIRTIO_XDP_TX);
        return BigInt(action);
      }
      case XDP_REDIRECT:
        count(memory, stats + RQ_STATS.xdp_redirects);
        if (toInt(yield* call('xdp_do_redirect', dev, xdp, prog)) !== 0) return BigInt(XDP_DROP);
        memory.write32(xdpXmit, memory.read32(xdpXmit) | VIRTIO_XDP_REDIR);
        return BigInt(action);
      case XDP_ABORTED:
        host.xdpException(dev, prog, action);
        return BigInt(XDP_DROP);
      default:
        yield* call('bpf_warn_invalid_xdp_action', dev, prog, BigInt(action));
        host.xdpException(dev, prog, action);
        return BigInt(XDP_DROP);
    }
  }

  return [
    {
      name: 'virtnet_xdp_handler',
      prototype:
        'int virtnet_xdp_handler(struct bpf_prog *xdp_prog, struct xdp_buff *xdp, ' +
        'struct net_device *dev, unsigned int *xdp_xmit, struct virtnet_rq_stats *stats)',
      parameters: 5,
      body: virtnetXdpHandler,
    },
    {
      name: 'virtnet_xdp_xmit',
      prototype:
        'int virtnet_xdp_xmit(struct net_device *dev, int n, struct xdp_frame **frames, u32 flags)',
      parameters: 4,
      body: virtnetXdpXmit,
    },
    {
      name: 'bpf_warn_invalid_xdp_action',
      prototype:
        'void bpf_warn_invalid_xdp_action(const struct net_device *dev, const struct bpf_prog *prog, ' +
        'u32 act)',
      parameters: 3,
      body: (kernel, dev = 0n, _prog = 0n, act = 0n) => {
        const warned = kernel.memory.read64(dev + DEV.priv) + VI.warned_action;
        if (kernel.memory.read8(warned) !== 0) return;
        kernel.memory.write8(warned, 1);
        kernel.printk(`Illegal XDP return value ${toUint(act)}, expect packet loss!`);
      },
    },
    {
      name: 'xdp_do_redirect',
      prototype:
        'int xdp_do_redirect(struct net_device *dev, struct xdp_buff *xdp, ' +
        'const struct bpf_prog *xdp_prog)',
      parameters: 3,
      // no redirect helper named a target: ifindex 0 is no device
      body: () => BigInt(-ERRNO.EINVAL),
    },
    {
      name: 'xdp_do_flush',
      prototype: 'void xdp_do_flush(void)',
      parameters: 0,
      body: () => undefined,
    },
  ];
}

/** The one-frame array on the caller's stack: the receive queue that the xdp_buff belongs to has it. */
function frameSlot(kernel: KernelContext, vi: bigint, xdp: bigint): bigint {
  const rq = xdp - RQ.scratch_xdp;
  if (kernel.memory.read64(rq + RQ.vi) !== vi) throw new RangeError('xdp_buff of another device');
  return rq + RQ.scratch_frame;
}
