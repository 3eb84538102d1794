/**
 * What the kernel refuses before it looks at a trampoline: who may be attached how, and to which function.
 *
 * Reference: kernel/bpf/verifier.c: bpf_check_attach_target, check_attach_btf_id; kernel/bpf/bpf_lsm.c:
 * bpf_lsm_verify_prog; kernel/bpf/trampoline.c: bpf_freplace_check_tgt_prog. A program that was loaded for a
 * target is checked then, all are when they are attached.
 */
import type { ProgramType } from '../../bpf/program.js';
import { KernelError } from '../../common/errors.js';
import type { KernelVersion } from '../../jit/profile.js';
import type { LinkKind } from '../../jit/trampoline-model.js';
import {
  hookVerdict,
  isDenied,
  isModifiable,
  isSleepableHook,
  maySleep,
  type KernelTarget,
} from './allow-lists.js';
import { functionMismatch, type FunctionInBtf } from './function-match.js';
import type { KernelProgram } from './program.js';

/**
 * How a program is attached. `lsm` becomes fmod_ret, or fexit for hooks without a result; `fsession` is fentry
 * and fexit in one.
 */
export type AttachKind = LinkKind | 'freplace' | 'lsm' | 'fsession';

/** Says whether a tail call may reach a program. */
export interface TailCallTargets {
  isTailCallTarget(program: KernelProgram): boolean;
}

/** A function to be attached to. */
export type CheckedTarget =
  | ({ readonly kind: 'kernel' } & KernelTarget)
  | {
      readonly kind: 'program';
      readonly program: KernelProgram;
      readonly function: string;
    };

/** The attached program as far as it is known before it is loaded. */
export interface CheckedProgram {
  readonly name: string;
  readonly sleepable: boolean;
  /** Its main function in its BTF. */
  readonly main?: FunctionInBtf | undefined;
  readonly gpl?: boolean;
}

/** @throws KernelError: EINVAL or EBUSY, with the reason */
export function checkAttachTarget(
  program: CheckedProgram,
  kind: AttachKind,
  target: CheckedTarget,
  version: KernelVersion,
): void {
  if (kind === 'fsession' && (version === '6.1' || version === '6.12')) {
    throw new KernelError('EINVAL', `${version} has no fsession programs`);
  }
  if (target.kind === 'kernel') checkKernelFunction(program, kind, target, version);
  else checkFunctionOfProgram(program, kind, target);
}

function refuse(program: CheckedProgram, why: string): KernelError {
  return new KernelError('EINVAL', `${program.name}: ${why}`);
}

/** Types that no trampoline calls. */
const NOT_TRACING: readonly ProgramType[] = ['xdp', 'socket_filter', 'kprobe'];

/** Do the program and the way it is attached go together? */
export function checkKind(program: KernelProgram, kind: AttachKind): void {
  const { type } = program.xlated;
  if ((kind === 'lsm') !== (program.lsm !== undefined)) {
    throw refuse(program, `${kind} and a program that is ${program.lsm ? 'an' : 'no'} LSM program`);
  }
  if (kind === 'freplace' ? type === 'tracing' : NOT_TRACING.includes(type)) {
    throw refuse(program, `a program of type ${type} cannot be attached as ${kind}`);
  }
}

function checkKernelFunction(
  program: CheckedProgram,
  kind: AttachKind,
  target: KernelTarget,
  version: KernelVersion,
): void {
  const { name } = target;
  switch (kind) {
    case 'freplace':
      throw refuse(program, 'freplace cannot replace kernel functions');
    case 'lsm': {
      const verdict = hookVerdict(name, version);
      if (program.gpl === false) {
        throw refuse(program, 'LSM programs must have a GPL compatible license');
      }
      if (verdict === 'none') throw refuse(program, `${name} is no LSM hook (bpf_lsm_*)`);
      if (verdict === 'disabled') throw refuse(program, `${name} is a disabled LSM hook`);
      if (program.sleepable && !isSleepableHook(name)) {
        throw refuse(program, `${name} is not sleepable`);
      }
      return;
    }
    case 'fmod_ret':
      if (!isModifiable(target, version)) throw refuse(program, `${name}() is not modifiable`);
      break;
    case 'fentry':
    case 'fexit':
    case 'fsession':
      break;
  }
  if (isDenied(target)) {
    throw refuse(program, `attaching tracing programs to function '${name}' is rejected`);
  }
  if (program.sleepable && !maySleep(target, version)) {
    throw refuse(program, `${name} is not sleepable`);
  }
}

function checkFunctionOfProgram(
  program: CheckedProgram,
  kind: AttachKind,
  target: Extract<CheckedTarget, { kind: 'program' }>,
): void {
  const { program: traced, function: name } = target;
  switch (kind) {
    case 'lsm':
      throw refuse(program, `LSM hooks are kernel functions, ${traced.name} is a program`);
    case 'fmod_ret':
      throw refuse(program, `fmod_ret cannot modify return codes of BPF programs (${traced.name})`);
    case 'freplace':
      checkReplaced(program, target);
      return;
    case 'fentry':
    case 'fexit':
    case 'fsession':
      if ((traced as CheckedProgram) === program) {
        throw refuse(program, 'a program cannot trace itself');
      }
      if (traced.tracesTracing) {
        throw refuse(program, `${traced.name} traces a tracing program: no more levels of nesting`);
      }
      if (program.sleepable) throw refuse(program, `${name} is not sleepable`);
      return;
  }
}

function checkReplaced(
  program: CheckedProgram,
  { program: target, function: name }: Extract<CheckedTarget, { kind: 'program' }>,
): void {
  if (target.xlated.type === 'tracing') {
    throw refuse(program, `freplace cannot extend the tracing program ${target.name}`);
  }
  const replaced = target.functionInBtf(name);
  if (replaced && replaced.btf.as(replaced.id, 'func')?.linkage === 'static') {
    throw refuse(program, `freplace cannot replace the static function ${name}`);
  }
  const mismatch = program.main && replaced && functionMismatch(program.main, replaced);
  if (mismatch !== undefined) throw refuse(program, mismatch);
}

/** bpf_freplace_check_tgt_prog: a tail call would get into the middle of the replaced one. */
export function checkNoTailCall(target: KernelProgram, host: TailCallTargets): void {
  if (host.isTailCallTarget(target)) {
    throw new KernelError('EBUSY', `${target.name} is in a prog array, freplace cannot extend it`);
  }
}
