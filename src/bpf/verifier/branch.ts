/**
 * Conditional jumps: which ways are possible, and what each tells about registers.
 *
 * A comparison of numbers narrows both; of a pointer with 0, settles whether it is NULL; of a packet
 * pointer with the packet's end, proves bytes of the packet. Reference: check_cond_jmp_op,
 * mark_ptr_or_null_regs, find_good_pkt_pointers, try_match_pkt_pointers,
 * is_pkt_ptr_branch_taken in kernel/bpf/verifier.c.
 */
import type { Slot } from '../instruction.js';
import type { JumpOperation, Opcode } from '../opcodes.js';
import { hasField } from '../btf/record.js';
import type { Env } from './env.js';
import { mayHoldLock } from './kptr.js';
import { narrowLinked } from './linked-scalars.js';
import { forget } from './references.js';
import type { Range } from './range.js';
import { constScalar, markPrecise, type Scalar } from './scalar.js';
import { decided, MIRRORED, outcomesOf, type Outcomes } from './scalar-compare.js';
import { copyState, replaceValues, topFrame, type State } from './state.js';
import {
  distance,
  isPacket,
  isTrusted,
  PACKET_END,
  Pointer,
  withFields,
  type PointerType,
  type Value,
} from './value.js';

/** Most bytes of packet that a comparison can prove. */
const MAX_PACKET = 0xffff;

/** Types whose valid pointers are known not to be NULL (reg_not_null). */
const NEVER_NULL: readonly PointerType[] = ['map_value', 'map_key', 'mem', 'sock', 'btf'];

/** The states after a jump; undefined where that way is impossible. */
export interface Ways {
  readonly taken: State | undefined;
  readonly fallen: State | undefined;
}

export function branch(env: Env, slot: Slot, opcode: Extract<Opcode, { kind: 'jump' }>): Ways {
  const left = env.read(slot.dst);
  const right = opcode.source === 'register' ? env.read(slot.src) : constScalar(BigInt(slot.imm));
  if (left.kind === 'scalar' && right.kind === 'scalar') {
    return compareScalars(env, opcode, left, right);
  }
  if (left.kind === 'pointer' && right.kind === 'pointer' && opcode.width === 64) {
    return comparePointers(env, slot, opcode.op, left, right);
  }
  const both = { taken: copyState(env.state), fallen: env.state };
  if (opcode.width === 32) return both;
  const pointer = left.kind === 'pointer' ? left : (right as Pointer);
  const scalar = (left.kind === 'pointer' ? right : left) as Scalar;
  if ((opcode.op !== 'jeq' && opcode.op !== 'jne') || !scalar.is(0n)) return both;
  // loads through such a pointer do not fault: it may be NULL
  if (pointer.type === 'btf' && !pointer.orNull && !isTrusted(pointer)) return both;
  // a valid pointer is not NULL
  if (!pointer.orNull && NEVER_NULL.includes(pointer.type)) {
    markPrecise(scalar);
    return opcode.op === 'jne'
      ? { taken: env.state, fallen: undefined }
      : { taken: undefined, fallen: env.state };
  }
  if (opcode.source === 'register' || !pointer.orNull) return both;
  settleNull(both.taken, env, pointer, opcode.op === 'jeq');
  settleNull(both.fallen, env, pointer, opcode.op === 'jne');
  return both;
}

function comparePointers(
  env: Env,
  slot: Slot,
  op: JumpOperation,
  left: Pointer,
  right: Pointer,
): Ways {
  const known = packetOutcome(op, left, right);
  if (known !== undefined) {
    return known
      ? { taken: env.state, fallen: undefined }
      : { taken: undefined, fallen: env.state };
  }
  const both = { taken: copyState(env.state), fallen: env.state };
  provePacket(slot, op, left, right, both);
  // what equals a valid pointer is valid
  if (left.orNull !== right.orNull && left.type !== 'btf' && right.type !== 'btf') {
    const [register, pointer] = left.orNull ? [slot.dst, left] : [slot.src, right];
    const equal = op === 'jeq' ? both.taken : op === 'jne' ? both.fallen : undefined;
    if (equal) topFrame(equal).regs[register] = validated(env, pointer);
  }
  return both;
}

/** What is known of a comparison of a pointer that was found at or behind the packet's end with that end. */
function packetOutcome(op: JumpOperation, left: Pointer, right: Pointer): boolean | undefined {
  const [pointer, how] =
    right.type === 'packet_end'
      ? [left, op]
      : left.type === 'packet_end'
        ? [right, MIRRORED[op]]
        : [undefined, op];
  if (!pointer || pointer.range >= 0) return undefined;
  if (how === 'jgt' || how === 'jle') {
    return pointer.range === PACKET_END.beyond ? how === 'jgt' : undefined;
  }
  return how === 'jge' || how === 'jlt' ? how === 'jge' : undefined;
}

function compareScalars(
  env: Env,
  { op, width }: Extract<Opcode, { kind: 'jump' }>,
  left: Scalar,
  right: Scalar,
): Ways {
  const { taken, fallen } =
    left === right
      ? ofItself(op, width, left.bounds)
      : outcomesOf(op, width, left.bounds, right.bounds);
  if (!taken || !fallen) {
    markPrecise(left);
    markPrecise(right);
    return taken
      ? { taken: env.state, fallen: undefined }
      : { taken: undefined, fallen: env.state };
  }
  const other = copyState(env.state);
  narrow(other, left, right, taken);
  narrow(env.state, left, right, fallen);
  return { taken: other, fallen: env.state };
}

/** A number compared with itself: nothing is learned. */
function ofItself(op: JumpOperation, width: 32 | 64, range: Range): Outcomes {
  const outcome = decided(op, width, range, range);
  return {
    taken: outcome === false ? undefined : [range, range],
    fallen: outcome === true ? undefined : [range, range],
  };
}

/** All places that hold the compared numbers hold the narrowed ones. */
function narrow(state: State, left: Scalar, right: Scalar, [a, b]: readonly [Range, Range]): void {
  narrowLinked(state, right, b, left);
  // in a set of both, the right one told all
  if (rootOf(left) !== rootOf(right)) narrowLinked(state, left, a, right);
}

function rootOf(scalar: Scalar): Scalar {
  return scalar.link?.base ?? scalar;
}

/** All copies of a pointer that may be NULL become NULL or valid. */
function settleNull(state: State, env: Env, pointer: Pointer, isNull: boolean): void {
  // memory of a dynptr or iterator does not hold the reference that it depends on
  if (isNull && pointer.ref !== 0 && pointer.ref === pointer.id) {
    const before = env.state;
    env.state = state;
    forget(env, pointer.ref);
    env.state = before;
  }
  replaceValues(state, (value) => {
    if (value.kind !== 'pointer' || !value.orNull || value.id !== pointer.id) return value;
    return isNull ? constScalar(0n) : validated(env, value);
  });
}

function validated(env: Env, pointer: Pointer): Pointer {
  const { map } = pointer;
  if (pointer.type === 'map_value' && map?.inner) {
    const mapId = hasField(map.inner.record, 'bpf_timer', 'bpf_wq') ? pointer.id : 0;
    return new Pointer('map', { map: map.inner, mapId });
  }
  if (pointer.type === 'map_value' && map?.type === 'XSKMAP') return new Pointer('xdp_sock');
  // the id still tells locks of different values apart
  const id = mayHoldLock(env, pointer) ? pointer.id : 0;
  return withFields(pointer, { orNull: false, id });
}

function isStart(pointer: Pointer): boolean {
  return pointer.type === 'packet' && pointer.off === 0 && pointer.id === 0 && !pointer.variable;
}

/** Whether `end` bounds `pointer`: the packet's end for packet pointers, its start for metadata. */
function bounds(pointer: Pointer, end: Pointer): boolean {
  if (pointer.type === 'packet') return end.type === 'packet_end';
  return pointer.type === 'packet_meta' && isStart(end);
}

function provePacket(
  slot: Slot,
  op: JumpOperation,
  left: Pointer,
  right: Pointer,
  { taken, fallen }: { readonly taken: State; readonly fallen: State },
): void {
  const [pointer, how, register] = bounds(left, right)
    ? [left, op, slot.dst]
    : bounds(right, left)
      ? [right, MIRRORED[op], slot.src]
      : [undefined, op, 0];
  if (!pointer) return;
  // pointer how end
  switch (how) {
    case 'jgt':
      extend(fallen, pointer, 0);
      markEnd(taken, register, PACKET_END.beyond);
      break;
    case 'jge':
      extend(fallen, pointer, 1);
      markEnd(taken, register, PACKET_END.at);
      break;
    case 'jlt':
      extend(taken, pointer, 1);
      markEnd(fallen, register, PACKET_END.at);
      break;
    case 'jle':
      extend(taken, pointer, 0);
      markEnd(fallen, register, PACKET_END.beyond);
      break;
    default:
  }
}

/** The pointer in `register` is at or behind the end: later comparisons are decided. */
function markEnd(state: State, register: number, range: number): void {
  const { regs } = topFrame(state);
  const pointer = regs[register];
  if (pointer?.kind !== 'pointer' || pointer.type !== 'packet') return;
  regs[register] = withFields(pointer, { range });
}

/** `pointer + more` is not behind the end. */
function extend(state: State, pointer: Pointer, more: number): void {
  const { off, id, type } = pointer;
  const { umax } = distance(pointer);
  if (off < 0 || (off === 0 && more > 0)) return;
  if (umax > BigInt(MAX_PACKET) || off + Number(umax) > MAX_PACKET) return;
  const range = off + more;
  replaceValues(state, (value: Value) => {
    if (!isPacket(value) || value.type !== type || value.id !== id || value.range >= range) {
      return value;
    }
    return withFields(value, { range });
  });
}
