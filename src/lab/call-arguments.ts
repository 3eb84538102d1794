/**
 * Where the arguments of a call go: x0..x7 as long as each fits whole, then the stack (AAPCS64), in the order in
 * which `kernel.call` takes them.
 *
 * Usage:
 *   kernel.call('bpf_testmod_test_struct_arg_9', ...callArguments(prototype, [[16n], .., [1n, 2n], [27n]]));
 */
import { argumentSlots, placeArguments } from '../jit/trampoline-model.js';
import type { Prototype } from '../kernel/prototype.js';

const REGISTERS = 8;

/** @param values the 8-byte slots of each argument */
export function callArguments(
  { parameters }: Prototype,
  values: readonly (readonly bigint[])[],
): bigint[] {
  const { inRegisters, onStack } = placeArguments({ arguments: parameters });
  const slots = parameters.map((parameter, i) =>
    Array.from({ length: argumentSlots(parameter) }, (_, k) => values[i]?.[k] ?? 0n),
  );
  const registers = slots.slice(0, inRegisters.length).flat();
  if (onStack.length === 0) return registers;
  const free = Array.from({ length: REGISTERS - registers.length }, () => 0n);
  return [...registers, ...free, ...slots.slice(inRegisters.length).flat()];
}
