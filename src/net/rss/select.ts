/**
 * Which fields of a packet are hashed, by the enabled hash types.
 *
 * Reference: virtio 1.4 "Hash calculation for incoming packets": ports before addresses, and for IPv6
 * with extension headers the _EX types first, over the home address and the address of a routing
 * header type 2. A packet without a transport header (a fragment) has no ports. `qemuIpv6ExQuirk`:
 * QEMU 10.0 prefers the _EX types for every IPv6 packet.
 */
import { IPPROTO } from '../packet.js';
import type { PacketHeaders } from './headers.js';
import { VIRTIO_NET_HASH_TYPE as TYPE, VIRTIO_NET_HASH_REPORT as REPORT } from './types.js';
import type { ToeplitzKey } from './toeplitz.js';

export interface SelectOptions {
  /** The _EX types are preferred for IPv6 packets without extension headers too. Default false. */
  readonly qemuIpv6ExQuirk?: boolean;
}

/** One of the nine types, and what of a packet it hashes. */
interface Choice {
  readonly type: number;
  readonly report: number;
  /** Whose ports; 0: addresses only. */
  readonly protocol: number;
}

/** The first that is enabled and fits. */
const IPV4_CHOICES: readonly Choice[] = [
  { type: TYPE.TCPv4, report: REPORT.TCPv4, protocol: IPPROTO.TCP },
  { type: TYPE.UDPv4, report: REPORT.UDPv4, protocol: IPPROTO.UDP },
  { type: TYPE.IPv4, report: REPORT.IPv4, protocol: 0 },
];

const IPV6_CHOICES: readonly Choice[] = [
  { type: TYPE.TCPv6, report: REPORT.TCPv6, protocol: IPPROTO.TCP },
  { type: TYPE.UDPv6, report: REPORT.UDPv6, protocol: IPPROTO.UDP },
  { type: TYPE.IPv6, report: REPORT.IPv6, protocol: 0 },
];

const IPV6_EX_CHOICES: readonly Choice[] = [
  { type: TYPE.TCP_EX, report: REPORT.TCPv6_EX, protocol: IPPROTO.TCP },
  { type: TYPE.UDP_EX, report: REPORT.UDPv6_EX, protocol: IPPROTO.UDP },
  { type: TYPE.IP_EX, report: REPORT.IPv6_EX, protocol: 0 },
];

function choose(
  choices: readonly Choice[],
  enabled: number,
  headers: PacketHeaders,
): Choice | undefined {
  for (let i = 0; i < choices.length; i++) {
    const choice = choices[i] as Choice;
    const fits =
      choice.protocol === 0 || (headers.hasPorts && headers.protocol === choice.protocol);
    if (fits && (choice.type & enabled) !== 0) return choice;
  }
  return undefined;
}

/** Hash and report value of a packet. One is filled again and again. */
export class SelectedHash {
  /** Unsigned; 0 when none was calculated. */
  hash = 0;
  /** VIRTIO_NET_HASH_REPORT; 0: no enabled type fits. */
  report = 0;

  clear(): void {
    this.hash = 0;
    this.report = REPORT.NONE;
  }

  /** The hash of the packet whose headers lie in `bytes`. */
  select(
    bytes: Uint8Array,
    headers: PacketHeaders,
    enabled: number,
    key: ToeplitzKey,
    options: SelectOptions,
  ): void {
    this.clear();
    if (headers.version === 4) {
      this.#take(bytes, headers, choose(IPV4_CHOICES, enabled, headers), key, false);
    } else if (headers.version === 6) {
      const extended = headers.extended || options.qemuIpv6ExQuirk === true;
      const ex = extended ? choose(IPV6_EX_CHOICES, enabled, headers) : undefined;
      const choice = ex ?? choose(IPV6_CHOICES, enabled, headers);
      this.#take(bytes, headers, choice, key, ex !== undefined);
    }
  }

  #take(
    bytes: Uint8Array,
    headers: PacketHeaders,
    choice: Choice | undefined,
    key: ToeplitzKey,
    substitute: boolean,
  ): void {
    if (!choice) return;
    const size = headers.version === 4 ? 4 : 16;
    let hash: number;
    if (substitute) {
      hash = key.mix(0, 0, bytes, headers.homeAddressAt, size);
      hash = key.mix(hash, size, bytes, headers.routedToAt, size);
    } else {
      hash = key.mix(0, 0, bytes, headers.sourceAt, 2 * size);
    }
    if (choice.protocol !== 0) hash = key.mix(hash, 2 * size, bytes, headers.transportAt, 4);
    this.hash = hash >>> 0;
    this.report = choice.report;
  }
}
