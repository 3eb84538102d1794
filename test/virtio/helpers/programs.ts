/** XDP programs as TypeScript, for tests of the driver alone: they work on the xdp_buff in memory. */
import type { Memory } from '../../../src/cpu/memory.js';
import type { XdpRunner } from '../../../src/stack/xdp-program.js';
import { SKB_SHARED_INFO_SIZE, XDP_BUFF } from '../../../src/bpf/xdp-buff.js';

/** Offsets in `struct xdp_buff` that add to addresses. */
export const XDP = {
  data: BigInt(XDP_BUFF.data),
  dataEnd: BigInt(XDP_BUFF.dataEnd),
  dataMeta: BigInt(XDP_BUFF.dataMeta),
  dataHardStart: BigInt(XDP_BUFF.dataHardStart),
  frameSize: BigInt(XDP_BUFF.frameSize),
} as const;

export const VERDICT = { ABORTED: 0, DROP: 1, PASS: 2, TX: 3, REDIRECT: 4 } as const;

/** A program given as a function of the xdp_buff's address. */
export function program(
  act: (xdp: bigint) => number,
  options: { readonly hasFrags?: boolean } = {},
): XdpRunner {
  return {
    hasFrags: options.hasFrags ?? false,
    run: ({ memory }, xdp) => act(memory.ram.physToVirt(xdp)),
  };
}

export function returns(verdict: number, options: { readonly hasFrags?: boolean } = {}): XdpRunner {
  return program(() => verdict, options);
}

/** bpf_xdp_adjust_head on memory: 0 or -22. */
export function adjustHead(memory: Memory, xdp: bigint, delta: number): number {
  const data = memory.read64(xdp + XDP.data) + BigInt(delta);
  const unset = memory.read64(xdp + XDP.dataMeta) > memory.read64(xdp + XDP.data);
  const meta = unset ? 0n : memory.read64(xdp + XDP.data) - memory.read64(xdp + XDP.dataMeta);
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
  const hardStart = memory.read64(xdp + XDP.dataHardStart);
  const room = memory.read32(xdp + XDP.frameSize) - SKB_SHARED_INFO_SIZE;
  if (newEnd > hardStart + BigInt(room)) return -22;
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
