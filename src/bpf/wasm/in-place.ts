/**
 * Helpers that are a few instructions on the host's own state: constants, CPU, clock, random numbers.
 *
 * Clock and random numbers lie in memory where the host says (`BpfHost.cells`), so that all engines draw
 * from the same ones.
 */
import { RANDOM_SHIFTS } from '../../common/random.js';
import type { HostCells } from '../host.js';
import { NS_PER_JIFFY } from '../host-cells.js';
import type { FunctionContext } from './context.js';
import { OP } from './emitter.js';
import { STATE } from './state.js';

/** How a helper is done in place; it sets R0. */
export type InPlace =
  | { readonly kind: 'whole'; readonly write: () => void }
  /** Goes to `body`, before it has changed anything, where the body has to be called. */
  | { readonly kind: 'partly'; readonly write: (body: number) => void };

function setsResult({ code, locals }: FunctionContext, push: () => void): InPlace {
  return {
    kind: 'whole',
    write: () => {
      push();
      code.set(locals.registers[0] as number);
    },
  };
}

export function constant(context: FunctionContext, value: number): InPlace {
  return setsResult(context, () => void context.code.i64(value));
}

export function currentCpu(context: FunctionContext): InPlace {
  const { code, program } = context;
  return setsResult(
    context,
    () => void code.i32(0).memory(OP.i64_load32_u, program.state + STATE.cpu),
  );
}

export function clock(context: FunctionContext): InPlace | undefined {
  const { code, program, locals } = context;
  const { cells } = program.host;
  if (!cells) return undefined;
  return setsResult(context, () => {
    code.i32(0);
    code.i32(0).memory(OP.i64_load, cells.clock);
    code.i32(0).memory(OP.i64_load, cells.clockStep);
    code.op(OP.i64_add).tee(locals.temporary).memory(OP.i64_store, cells.clock);
    emitTick(context, cells);
    code.get(locals.temporary);
  });
}

/** Sets jiffies when the clock, which is in `temporary`, has got there. */
function emitTick({ code, locals }: FunctionContext, cells: HostCells): void {
  code.get(locals.temporary).i32(0).memory(OP.i64_load, cells.nextTick).op(OP.i64_ge_u);
  code.open(OP.if);
  code.i32(0).get(locals.temporary).i64(NS_PER_JIFFY).op(OP.i64_div_u);
  code.memory(OP.i64_store, cells.jiffies);
  code.i32(0).i32(0).memory(OP.i64_load, cells.jiffies).i64(1).op(OP.i64_add);
  code.i64(NS_PER_JIFFY).op(OP.i64_mul).memory(OP.i64_store, cells.nextTick);
  code.end();
}

export function jiffies(context: FunctionContext): InPlace | undefined {
  const { code, program } = context;
  const { cells } = program.host;
  if (!cells) return undefined;
  return setsResult(context, () => void code.i32(0).memory(OP.i64_load, cells.jiffies));
}

/** xorshift128: `Random.u32`. */
export function random(context: FunctionContext): InPlace | undefined {
  const { code, program, locals } = context;
  const { cells } = program.host;
  if (!cells) return undefined;
  const word = (index: number): number => cells.random + 4 * index;
  const { at, second } = locals;
  const xorShifted = (local: number, shift: number, opcode: number): void => {
    code.get(local).get(local).i32(shift).op(opcode).op(OP.i32_xor);
  };
  return setsResult(context, () => {
    code.i32(0).memory(OP.i32_load, word(3)).set(at);
    xorShifted(at, RANDOM_SHIFTS.left, OP.i32_shl);
    code.set(at);
    xorShifted(at, RANDOM_SHIFTS.right, OP.i32_shr_u);
    code.set(at);
    code.i32(0).memory(OP.i32_load, word(0)).set(second);
    for (const index of [3, 2]) {
      code
        .i32(0)
        .i32(0)
        .memory(OP.i32_load, word(index - 1))
        .memory(OP.i32_store, word(index));
    }
    code.i32(0).get(second).memory(OP.i32_store, word(1));
    code.i32(0);
    xorShifted(second, RANDOM_SHIFTS.last, OP.i32_shr_u);
    code.get(at).op(OP.i32_xor).tee(at).memory(OP.i32_store, word(0));
    code.get(at).op(OP.i64_extend_i32_u);
  });
}
