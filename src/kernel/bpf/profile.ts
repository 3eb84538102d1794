/**
 * What a kernel version does its own way when BPF is loaded and attached: the one place to look.
 *
 * The JIT and trampoline generators have profiles of their own (`jit/profiles.ts`,
 * `jit/trampoline-profile.ts`), and so has ftrace (`ftrace/profile.ts`: whether kernel functions can be
 * targets); this one has the struct layouts and the attachment around them.
 *
 * Struct offsets: `vectors/jit/meta-*.json` for what the JIT bakes in, BTF of booted 6.1.176, 6.12.107 and
 * 7.2.13 kernels for the rest. They are data of one configuration each; no code has these numbers.
 */
import type { KernelVersion, StructOffsets } from '../../jit/profile.js';
import { DEFAULT_CODEGEN, type Codegen } from './codegen.js';

/** struct bpf_prog; the instructions follow at `insnsi`. */
export interface BpfProgOffsets {
  readonly len: number;
  readonly jited_len: number;
  readonly stats: number;
  readonly active: number;
  readonly bpf_func: number;
  readonly insnsi: number;
}

/** struct bpf_tramp_image. */
export interface TrampImageOffsets {
  readonly image: number;
  /** struct percpu_ref, 16 bytes. */
  readonly pcref: number;
  /** Up to 6.12 the two addresses; 7.3 keeps a list instead and only says whether there is an original. */
  readonly ip_after_call?: number;
  readonly ip_epilogue?: number;
  readonly call_orig?: number;
  readonly size: number;
}

export interface BpfProfile {
  readonly version: KernelVersion;
  /** Images have pages of their own (6.1), or share packs of 2 MiB (since 6.9). */
  readonly images: 'pages' | 'packs';
  /** fsession: one program at entry and at exit (since 7.0). */
  readonly sessions: boolean;
  /** bpf_throw (since 6.7). */
  readonly exceptions: boolean;
  /** Code may turn per-CPU pointers into addresses, so look-ups in per-CPU maps are inlined (since 6.10). */
  readonly percpuMoves: boolean;
  /** What is baked into code. */
  readonly offsets: StructOffsets;
  readonly bpfProg: BpfProgOffsets;
  readonly trampImage: TrampImageOffsets;
  readonly codegen: Codegen;
}

const LINUX_6_1: BpfProfile = {
  version: '6.1',
  images: 'pages',
  sessions: false,
  exceptions: false,
  percpuMoves: false,
  offsets: { maxEntries: 36, ptrs: 272, bpfFunc: 48, insnsi: 72, threadInfoCpu: 16 },
  bpfProg: { len: 12, jited_len: 16, stats: 32, active: 40, bpf_func: 48, insnsi: 72 },
  trampImage: { image: 0, pcref: 608, ip_after_call: 624, ip_epilogue: 632, size: 672 },
  codegen: DEFAULT_CODEGEN,
};

const LINUX_6_12: BpfProfile = {
  ...LINUX_6_1,
  version: '6.12',
  images: 'packs',
  exceptions: true,
  percpuMoves: true,
  offsets: { ...LINUX_6_1.offsets, ptrs: 264 },
  trampImage: { image: 0, pcref: 616, ip_after_call: 632, ip_epilogue: 640, size: 680 },
};

const LINUX_7_3: BpfProfile = {
  ...LINUX_6_12,
  version: '7.3',
  sessions: true,
  offsets: { maxEntries: 68, ptrs: 296, bpfFunc: 72, insnsi: 96, threadInfoCpu: 16 },
  bpfProg: { len: 16, jited_len: 20, stats: 56, active: 64, bpf_func: 72, insnsi: 96 },
  trampImage: { image: 0, pcref: 624, call_orig: 640, size: 720 },
};

export const BPF_PROFILES: Readonly<Record<KernelVersion, BpfProfile>> = {
  '6.1': LINUX_6_1,
  '6.12': LINUX_6_12,
  '7.3': LINUX_7_3,
};

/** BPF_MAX_TRAMP_LINKS: over all kinds, in every version. */
export const BPF_MAX_TRAMP_LINKS = 38;
