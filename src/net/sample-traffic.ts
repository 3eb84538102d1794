/**
 * Made-up traffic for the example captures: the same seed gives the same packets.
 *
 * A few hosts in 10.0.0.0/24 and 2001:db8::/64 talk UDP, TCP and ICMP, some of it under VLAN tags;
 * between them ARP, fragments, IPv6 extension headers, IP in IP and frames that are cut short. Times
 * start at 2026-01-01 and advance by microseconds. What `tunnels.pcap` has is in `sample-tunnels.ts`.
 *
 * Usage:
 *   const file = exampleCaptures().get('mixed.pcap');
 */
import { Random } from '../common/random.js';
import {
  commentOption,
  ethernetCapture,
  LINKTYPE_ETHERNET,
  OPTION,
  type Capture,
} from './capture.js';
import {
  arp,
  concatBytes,
  ethernet,
  ETHERTYPE,
  icmp,
  icmpv6,
  IPPROTO,
  ipv4,
  ipv6,
  ipv6Fragment,
  tcp,
  TCP_FLAG,
  udp,
  type Endpoints,
} from './packet.js';
import { writePcap } from './pcap.js';
import { writePcapng } from './pcapng.js';
import { tunnelFrame } from './sample-tunnels.js';

interface Frame {
  readonly bytes: Uint8Array;
  /** Nanoseconds since the epoch. */
  readonly time: bigint;
}

const START = 1_767_225_600_000_000_000n;
const UDP_PORTS = [53, 123, 4789, 5353, 9999] as const;
const TCP_PORTS = [22, 80, 443, 8080] as const;
const VLANS = [100, 200, 666] as const;
/** Bytes of payload: small requests, and answers up to a full frame. */
const PAYLOADS = [0, 1, 12, 40, 64, 200, 512, 1400] as const;
const TTLS = [1, 2, 64, 64, 64, 128, 255] as const;

/** One kind of frame, and how often it comes among the others. */
interface Kind {
  readonly weight: number;
  readonly make: (random: Random) => Uint8Array;
}

const MIXED: readonly Kind[] = [
  { weight: 24, make: (random) => overIpv4(random, IPPROTO.UDP) },
  { weight: 24, make: (random) => overIpv4(random, IPPROTO.TCP) },
  { weight: 8, make: (random) => overIpv4(random, IPPROTO.ICMP) },
  { weight: 12, make: (random) => overIpv6(random, IPPROTO.UDP) },
  { weight: 12, make: (random) => overIpv6(random, IPPROTO.TCP) },
  { weight: 5, make: (random) => overIpv6(random, IPPROTO.ICMPV6) },
  { weight: 4, make: withExtensions },
  { weight: 4, make: arpFrame },
  { weight: 3, make: laterFragment },
  { weight: 1, make: tunnelled },
  { weight: 2, make: runt },
  { weight: 1, make: unknownType },
];

const TUNNELS: readonly Kind[] = [{ weight: 1, make: tunnelFrame }];

/** `count` frames of all kinds. */
function mixedTraffic(count: number, seed: number): Frame[] {
  return makeFrames(MIXED, count, seed);
}

/** `count` IPv6 frames: plain, with extension headers, tagged once or twice. */
function ipv6Traffic(count: number, seed: number): Frame[] {
  const kinds: readonly Kind[] = [
    { weight: 3, make: (random) => overIpv6(random, IPPROTO.TCP) },
    { weight: 3, make: (random) => overIpv6(random, IPPROTO.UDP) },
    { weight: 1, make: (random) => overIpv6(random, IPPROTO.ICMPV6) },
    { weight: 4, make: withExtensions },
  ];
  return makeFrames(kinds, count, seed);
}

/**
 * A pcapng capture of two links, `eth0` whole and `eth1` cut to 96 bytes, with a comment on the
 * capture and on each packet that lost bytes.
 */
function twoLinkCapture(count: number, seed: number): Capture {
  const name = (text: string) => ({ code: OPTION.IF_NAME, value: new TextEncoder().encode(text) });
  const snapLengths = [262144, 96] as const;
  const packets = mixedTraffic(count, seed).map(({ bytes, time }, i) => {
    const interfaceIndex = i % 2;
    const kept = bytes.slice(0, snapLengths[interfaceIndex]);
    const lost = bytes.length - kept.length;
    return {
      interfaceIndex,
      time: time + BigInt(i % 1000),
      bytes: kept,
      originalLength: bytes.length,
      options: lost > 0 ? [commentOption(`${lost} bytes not captured`)] : [],
    };
  });
  return {
    format: 'pcapng',
    interfaces: ['eth0', 'eth1'].map((text, i) => ({
      linkType: LINKTYPE_ETHERNET,
      snapLength: snapLengths[i] ?? 0,
      options: [name(text)],
    })),
    packets,
    options: [commentOption('made-up traffic of two links')],
  };
}

/** The captures that the examples come with, by file name. */
export function exampleCaptures(): ReadonlyMap<string, Uint8Array> {
  return new Map([
    ['mixed.pcap', writePcap(ethernetCapture(mixedTraffic(200, 7)))],
    ['ipv6.pcap', writePcap(ethernetCapture(ipv6Traffic(60, 3)))],
    ['tunnels.pcap', writePcap(ethernetCapture(makeFrames(TUNNELS, 300, 11, 2)))],
    ['two-links.pcapng', writePcapng(twoLinkCapture(80, 5))],
  ]);
}

/** Frames 1 to `longestGap` microseconds apart. */
function makeFrames(
  kinds: readonly Kind[],
  count: number,
  seed: number,
  longestGap = 900,
): Frame[] {
  const random = new Random(seed);
  const total = kinds.reduce((sum, { weight }) => sum + weight, 0);
  let time = START;
  return Array.from({ length: count }, () => {
    let ticket = random.below(total);
    const kind = kinds.find(({ weight }) => (ticket -= weight) < 0);
    time += BigInt(1 + random.below(longestGap)) * 1000n;
    return { bytes: kind ? kind.make(random) : new Uint8Array(0), time };
  });
}

function macOf(host: number): string {
  return `02:00:00:00:00:${host.toString(16).padStart(2, '0')}`;
}

/** Two different hosts out of ten; host 1 is the receiving machine and takes part mostly. */
function twoHosts(random: Random): readonly [number, number] {
  const from = 2 + random.below(9);
  const to = random.below(4) === 0 ? 2 + ((from - 1) % 9) : 1;
  return [from, to];
}

function ipv4Ends([from, to]: readonly [number, number]): Endpoints {
  return { source: `10.0.0.${from}`, destination: `10.0.0.${to}` };
}

function ipv6Ends([from, to]: readonly [number, number]): Endpoints {
  return {
    source: `2001:db8::${from.toString(16)}`,
    destination: `2001:db8::${to.toString(16)}`,
  };
}

/** About one frame in six is tagged, one in forty twice. */
function frame(
  random: Random,
  hosts: readonly [number, number],
  type: number,
  payload: Uint8Array,
): Uint8Array {
  const lot = random.below(40);
  const vlans = lot === 0 ? [random.pick(VLANS), 7] : lot < 7 ? [random.pick(VLANS)] : [];
  return ethernet({ source: macOf(hosts[0]), destination: macOf(hosts[1]), type, vlans }, payload);
}

function randomPayload(random: Random): Uint8Array {
  const size = random.pick(PAYLOADS);
  return Uint8Array.from({ length: size }, () => random.below(256));
}

/** An L4 segment with the checksum that these ends need. */
function segment(random: Random, ends: Endpoints, protocol: number): Uint8Array {
  const sourcePort = 32768 + random.below(28000);
  switch (protocol) {
    case IPPROTO.UDP:
      return udp(
        ends,
        { sourcePort, destinationPort: random.pick(UDP_PORTS) },
        randomPayload(random),
      );
    case IPPROTO.TCP: {
      const start = random.below(4) === 0;
      return tcp(
        ends,
        {
          sourcePort,
          destinationPort: random.pick(TCP_PORTS),
          sequence: random.u32(),
          acknowledgement: start ? 0 : random.u32(),
          flags: start ? TCP_FLAG.SYN : TCP_FLAG.ACK | (random.below(2) * TCP_FLAG.PSH),
          window: 64240,
        },
        start ? new Uint8Array(0) : randomPayload(random),
      );
    }
    case IPPROTO.ICMP:
      return icmp(
        { type: random.pick([0, 8]), id: 7, sequence: random.below(100) },
        randomPayload(random),
      );
    default:
      return icmpv6(
        ends,
        { type: random.pick([128, 129, 135]), id: 7, sequence: random.below(100) },
        randomPayload(random),
      );
  }
}

function overIpv4(random: Random, protocol: number): Uint8Array {
  const hosts = twoHosts(random);
  const ends = ipv4Ends(hosts);
  // one header in ten has options: four no-operations
  const options = random.below(10) === 0 ? Uint8Array.of(1, 1, 1, 1) : new Uint8Array(0);
  const packet = ipv4(
    ends,
    { protocol, ttl: random.pick(TTLS), id: random.below(65536), dontFragment: true, options },
    segment(random, ends, protocol),
  );
  return frame(random, hosts, ETHERTYPE.IPV4, packet);
}

function overIpv6(random: Random, nextHeader: number): Uint8Array {
  const hosts = twoHosts(random);
  const ends = ipv6Ends(hosts);
  const packet = ipv6(
    ends,
    { nextHeader, hopLimit: random.pick(TTLS), flowLabel: random.below(1 << 20) },
    segment(random, ends, nextHeader),
  );
  return frame(random, hosts, ETHERTYPE.IPV6, packet);
}

/** One to five extension headers in front of UDP: hop-by-hop, then destination options, or a fragment. */
function withExtensions(random: Random): Uint8Array {
  const hosts = twoHosts(random);
  const ends = ipv6Ends(hosts);
  let rest = segment(random, ends, IPPROTO.UDP);
  let next: number = IPPROTO.UDP;
  if (random.below(3) === 0) {
    rest = ipv6Fragment({ nextHeader: next, offset: 0, more: true, id: random.u32() }, rest);
    next = IPPROTO.FRAGMENT;
  }
  for (let left = 1 + random.below(4); left > 0; left--) {
    // next header, length in 8 bytes beyond the first, PadN of 4
    rest = concatBytes(Uint8Array.of(next, 0, 1, 4, 0, 0, 0, 0), rest);
    next = left === 1 ? 0 : 60;
  }
  return frame(random, hosts, ETHERTYPE.IPV6, ipv6(ends, { nextHeader: next }, rest));
}

function arpFrame(random: Random): Uint8Array {
  const hosts = twoHosts(random);
  const reply = random.below(2) === 1;
  const message = arp({
    ...ipv4Ends(hosts),
    operation: reply ? 'reply' : 'request',
    sourceMac: macOf(hosts[0]),
    ...(reply ? { targetMac: macOf(hosts[1]) } : {}),
  });
  const destination = reply ? macOf(hosts[1]) : 'ff:ff:ff:ff:ff:ff';
  // padded to the 60 bytes that Ethernet needs
  const padding = new Uint8Array(18);
  return concatBytes(
    ethernet({ source: macOf(hosts[0]), destination, type: ETHERTYPE.ARP }, message),
    padding,
  );
}

function laterFragment(random: Random): Uint8Array {
  const hosts = twoHosts(random);
  const fragmentOffset = 8 * (1 + random.below(180));
  const packet = ipv4(
    ipv4Ends(hosts),
    { protocol: IPPROTO.UDP, id: random.below(65536), fragmentOffset },
    randomPayload(random),
  );
  return frame(random, hosts, ETHERTYPE.IPV4, packet);
}

function tunnelled(random: Random): Uint8Array {
  const hosts = twoHosts(random);
  const ends: Endpoints = { source: '192.168.7.1', destination: '192.168.7.2' };
  const inner = ipv4(ends, { protocol: IPPROTO.UDP }, segment(random, ends, IPPROTO.UDP));
  return frame(
    random,
    hosts,
    ETHERTYPE.IPV4,
    ipv4(ipv4Ends(hosts), { protocol: IPPROTO.IPIP }, inner),
  );
}

/** A frame that ends inside its IP header, or just behind Ethernet. */
function runt(random: Random): Uint8Array {
  const whole =
    random.below(2) === 0 ? overIpv4(random, IPPROTO.UDP) : overIpv6(random, IPPROTO.TCP);
  return whole.slice(0, 14 + random.below(20));
}

function unknownType(random: Random): Uint8Array {
  return frame(random, twoHosts(random), 0x88b5, randomPayload(random));
}
