/**
 * How much stack a chain of calls takes in all, and how deep it goes.
 *
 * Reference: check_max_stack_depth_subprog in kernel/bpf/verifier.c.
 */
import type { Slot } from '../instruction.js';
import { BPF_THROW } from '../kfuncs/throw.js';
import { OPCODES, PSEUDO } from '../opcodes.js';
import { Refusal } from './error.js';
import type { VerifierFunction } from './input.js';
import { MAX_FRAMES, MAX_STACK } from './state.js';

/** A frame is rounded up to this by the JIT. */
const STACK_ALIGN = 16;
/** Most stack of callers when a function makes tail calls. */
const MAX_TAIL_CALL_STACK = 256;
const TAIL_CALL = 12;

interface Edge {
  readonly caller: number;
  readonly at: number;
  readonly callee: number;
  /** A call, not only a reference. */
  readonly isCall: boolean;
}

export function checkStackDepth(
  functions: readonly VerifierFunction[],
  depths: readonly number[],
  /** Functions that run later, on a stack of their own. */
  async: ReadonlySet<number>,
): void {
  const edges = functions.map(({ slots }, fn) => calls(slots, fn));
  const tailCalls = functions.map(({ slots }) =>
    slots.some(
      (slot) => OPCODES[slot.code]?.kind === 'call' && slot.src === 0 && slot.imm === TAIL_CALL,
    ),
  );
  const callbacks = new Set(
    edges.flatMap((list) => list.filter(({ isCall }) => !isCall).map(({ callee }) => callee)),
  );
  for (const [fn, { exceptionCallback }] of functions.entries()) {
    if (exceptionCallback) callbacks.add(fn);
  }
  /** Greatest depth and frame count with which a function was entered already. */
  const entered = new Map<number, { depth: number; frames: number }>();
  const visit = (
    fn: number,
    callers: number,
    frames: number,
    edge: Edge | undefined,
    chain: readonly number[],
  ): void => {
    if (frames > MAX_FRAMES) {
      throw new Refusal('E2BIG', `the call stack of ${frames} frames is too deep !`, fn, -1, '');
    }
    if (frames > 1 && tailCalls[fn] && callers >= MAX_TAIL_CALL_STACK) {
      throw new Refusal(
        'EACCES',
        `tail_calls are not allowed when call stack of previous frames is ${callers} bytes. Too large`,
        fn,
        -1,
        '',
      );
    }
    const own = Math.ceil(Math.max(depths[fn] ?? 0, 1) / STACK_ALIGN) * STACK_ALIGN;
    const depth = callers + own;
    if (depth > MAX_STACK) {
      const reason = `combined stack size of ${frames} calls is ${depth}. Too large`;
      throw new Refusal('EACCES', reason, edge?.caller ?? fn, edge?.at ?? -1, '');
    }
    const inCallback = [...chain, fn].some((each) => callbacks.has(each));
    if (inCallback) refuseThrow(functions, fn);
    if (tailCalls[fn] && chain.some((each) => functions[each]?.exceptionCallback)) {
      throw new Refusal('EINVAL', 'cannot tail call within exception cb', fn, -1, '');
    }
    // what is true of plain calls is not yet of calls by a callback
    const key = inCallback ? -1 - fn : fn;
    const before = entered.get(key);
    if (before && before.depth >= callers && before.frames >= frames) return;
    entered.set(key, { depth: callers, frames });
    for (const next of edges[fn] ?? []) {
      if (next.isCall && functions[next.callee]?.exceptionCallback) {
        const reason = `insn ${next.at} cannot call exception cb directly`;
        throw new Refusal('EINVAL', reason, fn, next.at, '');
      }
      if (!next.isCall && async.has(next.callee)) continue;
      visit(next.callee, depth, frames + 1, next, [...chain, fn]);
    }
  };
  visit(0, 0, 1, undefined, []);
  for (const fn of callbacks) {
    if (async.has(fn) || functions[fn]?.exceptionCallback) visit(fn, 0, 1, undefined, []);
  }
}

/** Nothing is thrown through a helper, nor by what catches. */
function refuseThrow(functions: readonly VerifierFunction[], fn: number): void {
  for (const [at, name] of functions[fn]?.kfuncs ?? []) {
    if (name !== BPF_THROW) continue;
    const reason = `bpf_throw kfunc (insn ${at}) cannot be called from callback subprog ${fn}`;
    throw new Refusal('EINVAL', reason, fn, at, '');
  }
}

/** Calls and function references. */
function calls(slots: readonly Slot[], caller: number): Edge[] {
  const found: Edge[] = [];
  for (let at = 0; at < slots.length; at++) {
    const slot = slots[at] as Slot;
    const kind = OPCODES[slot.code]?.kind;
    if (kind === 'call' && slot.src === PSEUDO.CALL) {
      found.push({ caller, at, callee: slot.off, isCall: true });
    }
    if (kind !== 'ld_imm64') continue;
    if (slot.src === PSEUDO.FUNC) {
      found.push({ caller, at, callee: slots[at + 1]?.off ?? 0, isCall: false });
    }
    at++;
  }
  return found;
}
