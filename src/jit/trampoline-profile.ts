/**
 * What the three versions do differently in trampolines, side by side.
 *
 * Reference: arch/arm64/net/bpf_jit_comp.c: arch_prepare_bpf_trampoline, prepare_trampoline.
 */
import { KernelError } from '../common/errors.js';
import type { KernelVersion } from './profile.js';
import type { ArgumentPlacement, FunctionModel } from './trampoline-model.js';

export interface TrampolineProfile {
  /** MOV between general registers: ADD #0, or ORR. */
  readonly move: 'add' | 'orr';
  /** BL to targets in range. */
  readonly directCalls: boolean;
  /** A page per image, or the size estimated with every call far. */
  readonly allocation: 'page' | 'estimate';
  /** Register width in which the argument count is made. */
  readonly countWidth: 32 | 64;
  /** Then the one before the first fexit program is where an image that goes away skips them. */
  readonly nopBeforeProgram: boolean;
  /** A NOP for that behind the call of the original. */
  readonly nopAfterCall: boolean;
  /** Programs that run at entry and exit with state between. */
  readonly sessions: boolean;
  /**
   * How the original is entered: as if it were returned to, or by BLR, which needs a BTI where there is none
   * (before 6.1.25).
   */
  readonly originalBy: 'ret' | 'blr';
  /** `im` as any 64-bit constant, or as a vmalloc address of 48 bits (before 6.1.140). */
  readonly imageAddress: '64 bits' | '48 bits';
  /**
   * The words that `im` takes while the size is estimated: the most there can be, or those of the copy on the
   * stack that the estimate is made with (before 6.11.6).
   */
  readonly imageAddressEstimate: 'most' | 'of the copy';
  /** x20 gets the start time before the branch around a program that is skipped, or behind it (before 6.1.94). */
  readonly startSaved: 'always' | 'if entered';
  /**
   * Functions that return more than 8 bytes: only x0 is kept, x1 is lost; refused for fexit and fmod_ret
   * since 6.12.115.
   */
  readonly wideReturn: 'refused' | 'first register';
  /** Throws KernelError ENOTSUPP for what the version cannot pass. */
  readonly checkArguments: (model: FunctionModel, placement: ArgumentPlacement) => void;
}

/** 6.1: at most 8 arguments, no structure by value. */
function scalarsInRegisters(model: FunctionModel): void {
  if (model.arguments.some((argument) => argument.struct)) {
    throw new KernelError('ENOTSUPP', 'trampoline for a function with a structure argument');
  }
  if (model.arguments.length > 8) throw tooMany(model);
}

/** 6.12: structures up to 16 bytes, all in x0..x7. */
function allInRegisters(model: FunctionModel, placement: ArgumentPlacement): void {
  if (placement.onStack.length > 0) throw tooMany(model);
}

/** 7.3: MAX_BPF_FUNC_ARGS, on the stack where registers end. */
function twelve(model: FunctionModel): void {
  if (model.arguments.length > 12) throw tooMany(model);
}

function tooMany(model: FunctionModel): KernelError {
  const count = model.arguments.length;
  return new KernelError('ENOTSUPP', `trampoline for a function with ${count} arguments`);
}

const LINUX_6_1: TrampolineProfile = {
  move: 'add',
  directCalls: false,
  allocation: 'page',
  countWidth: 64,
  nopBeforeProgram: false,
  nopAfterCall: true,
  sessions: false,
  originalBy: 'ret',
  imageAddress: '64 bits',
  imageAddressEstimate: 'most',
  startSaved: 'always',
  wideReturn: 'first register',
  checkArguments: scalarsInRegisters,
};

const LINUX_6_12: TrampolineProfile = {
  ...LINUX_6_1,
  directCalls: true,
  allocation: 'estimate',
  wideReturn: 'refused',
  checkArguments: allInRegisters,
};

const LINUX_7_3: TrampolineProfile = {
  ...LINUX_6_12,
  move: 'orr',
  countWidth: 32,
  nopBeforeProgram: true,
  nopAfterCall: false,
  sessions: true,
  checkArguments: twelve,
};

export const TRAMPOLINE_PROFILES: Readonly<Record<KernelVersion, TrampolineProfile>> = {
  '6.1': LINUX_6_1,
  '6.12': LINUX_6_12,
  '7.3': LINUX_7_3,
};
