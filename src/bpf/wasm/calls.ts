/**
 * Calls in WebAssembly: bpf2bpf, helpers, through a register, tail calls.
 *
 * A BPF function is a wasm function (R1..R5, depth) -> R0; what else a callee or a caller reads goes
 * through the registers in the state. A helper body is imported as it is and finds R0..R5 there; those with
 * an intrinsic, and lookups in arrays, are done in place. In programs that take addresses of functions
 * a helper may call back: then it finds the fuel in the state, and what such a function reads of its caller.
 */
import type { Slot } from '../instruction.js';
import { ArrayMap } from '../maps/array.js';
import type { MapTypeName } from '../maps/map.js';
import { PSEUDO } from '../opcodes.js';
import { emitAccess, emitCopies } from './access.js';
import type { FunctionContext } from './context.js';
import { I64, OP } from './emitter.js';
import { EXTRA_OUT } from './liveness.js';
import { MAX_CALL_FRAMES, STATE, STOP } from './state.js';

const PLAIN_ARRAYS: readonly MapTypeName[] = ['ARRAY', 'PERCPU_ARRAY'];

/** R0..R5 */
const HELPER_REGISTERS = 0b11_1111;
/** R0..R9, R11 */
export const ALL_REGISTERS = 0b1011_1111_1111;

export function emitCall(context: FunctionContext, insn: number, slot: Slot): void {
  if (slot.code === 0x8d) emitCallRegister(context, insn, slot);
  else if (slot.src === PSEUDO.CALL) emitCallLocal(context, insn, slot.off);
  else emitCallHelper(context, insn, slot);
}

/** Puts registers into the state. */
export function emitSpill({ code, locals, program }: FunctionContext, mask: number): void {
  for (let register = 0; register < 12; register++) {
    if (((mask >> register) & 1) === 0) continue;
    code.i32(0).get(locals.registers[register] as number);
    code.memory(OP.i64_store, program.state + STATE.registers + 8 * register);
  }
}

/** Takes registers from the state. */
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
function emitGenerationCheck(context: FunctionContext): void {
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

/** What a helper call leaves in the state for functions that the helper calls back. */
function emitCallbackState(context: FunctionContext, mayCallBack: boolean): void {
  const { code, locals, program } = context;
  emitSpill(context, HELPER_REGISTERS | (mayCallBack ? program.needs.callbacks : 0));
  if (mayCallBack) emitFuelStore(context);
  code
    .i32(0)
    .get(locals.depth)
    .memory(OP.i32_store, program.state + STATE.depth);
}

function emitArguments({ code, locals }: FunctionContext): void {
  for (let register = 1; register <= 5; register++) code.get(locals.registers[register] as number);
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
  emitArguments(context);
  code.call(program.functions[callee] as number).set(locals.registers[0] as number);
  if (sharesFuel) emitFuelLoad(context);
  emitFill(context, program.needs.out[callee] as number);
  emitGenerationCheck(context);
}

function emitCallHelper(context: FunctionContext, insn: number, slot: Slot): void {
  const { code, locals, plan, program } = context;
  const { host } = program;
  const address = host.callBase + BigInt(slot.imm);
  const intrinsic = program.bodyOf(address)?.intrinsic;
  const r0 = locals.registers[0] as number;
  switch (intrinsic?.kind) {
    case 'constant':
      code.i64(intrinsic.value).set(r0);
      return;
    case 'current_cpu':
      code
        .i32(0)
        .memory(OP.i64_load32_u, program.state + STATE.cpu)
        .set(r0);
      return;
    case 'map_lookup':
      if (emitArrayLookup(context, insn)) return;
      break;
    case undefined:
      break;
  }
  // a body with an intrinsic does only what that says
  const mayCallBack = program.callbackBase !== undefined && intrinsic === undefined;
  emitCallbackState(context, mayCallBack);
  code
    .i32(0)
    .i32(program.site(plan, insn))
    .memory(OP.i32_store, program.state + STATE.site);
  for (const global of program.helperArguments) code.op(OP.global_get).u32(global);
  code.call(program.helper(address));
  if (mayCallBack) emitFuelLoad(context);
  emitFill(context, 1);
  emitGenerationCheck(context);
}

/** bpf_map_lookup_elem on an array that is known: its layout is fixed. */
function emitArrayLookup(context: FunctionContext, insn: number): boolean {
  const { code, locals, plan, program } = context;
  const { host } = program;
  const constant = plan.origins.bases.get(insn)?.constant;
  const map = constant === undefined ? undefined : host.mapAt(constant);
  const key = plan.origins.seconds.get(insn);
  // other array-like types (maps of maps, devmaps) look up differently
  if (!(map instanceof ArrayMap) || !PLAIN_ARRAYS.includes(map.spec.type) || !key) return false;
  const place = emitAccess(context, {
    register: 2,
    origin: key,
    off: 0,
    size: map.spec.keySize,
    write: false,
    insn,
  });
  code.get(place.local).memory(OP.i32_load, place.offset).tee(locals.at);
  code.i32(map.spec.maxEntries).op(OP.i32_lt_u).op(OP.if).u8(I64);
  code.get(locals.at).op(OP.i64_extend_i32_u).i64(map.stride).op(OP.i64_mul);
  code.i64Big(map.valueRegion(0).address);
  if (map.spec.type === 'PERCPU_ARRAY') {
    for (let cpu = 1; cpu < host.cpuCount; cpu++) {
      code.i64Big(map.valueRegion(cpu).address);
      code
        .i32(0)
        .memory(OP.i32_load, program.state + STATE.cpu)
        .i32(cpu)
        .op(OP.i32_ne);
      code.op(OP.select);
    }
  }
  code.op(OP.i64_add).op(OP.else).i64(0).op(OP.end);
  code.set(locals.registers[0] as number);
  return true;
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
  emitCallbackState(context, mayCallBack);
  code.get(locals.registers[slot.dst] as number);
  code.i32(program.site(plan, insn)).call(program.imports.callHelper);
  if (mayCallBack) emitFuelLoad(context);
  emitFill(context, 1);
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
  emitArguments(context);
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
