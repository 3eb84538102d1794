/**
 * What all records of `vectors/jit` share: kernels, configuration, and the harness's address rule.
 */
import type { JitConfig, KernelVersion, StructOffsets } from '../profile.js';
import type { Fields } from './fields.js';

export const KERNELS: readonly KernelVersion[] = ['6.1', '6.12', '7.3'];

/** Struct offsets of the kernels behind the vectors (arm64 defconfig). */
export const VECTOR_OFFSETS: Readonly<Record<KernelVersion, StructOffsets>> = {
  '6.1': { maxEntries: 36, ptrs: 272, bpfFunc: 48, insnsi: 72, threadInfoCpu: 16 },
  '6.12': { maxEntries: 36, ptrs: 264, bpfFunc: 48, insnsi: 72, threadInfoCpu: 16 },
  '7.3': { maxEntries: 68, ptrs: 296, bpfFunc: 72, insnsi: 96, threadInfoCpu: 16 },
};

export const HARNESS = {
  callBase: 0xffff800081000000n,
  dummyTramp: 0xffff800080030000n,
  timedMayGoto: 0xffff800080050000n,
  trampEnter: 0xffff800080040000n,
  trampExit: 0xffff800080040100n,
  /** Enter function of kind 0; each kind 0x200 further, its exit function 0x100 behind it. */
  programEnter: 0xffff800080041000n,
} as const;

export function readConfig(record: Fields): JitConfig {
  const config = record.object('config');
  return { pac: config.flag('pac'), bti: config.flag('bti') };
}
