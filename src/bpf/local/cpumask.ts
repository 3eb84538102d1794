/**
 * `struct bpf_cpumask`: a set of CPUs with a reference count, in kernel memory.
 *
 *   struct bpf_cpumask   cpumask (64 bytes, a bit for each of NR_CPUS) | usage
 *
 * Reference: kernel/bpf/cpumask.c, include/linux/cpumask.h.
 */
import type { Memory } from '../../cpu/memory.js';
import type { BpfHost } from '../host.js';

/** CONFIG_NR_CPUS of arm64. */
const NR_CPUS = 512;

export const CPUMASK = { words: NR_CPUS / 64, usage: NR_CPUS / 8, size: NR_CPUS / 8 + 8 } as const;

const USAGE = BigInt(CPUMASK.usage);

/** An empty set; 0 when there is no memory. */
export function createCpumask(host: BpfHost): bigint {
  const mask = host.objects.allocate(host, CPUMASK.size);
  if (mask === 0n) return 0n;
  host.memory.writeBytes(mask, new Uint8Array(CPUMASK.size));
  host.memory.write32(mask + USAGE, 1);
  return mask;
}

export function acquireCpumask({ memory }: BpfHost, mask: bigint): void {
  memory.write32(mask + USAGE, memory.read32(mask + USAGE) + 1);
}

export function releaseCpumask(host: BpfHost, mask: bigint): void {
  const left = host.memory.read32(mask + USAGE) - 1;
  host.memory.write32(mask + USAGE, left);
  if (left === 0) host.objects.free(host, mask);
}

/** The set as a number, one bit for each CPU. */
export function readMask(memory: Memory, mask: bigint): bigint {
  let bits = 0n;
  for (let word = CPUMASK.words - 1; word >= 0; word--) {
    bits = (bits << 64n) | memory.read64(mask + BigInt(8 * word));
  }
  return bits;
}

export function writeMask(memory: Memory, mask: bigint, bits: bigint): void {
  for (let word = 0; word < CPUMASK.words; word++) {
    memory.write64(mask + BigInt(8 * word), BigInt.asUintN(64, bits >> BigInt(64 * word)));
  }
}

/** The lowest CPU of a set, `none` for an empty one. */
export function firstCpu(bits: bigint, none: number): number {
  if (bits === 0n) return none;
  let cpu = 0;
  for (let rest = bits; (rest & 1n) === 0n; rest >>= 1n) cpu++;
  return cpu;
}

/** How many CPUs a set has. */
export function weightOf(bits: bigint): number {
  let weight = 0;
  for (let rest = bits; rest !== 0n; rest &= rest - 1n) weight++;
  return weight;
}
