/**
 * The three profiles: what Linux 6.1, 6.12 and 7.3 do differently, side by side.
 *
 * Labels mean the trees the facts were taken from: 6.1.192, 6.12.117, 7.3.4.
 */
import { arenaFixup, buildCastUser, buildCastUserMovk } from './arena.js';
import { offsetFixup } from './extable.js';
import { buildEpilogue, buildPrologue, stackAccess } from './frame.js';
import { buildEpilogue61, buildPrologue61, stackAccess61 } from './frame-6.1.js';
import type { JitProfile, KernelVersion } from './profile.js';
import { buildTailCall, buildTailCall61 } from './tail-call.js';

const TEMPORARIES = { tmp1: 10, tmp2: 11, tmp3: 12, ax: 9, tailCallCount: 26, x27: 27 } as const;

const LINUX_6_1: JitProfile = {
  version: '6.1',
  registers: {
    bpf: [7, 0, 1, 2, 3, 4, 19, 20, 21, 22, 25, 9],
    ...TEMPORARIES,
    arenaBase: 28,
  },
  move: 'add',
  directCalls: false,
  inlinesHelpers: false,
  cpuV4: false,
  acquireRelease: false,
  nospecBarrier: false,
  atomicAddImmediate: false,
  arenaStoreBase: 'tmp2',
  arenaSignedLoad: false,
  atomicFixupClears: false,
  stackArguments: false,
  indirectJumps: false,
  tailCallEntry: 10,
  branchCheck: 'signed',
  entryPad: 'jc',
  buildPrologue: buildPrologue61,
  buildEpilogue: buildEpilogue61,
  buildTailCall: buildTailCall61,
  stackAccess: stackAccess61,
  buildCastUser,
  fixup: offsetFixup,
  fixupHasOffset: true,
};

const LINUX_6_12: JitProfile = {
  ...LINUX_6_1,
  version: '6.12',
  directCalls: true,
  inlinesHelpers: true,
  cpuV4: true,
  tailCallEntry: 6,
  buildPrologue,
  buildEpilogue,
  buildTailCall,
  stackAccess,
};

const LINUX_7_3: JitProfile = {
  ...LINUX_6_12,
  version: '7.3',
  registers: {
    // BPF_REG_AX is R12; R11 is the base of stack arguments, and BPF_REG_AX where our verifier writes it
    bpf: [8, 0, 1, 2, 3, 4, 19, 20, 21, 22, 25, 9, 9],
    ...TEMPORARIES,
    arenaBase: 28,
  },
  move: 'orr',
  acquireRelease: true,
  nospecBarrier: true,
  atomicAddImmediate: true,
  arenaStoreBase: 'tmp3',
  arenaSignedLoad: true,
  atomicFixupClears: true,
  stackArguments: true,
  indirectJumps: true,
  buildCastUser: buildCastUserMovk,
  fixup: arenaFixup,
  fixupHasOffset: false,
};

export const PROFILES: Readonly<Record<KernelVersion, JitProfile>> = {
  '6.1': LINUX_6_1,
  '6.12': LINUX_6_12,
  '7.3': LINUX_7_3,
};
