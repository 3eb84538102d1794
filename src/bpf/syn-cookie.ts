/**
 * SYN cookies: a connection request remembered in the sequence number of its answer.
 *
 * cookie = hash(ends) + client's sequence number + (minutes << 24) + low 24 bits of (hash(ends, minutes)
 * + index of the MSS). A cookie is good for two minutes. Reference: net/ipv4/syncookies.c
 * (secure_tcp_syn_cookie, check_tcp_syn_cookie), net/ipv6/syncookies.c, tcp_parse_mss_option. The
 * structure is the kernel's; the secret, random there, is fixed here, and minutes are those of the
 * host's clock. Cookies were not compared with those of a running kernel. Left out: TCP timestamps.
 *
 * Usage:
 *   const { cookie, mss } = makeCookie(ip, tcp, 1460, now);
 *   checkCookie(ip, answer, now); // the MSS, 0 for a wrong cookie
 */
import { viewOf } from '../common/bytes.js';
import { siphash, type SiphashKey } from '../common/siphash.js';

const COOKIE_BITS = 24;
const COOKIE_MASK = 0xff_ffff;
/** MAX_SYNCOOKIE_AGE, in periods of TCP_SYNCOOKIE_PERIOD. */
const MAX_AGE = 2;
const PERIOD_NS = 60_000_000_000n;

/** Default MSS of a SYN without the option: TCP_MSS_DEFAULT; IPV6_MIN_MTU less the headers. */
export const DEFAULT_MSS = { ipv4: 536, ipv6: 1220 } as const;

export type IpVersion = keyof typeof DEFAULT_MSS;

/** The values of an MSS that a cookie can say. */
const MSS_TABLE: Readonly<Record<IpVersion, readonly number[]>> = {
  ipv4: [536, 1300, 1440, 1460],
  ipv6: [1220, 1420, 1440, 8940],
};

/** syncookie_secret and syncookie6_secret. */
const SECRETS: Readonly<Record<IpVersion, readonly [SiphashKey, SiphashKey]>> = {
  ipv4: [
    [0x74726d7031303030n, 0x74726d7031303031n],
    [0x74726d7031303032n, 0x74726d7031303033n],
  ],
  ipv6: [
    [0x74726d7036303030n, 0x74726d7036303031n],
    [0x74726d7036303032n, 0x74726d7036303033n],
  ],
};

/** Offsets in `struct iphdr` and `struct ipv6hdr` of both addresses, and their bytes. */
const ADDRESSES: Readonly<Record<IpVersion, { readonly at: number; readonly size: number }>> = {
  ipv4: { at: 12, size: 8 },
  ipv6: { at: 8, size: 32 },
};

/** Offsets in `struct tcphdr`. */
const TCP = { ports: 0, sequence: 4, acknowledgement: 8, options: 20 } as const;

/** What both hashes go over; `count` is 0 for the first. */
function hash(
  version: IpVersion,
  ip: Uint8Array,
  tcp: Uint8Array,
  count: number,
  c: 0 | 1,
): number {
  const { at, size } = ADDRESSES[version];
  const data = new Uint8Array(size + 8);
  data.set(ip.subarray(at, at + size));
  if (version === 'ipv4') {
    // siphash_4u32: sport << 16 | dport of the big-endian fields as they are, then the count
    data.set([tcp[2] ?? 0, tcp[3] ?? 0, tcp[0] ?? 0, tcp[1] ?? 0], size);
    viewOf(data).setUint32(size + 4, count, true);
  } else {
    viewOf(data).setUint32(size, count, true);
    data.set(tcp.subarray(TCP.ports, TCP.ports + 4), size + 4);
  }
  return Number(siphash(data, SECRETS[version][c]) & 0xffff_ffffn);
}

function minutes(now: bigint): number {
  return Number((now / PERIOD_NS) & 0xffff_ffffn);
}

/** The cookie for the SYN in `tcp`, and the MSS that it remembers: the largest of the table within `mss`. */
export function makeCookie(
  version: IpVersion,
  ip: Uint8Array,
  tcp: Uint8Array,
  mss: number,
  now: bigint,
): { readonly cookie: number; readonly mss: number } {
  const table = MSS_TABLE[version];
  const index = Math.max(
    table.findLastIndex((each) => mss >= each),
    0,
  );
  const count = minutes(now);
  const sequence = viewOf(tcp).getUint32(TCP.sequence);
  const data = (hash(version, ip, tcp, count, 1) + index) & COOKIE_MASK;
  const cookie = hash(version, ip, tcp, 0, 0) + sequence + ((count << COOKIE_BITS) >>> 0) + data;
  return { cookie: cookie % 2 ** 32, mss: table[index] ?? 0 };
}

/** The MSS that the cookie acknowledged in `tcp` remembers; 0 for a wrong or an old one. */
export function checkCookie(
  version: IpVersion,
  ip: Uint8Array,
  tcp: Uint8Array,
  now: bigint,
): number {
  const view = viewOf(tcp);
  const cookie = view.getUint32(TCP.acknowledgement) - 1;
  const sequence = view.getUint32(TCP.sequence) - 1;
  const rest = (cookie - hash(version, ip, tcp, 0, 0) - sequence) | 0;
  const count = minutes(now);
  const age = (count - (rest >>> COOKIE_BITS)) & 0xff;
  if (age >= MAX_AGE) return 0;
  const index = (rest - hash(version, ip, tcp, (count - age) >>> 0, 1)) & COOKIE_MASK;
  return MSS_TABLE[version][index] ?? 0;
}

const OPTION = { END: 0, NOP: 1, MSS: 2 } as const;
const MSS_OPTION_SIZE = 4;

/** tcp_parse_mss_option: the last MSS option of a header; 0 when there is none. */
export function mssOption(tcp: Uint8Array): number {
  let mss = 0;
  let at: number = TCP.options;
  while (at < tcp.length) {
    const kind = tcp[at];
    if (kind === OPTION.END) return mss;
    if (kind === OPTION.NOP) {
      at++;
      continue;
    }
    const size = tcp[at + 1] ?? 0;
    if (size < 2 || at + size > tcp.length) return mss;
    if (kind === OPTION.MSS && size === MSS_OPTION_SIZE) {
      const given = viewOf(tcp).getUint16(at + 2);
      if (given !== 0) mss = given;
    }
    at += size;
  }
  return mss;
}
