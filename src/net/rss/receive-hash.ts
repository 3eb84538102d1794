/**
 * The hash of a received frame: over its outer headers, or over the inner ones of a tunnel packet.
 *
 * Reference: virtio 1.4 "Inner header hash" (form `final`: enabled_tunnel_types, no report of the
 * tunnel); the proposal of January 2023 (form `v7`: bits 9 to 11 of hash_types, hash_report_tunnel, GRE
 * of all kinds one type). What does not match, or is cut before the inner IP header, is hashed over
 * the outer headers; what matches but holds no IP, or nothing that is enabled, has no hash. Nothing is
 * allocated per frame: the result lies in the hasher until the next one.
 *
 * Usage:
 *   const hasher = new ReceiveHasher({ key, hashTypes: 0x3f, form: 'final', tunnelTypes: 0x10 });
 *   hasher.compute(frame);
 *   hasher.result.hash;
 */
import { PacketHeaders, type HeaderOptions } from './headers.js';
import { SelectedHash, type SelectOptions } from './select.js';
import { ToeplitzKey } from './toeplitz.js';
import { TunnelMatch, type TunnelPorts } from './tunnel.js';
import {
  ALL_HASH_TYPES,
  VIRTIO_NET_HASH_REPORT_TUNNEL as TUNNEL_REPORT,
  VIRTIO_NET_HASH_TUNNEL_TYPE as TUNNEL,
  VIRTIO_NET_HASH_TYPE_INNER as INNER,
  type InnerHashForm,
} from './types.js';

export interface ReceiveHashOptions extends SelectOptions, HeaderOptions {
  readonly key: Readonly<Uint8Array>;
  readonly hashTypes: number;
  /** HASH_TUNNEL as negotiated; absent: not, every hash is over the outer headers. */
  readonly form?: InnerHashForm;
  /** enabled_tunnel_types of the final form. Default 0. */
  readonly tunnelTypes?: number;
  /** Default: the assigned ones. */
  readonly ports?: TunnelPorts;
}

export interface ReceiveHash {
  readonly hash: number;
  /** VIRTIO_NET_HASH_REPORT; 0: not calculated. */
  readonly report: number;
  /** Tunnel types that the frame belongs to, enabled or not; 0 where HASH_TUNNEL is not negotiated. */
  readonly types: number;
  /** The hash is over the inner headers (or would be, were there any to hash). */
  readonly inner: boolean;
  /** Byte 18 of the v7 header; 0 in the final form. */
  readonly tunnelReport: number;
}

/**
 * Puts a result into the virtio_net_hdr_v1_hash at `at`: hash_value u32 @12, hash_report u16 @16,
 * hash_report_tunnel u8 @18 (padding of the final form, and then 0), padding u8 @19.
 */
export function writeHashReport(view: DataView, at: number, result: ReceiveHash): void {
  view.setUint32(at + 12, result.hash, true);
  view.setUint16(at + 16, result.report, true);
  view.setUint8(at + 18, result.tunnelReport);
  view.setUint8(at + 19, 0);
}

/** The tunnels of the v7 proposal, in terms of the standard's types. */
const V7_TUNNELS: readonly {
  readonly types: number;
  readonly bit: number;
  readonly report: number;
}[] = [
  {
    types: TUNNEL.GRE_2784 | TUNNEL.GRE_2890 | TUNNEL.GRE_7676 | TUNNEL.NVGRE,
    bit: INNER.GRE_INNER,
    report: TUNNEL_REPORT.GRE,
  },
  { types: TUNNEL.VXLAN, bit: INNER.VXLAN_INNER, report: TUNNEL_REPORT.VXLAN },
  { types: TUNNEL.GENEVE, bit: INNER.GENEVE_INNER, report: TUNNEL_REPORT.GENEVE },
];

/** The types that hash_types of v7 turns on. */
export function v7TunnelTypes(hashTypes: number): number {
  return V7_TUNNELS.reduce(
    (types, each) => ((hashTypes & each.bit) === 0 ? types : types | each.types),
    0,
  );
}

/** hash_types bits of v7 that turn such types on; those it has no tunnel for are dropped. */
export function v7HashTypes(tunnelTypes: number): number {
  return V7_TUNNELS.reduce(
    (bits, each) => ((tunnelTypes & each.types) === 0 ? bits : bits | each.bit),
    0,
  );
}

class Result extends SelectedHash implements ReceiveHash {
  types = 0;
  inner = false;
  tunnelReport: number = TUNNEL_REPORT.TUNNEL_NONE;
}

export class ReceiveHasher {
  readonly #options: ReceiveHashOptions;
  readonly #key: ToeplitzKey;
  readonly #hashTypes: number;
  /** Tunnel types whose inner headers are hashed. */
  readonly #enabled: number;
  readonly #outer: PacketHeaders;
  readonly #inner: PacketHeaders;
  readonly #match: TunnelMatch;
  readonly #result = new Result();

  constructor(options: ReceiveHashOptions) {
    this.#options = options;
    this.#key = new ToeplitzKey(options.key);
    this.#hashTypes = options.hashTypes & ALL_HASH_TYPES;
    this.#enabled = enabledTunnels(options);
    this.#outer = new PacketHeaders(options);
    this.#inner = new PacketHeaders(options);
    this.#match = new TunnelMatch(options.ports);
  }

  /** Of the last `compute`; overwritten by the next. */
  get result(): ReceiveHash {
    return this.#result;
  }

  /** The Ethernet frame in bytes [start, end). */
  compute(bytes: Uint8Array, start = 0, end = bytes.length): ReceiveHash {
    const result = this.#result;
    result.clear();
    result.types = 0;
    result.inner = false;
    result.tunnelReport = TUNNEL_REPORT.TUNNEL_NONE;
    const outer = this.#outer;
    if (!outer.readFrame(bytes, start, end)) return result;
    if (this.#options.form !== undefined && this.#match.find(bytes, outer, end)) {
      const { types, innerVersion, innerAt } = this.#match;
      const readable = innerVersion === 0 || this.#inner.readIp(bytes, innerAt, end, innerVersion);
      if (readable) {
        result.types = types;
        result.inner = (types & this.#enabled) !== 0;
        if (result.inner) {
          if (innerVersion !== 0) this.#select(bytes, this.#inner);
          if (result.report !== 0) result.tunnelReport = this.#tunnelReport(types);
          return result;
        }
      }
    }
    this.#select(bytes, outer);
    return result;
  }

  #select(bytes: Uint8Array, headers: PacketHeaders): void {
    this.#result.select(bytes, headers, this.#hashTypes, this.#key, this.#options);
  }

  #tunnelReport(types: number): number {
    if (this.#options.form !== 'v7') return TUNNEL_REPORT.TUNNEL_NONE;
    for (const each of V7_TUNNELS) if ((each.types & types) !== 0) return each.report;
    return TUNNEL_REPORT.TUNNEL_NONE;
  }
}

function enabledTunnels({ form, hashTypes, tunnelTypes = 0 }: ReceiveHashOptions): number {
  if (form === undefined) return 0;
  return form === 'v7' ? v7TunnelTypes(hashTypes) : tunnelTypes;
}
