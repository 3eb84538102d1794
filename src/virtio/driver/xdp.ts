/**
 * Running an XDP program on a received frame, acting on its verdict, and XDP transmit.
 *
 * Reference: drivers/net/virtio_net.c of 6.12 (virtnet_xdp_handler, virtnet_xdp_xmit,
 * __virtnet_xdp_xmit_one, __free_old_xmit). The header of a transmitted frame is zeroed: checksum
 * knowledge does not pass. Redirects are the stack's (`stack/xdp-redirect.ts`).
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
import { XDP_BUFF } from '../../bpf/xdp-buff.js';
import { ERRNO } from '../../common/errno.js';
import { Callee, atomic, type KernelContext, type KernelFunction } from '../../kernel/function.js';
import {
  VIRTIO_XDP_FLAG,
  VIRTIO_XDP_REDIR,
  VIRTIO_XDP_TX,
  VIRTNET_SQ_STATS,
  RECEIVE_QUEUE,
  VIRTNET_RQ_STATS,
  SEND_QUEUE,
  VIRTNET_INFO,
} from './structs.js';
import {
  isXdpRawBufferQueue,
  kick,
  pagesOf,
  receiveQueue,
  sendPairOf,
  xdpSendQueue,
  type VirtioNetHost,
} from './common.js';
import { profileOf } from './profiles.js';
import { checkSqFullAndDisable } from './transmit-napi.js';
import { SKB_SHARED_INFO, SK_BUFF, fragAddress, fragLength, freeSkb } from '../../stack/skb.js';
import { XDP_ABORTED, XDP_DROP, XDP_PASS, XDP_REDIRECT, XDP_TX } from '../../stack/xdp-verdict.js';
import { SCATTERLIST } from '../ring/vring-virtqueue.js';
import {
  XDP_FRAME,
  frameHasFrags,
  frameLength,
  frameShinfo,
  returnFrame,
} from '../../stack/xdp-frame.js';
import { convertBuffToFrame, dropConverted, releaseConverted } from '../../stack/xsk-frame.js';
import { NET_DEVICE } from '../../stack/net-device.js';

const DEV = NET_DEVICE.offset;
const RQ = RECEIVE_QUEUE.offset;
const RQ_STATS = VIRTNET_RQ_STATS.offset;
const SQ = SEND_QUEUE.offset;
const VI = VIRTNET_INFO.offset;

const VIRTQUEUE_GET_BUF = new Callee('virtqueue_get_buf');
const VIRTQUEUE_ADD_OUTBUF = new Callee('virtqueue_add_outbuf');
const VIRTNET_XDP_XMIT = new Callee('virtnet_xdp_xmit');

const XDP_XMIT_FLUSH = 1;
const SQ_STATS = VIRTNET_SQ_STATS.offset;
const FRAME = XDP_FRAME.offset;
const SG = SCATTERLIST.offset;

/** Takes finished frames off a send queue; adds to its counters (`__free_old_xmit`). */
export function freeOldXmit(kernel: KernelContext, vi: number, sq: number): void {
  const { ram } = kernel.memory;
  const vq = ram.pointer(sq + SQ.vq);
  for (;;) {
    const cookie = kernel.invoke(VIRTQUEUE_GET_BUF, vq, sq + SQ.scratch_len);
    if (cookie === 0) return;
    const frame = cookie & ~VIRTIO_XDP_FLAG;
    const bytes = frame === cookie ? ram.u32(cookie + SK_BUFF.offset.len) : frameLength(ram, frame);
    ram.add64(sq + SQ.stats + SQ_STATS.packets, 1);
    ram.add64(sq + SQ.stats + SQ_STATS.bytes, bytes);
    freeTransmitted(kernel, pagesOf(ram, vi), cookie);
  }
}

/** Gives back what a send queue held: an xdp_frame, whose cookie is tagged, or an skb. */
export function freeTransmitted(kernel: KernelContext, pages: number, cookie: number): void {
  const frame = cookie & ~VIRTIO_XDP_FLAG;
  if (frame === cookie) freeSkb(kernel, pages, cookie);
  else returnFrame(kernel, pages, frame);
}

/** `__virtnet_xdp_xmit_one`: 0, -EOVERFLOW or -ENOSPC. */
function xmitOne(kernel: KernelContext, vi: number, sq: number, frame: number): number {
  const { ram } = kernel.memory;
  const headerSize = ram.u8(vi + VI.hdr_len);
  const headroom = ram.u16(frame + FRAME.headroom);
  if (headroom < headerSize) return -ERRNO.EOVERFLOW;
  const data = ram.pointer(frame + FRAME.data) - headerSize;
  const length = ram.u16(frame + FRAME.len) + headerSize;
  ram.set16(frame + FRAME.headroom, headroom - headerSize);
  ram.setPointer(frame + FRAME.data, data);
  ram.set16(frame + FRAME.len, length);
  ram.zero(data, headerSize);

  const sg = sq + SQ.sg;
  ram.setPointer(sg + SG.address, data);
  ram.set32(sg + SG.length, length);
  let pieces = 1;
  if (frameHasFrags(ram, frame)) {
    const shinfo = frameShinfo(ram, frame);
    const frags = ram.u8(shinfo + SKB_SHARED_INFO.offset.nr_frags);
    for (let i = 0; i < frags; i++) {
      const piece = sg + pieces * SCATTERLIST.size;
      ram.setPointer(piece + SG.address, fragAddress(ram, shinfo, i));
      ram.set32(piece + SG.length, fragLength(ram, shinfo, i));
      pieces++;
    }
  }
  const vq = ram.pointer(sq + SQ.vq);
  const cookie = frame | VIRTIO_XDP_FLAG;
  const result = kernel.invoke(VIRTQUEUE_ADD_OUTBUF, vq, sg, pieces, cookie, 0);
  return result < 0 ? -ERRNO.ENOSPC : 0;
}

function virtnetXdpXmit(
  kernel: KernelContext,
  dev: number,
  n: number,
  frames: number,
  flags: number,
): number {
  const { ram } = kernel.memory;
  const vi = ram.pointer(dev + DEV.priv);
  if (ram.pointer(receiveQueue(ram, vi, 0) + RQ.xdp_prog) === 0) return -ERRNO.ENXIO;
  const sq = xdpSendQueue(kernel, vi);
  const stats = sq + SQ.stats;
  let result: number;
  if ((flags & ~XDP_XMIT_FLUSH) !== 0) {
    result = -ERRNO.EINVAL;
  } else {
    freeOldXmit(kernel, vi, sq);
    let sent = 0;
    while (sent < n) {
      if (xmitOne(kernel, vi, sq, ram.pointer(frames + 8 * sent)) < 0) break;
      sent++;
    }
    result = sent;
    if (
      profileOf(ram, vi).xdpStopsQueue &&
      !isXdpRawBufferQueue(ram, vi, sendPairOf(ram, vi, sq))
    ) {
      checkSqFullAndDisable(kernel, sq);
    }
    if ((flags & XDP_XMIT_FLUSH) !== 0 && kick(kernel, ram.pointer(sq + SQ.vq))) {
      ram.add64(stats + SQ_STATS.kicks, 1);
    }
  }
  ram.add64(stats + SQ_STATS.xdp_tx, n);
  // a negative result counts as that many more dropped, as the driver's own arithmetic has it
  ram.add64(stats + SQ_STATS.xdp_tx_drops, n - result);
  return result;
}

/** `virtnet_xdp_handler` behind the program's run: acts on its verdict. */
function act(
  kernel: KernelContext,
  host: VirtioNetHost,
  action: number,
  prog: number,
  xdp: number,
  dev: number,
  xdpXmit: number,
  stats: number,
): number {
  const { ram } = kernel.memory;
  switch (action) {
    case XDP_PASS:
    case XDP_DROP:
      return action;
    case XDP_TX: {
      ram.add64(stats + RQ_STATS.xdp_tx, 1);
      const vi = ram.pointer(dev + DEV.priv);
      const frame = convertBuffToFrame(kernel, pagesOf(ram, vi), xdp);
      if (frame === 0) return XDP_DROP;
      const slot = frameSlot(kernel, vi, xdp);
      ram.setPointer(slot, frame);
      const sent = kernel.invoke(VIRTNET_XDP_XMIT, dev, 1, slot, 0);
      if (sent < 0) {
        host.xdpException(dev, prog, action);
        dropConverted(kernel, pagesOf(ram, vi), xdp, frame);
        return XDP_DROP;
      }
      releaseConverted(ram, xdp);
      if (sent === 0) returnFrame(kernel, pagesOf(ram, vi), frame);
      ram.set32(xdpXmit, ram.u32(xdpXmit) | VIRTIO_XDP_TX);
      return action;
    }
    case XDP_REDIRECT:
      ram.add64(stats + RQ_STATS.xdp_redirects, 1);
      if (kernel.invoke('xdp_do_redirect', dev, xdp, prog) !== 0) return XDP_DROP;
      ram.set32(xdpXmit, ram.u32(xdpXmit) | VIRTIO_XDP_REDIR);
      return action;
    case XDP_ABORTED:
      host.xdpException(dev, prog, action);
      return XDP_DROP;
    default:
      kernel.invoke('bpf_warn_invalid_xdp_action', dev, prog, action);
      host.xdpException(dev, prog, action);
      return XDP_DROP;
  }
}

export function xdpFunctions(host: VirtioNetHost): readonly KernelFunction[] {
  return [
    atomic({
      prototype:
        'int virtnet_xdp_handler(struct bpf_prog *xdp_prog, struct xdp_buff *xdp, ' +
        'struct net_device *dev, unsigned int *xdp_xmit, struct virtnet_rq_stats *stats)',
      calls: true,
      body: (kernel, prog, xdp, dev, xdpXmit, stats) => {
        const { ram } = kernel.memory;
        const data = ram.pointer(xdp + XDP_BUFF.data);
        const action = host.stack.runXdp(prog, xdp);
        ram.set32(xdp - RQ.scratch_xdp + RQ.scratch_moved, ram.pointer(xdp + XDP_BUFF.data) - data);
        ram.add64(stats + RQ_STATS.xdp_packets, 1);
        return act(kernel, host, action, prog, xdp, dev, xdpXmit, stats);
      },
    }),
    atomic({
      prototype:
        'int virtnet_xdp_xmit(struct net_device *dev, int n, struct xdp_frame **frames, u32 flags)',
      calls: true,
      body: virtnetXdpXmit,
    }),
    atomic({
      prototype:
        'void bpf_warn_invalid_xdp_action(const struct net_device *dev, const struct bpf_prog *prog, ' +
        'u32 act)',
      body: (_kernel, _dev, _prog, action) => host.stack.warnInvalidAction(action),
    }),
  ];
}

/** The one-frame array on the caller's stack: the receive queue that the xdp_buff belongs to has it. */
function frameSlot(kernel: KernelContext, vi: number, xdp: number): number {
  const rq = xdp - RQ.scratch_xdp;
  if (kernel.memory.ram.pointer(rq + RQ.vi) !== vi) {
    throw new RangeError('xdp_buff of another device');
  }
  return rq + RQ.scratch_frame;
}
