/**
 * One line about a frame, for listings: `IPv4 10.0.0.1:1000 > 10.0.0.2:2000 UDP 12 bytes`.
 *
 * Never throws: a frame that ends inside a header is described as far as it goes, with `cut`. Looks
 * into VLAN tags, IPv6 extension headers and IP in IP; what follows the L4 header is only counted.
 */
import { viewOf } from '../common/bytes.js';
import { formatIpv4, formatIpv6, formatMac } from './address.js';
import { ETHERTYPE, IPPROTO, TCP_FLAG } from './packet.js';

const MAX_NESTING = 4;

const IPV6_EXTENSIONS: Readonly<Record<number, string>> = {
  0: 'hop-by-hop',
  43: 'routing',
  60: 'destination options',
};

const PROTOCOL_NAMES: Readonly<Record<number, string>> = {
  [IPPROTO.GRE]: 'GRE',
  50: 'ESP',
  51: 'AH',
  132: 'SCTP',
};

const ICMP_NAMES: Readonly<Record<number, string>> = {
  0: 'echo reply',
  3: 'destination unreachable',
  8: 'echo request',
  11: 'time exceeded',
};

const ICMPV6_NAMES: Readonly<Record<number, string>> = {
  1: 'destination unreachable',
  2: 'packet too big',
  3: 'time exceeded',
  128: 'echo request',
  129: 'echo reply',
  133: 'router solicitation',
  134: 'router advertisement',
  135: 'neighbour solicitation',
  136: 'neighbour advertisement',
};

/** Describes an Ethernet frame. */
export function describePacket(frame: Uint8Array): string {
  if (frame.length < 14) return `Ethernet cut: ${frame.length} bytes`;
  const view = viewOf(frame);
  let prefix = '';
  let at = 12;
  let type = view.getUint16(at);
  while (type === ETHERTYPE.VLAN || type === ETHERTYPE.QINQ) {
    if (frame.length < at + 6) return `${prefix}VLAN cut: ${frame.length} bytes`;
    prefix += `VLAN ${view.getUint16(at + 2) & 0xfff} `;
    at += 4;
    type = view.getUint16(at);
  }
  const payload = frame.subarray(at + 2);
  if (type === ETHERTYPE.IPV4) return prefix + describeIpv4(payload, 0);
  if (type === ETHERTYPE.IPV6) return prefix + describeIpv6(payload, 0);
  if (type === ETHERTYPE.ARP) return prefix + describeArp(payload);
  const ends = `${formatMac(frame.subarray(6))} > ${formatMac(frame)}`;
  const what = type < 0x600 ? '802.3' : `type 0x${type.toString(16).padStart(4, '0')}`;
  return `${prefix}${ends} ${what} ${payload.length} bytes`;
}

function describeArp(message: Uint8Array): string {
  if (message.length < 28) return `ARP cut: ${message.length} bytes`;
  const sender = formatIpv4(message.subarray(14));
  const target = formatIpv4(message.subarray(24));
  const operation = viewOf(message).getUint16(6);
  if (operation === 1) return `ARP who has ${target}, tell ${sender}`;
  if (operation === 2) return `ARP ${sender} is at ${formatMac(message.subarray(8))}`;
  return `ARP operation ${operation} from ${sender}`;
}

function describeIpv4(packet: Uint8Array, nesting: number): string {
  if (packet.length < 20) return `IPv4 cut: ${packet.length} bytes`;
  const view = viewOf(packet);
  const headerBytes = ((packet[0] as number) & 15) * 4;
  const ends: Ends = {
    version: 'IPv4',
    source: formatIpv4(packet.subarray(12)),
    destination: formatIpv4(packet.subarray(16)),
  };
  if (headerBytes < 20 || headerBytes > packet.length) return `${line(ends)} bad header length`;
  // padding behind the datagram does not count as payload
  const total = Math.min(packet.length, Math.max(view.getUint16(2), headerBytes));
  const fragment = view.getUint16(6);
  const payload = packet.subarray(headerBytes, total);
  const protocol = packet[9] as number;
  if ((fragment & 0x1fff) !== 0) {
    return `${line(ends)} fragment at ${(fragment & 0x1fff) * 8}, ${payload.length} bytes`;
  }
  const text = describeTransport(ends, protocol, payload, nesting);
  return (fragment & 0x2000) !== 0 ? `${text} (first fragment)` : text;
}

function describeIpv6(packet: Uint8Array, nesting: number): string {
  if (packet.length < 40) return `IPv6 cut: ${packet.length} bytes`;
  const view = viewOf(packet);
  const ends: Ends = {
    version: 'IPv6',
    source: formatIpv6(packet.subarray(8)),
    destination: formatIpv6(packet.subarray(24)),
  };
  let payload = packet.subarray(40, 40 + view.getUint16(4));
  let next = packet[6] as number;
  let first = false;
  for (;;) {
    const extension = next === IPPROTO.FRAGMENT ? 'fragment' : IPV6_EXTENSIONS[next];
    if (extension === undefined) break;
    if (payload.length < 8) return `${line(ends)} ${extension} header cut`;
    let size = 8 + (payload[1] as number) * 8;
    if (next === IPPROTO.FRAGMENT) {
      size = 8;
      const where = viewOf(payload).getUint16(2);
      if ((where & 0xfff8) !== 0) {
        return `${line(ends)} fragment at ${where & 0xfff8}, ${payload.length - 8} bytes`;
      }
      first = (where & 1) !== 0;
    }
    next = payload[0] as number;
    payload = payload.subarray(size);
  }
  const text = describeTransport(ends, next, payload, nesting);
  return first ? `${text} (first fragment)` : text;
}

interface Ends {
  readonly version: 'IPv4' | 'IPv6';
  readonly source: string;
  readonly destination: string;
}

function line(ends: Ends, ports?: readonly [number, number]): string {
  if (!ports) return `${ends.version} ${ends.source} > ${ends.destination}`;
  const [from, to] =
    ends.version === 'IPv6'
      ? [`[${ends.source}]`, `[${ends.destination}]`]
      : [ends.source, ends.destination];
  return `${ends.version} ${from}:${ports[0]} > ${to}:${ports[1]}`;
}

function describeTransport(
  ends: Ends,
  protocol: number,
  segment: Uint8Array,
  nesting: number,
): string {
  const view = viewOf(segment);
  switch (protocol) {
    case IPPROTO.UDP:
      if (segment.length < 8) return `${line(ends)} UDP cut`;
      return `${line(ends, [view.getUint16(0), view.getUint16(2)])} UDP ${segment.length - 8} bytes`;
    case IPPROTO.TCP: {
      if (segment.length < 20) return `${line(ends)} TCP cut`;
      const headerBytes = ((segment[12] as number) >>> 4) * 4;
      const size = Math.max(0, segment.length - Math.max(20, headerBytes));
      const flags = tcpFlags(segment[13] as number);
      return `${line(ends, [view.getUint16(0), view.getUint16(2)])} TCP ${flags} ${size} bytes`;
    }
    case IPPROTO.ICMP:
    case IPPROTO.ICMPV6: {
      const [name, names] =
        protocol === IPPROTO.ICMP ? ['ICMP', ICMP_NAMES] : ['ICMPv6', ICMPV6_NAMES];
      const type = segment[0];
      if (segment.length < 8 || type === undefined) return `${line(ends)} ${name} cut`;
      return `${line(ends)} ${name} ${names[type] ?? `type ${type}`} ${segment.length - 8} bytes`;
    }
    case IPPROTO.IPIP:
    case IPPROTO.IPV6: {
      if (nesting >= MAX_NESTING) return `${line(ends)} tunnel, nested too deep to follow`;
      const inner =
        protocol === IPPROTO.IPIP
          ? describeIpv4(segment, nesting + 1)
          : describeIpv6(segment, nesting + 1);
      return `${line(ends)} carries ${inner}`;
    }
    default:
      return `${line(ends)} ${PROTOCOL_NAMES[protocol] ?? `protocol ${protocol}`} ${segment.length} bytes`;
  }
}

function tcpFlags(bits: number): string {
  const names = Object.entries(TCP_FLAG)
    .filter(([, bit]) => (bits & bit) !== 0)
    .map(([name]) => name);
  return names.length > 0 ? names.join(',') : 'no flags';
}
