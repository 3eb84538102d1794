/**
 * Which flow a frame belongs to: the addresses, ports and protocol that its ends would see.
 *
 * That is the inner packet of any tunnel known here, whatever the device looks at. A fragment has no
 * ports, so all fragments between two hosts are one flow. A key is 53 bits of two hashes of those
 * fields: that any two of a million flows share one has a chance of about one in 20,000.
 *
 * Usage:
 *   const flows = new FlowReader();
 *   flows.keyOf(frame);            // -1: no IP
 *   flows.tunnels;                 // types of the tunnel it is in
 */
import { PacketHeaders } from '../../net/rss/headers.js';
import { ToeplitzKey } from '../../net/rss/toeplitz.js';
import { TunnelMatch, type TunnelPorts } from '../../net/rss/tunnel.js';
import { Random } from '../../common/random.js';

/** Addresses, ports, protocol. */
const KEY_BYTES = 37 + 4;

function randomKey(seed: number): ToeplitzKey {
  const random = new Random(seed);
  return new ToeplitzKey(Uint8Array.from({ length: KEY_BYTES }, () => random.below(256)));
}

export class FlowReader {
  /** VIRTIO_NET_HASH_TUNNEL_TYPE bits of the last frame. */
  tunnels = 0;
  readonly #outer = new PacketHeaders();
  readonly #inner = new PacketHeaders();
  readonly #match: TunnelMatch;
  readonly #high = randomKey(1);
  readonly #low = randomKey(2);
  readonly #protocol = new Uint8Array(1);

  constructor(ports?: TunnelPorts) {
    this.#match = new TunnelMatch(ports);
  }

  /** A number that is the same for all frames of a flow; -1 without an IP packet. */
  keyOf(frame: Uint8Array): number {
    this.tunnels = 0;
    const outer = this.#outer;
    const end = frame.length;
    if (!outer.readFrame(frame, 0, end)) return -1;
    if (!this.#match.find(frame, outer, end)) return this.#hash(frame, outer);
    const { innerVersion, innerAt, types } = this.#match;
    if (innerVersion === 0) {
      this.tunnels = types;
      return this.#hash(frame, outer);
    }
    if (!this.#inner.readIp(frame, innerAt, end, innerVersion)) return this.#hash(frame, outer);
    this.tunnels = types;
    return this.#hash(frame, this.#inner);
  }

  #hash(frame: Uint8Array, headers: PacketHeaders): number {
    const high = this.#mix(this.#high, frame, headers);
    const low = this.#mix(this.#low, frame, headers);
    return (high >>> 0) * 0x20_0000 + (low >>> 11);
  }

  #mix(key: ToeplitzKey, frame: Uint8Array, headers: PacketHeaders): number {
    const addressBytes = headers.version === 4 ? 8 : 32;
    let hash = key.mix(0, 0, frame, headers.sourceAt, addressBytes);
    if (headers.hasPorts) hash = key.mix(hash, 32, frame, headers.transportAt, 4);
    this.#protocol[0] = headers.protocol;
    return key.mix(hash, 36, this.#protocol, 0, 1);
  }
}
