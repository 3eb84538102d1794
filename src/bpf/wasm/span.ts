/**
 * Memory that a helper is given: checked as a whole, and left to the helper's body when it is not there.
 *
 * As `emitAccess`, but of any size and without a fault: what the region table does not allow makes the
 * caller go another way.
 */
import type { HelperIntrinsic } from '../host.js';
import { emitCopy, emitSlot, stackDistance, type Place } from './access.js';
import type { FunctionContext, PointerClass } from './context.js';
import { OP } from './emitter.js';
import { classOf, type Origin } from './origins.js';
import { ACCESS, STACK_SIZE } from './state.js';

export interface Span {
  /** Argument that holds the address. */
  readonly register: 1 | 2 | 3;
  /** Bytes. */
  readonly size: number;
  readonly write: boolean;
  readonly insn: number;
}

/** What code in place of a helper accesses. */
export const SPANS: Readonly<
  Record<HelperIntrinsic['kind'], readonly Pick<Span, 'register' | 'write'>[]>
> = {
  constant: [],
  current_cpu: [],
  clock: [],
  jiffies: [],
  random: [],
  map_lookup: [{ register: 2, write: false }],
  map_update: [
    { register: 2, write: false },
    { register: 3, write: false },
  ],
  csum_diff: [
    { register: 1, write: false },
    { register: 3, write: false },
  ],
  xdp_buff_len: [{ register: 1, write: true }],
  xdp_adjust_head: [{ register: 1, write: true }],
};

/** Gives the place of a span, in local `into` if it has to be computed; goes to `body` where it is not all there. */
export function emitSpan(
  context: FunctionContext,
  { register, size, write, insn }: Span,
  into: number,
  body: number,
): Place {
  const { code, locals, program } = context;
  const origin = argumentOf(context, insn, register);
  const distance = stackDistance(origin, 0, size);
  if (distance !== undefined) return { local: locals.frame, offset: STACK_SIZE + distance };
  const kind = spanClass(context, insn, register);
  const address = locals.registers[register] as number;
  code.get(address);
  emitSlot(context, kind, 'lo');
  code.op(OP.i64_sub).tee(locals.address);
  emitSlot(context, kind, 'limit');
  // `limit` is the region's size less 8
  if (size < 8) code.i64(8 - size).op(OP.i64_add);
  code.op(OP.i64_gt_u);
  if (size > 8) {
    code
      .get(locals.address)
      .i64(size - 8)
      .op(OP.i64_add);
    emitSlot(context, kind, 'limit');
    code.op(OP.i64_gt_u).op(OP.i32_or);
  }
  code.open(OP.if);
  code.get(address).i32(program.site(context.plan, insn));
  code.i32((size << ACCESS.sizeShift) | spanBits(kind, write)).i32(kind.slot);
  code.call(program.locate).set(into);
  emitCopy(context, kind);
  code.get(into).i32(0).op(OP.i32_lt_s).branch(body, OP.br_if);
  code.op(OP.else);
  code.get(address).op(OP.i32_wrap_i64);
  emitSlot(context, kind, 'delta');
  code.op(OP.i32_add).set(into).end();
  return { local: into, offset: 0 };
}

/** What `locate` is told besides the size. */
export function spanBits(kind: PointerClass, write: boolean): number {
  return ACCESS.quiet | (write ? ACCESS.write : 0) | (kind.needsWrite ? ACCESS.needsWrite : 0);
}

/** Where argument `register` of a call comes from. */
export function argumentOf(
  { plan }: FunctionContext,
  insn: number,
  register: Span['register'],
): Origin {
  const origin = plan.origins.calls.get(insn)?.[register - 1];
  if (!origin) throw new RangeError(`${plan.name} insn ${insn}: no call`);
  return origin;
}

export function spanClass(
  context: FunctionContext,
  insn: number,
  register: Span['register'],
): PointerClass {
  const { plan } = context;
  const kind = plan.classes[classOf(argumentOf(context, insn, register)).slot];
  if (!kind) throw new RangeError(`${plan.name} insn ${insn}: no pointer class for R${register}`);
  return kind;
}
