/**
 * Made-up tunnel traffic for an example capture: the same seed gives the same packets.
 *
 * 24 inner TCP and UDP flows between 10.1.0.x and 10.2.0.y, each of a few packets, in every encapsulation
 * that virtio's inner hash knows, all between two tunnel ends; VXLAN and GENEVE with outer ports that
 * depend on the flow, one VXLAN sender with a fixed one. Between them untunnelled packets of the same
 * hosts, ARP in VXLAN, a fragmented datagram, and headers that are cut.
 */
import type { Random } from '../common/random.js';
import { etherTypeOf, geneve, gre, greInUdp, nvgre, vxlan, vxlanGpe } from './encapsulate.js';
import {
  arp,
  ethernet,
  ETHERTYPE,
  IPPROTO,
  ipv4,
  ipv6,
  tcp,
  udp,
  type Endpoints,
} from './packet.js';

const OUTER: Endpoints = { source: '192.0.2.1', destination: '192.0.2.2' };
const OUTER6: Endpoints = { source: '2001:db8::1', destination: '2001:db8::2' };
const FLOWS = 24;

/** An inner packet and the outer source port that its flow gives. */
interface Inner {
  readonly packet: Uint8Array;
  readonly frame: Uint8Array;
  readonly entropy: number;
}

const UDP_OVER = (payload: Uint8Array) => over(IPPROTO.UDP, payload);
const GRE_OVER = (payload: Uint8Array) => over(IPPROTO.GRE, payload);

const ENCAPSULATIONS: readonly ((inner: Inner) => Uint8Array)[] = [
  ({ packet }) => ethernet({ type: ETHERTYPE.IPV4 }, packet),
  ({ packet }) => over(IPPROTO.IPIP, packet),
  ({ packet }) => GRE_OVER(gre({ type: ETHERTYPE.IPV4 }, packet)),
  ({ packet }) => GRE_OVER(gre({ type: ETHERTYPE.IPV4, key: 7 }, packet)),
  ({ frame }) => GRE_OVER(nvgre(0x1234, 0, frame)),
  ({ packet }) => {
    const payload = gre({ type: ETHERTYPE.IPV4 }, packet);
    return ethernet({ type: ETHERTYPE.IPV6 }, ipv6(OUTER6, { nextHeader: IPPROTO.GRE }, payload));
  },
  ({ packet, entropy }) =>
    UDP_OVER(greInUdp(OUTER, { sourcePort: entropy }, { type: etherTypeOf(packet) }, packet)),
  ({ frame, entropy }) => UDP_OVER(vxlan(OUTER, { sourcePort: entropy }, frame)),
  ({ frame }) => UDP_OVER(vxlan(OUTER, { sourcePort: 4789 }, frame)),
  ({ packet, entropy }) => UDP_OVER(vxlanGpe(OUTER, { sourcePort: entropy }, 1, packet)),
  ({ frame, entropy }) =>
    UDP_OVER(geneve(OUTER, { sourcePort: entropy, options: new Uint8Array(8) }, frame)),
];

function over(protocol: number, payload: Uint8Array): Uint8Array {
  return ethernet({ type: ETHERTYPE.IPV4 }, ipv4(OUTER, { protocol }, payload));
}

function innerOf(random: Random, flow: number): Inner {
  const ends = { source: `10.1.0.${1 + (flow % 5)}`, destination: `10.2.0.${1 + (flow % 3)}` };
  const ports = { sourcePort: 20000 + 37 * flow, destinationPort: flow % 4 === 0 ? 53 : 443 };
  const payload = new Uint8Array(random.below(9));
  const isUdp = flow % 4 === 0;
  const segment = isUdp ? udp(ends, ports, payload) : tcp(ends, ports, payload);
  const packet = ipv4(ends, { protocol: isUdp ? IPPROTO.UDP : IPPROTO.TCP }, segment);
  const frame = ethernet({ type: ETHERTYPE.IPV4 }, packet);
  return { packet, frame, entropy: 49152 + ((flow * 2477) & 0x3fff) };
}

/** One frame in twenty is something that has no inner header to hash. */
function oddFrame(random: Random): Uint8Array {
  const { packet, frame } = innerOf(random, random.below(FLOWS));
  switch (random.below(4)) {
    case 0: {
      const message = arp({ source: '10.1.0.1', destination: '10.2.0.1' });
      return UDP_OVER(
        vxlan(OUTER, { sourcePort: 50000 }, ethernet({ type: ETHERTYPE.ARP }, message)),
      );
    }
    case 1:
      return over(IPPROTO.IPIP, packet.slice(0, 12));
    case 2:
      return frame.slice(0, 14 + 20 + 2);
    default: {
      const ends = { source: '10.1.0.1', destination: '10.2.0.1' };
      const header = { protocol: IPPROTO.UDP, moreFragments: true };
      return ethernet({ type: ETHERTYPE.IPV4 }, ipv4(ends, header, new Uint8Array(24)));
    }
  }
}

/** One frame of the mix. */
export function tunnelFrame(random: Random): Uint8Array {
  if (random.below(20) === 0) return oddFrame(random);
  const inner = innerOf(random, random.below(FLOWS));
  return random.pick(ENCAPSULATIONS)(inner);
}
