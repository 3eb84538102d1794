/**
 * What decides, from one Linux to the next, where text is placed and what attaching a BPF trampoline then does.
 *
 * Each row is the first version that does so; `v5` and `sep-2022` were never merged (Xu Kuohai's
 * "bpf trampoline for arm64" v5 of May 2022, on 5.19, and "Add ftrace direct call for arm64" v2 of September
 * 2022, on 6.0). Reference: arch/arm64/include/asm/memory.h and pgtable.h, kernel/kaslr.c and
 * kernel/pi/kaslr_early.c, kernel/module.c (from 6.10 on mm/init.c), net/bpf_jit_comp.c.
 *
 * Left out: KASAN, which keeps modules in their region; 16K and 64K pages; 52-bit VA.
 */
import { REACH_PROFILES, type ReachProfile } from '../ftrace/reach.js';

/** How a BPF trampoline comes to a kernel function. */
export type AttachStrategy =
  /** There are no trampolines: the weak arch_prepare_bpf_trampoline answers. */
  | 'no trampolines'
  /** Direct calls that refuse an image out of BL range of the function's entry. */
  | 'entry range test'
  /** Trampolines for BPF programs only: the function has a site, but ftrace no direct calls. */
  | 'no direct calls'
  /** `bl` to code in front of the function that loads a literal and branches. */
  | 'literal call'
  /** ftrace_caller finds the target in the ops that a literal points at. */
  | 'call ops';

export interface LayoutProfile {
  readonly version: LayoutVersion;
  /** Which kernels it stands for. */
  readonly kernels: string;
  /** BPF images: a region of 128 MiB of their own, pages in vmalloc space, or packs of 2 MiB there. */
  readonly bpf: 'region' | 'pages' | 'packs';
  /** MODULES_VSIZE. */
  readonly modulesSize: bigint;
  /** 128 MiB that end at _etext or above, or random boxes of 128 MiB and 2 GiB around the image. */
  readonly modulePlacement: 'around text' | 'boxes';
  /** Bits of the seed as they are, or scaled to half of the vmalloc area. */
  readonly kaslr: 'masked' | 'scaled';
  /** VMEMMAP_SIZE: up to the next power of two, or what struct page takes. */
  readonly vmemmap: 'power of two' | 'exact';
  readonly attach: AttachStrategy;
  readonly reach: ReachProfile;
}

export const LAYOUT_VERSIONS = [
  '5.15',
  'v5',
  '6.1',
  'sep-2022',
  '6.2',
  '6.3',
  '6.4',
  '6.5',
  '6.9',
  '6.12',
  '6.18',
  '7.3',
] as const;
export type LayoutVersion = (typeof LAYOUT_VERSIONS)[number];

const LINUX_5_15: LayoutProfile = {
  version: '5.15',
  kernels: 'Linux up to 5.16',
  bpf: 'region',
  modulesSize: 128n << 20n,
  modulePlacement: 'around text',
  kaslr: 'masked',
  vmemmap: 'power of two',
  attach: 'no trampolines',
  reach: REACH_PROFILES['5.19'],
};
const PROPOSAL_V5: LayoutProfile = {
  ...LINUX_5_15,
  version: 'v5',
  kernels: 'proposal v5, on 5.19',
  bpf: 'pages',
  attach: 'entry range test',
};
const LINUX_6_1: LayoutProfile = {
  ...PROPOSAL_V5,
  version: '6.1',
  kernels: 'Linux 6.0, 6.1',
  attach: 'no direct calls',
  reach: REACH_PROFILES['6.1'],
};
const LINUX_6_2: LayoutProfile = {
  ...LINUX_6_1,
  version: '6.2',
  kernels: 'Linux 6.2',
  reach: REACH_PROFILES['6.2'],
};
const LINUX_6_4: LayoutProfile = {
  ...LINUX_6_2,
  version: '6.4',
  kernels: 'Linux 6.4',
  attach: 'call ops',
  reach: REACH_PROFILES['6.4'],
};
const LINUX_6_5: LayoutProfile = {
  ...LINUX_6_4,
  version: '6.5',
  kernels: 'Linux 6.5 to 6.8',
  modulesSize: 2n << 30n,
  modulePlacement: 'boxes',
};
const LINUX_6_9: LayoutProfile = {
  ...LINUX_6_5,
  version: '6.9',
  kernels: 'Linux 6.9 to 6.11, early 6.12',
  bpf: 'packs',
  kaslr: 'scaled',
  vmemmap: 'exact',
};
/** With the fix of late 2025, which went to stable kernels too. */
const LINUX_6_12: LayoutProfile = {
  ...LINUX_6_9,
  version: '6.12',
  kernels: 'Linux 6.12, late',
  reach: REACH_PROFILES['6.18'],
};

export const LAYOUT_PROFILES: Readonly<Record<LayoutVersion, LayoutProfile>> = {
  '5.15': LINUX_5_15,
  v5: PROPOSAL_V5,
  '6.1': LINUX_6_1,
  'sep-2022': {
    ...LINUX_6_1,
    version: 'sep-2022',
    kernels: 'proposal of Sep 2022, on 6.0',
    attach: 'literal call',
  },
  '6.2': LINUX_6_2,
  '6.3': { ...LINUX_6_2, version: '6.3', kernels: 'Linux 6.3' },
  '6.4': LINUX_6_4,
  '6.5': LINUX_6_5,
  '6.9': LINUX_6_9,
  '6.12': LINUX_6_12,
  '6.18': { ...LINUX_6_12, version: '6.18', kernels: 'Linux 6.18' },
  '7.3': { ...LINUX_6_12, version: '7.3', kernels: 'Linux 7.3' },
};
