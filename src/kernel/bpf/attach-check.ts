/**
 * What the kernel refuses before it looks at a trampoline: who may be attached how, and to which program.
 *
 * Reference: kernel/bpf/verifier.c: bpf_check_attach_target; kernel/bpf/trampoline.c:
 * bpf_freplace_check_tgt_prog (6.12). Left out: what BTF would say about prototypes (freplace has to match),
 * and the lists of kernel functions that fmod_ret and sleepable programs are allowed on: any is here.
 */
import { KernelError } from '../../common/errors.js';
import type { LinkKind } from '../../jit/trampoline-model.js';
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

/** @param target the program that the function belongs to; undefined for a kernel function */
export function checkTarget(
  program: KernelProgram,
  kind: AttachKind,
  target: KernelProgram | undefined,
  host: TailCallTargets,
): void {
  checkKind(program, kind);
  if (target) checkProgram(program, kind, target, host);
  else if (kind === 'freplace') throw refuse(program, 'freplace cannot replace kernel functions');
}

function refuse(program: KernelProgram, why: string): KernelError {
  return new KernelError('EINVAL', `${program.name}: ${why}`);
}

function checkKind(program: KernelProgram, kind: AttachKind): void {
  const { type } = program.xlated;
  if ((kind === 'lsm') !== (program.lsm !== undefined)) {
    throw refuse(program, `${kind} and a program that is ${program.lsm ? 'an' : 'no'} LSM program`);
  }
  if (kind === 'freplace' ? type === 'tracing' : type === 'xdp' || type === 'socket_filter') {
    throw refuse(program, `a program of type ${type} cannot be attached as ${kind}`);
  }
}

function checkProgram(
  program: KernelProgram,
  kind: AttachKind,
  target: KernelProgram,
  host: TailCallTargets,
): void {
  switch (kind) {
    case 'lsm':
      throw refuse(program, `LSM hooks are kernel functions, ${target.name} is a program`);
    case 'fmod_ret':
      throw refuse(program, `fmod_ret cannot modify return codes of BPF programs (${target.name})`);
    case 'freplace':
      if (target.xlated.type === 'tracing') {
        throw refuse(program, `freplace cannot extend the tracing program ${target.name}`);
      }
      if (host.isTailCallTarget(target)) {
        throw new KernelError(
          'EBUSY',
          `${target.name} is in a prog array, freplace cannot extend it`,
        );
      }
      return;
    case 'fentry':
    case 'fexit':
    case 'fsession':
      if (target === program) throw refuse(program, 'a program cannot trace itself');
      if (target.tracesTracing) {
        throw refuse(program, `${target.name} traces a tracing program: no more levels of nesting`);
      }
      return;
  }
}
