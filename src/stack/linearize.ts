/**
 * `skb_linearize`: all bytes of an skb in its head.
 *
 * Reference: include/linux/skbuff.h (skb_linearize, __pskb_pull_tail). Unlike `skbMayPull` it reaches the
 * frag list too.
 */
import type { KernelContext } from '../kernel/function.js';
import {
  SKB_SHARED_INFO,
  SK_BUFF,
  freeSkb,
  pskbExpandHead,
  putFrags,
  skbCopyBits,
  skbHeadlen,
  skbShinfo,
  skbTailroom,
} from './skb.js';

const SKB = SK_BUFF.offset;
const SHINFO = SKB_SHARED_INFO.offset;

/** @param ntail tailroom there must be besides. */
export function skbLinearize(kernel: KernelContext, pages: number, skb: number, ntail = 0): void {
  const { ram } = kernel.memory;
  const more = ram.u32(skb + SKB.data_len);
  if (skbTailroom(ram, skb) < more + ntail) pskbExpandHead(kernel, pages, skb, 0, more + ntail);
  if (more === 0) return;
  const shinfo = skbShinfo(ram, skb);
  const linear = skbHeadlen(ram, skb);
  const tail = ram.u32(skb + SKB.tail);
  skbCopyBits(ram, skb, linear, ram.pointer(skb + SKB.head) + tail, more);
  putFrags(kernel, pages, shinfo);
  ram.set8(shinfo + SHINFO.nr_frags, 0);
  for (let part = ram.pointer(shinfo + SHINFO.frag_list); part !== 0;) {
    const next = ram.pointer(part + SKB.next);
    freeSkb(kernel, pages, part);
    part = next;
  }
  ram.setPointer(shinfo + SHINFO.frag_list, 0);
  ram.set32(skb + SKB.tail, tail + more);
  ram.set32(skb + SKB.data_len, 0);
}
