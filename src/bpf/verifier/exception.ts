/**
 * What must hold of the function that exceptions end in, and of what is thrown.
 *
 * Reference: the parts about exceptions of do_check_common, check_kfunc_call and check_return_code in
 * kernel/bpf/verifier.c.
 */
import type { Env } from './env.js';
import { Refusal } from './error.js';
import { checkResult } from './function-call.js';
import type { VerifierInput } from './input.js';

/** Of function `fn`, before it is walked; nothing when it is no exception callback. */
export function checkExceptionCallback({ functions }: VerifierInput, fn: number): void {
  const callback = functions[fn];
  if (!callback?.exceptionCallback) return;
  const refuse = (reason: string): never => {
    throw new Refusal('EINVAL', reason, fn, 0, '');
  };
  if (callback.returnsScalar === false) {
    refuse(`Global function ${callback.name}() doesn't return scalar. Only those are supported.`);
  }
  const [first, ...others] = callback.global ?? [];
  if (first?.kind !== 'scalar' || others.length > 0) {
    refuse('exception cb only supports single integer argument');
  }
}

/** The number in R1, which the program gives when nothing catches it. */
export function checkThrown(env: Env): void {
  if (env.input.functions.some(({ exceptionCallback }) => exceptionCallback)) return;
  checkResult(env, 1);
}
