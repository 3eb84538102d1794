/**
 * A kernel with a virtio-net device, for exhibits of the network wing.
 *
 * Usage:
 *   withNet(boot, { device: { rx: 'big' } }, (lab) => { lab.net.receive(frame); lab.net.poll(); ... });
 */
import type { Kernel } from '../../kernel/kernel.js';
import { SK_BUFF } from '../../stack/skb.js';
import type { XdpRunner } from '../../stack/xdp-program.js';
import {
  defineVirtioNet,
  type DefineOptions,
  type VirtioNet,
  type VirtioNetDriver,
  type VirtioNetOptions,
} from '../../virtio/virtio-net.js';
import { VERDICTS, labProgram } from '../csum/programs.js';
import { createXdpEngine } from '../xdp-engine.js';
import { withKernel, type Boot, type Observation } from './exhibit.js';

export interface NetLab {
  readonly kernel: Kernel;
  readonly driver: VirtioNetDriver;
  readonly net: VirtioNet;
  /** A program as BPF assembly, which takes the xdp_buff in R1; the interpreter runs it. */
  program(text: string): XdpRunner;
  /** Physical addresses of the heads of skbs that entered the stack. */
  readonly heads: readonly number[];
}

export interface NetLabOptions {
  readonly device?: VirtioNetOptions;
  readonly stack?: Omit<DefineOptions, 'tracepoints' | 'bpf'>;
}

export function withNet(
  boot: Boot,
  { device, stack }: NetLabOptions,
  look: (lab: NetLab) => Observation,
): Promise<Observation> {
  return withKernel(boot, {}, (kernel) => {
    const { ram } = kernel.memory;
    const heads: number[] = [];
    const driver = defineVirtioNet(kernel, {
      ...stack,
      bpf: kernel.bpf.host,
      tracepoints: {
        napiGroReceiveEntry: (skb) => heads.push(ram.pointer(skb + SK_BUFF.offset.head)),
      },
    });
    const net = driver.probe(device);
    const program = (text: string): XdpRunner =>
      createXdpEngine(kernel, 'interpreter', labProgram(kernel, 'exhibit', text)).runner;
    return look({ kernel, driver, net, program, heads });
  });
}

/** Lets frames be dropped until all of a ring's buffers were posted with a program attached. */
export function postXdpBuffers(net: VirtioNet, ring: number): void {
  net.attachXdp({ run: () => VERDICTS.DROP });
  for (let i = 0; i <= ring; i++) {
    net.receive(testFrame(60));
    net.poll();
  }
}

/** An Ethernet frame of a protocol that nobody takes, with a pattern. */
export function testFrame(length: number): Uint8Array {
  const frame = Uint8Array.from({ length }, (_, i) => (7 * i + 13) & 0xff);
  frame.set([0x52, 0x54, 0, 0, 0, 2, 0x52, 0x54, 0, 0, 0, 1, 0x88, 0xb5]);
  return frame;
}

/** A device that lies: the length of the buffer that it returned last. */
export function claimLength({ kernel, net }: Pick<NetLab, 'kernel' | 'net'>, length: number): void {
  const { memory } = kernel;
  const ring = net.receiveRing(0);
  if (ring.kind === 'packed') throw new RangeError('exhibits use split rings');
  const slot = BigInt((memory.read16(ring.used + 2n) - 1) & (ring.num - 1));
  memory.write32(ring.used + 4n + 8n * slot + 4n, length);
}
