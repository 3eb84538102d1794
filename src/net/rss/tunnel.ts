/**
 * Is a packet a tunnel packet, of which of virtio's types, and where does the inner one start?
 *
 * Reference: RFC 2784, 2890, 7676 (GRE), 8086 (GRE-in-UDP), 7637 (NVGRE), 7348 (VXLAN),
 * draft-ietf-nvo3-vxlan-gpe-12, RFC 8926 (GENEVE), 2003 (IPIP). Where virtio is silent: an outer
 * fragment is no tunnel packet; a header that is cut, or whose version or flags are wrong, matches
 * nothing; what matches but holds no IP (ARP, MPLS, NSH, OAM) has no inner header to hash. Leaves out
 * STT, which is not in virtio's list; checksums and lengths are not verified, except that UDP must cover
 * a GRE header. Only one level: an inner tunnel is not looked into.
 *
 * Usage:
 *   const match = new TunnelMatch(TUNNEL_PORTS);
 *   if (match.find(frame, outerHeaders, frame.length)) match.types;
 */
import { ETH_P_TEB, TUNNEL_PORT } from '../encapsulate.js';
import { ETHERTYPE, IPPROTO } from '../packet.js';
import { EthernetPayload, u16At, type PacketHeaders } from './headers.js';
import { VIRTIO_NET_HASH_TUNNEL_TYPE as TUNNEL } from './types.js';

/** UDP destination ports. */
export interface TunnelPorts {
  readonly greUdp: number;
  readonly vxlan: number;
  readonly vxlanGpe: number;
  readonly geneve: number;
}

/** As assigned by IANA. GRE-in-UDP over DTLS has 4755: nobody sees into it. */
export const TUNNEL_PORTS: TunnelPorts = {
  greUdp: TUNNEL_PORT.GRE_UDP,
  vxlan: TUNNEL_PORT.VXLAN,
  vxlanGpe: TUNNEL_PORT.VXLAN_GPE,
  geneve: TUNNEL_PORT.GENEVE,
};

const UDP_BYTES = 8;
const VXLAN_BYTES = 8;
const GENEVE_BYTES = 8;

/** First 16 bits of a GRE header: C R K S s recur(3) flags(5) version(3). */
const GRE = {
  CHECKSUM: 0x8000,
  ROUTING: 0x4000,
  KEY: 0x2000,
  SEQUENCE: 0x1000,
  STRICT: 0x0800,
  RECURSION: 0x0700,
  VERSION: 0x0007,
} as const;
const GRE_REFUSED = GRE.ROUTING | GRE.STRICT | GRE.RECURSION | GRE.VERSION;

/** Byte 0 of VXLAN-GPE: two reserved bits, version(2), then these. */
const GPE = { VERSION: 0x30, INSTANCE: 0x08, NEXT_PROTOCOL: 0x04, OAM: 0x01 } as const;

/** Byte 1 of GENEVE. */
const GENEVE_CONTROL = 0x80;

/** Next protocol of VXLAN-GPE as an EtherType. */
const GPE_PROTOCOLS: readonly (number | undefined)[] = [
  undefined,
  ETHERTYPE.IPV4,
  ETHERTYPE.IPV6,
  ETH_P_TEB,
];

/** An EtherType that is nothing the hash looks into. */
const OTHER = 0;

export class TunnelMatch {
  /** VIRTIO_NET_HASH_TUNNEL_TYPE bits that the packet belongs to; 0: no tunnel packet. */
  types = 0;
  /** IP version of the inner packet; 0: it is not IP. */
  innerVersion: 0 | 4 | 6 = 0;
  /** Where the inner packet starts. */
  innerAt = 0;

  readonly #ports: TunnelPorts;
  readonly #ethernet = new EthernetPayload();

  constructor(ports: TunnelPorts = TUNNEL_PORTS) {
    this.#ports = ports;
  }

  /** Looks at a packet with those outer headers that ends at `end`. */
  find(bytes: Uint8Array, outer: PacketHeaders, end: number): boolean {
    this.types = 0;
    this.innerVersion = 0;
    if (outer.version === 0 || outer.fragment) return false;
    const at = outer.transportAt;
    switch (outer.protocol) {
      case IPPROTO.IPIP:
        if (outer.version === 4) this.#matched(TUNNEL.IPIP, bytes, ETHERTYPE.IPV4, at, end);
        break;
      case IPPROTO.GRE:
        this.#findGre(bytes, outer.version, at, end);
        break;
      case IPPROTO.UDP:
        if (at + UDP_BYTES <= end) this.#findUdp(bytes, at, end);
        break;
      default:
    }
    return this.types !== 0;
  }

  #findGre(bytes: Uint8Array, delivery: 4 | 6, at: number, end: number): void {
    const size = greBytes(bytes, at, end);
    if (size === 0) return;
    const flags = u16At(bytes, at);
    const protocol = u16At(bytes, at + 2);
    const extended = (flags & (GRE.KEY | GRE.SEQUENCE)) !== 0;
    let types: number = extended ? TUNNEL.GRE_2890 : TUNNEL.GRE_2784;
    if (delivery === 6) types = TUNNEL.GRE_7676;
    else if (protocol === ETHERTYPE.IPV6) types |= TUNNEL.GRE_7676;
    const keyOnly = (flags & (GRE.CHECKSUM | GRE.KEY | GRE.SEQUENCE)) === GRE.KEY;
    if (protocol === ETH_P_TEB && keyOnly) types |= TUNNEL.NVGRE;
    this.#matched(types, bytes, protocol, at + size, end);
  }

  #findUdp(bytes: Uint8Array, udpAt: number, end: number): void {
    const at = udpAt + UDP_BYTES;
    switch (u16At(bytes, udpAt + 2)) {
      case this.#ports.greUdp: {
        const size = greBytes(bytes, at, end);
        if (size === 0 || u16At(bytes, udpAt + 4) < UDP_BYTES + size) return;
        this.#matched(TUNNEL.GRE_UDP, bytes, u16At(bytes, at + 2), at + size, end);
        return;
      }
      case this.#ports.vxlan:
        this.#findVxlan(bytes, at, end);
        return;
      case this.#ports.vxlanGpe:
        this.#findVxlanGpe(bytes, at, end);
        return;
      case this.#ports.geneve:
        this.#findGeneve(bytes, at, end);
        return;
      default:
    }
  }

  /** P belongs to VXLAN-GPE: with it set this is no plain VXLAN. */
  #findVxlan(bytes: Uint8Array, at: number, end: number): void {
    if (at + VXLAN_BYTES > end) return;
    const flags = (bytes[at] as number) & (GPE.INSTANCE | GPE.NEXT_PROTOCOL);
    if (flags !== GPE.INSTANCE) return;
    this.#matched(TUNNEL.VXLAN, bytes, ETH_P_TEB, at + VXLAN_BYTES, end);
  }

  #findVxlanGpe(bytes: Uint8Array, at: number, end: number): void {
    if (at + VXLAN_BYTES > end) return;
    const flags = bytes[at] as number;
    if ((flags & (GPE.VERSION | GPE.INSTANCE)) !== GPE.INSTANCE) return;
    let protocol: number = ETH_P_TEB;
    if ((flags & GPE.NEXT_PROTOCOL) !== 0)
      protocol = GPE_PROTOCOLS[bytes[at + 3] as number] ?? OTHER;
    if ((flags & GPE.OAM) !== 0) protocol = OTHER;
    this.#matched(TUNNEL.VXLAN_GPE, bytes, protocol, at + VXLAN_BYTES, end);
  }

  #findGeneve(bytes: Uint8Array, at: number, end: number): void {
    if (at + GENEVE_BYTES > end) return;
    const first = bytes[at] as number;
    // version(2) | option words(6)
    const size = GENEVE_BYTES + 4 * (first & 0x3f);
    if (first >>> 6 !== 0 || at + size > end) return;
    const control = ((bytes[at + 1] as number) & GENEVE_CONTROL) !== 0;
    const protocol = control ? OTHER : u16At(bytes, at + 2);
    this.#matched(TUNNEL.GENEVE, bytes, protocol, at + size, end);
  }

  /** The payload of EtherType `protocol` starts at `at`. A frame that is cut before its type matches nothing. */
  #matched(types: number, bytes: Uint8Array, protocol: number, at: number, end: number): void {
    let type = protocol;
    let innerAt = at;
    if (protocol === ETH_P_TEB) {
      this.#ethernet.read(bytes, at, end);
      if (this.#ethernet.type < 0) return;
      type = this.#ethernet.type;
      innerAt = this.#ethernet.at;
    }
    this.types = types;
    this.innerAt = innerAt;
    if (type === ETHERTYPE.IPV4) this.innerVersion = 4;
    else if (type === ETHERTYPE.IPV6) this.innerVersion = 6;
  }
}

/** Bytes of a GRE header: 4, and 4 each for checksum, key, sequence; 0: it is cut or of another kind. */
function greBytes(bytes: Uint8Array, at: number, end: number): number {
  if (at + 4 > end) return 0;
  const flags = u16At(bytes, at);
  if ((flags & GRE_REFUSED) !== 0) return 0;
  let size = 4;
  for (const flag of GRE_OPTIONAL) if ((flags & flag) !== 0) size += 4;
  return at + size > end ? 0 : size;
}

const GRE_OPTIONAL = [GRE.CHECKSUM, GRE.KEY, GRE.SEQUENCE] as const;
