/**
 * Generic XDP: a program on an skb that the driver has already built.
 *
 * Reference: net/core/dev.c (do_xdp_generic, netif_receive_generic_xdp, bpf_prog_run_generic_xdp,
 * generic_xdp_tx). The skb is given 256 bytes of headroom and made linear; its head is the program's frame.
 * csum_start counts from the head, so it stays with its byte when the program moves the data; nothing else
 * is done about checksums. XDP_TX goes to the driver at once, past validate_xmit_skb: a PARTIAL skb is left
 * to the device even if it has no checksum offload. Leaves out fragments for programs that take them: they
 * get a linear frame too.
 */
import { XDP_BUFF, XDP_PACKET_HEADROOM, XDP_RXQ_INFO } from '../bpf/xdp-buff.js';
import { alignUp } from '../common/bytes.js';
import { ERRNO } from '../common/errno.js';
import { atomic, type KernelContext, type KernelFunction } from '../kernel/function.js';
import { PACKET, setProtocol } from './ethernet.js';
import { ETH } from './headers.js';
import { dropSkb, skbPages, type StackHost } from './host.js';
import { skbLinearize } from './linearize.js';
import { NET_DEVICE } from './net-device.js';
import { SKB_SHARED_INFO_SIZE } from '../bpf/xdp-buff.js';
import { ETH_HLEN } from './skb-geometry.js';
import {
  SKB_SHARED_INFO,
  SK_BUFF,
  pskbExpandHead,
  skbHeadlen,
  skbHeadroom,
  skbPull,
  skbPush,
  skbShinfo,
} from './skb.js';
import { prepareXdpBuff, xdpBuffMetaSize } from './xdp-frame.js';

const XDP_ABORTED = 0;
const XDP_DROP = 1;
const XDP_PASS = 2;
const XDP_TX = 3;
const XDP_REDIRECT = 4;

const NET_SKB_PAD = 64;
const TAILROOM = 128;

const SKB = SK_BUFF.offset;
const DEV = NET_DEVICE.offset;

export function genericXdpFunctions(host: StackHost): readonly KernelFunction[] {
  /** Runs the program; the verdict, with the skb as the program left the frame. */
  function run(kernel: KernelContext, prog: number, skb: number): number {
    const { ram } = kernel.memory;
    makeRoom(kernel, skb);
    const dev = ram.pointer(skb + SKB.dev);
    const head = ram.pointer(skb + SKB.head);
    const macHeader = ram.u16(skb + SKB.mac_header);
    const macLen = skbHeadroom(ram, skb) - macHeader;
    const xdp = dev + DEV.scratch_xdp;
    const rxq = dev + DEV.scratch_rxq;
    ram.setPointer(rxq + XDP_RXQ_INFO.dev, dev);
    ram.set32(rxq + XDP_RXQ_INFO.queueIndex, Math.max(0, ram.u16(skb + SKB.queue_mapping) - 1));
    const frameSize = ram.u32(skb + SKB.end) + SKB_SHARED_INFO_SIZE;
    const length = skbHeadlen(ram, skb) + macLen;
    prepareXdpBuff(ram, xdp, rxq, head, macHeader, length, frameSize);
    const data = head + macHeader;
    const first = ram.u32(data);
    const rest = ram.u16(data + 4);
    const ethertype = ram.u16(data + ETH.protocol);

    const action = host.runXdp(kernel, prog, xdp);

    const moved = ram.pointer(xdp + XDP_BUFF.data) - data;
    if (moved > 0) skbPull(ram, skb, moved);
    else if (moved < 0) skbPush(ram, skb, -moved);
    ram.set16(skb + SKB.mac_header, macHeader + moved);
    ram.set16(skb + SKB.network_header, skbHeadroom(ram, skb));
    const grown = ram.pointer(xdp + XDP_BUFF.dataEnd) - (data + length);
    ram.set32(skb + SKB.tail, ram.u32(skb + SKB.tail) + grown);
    ram.set32(skb + SKB.len, ram.u32(skb + SKB.len) + grown);

    const mac = head + macHeader + moved;
    const readdressed = ram.u32(mac) !== first || ram.u16(mac + 4) !== rest;
    if (ram.u16(mac + ETH.protocol) !== ethertype || readdressed) {
      skbPush(ram, skb, ETH_HLEN);
      ram.set8(skb + SKB.pkt_type, PACKET.HOST);
      setProtocol(kernel, skb, dev);
    }
    if (action === XDP_TX || action === XDP_REDIRECT) skbPush(ram, skb, macLen);
    else if (action === XDP_PASS) {
      const meta = skbShinfo(ram, skb) + SKB_SHARED_INFO.offset.meta_len;
      ram.set8(meta, xdpBuffMetaSize(ram, xdp));
    }
    return action;
  }

  /** 1: the skb goes on; 0: it is gone. */
  function doXdpGeneric(kernel: KernelContext, prog: number, skb: number): number {
    const { ram } = kernel.memory;
    const dev = ram.pointer(skb + SKB.dev);
    const action = kernel.invoke('bpf_prog_run_generic_xdp', prog, skb);
    switch (action) {
      case XDP_PASS:
        return 1;
      case XDP_TX:
        kernel.invoke('start_xmit', skb, dev);
        return 0;
      case XDP_REDIRECT: {
        const xdp = dev + DEV.scratch_xdp;
        if (kernel.invoke('xdp_do_generic_redirect', dev, skb, xdp, prog) === 0) return 0;
        break;
      }
      case XDP_DROP:
        break;
      case XDP_ABORTED:
        host.xdpException(dev, prog, action);
        break;
      default:
        kernel.invoke('bpf_warn_invalid_xdp_action', dev, prog, action);
        host.xdpException(dev, prog, action);
    }
    dropSkb(kernel, host, skb, 'NOT_SPECIFIED', 'do_xdp_generic');
    return 0;
  }

  return [
    atomic({
      prototype: 'int do_xdp_generic(struct bpf_prog *xdp_prog, struct sk_buff *skb)',
      calls: true,
      body: doXdpGeneric,
    }),
    atomic({
      prototype: 'u32 bpf_prog_run_generic_xdp(struct bpf_prog *xdp_prog, struct sk_buff *skb)',
      calls: true,
      body: run,
    }),
    atomic({
      prototype:
        'int xdp_do_generic_redirect(struct net_device *dev, struct sk_buff *skb, ' +
        'struct xdp_buff *xdp, const struct bpf_prog *xdp_prog)',
      // no redirect helper named a target: ifindex 0 is no device
      body: () => -ERRNO.EINVAL,
    }),
  ];
}

/** Headroom for the program, everything in one piece. */
function makeRoom(kernel: KernelContext, skb: number): void {
  const { ram } = kernel.memory;
  const pages = skbPages(kernel, skb);
  const missing = XDP_PACKET_HEADROOM - skbHeadroom(ram, skb);
  const dataLen = ram.u32(skb + SKB.data_len);
  if (missing <= 0 && dataLen === 0) return;
  const tail = ram.u32(skb + SKB.tail) + dataLen - ram.u32(skb + SKB.end);
  const ntail = tail > 0 ? tail + TAILROOM : 0;
  const oldRoom = ram.u32(skb + SKB.end) - ram.u32(skb + SKB.tail);
  const nhead = missing > 0 ? alignUp(missing, NET_SKB_PAD) : 0;
  pskbExpandHead(kernel, pages, skb, nhead, oldRoom + ntail);
  skbLinearize(kernel, pages, skb);
}
