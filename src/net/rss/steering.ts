/**
 * Which receive queue a frame goes to.
 *
 * Reference: virtio 1.4 "Receive-side scaling" and "Automatic receive steering in multiqueue mode". With
 * RSS the low bits of the hash index the table, and what has no hash goes to the unclassified queue; a
 * frame for a queue that is being reset is dropped. Entries count modulo the pairs in use, as in
 * QEMU. Automatic steering sends a flow to the receive queue of the pair that the driver last sent on
 * for it, to queue 0 before that; which flow a frame is of, the device says by any hash it likes.
 * Queues are pair numbers from 0.
 *
 * Usage:
 *   const steering = new Steering(state);
 *   steering.queueOf(hasher.compute(frame));
 */
import type { RssState } from './config.js';
import type { ReceiveHash } from './receive-hash.js';

/** The frame goes nowhere: its queue is being reset. */
export const DROPPED = -1;

/** Flows that automatic steering remembers; the oldest is forgotten. */
const MAX_FLOWS = 4096;

/** A table as drivers/net/virtio_net.c sets it: entry i names queue i modulo the pairs. */
export function defaultTable(length: number, queuePairs: number): Uint16Array {
  return Uint16Array.from({ length }, (_, i) => i % queuePairs);
}

export class Steering {
  readonly #state: RssState;
  readonly #resetting = new Set<number>();
  /** By flow hash, the pair last transmitted on. */
  readonly #transmitted = new Map<number, number>();

  constructor(state: RssState) {
    this.#state = state;
  }

  /** The receive queue of a frame with that hash, or DROPPED. */
  queueOf(result: ReceiveHash): number {
    const { mode, queuePairs } = this.#state;
    if (mode !== 'rss') return this.#automaticQueue(result.hash);
    const queue = tableQueue(this.#state.config, result) % queuePairs;
    return this.#resetting.has(queue) ? DROPPED : queue;
  }

  /** The driver sent a packet of the flow whose received packets have that hash. */
  noteTransmit(hash: number, queue: number): void {
    this.#transmitted.delete(hash);
    this.#transmitted.set(hash, queue);
    if (this.#transmitted.size <= MAX_FLOWS) return;
    const [oldest] = this.#transmitted.keys();
    if (oldest !== undefined) this.#transmitted.delete(oldest);
  }

  /** A queue is being reset (RING_RESET), or is there again. */
  setResetting(queue: number, resetting: boolean): void {
    if (resetting) this.#resetting.add(queue);
    else this.#resetting.delete(queue);
  }

  /** Automatic steering picks another queue instead of one that is being reset. */
  #automaticQueue(hash: number): number {
    const { queuePairs } = this.#state;
    const last = this.#transmitted.size === 0 ? 0 : (this.#transmitted.get(hash) ?? 0);
    const first = last % queuePairs;
    if (this.#resetting.size === 0) return first;
    for (let i = 0; i < queuePairs; i++) {
      const queue = (first + i) % queuePairs;
      if (!this.#resetting.has(queue)) return queue;
    }
    return DROPPED;
  }
}

/** The entry of the table, or the unclassified queue for a frame without a hash. */
export function tableQueue(
  config: { readonly table: Uint16Array; readonly unclassifiedQueue: number },
  { report, hash }: { readonly report: number; readonly hash: number },
): number {
  if (report === 0) return config.unclassifiedQueue;
  return config.table[hash & (config.table.length - 1)] as number;
}
