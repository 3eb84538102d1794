/** XDP programs as TypeScript, for tests of the driver alone: they work on the xdp_buff in memory. */
import type { Memory } from '../../../src/cpu/memory.js';
import { step } from '../../../src/kernel/function.js';
import type { XdpRunner } from '../../../src/virtio/net-driver-common.js';
import { XDP, xdpBuffShinfo, xdpBuffMetaSize } from '../../../src/virtio/xdp-frame.js';

export const VERDICT = { ABORTED: 0, DROP: 1, PASS: 2, TX: 3, REDIRECT: 4 } as const;

/** A program given as a function of the xdp_buff's address. */
export function program(
  act: (xdp: bigint) => number,
  options: { readonly hasFrags?: boolean } = {},
): XdpRunner {
  return {
    hasFrags: options.hasFrags ?? false,
    *run(xdp) {
      yield* step();
      return BigInt(act(xdp));
    },
  };
}

export function returns(verdict: number, options: { readonly hasFrags?: boolean } = {}): XdpRunner {
  return program(() => verdict, options);
}

/** bpf_xdp_adjust_head on memory: 0 or -22. */
export function adjustHead(memory: Memory, xdp: bigint, delta: number): number {
  const data = memory.read64(xdp + XDP.data) + BigInt(delta);
  const meta = BigInt(xdpBuffMetaSize(memory, xdp));
  const lowest = memory.read64(xdp + XDP.dataHardStart) + 40n + meta;
  if (data < lowest || data > memory.read64(xdp + XDP.dataEnd) - 14n) return -22;
  memory.write64(xdp + XDP.data, data);
  memory.write64(xdp + XDP.dataMeta, data - meta);
  return 0;
}

/** bpf_xdp_adjust_tail on memory, linear packets: 0 or -22. */
export function adjustTail(memory: Memory, xdp: bigint, delta: number): number {
  const end = memory.read64(xdp + XDP.dataEnd);
  const newEnd = end + BigInt(delta);
  if (newEnd > xdpBuffShinfo(memory, xdp)) return -22;
  if (newEnd < memory.read64(xdp + XDP.data) + 14n) return -22;
  if (delta > 0) memory.writeBytes(end, new Uint8Array(delta));
  memory.write64(xdp + XDP.dataEnd, newEnd);
  return 0;
}

/** A frame of `length` bytes: Ethernet header to 52:54:00:00:00:02, IPv4, then a pattern from `seed`. */
export function makeFrame(length: number, seed = 1): Uint8Array {
  const frame = new Uint8Array(length);
  for (let i = 14; i < length; i++) frame[i] = (i * 7 + seed * 13) & 0xff;
  frame.set([0x52, 0x54, 0, 0, 0, 2, 0x52, 0x54, 0, 0, 0, 1, 0x08, 0x00].slice(0, length));
  return frame;
}
