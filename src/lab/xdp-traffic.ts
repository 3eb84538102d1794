/**
 * A capture through virtio-net with an XDP program, on any engine: verdict per packet, what was
 * delivered and transmitted, counters.
 *
 * Every engine takes the same path through the driver; only who runs the program differs: the
 * interpreter or the wasm tier on kernel memory, or the JIT image on the kernel's CPU engine.
 */
import { createInterpreter } from '../bpf/interpreter.js';
import { createWasmProgram } from '../bpf/wasm.js';
import type { LoadedProgram } from '../bpf/object/load.js';
import { XDP_ACTIONS } from '../bpf/xdp-buff.js';
import { KernelError } from '../common/errors.js';
import { describeFault } from '../cpu/fault.js';
import { call, step, type BodyGenerator } from '../kernel/function.js';
import type { Kernel } from '../kernel/kernel.js';
import type { Capture, CapturedPacket } from '../net/capture.js';
import type { XdpRunner } from '../virtio/net-driver-common.js';
import { declareVirtioNetTypes } from '../virtio/net-types.js';
import { defineVirtioNet, type VirtioNet, type VirtioNetDriver } from '../virtio/virtio-net.js';
import type { RunEngine } from './run-program.js';

export interface TrafficOptions {
  readonly driver: VirtioNetDriver;
  readonly engine: RunEngine;
  readonly program: LoadedProgram;
  readonly capture: Capture;
  /** Receive buffers. Default mergeable. */
  readonly rx?: 'small' | 'mergeable';
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
  const net = options.driver.probe({ rx: options.rx ?? 'mergeable' });
  const verdicts: (number | undefined)[] = [];
  const engine = programRunner(kernel, options, (verdict) => verdicts.push(verdict));
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

interface Engine {
  readonly runner: XdpRunner;
  close(): void;
}

function programRunner(
  kernel: Kernel,
  { engine, program }: TrafficOptions,
  note: (verdict: number) => void,
): Engine {
  const hasFrags = program.spec.frags;
  if (engine === 'jit') {
    const loaded = kernel.bpf.load(program.xlated);
    const run = function* (xdp: bigint): BodyGenerator {
      const r0 = yield* call(loaded.entry, xdp);
      note(Number(BigInt.asUintN(32, r0)));
      return r0;
    };
    return { runner: { hasFrags, run }, close: () => loaded.free() };
  }
  const create = engine === 'wasm' ? createWasmProgram : createInterpreter;
  const direct = create(program.xlated, kernel.bpf.host);
  const run = function* (xdp: bigint): BodyGenerator {
    yield* step();
    const result = direct.run(xdp);
    switch (result.kind) {
      case 'return':
        note(Number(BigInt.asUintN(32, result.r0)));
        return result.r0;
      case 'fault':
        throw new KernelError(
          'EFAULT',
          `${describeFault(result.fault)} (insn ${result.insn} of ${result.function})`,
        );
      case 'budget':
        throw new KernelError('EINTR', `${result.function} does not end (insn ${result.insn})`);
      case 'error':
        throw new KernelError('EFAULT', `${result.reason} (insn ${result.insn})`);
    }
  };
  return { runner: { hasFrags, run }, close: () => direct.close() };
}
