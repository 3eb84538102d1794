/**
 * Calls of the program's own functions, and returns from them.
 *
 * A static function is walked at each call with the caller's values; a global one is verified once,
 * alone, and a call only checks what is passed (`global-call.ts`). Reference: check_func_call,
 * prepare_func_exit, check_return_code, widen_imprecise_scalars in kernel/bpf/verifier.c.
 */
import { allowedResult } from './context.js';
import type { Env } from './env.js';
import { checkPassed } from './global-call.js';
import { invalidatePackets, refuseLeaks } from './references.js';
import {
  markPrecise,
  S64_MAX,
  S64_MIN,
  signExtend,
  unknownScalar,
  unsignedScalar,
  type Scalar,
} from './scalar.js';
import { MAX_FRAMES, newFrame, topFrame, type Checkpoint, type State } from './state.js';
import type { Structure } from './structure.js';
import { Pointer, typeName, type Value } from './value.js';

/** Enters function `callee`, or passes over it when it is verified alone. */
export function callFunction(env: Env, callee: number, structures: readonly Structure[]): void {
  const target = env.input.functions[callee];
  if (!target) env.refuse('EINVAL', `call of function ${callee}`);
  const { regs } = env.frame;
  if (env.state.frames.length >= MAX_FRAMES) {
    env.refuse('E2BIG', `the call stack of ${MAX_FRAMES + 1} frames is too deep`);
  }
  if (target.global) {
    if (target.returnsScalar === false) {
      env.refuse(
        'EINVAL',
        `Global function ${target.name}() doesn't return scalar. Only those are supported.`,
      );
    }
    if (env.state.lock) {
      env.refuse('EINVAL', 'global function calls are not allowed while holding a lock');
    }
    if (env.state.preemptDisabled > 0) {
      env.refuse('EINVAL', 'global function calls are not allowed with preemption disabled');
    }
    checkPassed(env, callee, target);
    env.calledGlobals.add(callee);
    regs.fill(undefined, 0, 6);
    regs[0] = unknownScalar();
    if (structures[callee]?.changesPacket) invalidatePackets(env);
    env.state.at = env.at + 1;
    return;
  }
  const frame = newFrame(callee, env.at);
  for (let i = 1; i <= 5; i++) frame.regs[i] = regs[i];
  frame.regs[10] = new Pointer('stack', { frame: env.state.frames.length });
  regs.fill(undefined, 0, 6);
  env.state.frames.push(frame);
  env.state.at = 0;
}

/** An exit: false when the path ends here, true when it goes on in the caller. */
export function leave(env: Env): boolean {
  const { state, frame } = env;
  if (frame.callback?.isAsync) {
    checkCallbackResult(env, frame.callback.maxResult, 'async callback return');
    refuseLeaks(env, 'BPF_EXIT instruction in async callback');
    return false;
  }
  if (state.frames.length === 1) {
    refuseLeaks(env, 'BPF_EXIT instruction in main prog');
    checkResult(env, 0);
    return false;
  }
  const result = frame.regs[0];
  if (frame.callback) {
    checkCallbackResult(env, frame.callback.maxResult, 'callback return');
    state.frames.pop();
    // the call itself again: it may run the callback once more, or be done
    state.at = frame.callSite;
    widen(env, frame.callSite);
    return true;
  }
  if (result?.kind === 'pointer' && result.type === 'stack') {
    env.refuse('EINVAL', 'cannot return stack pointer to the caller');
  }
  state.frames.pop();
  topFrame(state).regs[0] = result;
  state.at = frame.callSite + 1;
  return true;
}

/** What is in `register` at the end of the program, or of a global function that is verified alone. */
export function checkResult(env: Env, register: number): void {
  const value = env.read(register);
  const outermost = env.state.frames[0]?.fn ?? 0;
  // what an exception callback gives is the program's result
  if (outermost !== 0 && !env.input.functions[outermost]?.exceptionCallback) {
    if (value.kind !== 'scalar') {
      env.refuse('EINVAL', `At subprogram exit the register R${register} is not a scalar value`);
    }
    return;
  }
  const allowed = allowedResult(env.input);
  if (!allowed) return;
  const seen = allowed.only32 && value.kind === 'scalar' ? lowHalf(value) : value;
  refuseResult(env, seen, allowed.min, allowed.max, 'program exit', register);
}

/** The number in the lower 32 bits, signed. */
function lowHalf(value: Scalar): Scalar {
  markPrecise(value);
  return signExtend(value, 4);
}

function checkCallbackResult(env: Env, max: bigint, when: string): void {
  refuseResult(env, env.read(0), 0n, max, when);
}

function refuseResult(
  env: Env,
  value: Value,
  min: bigint,
  max: bigint,
  when: string,
  register = 0,
): void {
  if (value.kind !== 'scalar') {
    return env.refuse(
      'EINVAL',
      `At ${when} the register R${register} is not a known value (${typeName(value)})`,
    );
  }
  markPrecise(value);
  if (value.smin >= min && value.smax <= max) return;
  const ends: string[] = [];
  if (value.smin > S64_MIN) ends.push(`smin=${value.smin}`);
  if (value.smax < S64_MAX) ends.push(`smax=${value.smax}`);
  const what = ends.length === 0 ? 'unknown scalar value' : ends.join(' ');
  env.refuse(
    'EINVAL',
    `At ${when} the register R${register} has ${what} should have been in [${min}, ${max}]`,
  );
}

/** The nearest state from `from` up that came to slot `at` in the same function and depth. */
export function findEntry(
  from: Checkpoint | undefined,
  state: State,
  at: number,
): State | undefined {
  const depth = state.frames.length;
  for (let each = from; each; each = each.parent) {
    const old = each.state;
    if (old.frames.length !== depth || old.at !== at) continue;
    const isSame = old.frames.every(({ fn, callSite }, i) => {
      const now = state.frames[i];
      return fn === now?.fn && callSite === now.callSite;
    });
    if (isSame) return old;
  }
  return undefined;
}

/** Numbers that a repeated callback changed and nobody needed exactly: any number from here on. */
function widen(env: Env, callSite: number): void {
  const before = findEntry(env.state.parent, env.state, callSite);
  if (before) widenFrom(env.state, before);
}

/** Numbers that changed since `before` and nobody needed exactly: any number from here on. */
export function widenFrom(state: State, before: State): void {
  const widened = (old: Value | undefined, now: Value | undefined): Value | undefined => {
    if (old?.kind !== 'scalar' || now?.kind !== 'scalar' || old === now) return now;
    if (old.needed || now.needed || now.kernel) return now;
    if (old.isConst && now.is(old.bits.value)) return now;
    return unknownScalar();
  };
  for (const [i, { regs, stack }] of state.frames.entries()) {
    const old = before.frames[i];
    for (let r = 0; r < 10; r++) regs[r] = widened(old?.regs[r], regs[r]);
    for (const [k, slot] of stack.entries()) {
      const was = old?.stack[k];
      if (slot?.kind !== 'spill' || was?.kind !== 'spill') continue;
      const value = widened(was.value, slot.value);
      if (!value || value === slot.value) continue;
      const cut = slot.size === 8 ? value : unsignedScalar((1n << BigInt(8 * slot.size)) - 1n);
      stack[k] = { ...slot, value: cut };
    }
  }
}
