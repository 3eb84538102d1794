/**
 * `skb_pp_cow_data`: an skb's bytes in pages of its own, with room in front, for a program that takes fragments.
 *
 * Reference: net/core/skbuff.c of 6.12 (skb_pp_cow_data, skb_cow_data_for_xdp; since 6.9). The head takes what fits
 * a page with its headroom, each fragment a page more. In Linux the bytes come in a new sk_buff, here the sk_buff
 * stays and its memory is exchanged. Leaves out page pools: of a page that is given out in parts the rest is not used.
 */
import { ERRNO } from '../common/errno.js';
import { SKB_SHARED_INFO_SIZE } from '../bpf/xdp-buff.js';
import type { KernelContext } from '../kernel/function.js';
import { PAGE_SIZE, allocPage, pageAddress } from './pages.js';
import { MAX_SKB_FRAGS, skbDataAlign } from './skb-geometry.js';
import {
  CHECKSUM_PARTIAL,
  SKB_SHARED_INFO,
  SK_BUFF,
  buildSkb,
  freeHead,
  putFrags,
  skbAddFrag,
  skbCopyBits,
  skbHeadroom,
  skbPut,
  skbReserve,
  skbShinfo,
} from './skb.js';

const SKB = SK_BUFF.offset;
const SHINFO = SKB_SHARED_INFO.offset;
const HEADERS = ['mac_header', 'network_header', 'transport_header'] as const;

/** 0, -EOPNOTSUPP for an skb with a frag list, -ENOMEM for one that is too long. Data are its bytes from here on. */
export function skbPpCowData(
  kernel: KernelContext,
  pages: number,
  skb: number,
  headroom: number,
): number {
  const { ram } = kernel.memory;
  const old = skbShinfo(ram, skb);
  if (ram.pointer(old + SHINFO.frag_list) !== 0) return -ERRNO.EOPNOTSUPP;
  const len = ram.u32(skb + SKB.len);
  const most = PAGE_SIZE - headroom - SKB_SHARED_INFO_SIZE;
  if (len > most + MAX_SKB_FRAGS * PAGE_SIZE) return -ERRNO.ENOMEM;
  const linear = Math.min(len, most);
  const size = skbDataAlign(linear) + SKB_SHARED_INFO_SIZE + headroom;
  // page_pool_alloc: what takes more than half a page gets it whole
  const truesize = 2 * size > PAGE_SIZE ? PAGE_SIZE : size;
  const made = buildSkb(kernel, pageAddress(ram, allocPage(kernel, pages, 1)), truesize);
  skbReserve(ram, made, headroom);
  skbCopyBits(ram, skb, 0, skbPut(kernel, made, linear), linear);
  for (let off = linear; off < len; off += PAGE_SIZE) {
    const part = Math.min(len - off, PAGE_SIZE);
    const page = allocPage(kernel, pages, 1);
    skbCopyBits(ram, skb, off, pageAddress(ram, page), part);
    skbAddFrag(ram, made, page, 0, part, 2 * part > PAGE_SIZE ? PAGE_SIZE : part);
  }
  const shinfo = skbShinfo(ram, made);
  ram.set16(shinfo + SHINFO.gso_size, ram.u16(old + SHINFO.gso_size));
  ram.set16(shinfo + SHINFO.gso_segs, ram.u16(old + SHINFO.gso_segs));
  ram.set32(shinfo + SHINFO.gso_type, ram.u32(old + SHINFO.gso_type));

  // skb_headers_offset_update
  const moved = skbHeadroom(ram, made) - skbHeadroom(ram, skb);
  const move = (at: number): void => ram.set16(at, ram.u16(at) + moved);
  if (ram.u8(skb + SKB.ip_summed) === CHECKSUM_PARTIAL) move(skb + SKB.csum_start);
  for (const header of HEADERS) move(skb + SKB[header]);

  putFrags(kernel, pages, old);
  freeHead(kernel, pages, skb);
  for (const field of ['head', 'data'] as const) {
    ram.setPointer(skb + SKB[field], ram.pointer(made + SKB[field]));
  }
  for (const field of ['tail', 'end', 'data_len', 'truesize'] as const) {
    ram.set32(skb + SKB[field], ram.u32(made + SKB[field]));
  }
  ram.set8(skb + SKB.head_frag, 1);
  kernel.physical.free(made);
  return 0;
}
