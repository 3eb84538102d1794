/**
 * What attaching a BPF trampoline does, as far as distances decide it: what the patch site then calls, or who
 * refuses with which error.
 *
 * | strategy          | image in BL range        | out of range                                       |
 * | ----------------- | ------------------------ | -------------------------------------------------- |
 * | no trampolines    | -ENOTSUPP                | the same                                           |
 * | entry range test  | bl image                 | -ENOTSUPP; a few bytes from the edge: ftrace bug   |
 * | no direct calls   | -ENOTSUPP                | the same                                           |
 * | literal call      | bl image                 | bl literal_call: ldr x16, br x16                   |
 * | call ops          | bl image                 | bl ftrace_caller, directly or by the module's PLT  |
 * | a BPF program (6.0+) | bl image              | bl plt: ldr x10, br x10                            |
 *
 * Reference: arch_prepare_bpf_trampoline and bpf_arch_text_poke in arch/arm64/net/bpf_jit_comp.c, register_fentry
 * in kernel/bpf/trampoline.c; `ftrace/reach.ts`. Left out: everything but distances that attaching may fail of.
 */
import { AARCH64_BREAK_FAULT, branchWord, reachable } from '../../a64/immediates.js';
import type { ErrnoName } from '../../common/errno.js';
import { KernelError } from '../../common/errors.js';
import { inBranchRange } from '../../jit/calls.js';
import { reach, type FtracePlts, type ReachModule } from '../ftrace/reach.js';
import type { LayoutProfile } from './profile.js';

export type AttachOutcome =
  | { readonly kind: 'bl image' }
  /** `via`: what the BL goes to, ftrace_caller or a PLT entry of the module. */
  | { readonly kind: 'bl ftrace_caller'; readonly via: bigint; readonly plt: boolean }
  | { readonly kind: 'bl literal_call' }
  /** The PLT at the end of a BPF program's image. */
  | { readonly kind: 'bl plt' }
  | { readonly kind: 'refused'; readonly errno: ErrnoName; readonly why: string }
  /** ftrace cannot patch, reports a bug and stays disabled. */
  | { readonly kind: 'ftrace bug'; readonly errno: ErrnoName; readonly why: string }
  /** AARCH64_BREAK_FAULT is patched in: the next call is fatal. */
  | { readonly kind: 'brk' };

/** A function of the kernel or of a module. */
export interface AttachTarget {
  /** First byte of the function. */
  readonly entry: bigint;
  /** rec->ip: the word that becomes the BL. Default entry + 4. */
  readonly ip?: bigint;
  /** The module that it lies in. */
  readonly module?: ReachModule | undefined;
}

/** @param entries the kernel's own ftrace_caller and ftrace_regs_caller */
export function attachOutcome(
  profile: LayoutProfile,
  target: AttachTarget,
  image: bigint,
  entries: FtracePlts,
): AttachOutcome {
  const ip = target.ip ?? target.entry + 4n;
  switch (profile.attach) {
    case 'no trampolines':
      return refused('arch_prepare_bpf_trampoline: not on arm64');
    case 'no direct calls':
      return refused('register_fentry: arm64 ftrace has no direct calls');
    case 'entry range test':
      if (inBranchRange(target.entry, image)) return patched(profile, target, image, entries);
      return refused('arch_prepare_bpf_trampoline: long jump from the function to the image');
    case 'literal call':
      return { kind: reachable(ip, image) ? 'bl image' : 'bl literal_call' };
    case 'call ops':
      return patched(profile, target, image, entries);
  }
}

/** A BPF program's entry; the site is `ip`. */
export function programOutcome(profile: LayoutProfile, ip: bigint, image: bigint): AttachOutcome {
  if (profile.attach === 'no trampolines') {
    return refused('arch_prepare_bpf_trampoline: not on arm64');
  }
  return { kind: inBranchRange(ip, image) ? 'bl image' : 'bl plt' };
}

/** One line. */
export function describeOutcome(outcome: AttachOutcome): string {
  switch (outcome.kind) {
    case 'bl image':
    case 'bl literal_call':
    case 'bl plt':
      return outcome.kind;
    case 'bl ftrace_caller':
      return outcome.plt ? 'bl module PLT -> ftrace_caller' : outcome.kind;
    case 'refused':
      return `-${outcome.errno}`;
    case 'ftrace bug':
      return `-${outcome.errno}, ftrace disabled`;
    case 'brk':
      return 'brk patched in';
  }
}

function refused(why: string): AttachOutcome {
  return { kind: 'refused', errno: 'ENOTSUPP', why };
}

function patched(
  profile: LayoutProfile,
  target: AttachTarget,
  image: bigint,
  entries: FtracePlts,
): AttachOutcome {
  const { module, entry, ip = entry + 4n } = target;
  try {
    const via = reach(ip, image, { profile: profile.reach, entries, moduleAt: () => module });
    if (branchWord(ip, via, true) === AARCH64_BREAK_FAULT) return { kind: 'brk' };
    if (via === image) return { kind: 'bl image' };
    return { kind: 'bl ftrace_caller', via, plt: via !== entries.ftrace_caller };
  } catch (error) {
    if (!(error instanceof KernelError)) throw error;
    return { kind: 'ftrace bug', errno: error.errno, why: error.message };
  }
}
