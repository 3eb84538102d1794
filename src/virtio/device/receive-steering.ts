/**
 * The device's own hashing: which receive queue a frame goes to, and the hash that its header reports.
 *
 * Reference: virtio 1.4 "Hash calculation for incoming packets", "Receive-side scaling"; the hash and the table
 * are `net/rss`. RSS steers by the table, HASH_REPORT puts the hash into the header, either goes
 * without the other. Without a table all frames go to queue 0, which automatic steering may do: it
 * does not follow what the guest transmits. Nothing is allocated per frame.
 *
 * Usage:
 *   steering.reset(features, state.rss);       // then `configure` after each command
 *   const queue = steering.queueOf(frame);     // or DROPPED; steering.hash, steering.report
 */
import { ReceiveHasher, type ReceiveHash } from '../../net/rss/receive-hash.js';
import { Steering } from '../../net/rss/steering.js';
import { resetRssState, type RssState } from '../../net/rss/config.js';
import { hasFeature } from '../net-features.js';

/** Of a frame that is not hashed. */
const NO_HASH: ReceiveHash = { hash: 0, report: 0, types: 0, inner: false, tunnelReport: 0 };

export class ReceiveSteering {
  /** Quirks of QEMU: IPv6 without extension headers takes _EX types, atomic fragments hide ports. */
  readonly #qemu: boolean;
  #rss: RssState = resetRssState();
  #reports = false;
  #tunnels = false;
  /** Undefined while nothing is hashed. */
  #hasher: ReceiveHasher | undefined;
  #steering = new Steering(this.#rss);
  #result: ReceiveHash = NO_HASH;
  readonly #resetting = new Set<number>();

  constructor(qemu: boolean) {
    this.#qemu = qemu;
  }

  /** The device was reset, or a driver has negotiated. */
  reset(features: bigint, rss: RssState): void {
    this.#reports = hasFeature(features, 'HASH_REPORT');
    this.#tunnels = hasFeature(features, 'HASH_TUNNEL');
    this.#resetting.clear();
    this.#apply(rss);
  }

  /** Control commands have left that state. */
  configure(rss: RssState): void {
    if (rss !== this.#rss) this.#apply(rss);
  }

  /** A virtqueue is being reset, or is there again. */
  setResetting(index: number, resetting: boolean): void {
    if (index % 2 !== 0) return;
    const queue = index >> 1;
    if (resetting) this.#resetting.add(queue);
    else this.#resetting.delete(queue);
    this.#steering.setResetting(queue, resetting);
  }

  /** The queue pair of a frame, or DROPPED: its queue is being reset. */
  queueOf(frame: Uint8Array): number {
    this.#result = this.#hasher?.compute(frame) ?? NO_HASH;
    return this.#steering.queueOf(this.#result);
  }

  /** hash_value of the last frame; 0 without HASH_REPORT. */
  get hash(): number {
    return this.#reports ? this.#result.hash : 0;
  }

  /** hash_report of the last frame. */
  get report(): number {
    return this.#reports ? this.#result.report : 0;
  }

  #apply(rss: RssState): void {
    this.#rss = rss;
    this.#result = NO_HASH;
    this.#steering = new Steering(rss);
    for (const queue of this.#resetting) this.#steering.setResetting(queue, true);
    const { key, hashTypes } = rss.config;
    this.#hasher =
      rss.mode === 'automatic'
        ? undefined
        : new ReceiveHasher({
            key,
            hashTypes,
            qemuIpv6ExQuirk: this.#qemu,
            qemuAtomicFragments: this.#qemu,
            ...(this.#tunnels ? { form: 'final', tunnelTypes: rss.tunnelTypes } : {}),
          });
  }
}
