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
import { netHeaderSize } from '../virtio/net-features.js';
import {
  defineVirtioNet,
  type VirtioNet,
  type VirtioNetDriver,
  type VirtioNetOptions,
} from '../virtio/virtio-net.js';
import type { VirtioNetVersion } from '../virtio/driver/profiles.js';
import { driverVariant, type CsumVariant } from './csum/rows.js';
import type { RunEngine } from './run-program.js';
import { createXdpEngine, type XdpEngine } from './xdp-engine.js';

/** NAPI_POLL_WEIGHT: packets that one poll of the driver takes at most. */
export const NAPI_POLL_WEIGHT = 64;

export interface StreamOptions {
  readonly driver: VirtioNetDriver;
  readonly engine: RunEngine;
  readonly program: LoadedProgram;
  /** Receive buffers. Default mergeable. */
  readonly rx?: 'small' | 'mergeable' | 'big';
  /** Version of the driver. Default 6.12. */
  readonly version?: VirtioNetVersion;
  /** How the driver brings checksum offload and XDP together; `generic`: the program runs on skbs. Default: as its version does. */
  readonly variant?: CsumVariant;
  /** Layout of the virtqueues. Default split. */
  readonly ring?: 'split' | 'packed';
  /** IN_ORDER. Default false. */
  readonly inOrder?: boolean;
  /** INDIRECT_DESC. Default false. */
  readonly indirect?: boolean;
  /** The device offers RING_RESET, which AF_XDP sockets without a copy need. Default false. */
  readonly resetsQueues?: boolean;
  /** Queue pairs, at most one per CPU. Default 1. */
  readonly queuePairs?: number;
  /** The device spreads packets by their hash and reports it, with that key. Default: all go to queue 0. */
  readonly rss?: { readonly key?: Uint8Array };
  /** Packets that arrive before the driver polls. Default 64. */
  readonly batch?: number;
  /** Called when the device is there and before the program is attached: fills redirect maps. */
  readonly prepare?: (net: VirtioNet) => void;
  /** Where redirected packets may come out, beside the device itself. Default none. */
  readonly targets?: readonly RedirectTarget[];
  /** Sees each frame that reaches the stack. */
  readonly onDelivered?: FrameVisitor;
  /** Sees each frame that leaves the device, virtio_net_hdr in front. */
  readonly onTransmitted?: FrameVisitor;
}

export type RunOptions = Omit<StreamOptions, 'batch' | 'onDelivered' | 'onTransmitted'>;

export interface TrafficOptions extends RunOptions {
  readonly capture: Capture;
}

/** Something that packets are redirected to, as the lab reads it. */
export interface RedirectTarget {
  readonly name: string;
  /** Takes the frames that arrived. */
  take(): readonly Uint8Array[];
}

/** A frame that came out of a target. */
export interface RedirectedFrame {
  readonly target: string;
  readonly frame: Uint8Array;
}

/** What became of one packet. */
export interface PacketOutcome {
  readonly packet: CapturedPacket;
  /** What the program returned; undefined when it did not run (the driver dropped the packet). */
  readonly verdict: number | undefined;
  /** The frame that reached the stack or left the device. */
  readonly out: Uint8Array | undefined;
  /** `refused`: the device had no buffer that it fits. */
  readonly to: 'stack' | 'transmit' | 'redirect' | 'nowhere' | 'refused';
  /** What came out of targets. */
  readonly redirected: readonly RedirectedFrame[];
}

export interface TrafficResult extends RunCounts {
  readonly outcomes: readonly PacketOutcome[];
}

export interface RunCounts {
  /** Packets that came out of each target. */
  readonly redirected: ReadonlyMap<string, number>;
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
  return defineVirtioNet(kernel, { bpf: kernel.bpf.host, cpus: kernel.cpus.length });
}

/** A device with a program attached that takes one packet at a time and tells what became of it. */
export class TrafficRun {
  readonly #net: VirtioNet;
  readonly #headerSize: number;
  readonly #engine: XdpEngine;
  readonly #targets: readonly RedirectTarget[];
  readonly #verdicts = new Map<number | undefined, number>();
  readonly #redirected: Map<string, number>;
  #verdict: number | undefined;
  // of the packet that was sent last: the first frame that reached the stack, that left the device
  #up: Uint8Array | undefined;
  #out: Uint8Array | undefined;

  /** Throws KernelError when the driver refuses the program. */
  constructor(kernel: Kernel, options: RunOptions) {
    this.#targets = options.targets ?? [];
    this.#redirected = new Map(this.#targets.map(({ name }) => [name, 0]));
    this.#net = options.driver.probe({
      ...deviceOptions(options),
      onTransmit: (bytes, start, end) => {
        this.#out ??= bytes.slice(start + this.#headerSize, end);
      },
    });
    this.#headerSize = netHeaderSize(this.#net.features);
    this.#engine = createXdpEngine(kernel, options.engine, options.program.xlated, {
      hasFrags: options.program.spec.frags,
      boundTo: options.program.boundTo,
      note: (verdict) => void (this.#verdict ??= verdict),
    });
    try {
      setHashing(this.#net, options.rss);
      options.prepare?.(this.#net);
      attach(this.#net, this.#engine, options);
    } catch (error) {
      this.close();
      throw error;
    }
  }

  send(packet: CapturedPacket): PacketOutcome {
    const outcome = this.#take(packet);
    const { verdict, redirected } = outcome;
    this.#verdicts.set(verdict, (this.#verdicts.get(verdict) ?? 0) + 1);
    for (const { target } of redirected) {
      this.#redirected.set(target, (this.#redirected.get(target) ?? 0) + 1);
    }
    return outcome;
  }

  get counts(): RunCounts {
    return {
      verdicts: nameVerdicts(this.#verdicts),
      redirected: new Map(this.#redirected),
      counters: this.#net.counters(),
    };
  }

  close(): void {
    this.#net.close();
    this.#engine.close();
  }

  #take(packet: CapturedPacket): PacketOutcome {
    const net = this.#net;
    if (net.receive(packet.bytes) !== 'delivered') {
      return { packet, verdict: undefined, out: undefined, to: 'refused', redirected: [] };
    }
    this.#verdict = undefined;
    this.#up = undefined;
    this.#out = undefined;
    net.poll();
    const redirected =
      this.#targets.length === 0 ? NOT_REDIRECTED : this.#targets.flatMap(framesOf);
    net.drain(this.#keepDelivered);
    net.exceptions();
    const verdict = this.#verdict;
    if (this.#up) return { packet, verdict, redirected, out: this.#up, to: 'stack' };
    if (this.#out) return { packet, verdict, redirected, out: this.#out, to: 'transmit' };
    const to = redirected.length > 0 ? 'redirect' : 'nowhere';
    return { packet, verdict, redirected, out: undefined, to };
  }

  readonly #keepDelivered: FrameVisitor = (bytes, start, end) => {
    this.#up ??= bytes.slice(start, end);
  };
}

const NOT_REDIRECTED: readonly RedirectedFrame[] = [];

function framesOf({ name, take }: RedirectTarget): RedirectedFrame[] {
  return take().map((frame) => ({ target: name, frame }));
}

/** Sends every packet through, one at a time. Throws KernelError when the driver refuses the program. */
export function runTraffic(kernel: Kernel, options: TrafficOptions): TrafficResult {
  const run = new TrafficRun(kernel, options);
  try {
    const outcomes = options.capture.packets.map((packet) => run.send(packet));
    return { outcomes, ...run.counts };
  } finally {
    run.close();
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
  /** What came out of each target. */
  readonly redirected: ReadonlyMap<string, number>;
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
  readonly #targets: readonly RedirectTarget[];
  readonly #redirected: number[];
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
    this.#targets = options.targets ?? [];
    this.#redirected = this.#targets.map(() => 0);
    const { onTransmitted } = options;
    this.#net = options.driver.probe({
      ...deviceOptions(options),
      onTransmit: (bytes, start, end, queue) => {
        this.#transmitted++;
        onTransmitted?.(bytes, start, end, queue);
      },
    });
    this.#engine = createXdpEngine(kernel, options.engine, options.program.xlated, {
      hasFrags: options.program.spec.frags,
      boundTo: options.program.boundTo,
      note: (verdict) => this.#note(verdict),
    });
    setHashing(this.#net, options.rss);
    options.prepare?.(this.#net);
    attach(this.#net, this.#engine, options);
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
      redirected: new Map(this.#targets.map(({ name }, i) => [name, this.#redirected[i] ?? 0])),
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
    for (let i = 0; i < this.#targets.length; i++) {
      (this.#redirected[i] as number) += (this.#targets[i] as RedirectTarget).take().length;
    }
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

function deviceOptions(options: RunOptions): VirtioNetOptions {
  const { rx = 'mergeable', ring = 'split', inOrder = false, indirect = false } = options;
  const { version, variant, queuePairs = 1, resetsQueues = false, rss } = options;
  return {
    rx,
    ring,
    inOrder,
    indirect,
    queuePairs,
    cpus: options.driver.stack.cpus,
    features: [
      ...(rss ? (['CTRL_VQ', 'RSS', 'HASH_REPORT'] as const) : []),
      ...(resetsQueues ? (['RING_RESET'] as const) : []),
    ],
    ...(version !== undefined && { version }),
    ...(variant !== undefined && { xdpChecksum: driverVariant(variant) }),
  };
}

function attach(net: VirtioNet, { runner }: XdpEngine, { variant }: RunOptions): void {
  if (variant === 'generic') net.attachGenericXdp(runner);
  else net.attachXdp(runner);
}

/** What a user does with ethtool: rx-hashing on, and the key. */
function setHashing(net: VirtioNet, rss: StreamOptions['rss']): void {
  if (!rss) return;
  net.setFeature('rx-hashing', true);
  if (rss.key) net.setRss({ key: rss.key });
}

/** By name, in the order of the names, `not run` last. */
function nameVerdicts(byVerdict: ReadonlyMap<number | undefined, number>): Map<string, number> {
  const counts = [...byVerdict].map(([verdict, count]): [string, number] => {
    return [verdictName(verdict), count];
  });
  const order = [...XDP_ACTIONS, 'not run'];
  const rank = (name: string): number =>
    (order.indexOf(name as never) + order.length + 1) % (order.length + 1);
  return new Map(counts.sort(([a], [b]) => rank(a) - rank(b)));
}
