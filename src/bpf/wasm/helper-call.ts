/**
 * Calls of helpers: in place, or of the body through an import.
 *
 * A body is imported as it is and finds its arguments in the state. A body with an intrinsic says what it
 * does: then code that does the same is written here. What that code leaves alone (a bad pointer, a packet
 * in fragments) it leaves before it has changed anything, and the body is called after all, so faults are
 * the body's own. In programs that take addresses of functions a body may call back: then it finds the
 * fuel in the state, and what such a function reads of its caller.
 */
import type { HelperIntrinsic, HelperSignature } from '../host.js';
import type { Slot } from '../instruction.js';
import type { FunctionContext } from './context.js';
import { csumDiff } from './csum.js';
import { OP } from './emitter.js';
import { clock, constant, currentCpu, jiffies, random, type InPlace } from './in-place.js';
import { mapLookup, mapUpdate } from './map-access.js';
import {
  emitFuelLoad,
  emitFuelStore,
  emitGenerationCheck,
  emitHelperResult,
  emitSpill,
} from './registers.js';
import { STATE } from './state.js';
import { xdpAdjustHead, xdpBuffLength } from './xdp.js';

export function emitCallHelper(context: FunctionContext, insn: number, slot: Slot): void {
  const { code, program } = context;
  const address = program.host.callBase + BigInt(slot.imm);
  const intrinsic = program.bodyOf(address)?.intrinsic;
  const inPlace = intrinsic && inPlaceOf(context, insn, intrinsic);
  if (!inPlace) {
    emitCallBody(context, insn, address);
    return;
  }
  if (inPlace.kind === 'whole') {
    inPlace.write();
    return;
  }
  const done = code.open(OP.block);
  const body = code.open(OP.block);
  inPlace.write(body);
  code.branch(done).end();
  emitCallBody(context, insn, address);
  code.end();
}

/** undefined when it has to be left to the body. */
function inPlaceOf(
  context: FunctionContext,
  insn: number,
  intrinsic: HelperIntrinsic,
): InPlace | undefined {
  switch (intrinsic.kind) {
    case 'constant':
      return constant(context, intrinsic.value);
    case 'current_cpu':
      return currentCpu(context);
    case 'clock':
      return clock(context);
    case 'jiffies':
      return jiffies(context);
    case 'random':
      return random(context);
    case 'map_lookup':
      return mapLookup(context, insn);
    case 'map_update':
      return mapUpdate(context, insn);
    case 'csum_diff':
      return csumDiff(context, insn);
    case 'xdp_buff_len':
      return xdpBuffLength(context, insn);
    case 'xdp_adjust_head':
      return xdpAdjustHead(context, insn);
  }
}

function emitCallBody(context: FunctionContext, insn: number, address: bigint): void {
  const { code, plan, program } = context;
  const body = program.bodyOf(address);
  // a body with an intrinsic does only what that says
  const mayCallBack = program.callbackBase !== undefined && body?.intrinsic === undefined;
  emitHelperState(context, mayCallBack, body?.signature);
  code
    .i32(0)
    .i32(program.site(plan, insn))
    .memory(OP.i32_store, program.state + STATE.site);
  for (const global of program.helperArguments) code.op(OP.global_get).u32(global);
  code.call(program.helper(address));
  if (mayCallBack) emitFuelLoad(context);
  emitHelperResult(context);
  emitGenerationCheck(context);
}

/** Any body may read R1..R5, and leave R0 as it is. */
const UNKNOWN: HelperSignature = { arguments: 5, result: false };

/** What a helper call leaves in the state for the body, and for functions that it calls back. */
export function emitHelperState(
  context: FunctionContext,
  mayCallBack: boolean,
  signature = UNKNOWN,
): void {
  const { code, locals, program } = context;
  const inputs = ((1 << signature.arguments) - 1) << 1;
  const own = inputs | (signature.result ? 0 : 1);
  emitSpill(context, own | (mayCallBack ? program.needs.callbacks : 0));
  if (!mayCallBack) return;
  emitFuelStore(context);
  code
    .i32(0)
    .get(locals.depth)
    .memory(OP.i32_store, program.state + STATE.depth);
}
