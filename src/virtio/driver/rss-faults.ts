/**
 * Faults of the driver's hashing code, each a bug that Linux had: bits of `virtnet_info.rss_faults`.
 *
 * A version has those that it was measured or fixed with (`profiles.ts`); any set can be tried on any version.
 *
 * Usage:
 *   createVirtioNet(kernel, { rssFaults: ['late-key'] });
 */
import type { Ram } from '../../cpu/ram.js';
import { VIRTNET_INFO } from './structs.js';

/** In the order of their bits. */
export const RSS_FAULTS = [
  /**
   * The key lies behind the padding of max_tx_vq and key length, and is sent from in front of it: a zero byte,
   * then all but the last byte. CVE-2026-23143.
   */
  'late-key',
  /** A queue-pair command leaves the max_tx_vq of the next RSS command as it was. */
  'stale-max-tx-vq',
  /** HASH_CONFIG has max_tx_vq where the standard has reserved bytes. */
  'max-tx-vq-in-hash-config',
  /** The structure has room for 128 entries, however many the device takes. */
  'fixed-table',
  /** Fields are written in the byte order of the CPU, and that is big-endian. */
  'big-endian',
  /** rss_max_key_size of the device is believed: the structure has room for 40 bytes. CVE-2024-53082. */
  'unchecked-key-size',
  /** ethtool -X sends its command to any device, with a key of no bytes where there is no RSS. */
  'commit-without-rss',
  /** virtio_net_hdr has 12 bytes, HASH_REPORT or not. */
  'short-header',
] as const;

export type RssFault = (typeof RSS_FAULTS)[number];

const AT = VIRTNET_INFO.offset.rss_faults;

export function setRssFaults(ram: Ram, vi: number, faults: readonly RssFault[]): void {
  let bits = 0;
  for (const fault of faults) bits |= 1 << RSS_FAULTS.indexOf(fault);
  ram.set8(vi + AT, bits);
}

export function hasRssFault(ram: Ram, vi: number, fault: RssFault): boolean {
  return (ram.u8(vi + AT) & (1 << RSS_FAULTS.indexOf(fault))) !== 0;
}
