/**
 * Small functions written in place of calls of them: no loops, no calls, a few instructions.
 *
 * WebAssembly engines of today do not inline calls. The callee works on registers of its own, so what
 * it does not get or give back stays the caller's; a fault in it names it as always.
 */
import { emitStructured } from './structured.js';
import type { FunctionContext, FunctionPlan } from './context.js';
import { OP } from './emitter.js';
import { ARGUMENTS } from './liveness.js';
import { FRAME_BYTES, STATE } from './state.js';

export function emitInlined(caller: FunctionContext, plan: FunctionPlan): void {
  const { code, locals, program } = caller;
  const { inlined } = locals;
  if (!inlined) throw new RangeError(`${plan.name} cannot be written in place`);
  const { registers, frame } = inlined;
  const copy = (mask: number, from: readonly number[], to: readonly number[]): void => {
    for (let register = 0; register < 12; register++) {
      if (((mask >> register) & 1) === 0) continue;
      code.get(from[register] as number).set(to[register] as number);
    }
  };
  const needOut = program.needs.out[plan.index] as number;
  copy(ARGUMENTS | (program.needs.in[plan.index] as number), locals.registers, registers);
  if (plan.usesFrame) {
    // the frame of the next depth
    const next = program.state + STATE.frames + FRAME_BYTES;
    code.get(locals.depth).i32(FRAME_BYTES).op(OP.i32_mul).tee(frame);
    code.memory(OP.i64_load, next).set(registers[10] as number);
    code
      .get(frame)
      .memory(OP.i32_load, next + 8)
      .set(frame);
  }
  const end = code.open(OP.block);
  emitStructured({
    program,
    plan,
    code,
    locals: { ...locals, registers, frame, copies: new Map(), inlined: undefined },
    leave() {
      copy(1 | needOut, registers, locals.registers);
      code.branch(end);
    },
  });
  code.end();
}
