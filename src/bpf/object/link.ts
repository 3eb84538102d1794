/**
 * Puts a program and the functions it calls together, main first, and applies relocations.
 *
 * Functions are kept apart, in the order in which libbpf appends them: depth first, at their first
 * call. A bpf2bpf call gets the callee's index in `off`; a function address gets it in the `off` of the
 * second slot. Reference: bpf_object__reloc_code of libbpf, jit_subprogs in kernel/bpf/verifier.c.
 */
import { high32, low32 } from '../../common/bytes.js';
import { InputError, KernelError } from '../../common/errors.js';
import type { CoreTarget } from '../btf/core-match.js';
import { makeSlot, readSlots, type Slot } from '../instruction.js';
import { PSEUDO } from '../opcodes.js';
import { relocateCore } from './core.js';
import { describeFunctionPlace } from './place.js';
import { SESSION_KFUNCS } from './session-kfuncs.js';
import type { ExternSpec, FunctionSpec, ObjectSpec, ProgramSpec, Relocation } from './spec.js';

/** As BPF_MAX_SUBPROGS. */
const MAX_FUNCTIONS = 256;

/** Helper number of a call of a weak kernel function that is not there, as libbpf writes it: plus its index. */
export const MISSING_KFUNC = 2002000000;

/** A function of a program, relocated. */
export interface LinkedFunction {
  readonly spec: FunctionSpec;
  readonly slots: readonly Slot[];
}

/** What relocations are resolved against. */
export interface Addresses {
  /** Address of the `struct bpf_map`. */
  map(name: string): bigint;
  /** Address of the first value of a data section's map. */
  data(name: string): bigint;
  /** Address of a kernel symbol; 0 when there is none and the extern is weak. */
  symbol(extern: ExternSpec, where: string): bigint;
  /** The immediate of a call of a kernel function. */
  kfunc(extern: ExternSpec, where: string): number | undefined;
  /** The kernel's types. Throws KernelError when they are not known. */
  kernelTypes(): CoreTarget;
}

export function linkProgram(
  object: ObjectSpec,
  program: ProgramSpec,
  addresses: Addresses,
): readonly [LinkedFunction, ...LinkedFunction[]] {
  // indices in object.functions, in the order of the linked program
  const order: number[] = [];
  const visit = (index: number): void => {
    if (order.includes(index)) return;
    order.push(index);
    if (order.length > MAX_FUNCTIONS) {
      throw new KernelError('E2BIG', `program '${program.name}' has too many subprograms`);
    }
    for (const relocation of functionAt(object, index).relocations) {
      if (relocation.kind === 'call' || relocation.kind === 'function') visit(relocation.callee);
    }
  };
  visit(program.functionIndex);
  const [main, ...others] = order.map((index): LinkedFunction => {
    const spec = functionAt(object, index);
    return { spec, slots: relocate(object, spec, order, addresses) };
  });
  if (!main) throw new InputError(`program '${program.name}' has no function`);
  return [main, ...others];
}

function functionAt(object: ObjectSpec, index: number): FunctionSpec {
  const found = object.functions[index];
  if (!found) throw new InputError(`object has no function ${index}`);
  return found;
}

function relocate(
  object: ObjectSpec,
  spec: FunctionSpec,
  order: readonly number[],
  addresses: Addresses,
): Slot[] {
  const slots = readSlots(spec.insns);
  if (spec.coreRelocations.length > 0 && object.btf) {
    relocateCore(slots, spec.coreRelocations, object.btf, addresses.kernelTypes, (slot) =>
      describeFunctionPlace(spec, slot),
    );
  }
  for (const relocation of spec.relocations) {
    applyTo(object, slots, spec, relocation, order, addresses);
  }
  return slots;
}

function applyTo(
  object: ObjectSpec,
  slots: Slot[],
  spec: FunctionSpec,
  relocation: Relocation,
  order: readonly number[],
  addresses: Addresses,
): void {
  const at = relocation.slot;
  const first = slots[at];
  if (!first) throw new InputError(`function '${spec.name}': relocation of insn ${at}, not there`);
  const constant = (value: bigint): void => {
    // fields that must be zero stay what they are: the verifier looks at them
    slots[at] = { ...first, src: 0, imm: low32(value) };
    slots[at + 1] = { ...(slots[at + 1] ?? makeSlot(0)), imm: high32(value) };
  };
  switch (relocation.kind) {
    case 'map':
      if (slots[at + 1]?.imm !== 0) {
        const where = describeFunctionPlace(spec, at);
        throw new KernelError('EINVAL', `unrecognized bpf_ld_imm64 insn: ${where}`);
      }
      constant(addresses.map(relocation.map));
      break;
    case 'data':
      constant(addresses.data(relocation.map) + BigInt(relocation.offset));
      break;
    case 'call':
      slots[at] = { ...first, src: PSEUDO.CALL, off: order.indexOf(relocation.callee), imm: 0 };
      break;
    case 'function': {
      const callee = order.indexOf(relocation.callee);
      slots[at] = { ...first, src: PSEUDO.FUNC, off: 0, imm: 0 };
      slots[at + 1] = { code: 0, dst: 0, src: 0, off: callee, imm: 0 };
      break;
    }
    case 'extern': {
      const index = object.externs.findIndex(({ name }) => name === relocation.symbol);
      const extern = object.externs[index];
      const where = describeFunctionPlace(spec, at);
      if (!extern) throw new InputError(`there is no extern '${relocation.symbol}'`);
      if (first.code === 0x18) {
        constant(addresses.symbol(extern, where));
        break;
      }
      const session = SESSION_KFUNCS.get(extern.name);
      if (session !== undefined) {
        slots[at] = makeSlot(0x85, { imm: session });
        break;
      }
      const imm = addresses.kfunc(extern, where);
      slots[at] =
        imm === undefined
          ? makeSlot(0x85, { imm: MISSING_KFUNC + index })
          : { ...first, src: PSEUDO.KFUNC_CALL, off: 0, imm };
      break;
    }
  }
}
