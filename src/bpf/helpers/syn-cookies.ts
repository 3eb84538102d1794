/**
 * SYN cookies for programs: bpf_tcp_check_syncookie and bpf_tcp_gen_syncookie with a listening socket,
 * bpf_tcp_raw_{gen,check}_syncookie_ipv{4,6} with headers alone.
 *
 * Reference: net/core/filter.c (the helpers), net/ipv4/tcp_input.c tcp_get_syncookie_mss. The cookies:
 * `syn-cookie.ts`. Order and numbers of the refusals follow 6.12 and were not compared with a running
 * kernel. Left out: TCP_MAXSEG of the socket, the length of the accept queue.
 */
import { ERRNO } from '../../common/errno.js';
import type { BpfHost, RegisterPairs } from '../host.js';
import { AF_INET6, familyOf, stateOf, type Socket } from '../socket.js';
import { checkCookie, DEFAULT_MSS, makeCookie, mssOption, type IpVersion } from '../syn-cookie.js';
import { argument, argument32, offsetOf, setResult, setResult64, type Helper } from './helper.js';

const TCP_HEADER = 20;
const IP_HEADER: Readonly<Record<IpVersion, number>> = { ipv4: 20, ipv6: 40 };

/** Flags in the 13th byte of a TCP header. */
const FIN = 1;
const SYN = 2;
const RST = 4;
const ACK = 16;
const FLAGS_AT = 13;

function bytesOf(host: BpfHost, registers: RegisterPairs, n: number, size: number): Uint8Array {
  const at = offsetOf(host.memory, registers, n, size, 'read');
  return host.memory.bytes.slice(at, at + size);
}

/** th->doff * 4 */
function headerLength(tcp: Uint8Array): number {
  return ((tcp[12] ?? 0) >> 4) * 4;
}

function setCookie(
  registers: RegisterPairs,
  { cookie, mss }: { readonly cookie: number; readonly mss: number },
): void {
  registers[0] = cookie | 0;
  registers[1] = mss;
}

/** R1 the IP header, R2 the TCP header, R3 its length. */
function rawGenerate(version: IpVersion): Helper['body'] {
  return (registers, host) => {
    const size = argument32(registers, 3) >>> 0;
    const tcp = size < TCP_HEADER ? undefined : bytesOf(host, registers, 2, size);
    if (!tcp || size !== headerLength(tcp)) {
      setResult(registers, -ERRNO.EINVAL);
      return;
    }
    const ip = bytesOf(host, registers, 1, IP_HEADER[version]);
    const mss = mssOption(tcp) || DEFAULT_MSS[version];
    setCookie(registers, makeCookie(version, ip, tcp, mss, host.clock()));
  };
}

/** R1 the IP header, R2 the TCP header without options. */
function rawCheck(version: IpVersion): Helper['body'] {
  return (registers, host) => {
    const ip = bytesOf(host, registers, 1, IP_HEADER[version]);
    const tcp = bytesOf(host, registers, 2, TCP_HEADER);
    const mss = checkCookie(version, ip, tcp, host.clock());
    setResult(registers, mss > 0 ? 0 : -ERRNO.EACCES);
  };
}

/** The listening socket at R1; undefined for another one. */
function listenerOf(registers: RegisterPairs, host: BpfHost): Socket | undefined {
  const socket = host.network.sockets.at(argument(registers, 1));
  return socket?.protocol === 'tcp' && stateOf(socket) === 'LISTEN' ? socket : undefined;
}

/** The IP header in R2, whose length is R3; or the errno of one that the socket does not take. */
function ipHeader(
  registers: RegisterPairs,
  host: BpfHost,
  socket: Socket,
): { readonly version: IpVersion; readonly ip: Uint8Array } | number {
  const size = argument32(registers, 3) >>> 0;
  if (size < IP_HEADER.ipv4) return -ERRNO.EINVAL;
  const ip = bytesOf(host, registers, 2, size);
  const isV6Socket = familyOf(socket) === AF_INET6;
  switch ((ip[0] ?? 0) >> 4) {
    case 4:
      return isV6Socket && socket.ipv6Only === true ? -ERRNO.EINVAL : { version: 'ipv4', ip };
    case 6:
      return size < IP_HEADER.ipv6 || !isV6Socket ? -ERRNO.EINVAL : { version: 'ipv6', ip };
    default:
      return -ERRNO.EPROTONOSUPPORT;
  }
}

/** R4 the TCP header, R5 its length; undefined when that is too short. */
function tcpHeader(registers: RegisterPairs, host: BpfHost): Uint8Array | undefined {
  const size = argument32(registers, 5) >>> 0;
  return size < TCP_HEADER ? undefined : bytesOf(host, registers, 4, size);
}

function check(registers: RegisterPairs, host: BpfHost): number {
  const tcp = tcpHeader(registers, host);
  const socket = listenerOf(registers, host);
  if (!tcp || !socket || host.network.synCookies === 0) return -ERRNO.EINVAL;
  if (((tcp[FLAGS_AT] ?? 0) & (ACK | RST | SYN)) !== ACK) return -ERRNO.ENOENT;
  if (argument32(registers, 3) >>> 0 < IP_HEADER.ipv4) return -ERRNO.EINVAL;
  const now = host.clock();
  if (!host.network.sockets.overflowedRecently(socket, now)) return -ERRNO.ENOENT;
  const header = ipHeader(registers, host, socket);
  if (typeof header === 'number') return header;
  return checkCookie(header.version, header.ip, tcp, now) > 0 ? 0 : -ERRNO.ENOENT;
}

function generate(registers: RegisterPairs, host: BpfHost): bigint {
  const errno = (value: number): bigint => BigInt(value);
  const { network } = host;
  const tcp = tcpHeader(registers, host);
  const socket = listenerOf(registers, host);
  if (!tcp || tcp.length !== headerLength(tcp) || !socket) return errno(-ERRNO.EINVAL);
  if (network.synCookies === 0) return errno(-ERRNO.ENOENT);
  if (((tcp[FLAGS_AT] ?? 0) & (SYN | ACK | FIN | RST)) !== SYN) return errno(-ERRNO.EINVAL);
  const header = ipHeader(registers, host, socket);
  if (typeof header === 'number') return errno(header);
  if (network.synCookies !== 2 && socket.requestQueueFull !== true) return errno(-ERRNO.ENOENT);
  const { version, ip } = header;
  const now = host.clock();
  const { cookie, mss } = makeCookie(version, ip, tcp, mssOption(tcp) || DEFAULT_MSS[version], now);
  network.sockets.noteOverflow(socket, now);
  return (BigInt(mss) << 32n) | BigInt(cookie);
}

const WITH_SOCKET = ['socket', 'mem', 'size', 'mem', 'size'] as const;

/** Both helpers of an IP version: the one that makes cookies has `id`, the one that checks them `id + 2`. */
function rawHelpers(version: IpVersion, id: number): readonly Helper[] {
  const size = IP_HEADER[version];
  return [
    {
      id,
      name: `tcp_raw_gen_syncookie_${version}`,
      arguments: ['fixed_mem', 'mem', 'size_or_zero'],
      sizes: { 1: size },
      result: 'integer',
      gplOnly: true,
      body: rawGenerate(version),
    },
    {
      id: id + 2,
      name: `tcp_raw_check_syncookie_${version}`,
      arguments: ['fixed_mem', 'fixed_mem'],
      sizes: { 1: size, 2: TCP_HEADER },
      result: 'integer',
      gplOnly: true,
      body: rawCheck(version),
    },
  ];
}

export const SYN_COOKIE_HELPERS: readonly Helper[] = [
  {
    id: 100,
    name: 'tcp_check_syncookie',
    arguments: WITH_SOCKET,
    result: 'integer',
    body: (registers, host) => setResult(registers, check(registers, host)),
  },
  {
    id: 110,
    name: 'tcp_gen_syncookie',
    arguments: WITH_SOCKET,
    result: 'integer',
    gplOnly: true,
    body: (registers, host) => setResult64(registers, generate(registers, host)),
  },
  ...rawHelpers('ipv4', 204),
  ...rawHelpers('ipv6', 205),
];
