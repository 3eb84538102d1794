/**
 * The instructions of one basic block, without the jump at its end; the checks of the instruction
 * budget.
 *
 * A block takes its length off the fuel when it is entered; back edges and functions look whether any
 * is left. Then `refill` gives more, or ends the run.
 */
import { CALLBACK_STRIDE } from '../callbacks.js';
import { imm64, type Slot } from '../instruction.js';
import { OPCODES, PSEUDO, type Opcode } from '../opcodes.js';
import { emitAtomic, emitLoad, emitStore } from './access.js';
import { emitAlu, emitByteSwap, emitNegate } from './alu.js';
import { emitCall, emitTailCall } from './calls.js';
import type { FunctionContext } from './context.js';
import { OP } from './emitter.js';
import type { Block } from './flow.js';
import { ALL_REGISTERS, emitFuelLoad, emitFuelStore, emitSpill } from './registers.js';
import { STATE } from './state.js';

/** Writes what a block does; gives the slot of the conditional jump that ends it, or -1. */
export function emitBlock(context: FunctionContext, block: Block): number {
  const { code, locals, plan } = context;
  const { slots } = plan;
  if (plan.fuel === 'blocks') {
    const cost = blockCost(context, block);
    if (cost > 0) code.get(locals.fuel).i32(cost).op(OP.i32_sub).set(locals.fuel);
  }
  for (let index = block.start; index < block.end; index++) {
    const slot = slots[index] as Slot;
    const opcode = OPCODES[slot.code];
    if (!opcode) continue;
    if (opcode.kind === 'jump') return index;
    emitInstruction(context, index, slot, opcode);
    if (opcode.kind === 'ld_imm64') index++;
  }
  return -1;
}

/** Its instructions, and those of the functions it calls that do not count for themselves. */
function blockCost({ plan, program }: FunctionContext, block: Block): number {
  let cost = 0;
  for (let index = block.start; index < block.end; index++) {
    const slot = plan.slots[index] as Slot;
    const opcode = OPCODES[slot.code];
    if (!opcode) continue;
    cost++;
    if (opcode.kind === 'ld_imm64') index++;
    if (opcode.kind !== 'call' || opcode.source === 'register' || slot.src !== PSEUDO.CALL)
      continue;
    const callee = program.plans[slot.off];
    if (callee?.fuel === 'callers') cost += callee.length;
  }
  return cost;
}

function emitInstruction(context: FunctionContext, insn: number, slot: Slot, opcode: Opcode): void {
  const { code, locals, plan } = context;
  const { registers } = locals;
  switch (opcode.kind) {
    case 'alu':
      emitAlu(code, registers, slot, opcode);
      return;
    case 'neg':
      emitNegate(code, registers[slot.dst] as number, opcode.width);
      return;
    case 'end':
      emitByteSwap(code, registers[slot.dst] as number, opcode.to, slot.imm);
      return;
    case 'ld_imm64': {
      const second = plan.slots[insn + 1] as Slot;
      const value =
        slot.src === PSEUDO.FUNC
          ? (context.program.callbackBase ?? 0n) + BigInt(CALLBACK_STRIDE * second.off)
          : imm64(slot, second);
      code.i64Big(value).set(registers[slot.dst] as number);
      return;
    }
    case 'load':
      emitLoad(context, insn, slot, opcode);
      return;
    case 'store':
      emitStore(context, insn, slot, opcode);
      return;
    case 'atomic':
      emitAtomic(context, insn, slot, opcode);
      return;
    case 'call':
      emitCall(context, insn, slot);
      return;
    case 'tail_call':
      emitTailCall(context, insn);
      return;
    case 'exit':
      context.leave();
      return;
    case 'goto':
    case 'nospec':
    case 'jump':
    case 'may_goto':
    case 'packet_load':
      return;
  }
}

/**
 * Asks for more when the fuel is used up on the way to slot `target`; a function that can resume may
 * be left here, to go on in loop `loop`.
 */
export function emitFuelCheck(context: FunctionContext, target: number, loop: number): void {
  const { code, locals, plan, program } = context;
  code.get(locals.fuel).i32(0).op(OP.i32_lt_s);
  code.open(OP.if);
  emitFuelStore(context);
  code.i32(program.site(plan, target)).get(locals.depth);
  code.i32(plan.canResume && loop > 0 ? 1 : 0).call(program.imports.refill);
  if (plan.canResume && loop > 0) {
    code.open(OP.if);
    emitSpill(context, ALL_REGISTERS);
    code
      .i32(0)
      .i32(loop)
      .memory(OP.i32_store, program.state + STATE.resume);
    code
      .i32(0)
      .i32(1)
      .memory(OP.i32_store, program.state + STATE.yielded);
    code
      .get(locals.registers[0] as number)
      .op(OP.return)
      .end();
  } else code.op(OP.drop);
  emitFuelLoad(context);
  code.end();
}
