/**
 * Historical bugs of the driver that can be put back into a device: switches of the bug museum.
 *
 * Each is one condition in the function that had it, whatever version the rest of the driver is. They lie
 * as bits in `virtnet_info.bugs`. Checksum variants and what 6.1 has differently are no bugs here: see
 * `profiles.ts`.
 *
 * | bug                    | function           | what it does                                                 |
 * | posted headroom        | page_to_skb        | the skb's head is 256 bytes below wherever the program left the data (5.17.6) |
 * | first copy unchecked   | xdp_linearize_page | the first buffer is copied without asking whether it fits (6.1.27) |
 * | flags of the page      | receive_buf        | big mode: flags are read from the page object (6.12.63)       |
 * | lengths trusted        | xdp_linearize_page, receive_big | the device may claim more than a buffer holds (6.1.147, 6.1.159) |
 * | flush after completion | virtnet_poll       | xdp_do_flush comes behind napi_complete_done (6.1.11)         |
 * | chunks pass the program | virtnet_receive_xsk_merge | a frame in several chunks of a UMEM goes around the program (6.12.63) |
 *
 * Usage:
 *   createVirtioNet(kernel, { bugs: ['flags of the page'] });
 */
import type { Ram } from '../../cpu/ram.js';
import { VIRTNET_INFO } from './structs.js';

const BITS = {
  'posted headroom': 1,
  'first copy unchecked': 2,
  'flags of the page': 4,
  'lengths trusted': 8,
  'flush after completion': 16,
  'chunks pass the program': 32,
} as const;

export type DriverBug = keyof typeof BITS;

const { bugs: BUGS } = VIRTNET_INFO.offset;

export function setBugs(ram: Ram, vi: number, bugs: readonly DriverBug[]): void {
  ram.set32(
    vi + BUGS,
    bugs.reduce((bits, bug) => bits | BITS[bug], 0),
  );
}

export function hasBug(ram: Ram, vi: number, bug: DriverBug): boolean {
  return (ram.u32(vi + BUGS) & BITS[bug]) !== 0;
}
