/**
 * Generic XDP: a program on an skb that the driver has already built.
 *
 * Reference: net/core/dev.c (do_xdp_generic, netif_receive_generic_xdp, bpf_prog_run_generic_xdp,
 * generic_xdp_tx). The skb is given 256 bytes of headroom; its head is the program's frame. Since 6.9 a program that
 * takes fragments gets the skb's, from pages of its own (`cow-data.ts`), and the room counts from the Ethernet header;
 * for others, and in 6.1 for all (`xdp_as_6_1` of the device), the skb is made linear.
 * csum_start counts from the head, so it stays with its byte when the program moves the data; nothing else
 * is done about checksums. XDP_TX goes to the driver at once, past validate_xmit_skb: a PARTIAL skb is left
 * to the device even if it has no checksum offload.
 */
import {
  SKB_SHARED_INFO_SIZE,
  XDP_BUFF,
  XDP_FLAGS_HAS_FRAGS,
  XDP_PACKET_HEADROOM,
  XDP_RXQ_INFO,
} from '../bpf/xdp-buff.js';
import { alignUp } from '../common/bytes.js';
import { atomic, type KernelContext, type KernelFunction } from '../kernel/function.js';
import { skbPpCowData } from './cow-data.js';
import { PACKET, setProtocol } from './ethernet.js';
import { ETH } from './headers.js';
import { dropSkb, skbPages, type StackHost } from './host.js';
import { skbLinearize } from './linearize.js';
import { NET_DEVICE } from './net-device.js';
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
import { prepareXdpBuff, xdpBuffHasFrags, xdpBuffMetaSize } from './xdp-frame.js';
import { BPF_PROG } from './xdp-program.js';

const XDP_ABORTED = 0;
const XDP_DROP = 1;
const XDP_PASS = 2;
const XDP_TX = 3;
const XDP_REDIRECT = 4;

const NET_SKB_PAD = 64;
const TAILROOM = 128;

const SKB = SK_BUFF.offset;
const SHINFO = SKB_SHARED_INFO.offset;
const DEV = NET_DEVICE.offset;

export function genericXdpFunctions(host: StackHost): readonly KernelFunction[] {
  /** Runs the program; the verdict, with the skb as the program left the frame. */
  function run(kernel: KernelContext, skb: number, xdp: number, prog: number): number {
    const { ram } = kernel.memory;
    const dev = ram.pointer(skb + SKB.dev);
    const head = ram.pointer(skb + SKB.head);
    const macHeader = ram.u16(skb + SKB.mac_header);
    const macLen = skbHeadroom(ram, skb) - macHeader;
    const txq = ram.pointer(xdp + XDP_BUFF.txq);
    const rxq = dev + DEV.scratch_rxq;
    ram.setPointer(rxq + XDP_RXQ_INFO.dev, dev);
    ram.set32(rxq + XDP_RXQ_INFO.queueIndex, Math.max(0, ram.u16(skb + SKB.queue_mapping) - 1));
    const frameSize = ram.u32(skb + SKB.end) + SKB_SHARED_INFO_SIZE;
    const length = skbHeadlen(ram, skb) + macLen;
    prepareXdpBuff(ram, xdp, rxq, head, macHeader, length, frameSize);
    ram.setPointer(xdp + XDP_BUFF.txq, txq);
    const dataLen = ram.u32(skb + SKB.data_len);
    const shinfo = skbShinfo(ram, skb);
    if (dataLen > 0) {
      ram.set32(shinfo + SHINFO.xdp_frags_size, dataLen);
      ram.set32(xdp + XDP_BUFF.flags, XDP_FLAGS_HAS_FRAGS);
    }
    const data = head + macHeader;
    const first = ram.u32(data);
    const rest = ram.u16(data + 4);
    const ethertype = ram.u16(data + ETH.protocol);

    const action = host.runXdp(kernel, prog, xdp);

    const moved = ram.pointer(xdp + XDP_BUFF.data) - data;
    if (moved > 0) skbPull(ram, skb, moved);
    else if (moved < 0) skbPush(ram, skb, -moved);
    ram.set16(skb + SKB.mac_header, macHeader + moved);
    if (host.resetsNetworkHeader) ram.set16(skb + SKB.network_header, skbHeadroom(ram, skb));
    const grown = ram.pointer(xdp + XDP_BUFF.dataEnd) - (data + length);
    ram.set32(skb + SKB.tail, ram.u32(skb + SKB.tail) + grown);
    const left = xdpBuffHasFrags(ram, xdp) ? ram.u32(shinfo + SHINFO.xdp_frags_size) : 0;
    ram.set32(skb + SKB.len, ram.u32(skb + SKB.len) + grown + left - dataLen);
    ram.set32(skb + SKB.data_len, left);

    const mac = head + macHeader + moved;
    const readdressed = ram.u32(mac) !== first || ram.u16(mac + 4) !== rest;
    if (ram.u16(mac + ETH.protocol) !== ethertype || readdressed) {
      skbPush(ram, skb, ETH_HLEN);
      ram.set8(skb + SKB.pkt_type, PACKET.HOST);
      setProtocol(kernel, skb, dev);
    }
    if (action === XDP_TX || action === XDP_REDIRECT) skbPush(ram, skb, macLen);
    else if (action === XDP_PASS) {
      ram.set8(shinfo + SHINFO.meta_len, xdpBuffMetaSize(ram, xdp));
    }
    return action;
  }

  /** 1: the skb goes on; 0: it is gone. */
  function doXdpGeneric(kernel: KernelContext, prog: number, skb: number): number {
    const { ram } = kernel.memory;
    if (ram.u8(skb + SKB.redirected) !== 0) return 1;
    const dev = ram.pointer(skb + SKB.dev);
    makeRoom(kernel, dev, prog, skb);
    const xdp = dev + DEV.scratch_xdp;
    ram.setPointer(xdp + XDP_BUFF.txq, 0);
    const action = kernel.invoke('bpf_prog_run_generic_xdp', skb, xdp, prog);
    switch (action) {
      case XDP_PASS:
        return 1;
      case XDP_TX:
        kernel.invoke('generic_xdp_tx', skb, prog);
        return 0;
      case XDP_REDIRECT:
        if (kernel.invoke('xdp_do_generic_redirect', dev, skb, xdp, prog) === 0) return 0;
        break;
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
      prototype:
        'u32 bpf_prog_run_generic_xdp(struct sk_buff *skb, struct xdp_buff *xdp, ' +
        'const struct bpf_prog *xdp_prog)',
      calls: true,
      body: run,
    }),
  ];
}

/** `netif_skb_check_for_xdp`: headroom for the program, and fragments only where it takes them. */
function makeRoom(kernel: KernelContext, dev: number, prog: number, skb: number): void {
  const { ram } = kernel.memory;
  if (ram.u8(dev + DEV.xdp_as_6_1) !== 0) {
    const missing = XDP_PACKET_HEADROOM - skbHeadroom(ram, skb);
    if (missing > 0 || ram.u32(skb + SKB.data_len) > 0) linearize(kernel, skb, missing);
    return;
  }
  const macLen = skbHeadroom(ram, skb) - ram.u16(skb + SKB.mac_header);
  skbPush(ram, skb, macLen);
  const missing = XDP_PACKET_HEADROOM - skbHeadroom(ram, skb);
  if (missing > 0 || ram.u8(skbShinfo(ram, skb) + SHINFO.nr_frags) > 0) {
    const takesFrags = ram.u32(prog + BPF_PROG.offset.xdp_has_frags) !== 0;
    const copied =
      takesFrags && skbPpCowData(kernel, skbPages(kernel, skb), skb, XDP_PACKET_HEADROOM) === 0;
    if (!copied) linearize(kernel, skb, missing);
  }
  skbPull(ram, skb, macLen);
}

/** `pskb_expand_head` and `skb_linearize`. */
function linearize(kernel: KernelContext, skb: number, missing: number): void {
  const { ram } = kernel.memory;
  const pages = skbPages(kernel, skb);
  const dataLen = ram.u32(skb + SKB.data_len);
  const tail = ram.u32(skb + SKB.tail) + dataLen - ram.u32(skb + SKB.end);
  const ntail = tail > 0 ? tail + TAILROOM : 0;
  const oldRoom = ram.u32(skb + SKB.end) - ram.u32(skb + SKB.tail);
  const nhead = missing > 0 ? alignUp(missing, NET_SKB_PAD) : 0;
  pskbExpandHead(kernel, pages, skb, nhead, oldRoom + ntail);
  skbLinearize(kernel, pages, skb);
}
