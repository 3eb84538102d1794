/**
 * What goes between the locals of a function and the state: registers, fuel, copies of slots.
 *
 * TypeScript stores a register as two words. A 64-bit load of what was just stored so waits until both
 * stores are done, which takes longer than everything else of a helper call: results of helpers are
 * loaded in halves.
 */
import { emitCopies } from './access.js';
import type { FunctionContext } from './context.js';
import { OP, type CodeWriter } from './emitter.js';
import { STATE } from './state.js';

/** R0..R9, R11 */
export const ALL_REGISTERS = 0b1011_1111_1111;

/** Puts registers into the state. */
export function emitSpill({ code, locals, program }: FunctionContext, mask: number): void {
  for (let register = 0; register < 12; register++) {
    if (((mask >> register) & 1) === 0) continue;
    code.i32(0).get(locals.registers[register] as number);
    code.memory(OP.i64_store, program.state + STATE.registers + 8 * register);
  }
}

/** Takes registers from the state, where wasm code has put them. */
export function emitFill({ code, locals, program }: FunctionContext, mask: number): void {
  for (let register = 0; register < 12; register++) {
    if (((mask >> register) & 1) === 0) continue;
    code.i32(0).memory(OP.i64_load, program.state + STATE.registers + 8 * register);
    code.set(locals.registers[register] as number);
  }
}

export function emitFuelStore({ code, locals, plan, program }: FunctionContext): void {
  if (plan.fuel === 'blocks')
    code
      .i32(0)
      .get(locals.fuel)
      .memory(OP.i32_store, program.state + STATE.fuel);
}

export function emitFuelLoad({ code, locals, plan, program }: FunctionContext): void {
  if (plan.fuel === 'blocks')
    code
      .i32(0)
      .memory(OP.i32_load, program.state + STATE.fuel)
      .set(locals.fuel);
}

/** Behind whatever may have mapped or unmapped memory: copies of slots are taken anew if so. */
export function emitGenerationCheck(context: FunctionContext): void {
  const { code, locals, program } = context;
  if (locals.copies.size === 0) return;
  const load = (): void => void code.i32(0).memory(OP.i32_load, program.state + STATE.generation);
  load();
  code.get(locals.generation).op(OP.i32_ne);
  code.open(OP.if);
  emitCopies(context);
  load();
  code.set(locals.generation).end();
}

/** Pushes the register at `offset` that TypeScript has stored. */
export function emitPair(code: CodeWriter, offset: number): void {
  code.i32(0).memory(OP.i64_load32_u, offset);
  code.i32(0).memory(OP.i64_load32_u, offset + 4);
  code.i64(32).op(OP.i64_shl).op(OP.i64_or);
}

/** Takes R0 from where a helper has left it. */
export function emitHelperResult({ code, locals, program }: FunctionContext): void {
  emitPair(code, program.state + STATE.registers);
  code.set(locals.registers[0] as number);
}
