/**
 * Checksum states of an skb: verifying, completing and describing L4 checksums.
 *
 * Reference: include/linux/skbuff.h ("Checksumming of received packets by device", skb_checksum_init,
 * __skb_checksum_validate), net/core/skbuff.c (skb_checksum_help lives in net/core/dev.c,
 * skb_partial_csum_set, __skb_checksum_complete). Sums are of 16-bit words in network order, folded
 * when they are stored. Leaves out CRC (SCTP) and CHECKSUM_COMPLETE from devices: virtio-net has none.
 *
 * | ip_summed   | received                                | to send                        |
 * | ----------- | --------------------------------------- | ------------------------------ |
 * | NONE        | L4 verifies                             | bytes are complete             |
 * | UNNECESSARY | verified, csum_level further ones too   | as NONE                        |
 * | COMPLETE    | `csum` is the sum of the packet         | as NONE                        |
 * | PARTIAL     | deemed verified up to csum_start        | device or software completes   |
 */
import type { Ram } from '../cpu/ram.js';
import type { KernelContext } from '../kernel/function.js';
import { fold } from '../net/checksum.js';
import { AF_INET } from './net.js';
import { IPV4, IPV6, be16, setBe16 } from './headers.js';
import {
  CHECKSUM_COMPLETE,
  CHECKSUM_NONE,
  CHECKSUM_PARTIAL,
  CHECKSUM_UNNECESSARY,
  SK_BUFF,
  forEachPart,
  skbHeadlen,
  skbHeadroom,
  skbMayPull,
} from './skb.js';

/** Packets up to this length are verified at once, longer ones when they are read. */
const CHECKSUM_BREAK = 76;

const SKB = SK_BUFF.offset;

/** Sum of 16-bit words over `len` bytes that lie together, on top of `start`. */
export function sumRange(ram: Ram, at: number, len: number, start = 0): number {
  let sum = start;
  const end = at + (len & ~1);
  for (let i = at; i < end; i += 2) sum += be16(ram, i);
  return (len & 1) === 0 ? sum : sum + (ram.u8(end) << 8);
}

/** `skb_checksum`: sum over bytes [offset, offset + len), on top of `start`; folded. */
export function skbChecksum(ram: Ram, skb: number, offset: number, len: number, start = 0): number {
  let sum = start;
  let odd = false;
  forEachPart(ram, skb, offset, len, (at, size) => {
    const part = fold(sumRange(ram, at, size));
    // a piece behind an odd number of bytes has its words the other way round
    sum += odd ? ((part & 0xff) << 8) | (part >>> 8) : part;
    odd = odd !== ((size & 1) === 1);
  });
  return fold(sum);
}

/** Sum over the pseudo-header of the packet whose network header is at `iph`. */
export function pseudoSum(
  ram: Ram,
  family: number,
  iph: number,
  protocol: number,
  len: number,
): number {
  const addresses =
    family === AF_INET ? sumRange(ram, iph + IPV4.saddr, 8) : sumRange(ram, iph + IPV6.saddr, 32);
  return addresses + protocol + (len & 0xffff) + (len >>> 16);
}

/** `ip_fast_csum` over a header with its field in it: 0 when it is right. */
export function ipFastCsum(ram: Ram, iph: number, bytes: number): number {
  return ~fold(sumRange(ram, iph, bytes)) & 0xffff;
}

/** `ip_send_check`: stores the header checksum. */
export function ipSendCheck(ram: Ram, iph: number): void {
  setBe16(ram, iph + IPV4.check, 0);
  const bytes = (ram.u8(iph) & 15) * 4;
  setBe16(ram, iph + IPV4.check, ipFastCsum(ram, iph, bytes));
}

/** `skb_checksum_start_offset`: from the data on; negative when data was pulled past it. */
export function checksumStartOffset(ram: Ram, skb: number): number {
  return ram.u16(skb + SKB.csum_start) - skbHeadroom(ram, skb);
}

/** `skb_csum_unnecessary`: nothing is left to verify. */
export function csumUnnecessary(ram: Ram, skb: number): boolean {
  const summed = ram.u8(skb + SKB.ip_summed);
  return (
    summed === CHECKSUM_UNNECESSARY ||
    ram.u8(skb + SKB.csum_valid) !== 0 ||
    (summed === CHECKSUM_PARTIAL && checksumStartOffset(ram, skb) >= 0)
  );
}

/** `__skb_incr_checksum_unnecessary`: one more level is verified. */
export function incrChecksumUnnecessary(ram: Ram, skb: number): void {
  const summed = ram.u8(skb + SKB.ip_summed);
  if (summed === CHECKSUM_UNNECESSARY) {
    const level = ram.u8(skb + SKB.csum_level);
    if (level < 3) ram.set8(skb + SKB.csum_level, level + 1);
  } else if (summed === CHECKSUM_NONE) {
    ram.set8(skb + SKB.ip_summed, CHECKSUM_UNNECESSARY);
    ram.set8(skb + SKB.csum_level, 0);
  }
}

/** `__skb_decr_checksum_unnecessary`: a level was used up. */
function decrChecksumUnnecessary(ram: Ram, skb: number): void {
  if (ram.u8(skb + SKB.ip_summed) !== CHECKSUM_UNNECESSARY) return;
  const level = ram.u8(skb + SKB.csum_level);
  if (level === 0) ram.set8(skb + SKB.ip_summed, CHECKSUM_NONE);
  else ram.set8(skb + SKB.csum_level, level - 1);
}

/** `skb_partial_csum_set`: the checksum at start + offset is to be completed. False: it lies outside. */
export function skbPartialCsumSet(ram: Ram, skb: number, start: number, offset: number): boolean {
  const csumStart = skbHeadroom(ram, skb) + start;
  if (csumStart >= 0xffff || start + offset + 2 > skbHeadlen(ram, skb)) return false;
  ram.set8(skb + SKB.ip_summed, CHECKSUM_PARTIAL);
  ram.set16(skb + SKB.csum_start, csumStart);
  ram.set16(skb + SKB.csum_offset, offset);
  ram.set16(skb + SKB.transport_header, csumStart);
  return true;
}

/** `skb_checksum_help`: software completes the checksum of a PARTIAL skb. False: it cannot. */
export function checksumHelp(kernel: KernelContext, pages: number, skb: number): boolean {
  const { ram } = kernel.memory;
  const start = checksumStartOffset(ram, skb);
  if (start < 0 || start >= skbHeadlen(ram, skb)) return false;
  const sum = skbChecksum(ram, skb, start, ram.u32(skb + SKB.len) - start);
  const field = start + ram.u16(skb + SKB.csum_offset);
  if (!skbMayPull(kernel, pages, skb, field + 2)) return false;
  const complete = ~sum & 0xffff;
  setBe16(ram, ram.pointer(skb + SKB.data) + field, complete === 0 ? 0xffff : complete);
  ram.set8(skb + SKB.ip_summed, CHECKSUM_NONE);
  return true;
}

/**
 * `__skb_checksum_validate`: verifies a short packet whose data begins at L4, and prepares a long one to
 * be verified when it is read. False: the checksum is wrong. `check` is the field; 0 means none where
 * `zeroOkay`. `complete` verifies a long packet at once, as GRO does.
 */
export function checksumValidate(
  ram: Ram,
  skb: number,
  pseudo: number,
  zeroOkay: boolean,
  check: number,
): boolean {
  ram.set8(skb + SKB.csum_valid, 0);
  if (csumUnnecessary(ram, skb)) {
    decrChecksumUnnecessary(ram, skb);
    ram.set8(skb + SKB.csum_valid, 1);
    return true;
  }
  if (zeroOkay && check === 0) {
    ram.set8(skb + SKB.csum_valid, 1);
    return true;
  }
  const len = ram.u32(skb + SKB.len);
  if (ram.u8(skb + SKB.ip_summed) === CHECKSUM_COMPLETE) {
    if (fold(pseudo + ram.u32(skb + SKB.csum)) === 0xffff) {
      ram.set8(skb + SKB.csum_valid, 1);
      return true;
    }
  }
  ram.set32(skb + SKB.csum, fold(pseudo));
  if (len > CHECKSUM_BREAK) return true;
  return checksumComplete(ram, skb);
}

/** `__skb_checksum_complete`: verifies the data against the pseudo-header's sum in `csum`. */
export function checksumComplete(ram: Ram, skb: number): boolean {
  const len = ram.u32(skb + SKB.len);
  const holds = skbChecksum(ram, skb, 0, len, ram.u32(skb + SKB.csum)) === 0xffff;
  ram.set8(skb + SKB.csum_valid, holds ? 1 : 0);
  return holds;
}
