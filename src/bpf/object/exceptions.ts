/**
 * The function that a program ends in when something throws: what `__exception_cb(NAME)` names.
 *
 * A BTF declaration tag of the program's function, `exception_callback:NAME`, names a global function of the object;
 * it is put behind the others. Without one the program ends with the number thrown. Reference:
 * bpf_prog_assign_exc_cb of libbpf, bpf_find_exception_callback_insn_off in kernel/bpf/verifier.c.
 */
import { KernelError } from '../../common/errors.js';
import { makeSlot, type Slot } from '../instruction.js';
import type { ObjectSpec, ProgramSpec } from './spec.js';

const TAG = 'exception_callback:';

/** r0 = r1; exit */
export const DEFAULT_CALLBACK: readonly Slot[] = [
  makeSlot(0xbf, { dst: 0, src: 1 }),
  makeSlot(0x95),
];
/** What the kernel names a function that it adds. */
export const DEFAULT_CALLBACK_NAME = 'F';

/** Index in `ObjectSpec.functions`. Throws KernelError when there is no such function, or more than one tag. */
export function exceptionCallback(
  { btf, functions, programs }: ObjectSpec,
  program: ProgramSpec,
): number | undefined {
  const main = functions[program.functionIndex]?.btfId ?? 0;
  if (!btf || main === 0) return undefined;
  const [name, ...others] = btf.types.flatMap((type) =>
    type.kind === 'decl_tag' &&
    type.type === main &&
    type.componentIndex === -1 &&
    type.name.startsWith(TAG)
      ? [type.name.slice(TAG.length)]
      : [],
  );
  if (name === undefined) return undefined;
  const where = `program '${program.name}'`;
  if (others.length > 0) {
    throw new KernelError('EEXIST', `multiple exception callback tags for main subprog: ${where}`);
  }
  const isProgram = (index: number): boolean =>
    programs.some(({ functionIndex }) => functionIndex === index);
  const index = functions.findIndex((each, at) => each.name === name && !isProgram(at));
  if (index < 0) {
    throw new KernelError('ENOENT', `cannot find exception callback '${name}': ${where}`);
  }
  if (functions[index]?.isStatic) {
    const what = `exception callback ${name} must be a global non-hidden function`;
    throw new KernelError('EINVAL', `${what}: ${where}`);
  }
  return index;
}
