/**
 * Arguments of global functions: what a call may pass, and what the function starts with when it is verified.
 *
 * Reference: btf_check_func_arg_match, check_mem_reg, do_check_common in kernel/bpf/verifier.c.
 */
import { checkContext } from './memory.js';
import { dynptrArgument, useDynptr } from './dynptr.js';
import type { Env } from './env.js';
import { Refusal } from './error.js';
import type { ArgumentType, VerifierFunction } from './input.js';
import { checkWritable } from './arguments.js';
import { readThrough } from './btf-pointer.js';
import { markPrecise, unknownScalar } from './scalar.js';
import { Pointer, structName, typeName, type Value } from './value.js';

/** Checks all arguments of a call of global function `callee`. */
export function checkPassed(
  env: Env,
  callee: number,
  { name, global = [] }: VerifierFunction,
): void {
  try {
    for (const [i, type] of global.entries()) checkArgument(env, i + 1, type);
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    env.refuse(
      error.errno,
      `${error.reason}; Caller passes invalid args into func#${callee} ('${name}')`,
    );
  }
}

function checkArgument(env: Env, register: number, type: ArgumentType): void {
  const value = env.frame.regs[register];
  switch (type.kind) {
    case 'scalar':
      if (value?.kind !== 'scalar') env.refuse('EINVAL', `R${register} is not a scalar`);
      return;
    case 'ctx':
      if (value?.kind !== 'pointer' || value.type !== 'ctx') {
        return env.refuse('EINVAL', `arg#${register - 1} expects pointer to ctx`);
      }
      checkContext(env, register, value);
      return;
    case 'memory':
      checkPassedMemory(env, register, value, type);
      return;
    case 'dynptr':
      if (value?.kind !== 'pointer' || (value.type !== 'stack' && value.type !== 'dynptr')) {
        return env.refuse(
          'EINVAL',
          `R${register} type=${value ? typeName(value) : '?'} expected=fp, dynptr_ptr`,
        );
      }
      useDynptr(env, register, value);
      return;
    case 'trusted': {
      if (!type.nonNull && value?.kind === 'scalar' && value.is(0n)) {
        markPrecise(value);
        return;
      }
      const isOne = value?.kind === 'pointer' && value.type === 'btf' && !value.untrusted;
      if (!isOne || (value.orNull && type.nonNull) || structName(value) !== type.struct) {
        env.refuse(
          'EACCES',
          `R${register} type=${value ? typeName(value) : '?'} expected=ptr_, trusted_ptr_, rcu_ptr_ of struct ${type.struct}`,
        );
      }
      return;
    }
    case 'refused':
      env.refuse('EINVAL', type.why);
  }
}

/** Memory that the function may read and write; the errno is always that of a wrong argument. */
function checkPassedMemory(
  env: Env,
  register: number,
  value: Value | undefined,
  { size, nonNull }: Extract<ArgumentType, { kind: 'memory' }>,
): void {
  const isNull = value?.kind === 'scalar' && value.is(0n);
  if (isNull) markPrecise(value);
  else {
    try {
      if (value?.kind === 'pointer' && value.type === 'btf')
        readThrough(env, register, value, size);
      else checkWritable(env, register, value, size);
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      env.refuse('EINVAL', error.reason);
    }
  }
  if (nonNull && (isNull || (value?.kind === 'pointer' && value.orNull))) {
    env.refuse('EINVAL', `arg#${register - 1} is expected to be non-NULL`);
  }
}

/** R1..R5 of a global function that is verified alone. */
export function globalArgument(env: Env, type: ArgumentType): Value {
  switch (type.kind) {
    case 'scalar':
      return unknownScalar();
    case 'ctx':
      return new Pointer('ctx');
    case 'memory': {
      const orNull = !type.nonNull;
      return new Pointer('mem', { size: type.size, orNull, id: orNull ? env.nextId() : 0 });
    }
    case 'dynptr':
      return dynptrArgument(env);
    case 'trusted': {
      const { kernelBtf } = env.input;
      const typeId = kernelBtf?.find('struct', type.struct);
      if (typeId === undefined) env.refuse('EINVAL', `the kernel has no struct ${type.struct}`);
      const orNull = !type.nonNull;
      const id = orNull ? env.nextId() : 0;
      return new Pointer('btf', { btf: kernelBtf, typeId, trusted: true, orNull, id });
    }
    case 'refused':
      return env.refuse('EINVAL', type.why);
  }
}
