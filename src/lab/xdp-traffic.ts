/**
 * A capture through virtio-net with an XDP program, on any engine: verdict per packet, what was
 * delivered and transmitted, counters.
 *
 * Every engine takes the same path through the driver; only who runs the program differs: the
 * interpreter or the wasm tier on kernel memory, or the JIT image on the kernel's CPU engine.
 * `runTraffic` sends one packet at a time and keeps what became of it; a `TrafficStream` sends as many as
 * NAPI takes at once and keeps counts only, for millions of them.
 *
 * Usage:
 *   const driver = installVirtioNet(kernel);
 *   runTraffic(kernel, { driver, engine: 'wasm', program, capture }).verdicts;
 *   const stream = openTraffic(kernel, { driver, engine: 'wasm', program });
 *   stream.send(frames);
 *   stream.close();
 */
import type { LoadedProgram } from '../bpf/object/load.js';
import { XDP_ACTIONS } from '../bpf/xdp-buff.js';
import type { Kernel } from '../kernel/kernel.js';
import type { Capture, CapturedPacket } from '../net/capture.js';
import type { FrameVisitor } from '../virtio/driver/sink.js';
import { declareVirtioNetTypes } from '../virtio/driver/types.js';
import {
  defineVirtioNet,
  type VirtioNet,
  type VirtioNetDriver,
  type VirtioNetOptions,
} from '../virtio/virtio-net.js';
import type { RunEngine } from './run-program.js';
import { createXdpEngine, type XdpEngine } from './xdp-engine.js';

/** NAPI_POLL_WEIGHT: packets that one poll of the driver takes at most. */
export const NAPI_POLL_WEIGHT = 64;

export interface StreamOptions {
  readonly driver: VirtioNetDriver;
  readonly engine: RunEngine;
  readonly program: LoadedProgram;
  /** Receive buffers. Default mergeable. */
  readonly rx?: 'small' | 'mergeable';
  /** Layout of the virtqueues. Default split. */
  readonly ring?: 'split' | 'packed';
  /** IN_ORDER. Default false. */
  readonly inOrder?: boolean;
  /** INDIRECT_DESC. Default false. */
  readonly indirect?: boolean;
  /** Packets that arrive before the driver polls. Default 64. */
  readonly batch?: number;
  /** Sees each frame that reaches the stack. */
  readonly onDelivered?: FrameVisitor;
  /** Sees each frame that leaves the device, virtio_net_hdr in front. */
  readonly onTransmitted?: FrameVisitor;
}

export interface TrafficOptions extends Pick<
  StreamOptions,
  'driver' | 'engine' | 'program' | 'rx' | 'ring' | 'inOrder' | 'indirect'
> {
  readonly capture: Capture;
}

/** What became of one packet. */
export interface PacketOutcome {
  readonly packet: CapturedPacket;
  /** What the program returned; undefined when it did not run (the driver dropped the packet). */
  readonly verdict: number | undefined;
  /** The frame that reached the stack or left the device. */
  readonly out: Uint8Array | undefined;
  /** `refused`: the device had no buffer that it fits. */
  readonly to: 'stack' | 'transmit' | 'nowhere' | 'refused';
}

export interface TrafficResult {
  readonly outcomes: readonly PacketOutcome[];
  /** Packets by verdict name, in the order of the names; `not run` last. */
  readonly verdicts: ReadonlyMap<string, number>;
  readonly counters: Readonly<Record<string, number>>;
}

export function verdictName(verdict: number | undefined): string {
  if (verdict === undefined) return 'not run';
  return XDP_ACTIONS[verdict] ?? `${verdict}`;
}

/** The virtio-net driver in `kernel`; define it once, before tracing programs attach to it. */
export function installVirtioNet(kernel: Kernel): VirtioNetDriver {
  kernel.bpf.host.types.declare(declareVirtioNetTypes);
  return defineVirtioNet(kernel);
}

/** Sends every packet through, one at a time. Throws KernelError when the driver refuses the program. */
export function runTraffic(kernel: Kernel, options: TrafficOptions): TrafficResult {
  const net = options.driver.probe(queueOptions(options));
  const verdicts: (number | undefined)[] = [];
  const note = (verdict: number): void => void verdicts.push(verdict);
  const engine = createXdpEngine(kernel, options.engine, options.program.xlated, {
    hasFrags: options.program.spec.frags,
    note,
  });
  try {
    net.attachXdp(engine.runner);
    const outcomes = options.capture.packets.map((packet) => {
      verdicts.length = 0;
      return sendPacket(net, packet, () => verdicts[0]);
    });
    return { outcomes, verdicts: countVerdicts(outcomes), counters: net.counters() };
  } finally {
    net.close();
    engine.close();
  }
}

/** What became of the packets of a stream so far. */
export interface StreamCounts {
  /** Sent to the device. */
  readonly packets: number;
  /** The device had no buffer that they fit. */
  readonly refused: number;
  readonly delivered: number;
  readonly transmitted: number;
  /** By verdict name, in the order of the names; `not run` last. */
  readonly verdicts: ReadonlyMap<string, number>;
  readonly counters: Readonly<Record<string, number>>;
}

/** A device with a program attached. Sending allocates nothing once it is warm. */
export class TrafficStream {
  readonly #net: VirtioNet;
  readonly #engine: XdpEngine;
  readonly #batch: number;
  readonly #onDelivered: FrameVisitor | undefined;
  /** By verdict, those that are actions. */
  readonly #verdicts = XDP_ACTIONS.map(() => 0);
  readonly #others = new Map<number, number>();
  #packets = 0;
  #refused = 0;
  #delivered = 0;
  #transmitted = 0;

  /** Use `openTraffic`. */
  constructor(kernel: Kernel, options: StreamOptions) {
    this.#batch = options.batch ?? NAPI_POLL_WEIGHT;
    this.#onDelivered = options.onDelivered;
    const { onTransmitted } = options;
    this.#net = options.driver.probe({
      ...queueOptions(options),
      onTransmit: (bytes, start, end, queue) => {
        this.#transmitted++;
        onTransmitted?.(bytes, start, end, queue);
      },
    });
    this.#engine = createXdpEngine(kernel, options.engine, options.program.xlated, {
      hasFrags: options.program.spec.frags,
      note: (verdict) => this.#note(verdict),
    });
    this.#net.attachXdp(this.#engine.runner);
  }

  /** Sends frames, in batches, and lets the driver take them all. */
  send(frames: readonly Uint8Array[]): void {
    let waiting = 0;
    for (let i = 0; i < frames.length; i++) {
      const frame = frames[i] as Uint8Array;
      let result = this.#net.receive(frame);
      if (result === 'no-buffers' && waiting > 0) {
        this.#poll();
        waiting = 0;
        result = this.#net.receive(frame);
      }
      this.#packets++;
      if (result === 'delivered') waiting++;
      else this.#refused++;
      if (waiting < this.#batch) continue;
      this.#poll();
      waiting = 0;
    }
    if (waiting > 0) this.#poll();
  }

  get counts(): StreamCounts {
    const verdicts = new Map<string, number>();
    for (const [verdict, count] of this.#verdicts.entries()) {
      if (count > 0) verdicts.set(verdictName(verdict), count);
    }
    let run = this.#verdicts.reduce((sum, count) => sum + count, 0);
    for (const [verdict, count] of this.#others) {
      verdicts.set(verdictName(verdict), count);
      run += count;
    }
    if (run < this.#packets) verdicts.set(verdictName(undefined), this.#packets - run);
    return {
      packets: this.#packets,
      refused: this.#refused,
      delivered: this.#delivered,
      transmitted: this.#transmitted,
      verdicts,
      counters: this.#net.counters(),
    };
  }

  close(): void {
    this.#net.close();
    this.#engine.close();
  }

  #poll(): void {
    this.#net.poll();
    this.#delivered += this.#net.drain(this.#onDelivered);
    this.#net.exceptions();
  }

  #note(verdict: number): void {
    const count = this.#verdicts[verdict];
    if (count === undefined) this.#others.set(verdict, (this.#others.get(verdict) ?? 0) + 1);
    else this.#verdicts[verdict] = count + 1;
  }
}

/** Throws KernelError when the driver refuses the program. */
export function openTraffic(kernel: Kernel, options: StreamOptions): TrafficStream {
  return new TrafficStream(kernel, options);
}

function queueOptions(
  options: Pick<StreamOptions, 'rx' | 'ring' | 'inOrder' | 'indirect'>,
): VirtioNetOptions {
  const { rx = 'mergeable', ring = 'split', inOrder = false, indirect = false } = options;
  return { rx, ring, inOrder, indirect };
}

function sendPacket(
  net: VirtioNet,
  packet: CapturedPacket,
  verdict: () => number | undefined,
): PacketOutcome {
  if (net.receive(packet.bytes) !== 'delivered') {
    return { packet, verdict: undefined, out: undefined, to: 'refused' };
  }
  net.poll();
  const [up] = net.delivered();
  const [out] = net.transmitted();
  net.exceptions();
  if (up) return { packet, verdict: verdict(), out: up.frame, to: 'stack' };
  if (out) return { packet, verdict: verdict(), out: out.frame, to: 'transmit' };
  return { packet, verdict: verdict(), out: undefined, to: 'nowhere' };
}

function countVerdicts(outcomes: readonly PacketOutcome[]): Map<string, number> {
  const order = [...XDP_ACTIONS, 'not run'];
  const counts = new Map<string, number>();
  for (const { verdict } of outcomes) {
    const name = verdictName(verdict);
    counts.set(name, (counts.get(name) ?? 0) + 1);
  }
  const rank = (name: string): number =>
    (order.indexOf(name as never) + order.length + 1) % (order.length + 1);
  return new Map([...counts].sort(([a], [b]) => rank(a) - rank(b)));
}
