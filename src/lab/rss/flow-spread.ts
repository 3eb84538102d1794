/**
 * Packets and flows by receive queue, and what happens to the order within flows.
 *
 * A flow that changes its queue may be reordered. How often it is follows from a model of the CPUs: each
 * queue is a line, served one packet after the other, `packetTime` each, and a packet that is done
 * before an earlier one of its flow is out of order. Memory is bounded: beyond a number of flows, packets
 * of further ones are counted but not followed.
 *
 * Usage:
 *   const spread = new FlowSpread(8);
 *   spread.add(queue, flowKey, timeInNanoseconds);
 *   spread.report().reordered;
 */
import { DROPPED } from '../../net/rss/steering.js';
import { spreadOf, type Spread } from './spread.js';

/** Flows that are followed. */
export const MAX_FLOWS = 1_000_000;

/** Nanoseconds of a CPU per packet: a million packets a second. */
export const DEFAULT_PACKET_TIME = 1000;

export interface FlowSpreadReport extends Spread {
  /** Flows that used each queue. */
  readonly flowsPerQueue: readonly number[];
  readonly flows: number;
  /** Flows that stayed on one queue. */
  readonly stableFlows: number;
  /** Packets that went to another queue than the one before in their flow. */
  readonly queueChanges: number;
  /** Packets done before an earlier one of their flow. */
  readonly reordered: number;
  /** Packets of flows beyond MAX_FLOWS. */
  readonly notFollowed: number;
}

interface FlowState {
  queue: number;
  /** When the last of its packets so far is done. */
  done: number;
}

export class FlowSpread {
  readonly #counts: number[];
  readonly #flowsPerQueue: number[];
  /** When each queue's CPU is free again. */
  readonly #free: Float64Array;
  readonly #packetTime: number;
  readonly #flows = new Map<number, FlowState>();
  /** Queues of the flows that moved. */
  readonly #visited = new Map<number, Set<number>>();
  #stable = 0;
  #queueChanges = 0;
  #reordered = 0;
  #notFollowed = 0;

  constructor(queues: number, packetTime = DEFAULT_PACKET_TIME) {
    this.#counts = Array.from({ length: queues }, () => 0);
    this.#flowsPerQueue = Array.from({ length: queues }, () => 0);
    this.#free = new Float64Array(queues);
    this.#packetTime = packetTime;
  }

  /** @param flow below 0: of none. @param time arrival in nanoseconds from any start. */
  add(queue: number, flow: number, time: number): void {
    if (queue === DROPPED) return;
    this.#counts[queue] = (this.#counts[queue] ?? 0) + 1;
    const done = Math.max(time, this.#free[queue] ?? 0) + this.#packetTime;
    this.#free[queue] = done;
    if (flow < 0) return;
    const state = this.#flows.get(flow);
    if (state) this.#follow(state, flow, queue, done);
    else if (this.#flows.size < MAX_FLOWS) {
      this.#flows.set(flow, { queue, done });
      this.#flowsPerQueue[queue] = (this.#flowsPerQueue[queue] ?? 0) + 1;
      this.#stable++;
    } else this.#notFollowed++;
  }

  #follow(state: FlowState, flow: number, queue: number, done: number): void {
    if (done < state.done) this.#reordered++;
    else state.done = done;
    if (queue === state.queue) return;
    this.#queueChanges++;
    let visited = this.#visited.get(flow);
    if (!visited) {
      visited = new Set([state.queue]);
      this.#visited.set(flow, visited);
      this.#stable--;
    }
    state.queue = queue;
    if (visited.has(queue)) return;
    visited.add(queue);
    this.#flowsPerQueue[queue] = (this.#flowsPerQueue[queue] ?? 0) + 1;
  }

  report(): FlowSpreadReport {
    return {
      ...spreadOf(this.#counts),
      flowsPerQueue: this.#flowsPerQueue,
      flows: this.#flows.size,
      stableFlows: this.#stable,
      queueChanges: this.#queueChanges,
      reordered: this.#reordered,
      notFollowed: this.#notFollowed,
    };
  }
}
