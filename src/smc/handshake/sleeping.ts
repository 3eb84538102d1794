/**
 * Kernel functions that sleep, with arguments as numbers: what `atomic` is for the others.
 *
 * A body is a generator that yields sleeps and calls of other sleeping functions; atomic ones it invokes.
 */
import type { KernelContext, KernelFunction, BodyGenerator } from '../../kernel/function.js';
import { call } from '../../kernel/function.js';
import { parsePrototype } from '../../kernel/prototype.js';

type SleepingBody = (...args: number[]) => BodyGenerator<number | void>;

export function sleeping(prototype: string, body: SleepingBody): KernelFunction {
  const { name, parameters } = parsePrototype(prototype);
  return {
    name,
    prototype,
    parameters: parameters.length,
    *body({ memory: { ram } }, ...registers) {
      const args = parameters.map(({ type }, i) => {
        const register = registers[i] ?? 0n;
        if (type.includes('*')) return ram.virtToPhys(register);
        return Number(type === 'int' ? BigInt.asIntN(32, register) : BigInt.asUintN(53, register));
      });
      return BigInt.asUintN(64, BigInt((yield* body(...args)) ?? 0));
    },
  };
}

/** A pointer as an argument of a sleeping function. */
export interface Pointer {
  readonly to: number;
}

/** Calls a sleeping function; the value is its int. */
export function* callSleeping(
  { memory: { ram } }: KernelContext,
  name: string,
  ...args: (number | Pointer)[]
): BodyGenerator<number> {
  const registers = args.map((each) =>
    typeof each === 'number' ? BigInt.asUintN(64, BigInt(each)) : ram.physToVirt(each.to),
  );
  return Number(BigInt.asIntN(32, yield* call(name, ...registers)));
}

/** What a task that waits for something on a socket sleeps on. */
export function channelOf({ memory: { ram } }: KernelContext, smc: number): bigint {
  return ram.physToVirt(smc);
}
