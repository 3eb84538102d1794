/**
 * Calls in WebAssembly: bpf2bpf, helpers, through a register, tail calls.
 *
 * A BPF function is a wasm function (R1..RN, depth) -> R0, RN the last that it reads; what else a callee or a caller reads goes
 * through the registers in the state. Calls of helpers by number are in `helper-call.ts`.
 */
import type { Slot } from '../instruction.js';
import { PSEUDO } from '../opcodes.js';
import type { FunctionContext } from './context.js';
import { OP } from './emitter.js';
import { emitCallHelper, emitHelperState } from './helper-call.js';
import { EXTRA_OUT } from './liveness.js';
import {
  ALL_REGISTERS,
  emitFill,
  emitFuelLoad,
  emitFuelStore,
  emitGenerationCheck,
  emitHelperResult,
  emitSpill,
} from './registers.js';
import { MAX_CALL_FRAMES, MAX_PARAMETERS, STOP } from './state.js';

export function emitCall(context: FunctionContext, insn: number, slot: Slot): void {
  if (slot.code === 0x8d) emitCallRegister(context, insn, slot);
  else if (slot.src === PSEUDO.CALL) emitCallLocal(context, insn, slot.off);
  else emitCallHelper(context, insn, slot);
}

function emitDepthCheck(context: FunctionContext, insn: number): void {
  const { code, locals, program, plan } = context;
  code
    .get(locals.depth)
    .i32(MAX_CALL_FRAMES - 1)
    .op(OP.i32_ge_u);
  code.open(OP.if);
  code.i32(STOP.callDepth).i32(program.site(plan, insn)).i64(0).call(program.imports.stop);
  code.end();
}

function emitArguments({ code, locals }: FunctionContext, parameters: number): void {
  for (let register = 1; register <= parameters; register++)
    code.get(locals.registers[register] as number);
  code.get(locals.depth).i32(1).op(OP.i32_add);
}

function emitCallLocal(context: FunctionContext, insn: number, callee: number): void {
  const { code, locals, program } = context;
  const plan = program.plans[callee];
  emitDepthCheck(context, insn);
  if (plan?.isInlined === true) {
    program.inline(context, plan);
    return;
  }
  const sharesFuel = plan?.fuel !== 'callers';
  emitSpill(context, program.needs.in[callee] as number);
  if (sharesFuel) emitFuelStore(context);
  emitArguments(context, plan?.parameters ?? MAX_PARAMETERS);
  code.call(program.functions[callee] as number).set(locals.registers[0] as number);
  if (sharesFuel) emitFuelLoad(context);
  emitFill(context, program.needs.out[callee] as number);
  emitGenerationCheck(context);
}

/** callx: a function of this program by its address, or a helper. */
function emitCallRegister(context: FunctionContext, insn: number, slot: Slot): void {
  const { program } = context;
  if (program.callbackBase === undefined) emitCallAddress(context, insn, slot);
  else emitCallFunction(context, program.callbackBase, insn, slot);
  emitGenerationCheck(context);
}

function emitCallAddress(context: FunctionContext, insn: number, slot: Slot): void {
  const { code, locals, plan, program } = context;
  const mayCallBack = program.callbackBase !== undefined;
  emitHelperState(context, mayCallBack);
  code.get(locals.registers[slot.dst] as number);
  code.i32(program.site(plan, insn)).call(program.imports.callHelper);
  if (mayCallBack) emitFuelLoad(context);
  emitHelperResult(context);
}

function emitCallFunction(context: FunctionContext, base: bigint, insn: number, slot: Slot): void {
  const { code, locals, program } = context;
  const target = locals.registers[slot.dst] as number;
  const r0 = locals.registers[0] as number;
  let needIn = 0;
  let needOut = 0;
  for (const mask of program.needs.in) needIn |= mask;
  for (const mask of program.needs.out) needOut |= mask;
  // rotated right by 4 the distance is the index if it is a multiple of CALLBACK_STRIDE
  code.get(target).i64Big(base).op(OP.i64_sub).i64(60).op(OP.i64_rotl);
  code.tee(locals.temporary).i64(program.functions.length).op(OP.i64_lt_u);
  code.open(OP.if);
  emitDepthCheck(context, insn);
  // every function must find, and may leave, what any of them needs
  emitSpill(context, needIn | (needOut & EXTRA_OUT));
  emitFuelStore(context);
  emitArguments(context, MAX_PARAMETERS);
  code.get(locals.temporary).op(OP.i32_wrap_i64).i32(program.firstEntry).op(OP.i32_add);
  code.callIndirect(program.bpfType).set(r0);
  emitFuelLoad(context);
  emitFill(context, needOut);
  code.op(OP.else);
  emitCallAddress(context, insn, slot);
  code.end();
}

/** Goes on when there is nothing to jump to. */
export function emitTailCall(context: FunctionContext, insn: number): void {
  const { code, locals, plan, program } = context;
  emitSpill(context, ALL_REGISTERS);
  emitFuelStore(context);
  code.get(locals.depth).i32(program.site(plan, insn)).call(program.imports.tail);
  emitFuelLoad(context);
  code.open(OP.if);
  emitFill(context, 1 | EXTRA_OUT);
  context.leave();
  code.end();
  emitGenerationCheck(context);
}
