/**
 * Where the headers of a packet lie that a receive hash reads: addresses, ports, IPv6 extensions.
 *
 * Reference: RFC 791, 8200, 4302 (AH), 6275 §6.3 (home address option), §6.4 (routing header type 2);
 * IEEE 802.1Q for up to two VLAN tags. A frame may be cut anywhere: what is not there is not read, and
 * lengths that headers announce for what follows are not believed. A fragment has no transport
 * header, not even the first one. One `PacketHeaders` is filled again for each packet; nothing is
 * allocated. Extension headers: hop-by-hop, routing, fragment, destination options, AH.
 *
 * Usage:
 *   const headers = new PacketHeaders();
 *   if (headers.readFrame(frame, 0, frame.length)) headers.sourceAt;
 */
import { ETHERTYPE, IPPROTO } from '../packet.js';

const IPV4_BYTES = 20;
const IPV6_BYTES = 40;
const MAX_VLAN_TAGS = 2;

/** No transport header: a fragment, or extension headers that end too early. */
export const NO_PROTOCOL = -1;

const EXTENSION = { HOP_BY_HOP: 0, ROUTING: 43, AH: 51, DESTINATION: 60 } as const;
const OPTION_PAD1 = 0;
const OPTION_HOME_ADDRESS = 0xc9;
const ROUTING_TYPE_2 = 2;

export interface HeaderOptions {
  /**
   * An IPv6 fragment header that holds the whole packet hides the ports, as in QEMU. Default false: only
   * real fragments do.
   */
  readonly qemuAtomicFragments?: boolean;
}

export function u16At(bytes: Uint8Array, at: number): number {
  return ((bytes[at] as number) << 8) | (bytes[at + 1] as number);
}

/** Which EtherType stands where, behind VLAN tags. */
export class EthernetPayload {
  /** -1: the frame ends before it. */
  type = -1;
  /** Where the payload starts. */
  at = 0;

  read(bytes: Uint8Array, start: number, end: number): void {
    let at = start + 12;
    this.type = -1;
    for (let tags = 0; at + 2 <= end; tags++) {
      const type = u16At(bytes, at);
      const tag = type === ETHERTYPE.VLAN || type === ETHERTYPE.QINQ;
      if (!tag || tags === MAX_VLAN_TAGS) {
        this.type = type;
        this.at = at + 2;
        return;
      }
      at += 4;
    }
  }
}

export class PacketHeaders {
  /** 0: no IP header that can be read. */
  version: 0 | 4 | 6 = 0;
  /** IPv6 with at least one extension header. */
  extended = false;
  /** A fragment, or an IPv6 packet with a fragment header of any kind. */
  fragment = false;
  /** Offsets of the addresses, destination right behind source. */
  sourceAt = 0;
  destinationAt = 0;
  /** Offset of the home address that stands for the source; the source without one. */
  homeAddressAt = 0;
  /** Offset of the address in a routing header type 2; the destination without one. */
  routedToAt = 0;
  /** Of the transport header; NO_PROTOCOL without one. */
  protocol = NO_PROTOCOL;
  /** Where the transport header starts. */
  transportAt = 0;
  /** TCP or UDP whose ports are there. */
  hasPorts = false;

  readonly #atomicHidePorts: boolean;
  readonly #ethernet = new EthernetPayload();

  constructor(options: HeaderOptions = {}) {
    this.#atomicHidePorts = options.qemuAtomicFragments ?? false;
  }

  /** The IP packet in an Ethernet frame; false without one. */
  readFrame(bytes: Uint8Array, start: number, end: number): boolean {
    this.#ethernet.read(bytes, start, end);
    const { type, at } = this.#ethernet;
    if (type === ETHERTYPE.IPV4) return this.readIp(bytes, at, end, 4);
    if (type === ETHERTYPE.IPV6) return this.readIp(bytes, at, end, 6);
    this.version = 0;
    return false;
  }

  /** The IP packet of that version in bytes [at, end); false when its header is bad or cut. */
  readIp(bytes: Uint8Array, at: number, end: number, version: 4 | 6): boolean {
    this.version = 0;
    const fixed = version === 4 ? IPV4_BYTES : IPV6_BYTES;
    if (at + fixed > end || (bytes[at] as number) >>> 4 !== version) return false;
    this.extended = false;
    this.fragment = false;
    this.protocol = NO_PROTOCOL;
    if (version === 4) {
      if (!this.#readIpv4(bytes, at, end)) return false;
    } else {
      this.#readIpv6(bytes, at, end);
    }
    this.version = version;
    const transport = this.protocol === IPPROTO.TCP || this.protocol === IPPROTO.UDP;
    this.hasPorts = transport && this.transportAt + 4 <= end;
    return true;
  }

  #readIpv4(bytes: Uint8Array, at: number, end: number): boolean {
    const headerBytes = ((bytes[at] as number) & 15) * 4;
    if (headerBytes < IPV4_BYTES || at + headerBytes > end) return false;
    this.#setAddresses(at + 12, 4);
    // MF or an offset
    this.fragment = (u16At(bytes, at + 6) & 0x3fff) !== 0;
    this.transportAt = at + headerBytes;
    if (!this.fragment) this.protocol = bytes[at + 9] as number;
    return true;
  }

  #setAddresses(sourceAt: number, size: number): void {
    this.sourceAt = sourceAt;
    this.destinationAt = sourceAt + size;
    this.homeAddressAt = sourceAt;
    this.routedToAt = this.destinationAt;
  }

  #readIpv6(bytes: Uint8Array, start: number, end: number): void {
    this.#setAddresses(start + 8, 16);
    let next = bytes[start + 6] as number;
    let at = start + IPV6_BYTES;
    let hidden = false;
    for (;;) {
      const size = this.#extensionBytes(bytes, next, at, end);
      if (size < 0) break;
      this.extended = true;
      if (size === 0) return;
      if (next === IPPROTO.FRAGMENT) {
        this.fragment = true;
        // offset or M
        if ((u16At(bytes, at + 2) & 0xfff9) !== 0) return;
        hidden ||= this.#atomicHidePorts;
      }
      next = bytes[at] as number;
      at += size;
    }
    if (hidden) return;
    this.protocol = next;
    this.transportAt = at;
  }

  /** Bytes of the extension header `next` at `at`; 0: it is cut; -1: `next` is none. */
  #extensionBytes(bytes: Uint8Array, next: number, at: number, end: number): number {
    const units = bytes[at + 1] as number;
    let size: number;
    switch (next) {
      case IPPROTO.FRAGMENT:
        size = 8;
        break;
      case EXTENSION.AH:
        size = 4 * (units + 2);
        break;
      case EXTENSION.HOP_BY_HOP:
      case EXTENSION.ROUTING:
      case EXTENSION.DESTINATION:
        size = 8 * (units + 1);
        break;
      default:
        return -1;
    }
    if (at + 8 > end || at + size > end) return 0;
    if (next === EXTENSION.DESTINATION) this.#findHomeAddress(bytes, at + 2, at + size);
    if (next === EXTENSION.ROUTING) this.#findRoutedTo(bytes, at);
    return size;
  }

  /** RFC 6275 §6.3: option 0xc9 with 16 bytes. The first one counts. */
  #findHomeAddress(bytes: Uint8Array, from: number, end: number): void {
    if (this.homeAddressAt !== this.sourceAt) return;
    let at = from;
    while (at < end) {
      const type = bytes[at] as number;
      if (type === OPTION_PAD1) {
        at++;
        continue;
      }
      if (at + 2 > end) return;
      const size = bytes[at + 1] as number;
      if (type === OPTION_HOME_ADDRESS && size === 16 && at + 18 <= end) {
        this.homeAddressAt = at + 2;
        return;
      }
      at += 2 + size;
    }
  }

  /** RFC 6275 §6.4: next, length 2, type 2, segments left 1, 4 reserved bytes, address. */
  #findRoutedTo(bytes: Uint8Array, at: number): void {
    const type2 = bytes[at + 2] === ROUTING_TYPE_2 && bytes[at + 1] === 2 && bytes[at + 3] === 1;
    if (type2 && this.routedToAt === this.destinationAt) this.routedToAt = at + 8;
  }
}
