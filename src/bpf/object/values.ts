/**
 * The abstract values of the loader's data flow: what a register or stack slot may hold.
 *
 * A value is one number, so that a state is a plain Int32Array that can be copied and compared:
 *
 *   OTHER        anything that is not followed
 *   CTX          the context pointer; where a path brings something unknown instead, still CTX,
 *                because a program that the kernel accepts dereferences it on the CTX paths only
 *   CTX_MOVED    context pointer plus something: not to be dereferenced
 *   CONFLICT     context pointer on one path, stack or moved pointer on another
 *   U32          a number below 2^32
 *   POSITIVE     a number below 2^63
 *   stack        R10 of call depth `frame` plus exactly `offset`, or plus at least `offset`
 *   function     the address of function `index`
 */
export const OTHER = 0;
export const CTX = 1;
export const CTX_MOVED = 2;
export const CONFLICT = 3;
export const U32 = 4;
export const POSITIVE = 5;

/** Bytes of stack that a function may have (MAX_BPF_STACK). */
export const MAX_STACK = 512;

// stack: bit 30 set, bit 29 "at least", bits 16-19 frame, bits 0-15 offset + 0x8000
const STACK = 1 << 30;
const AT_LEAST = 1 << 29;
const FUNCTION = 1 << 28;

export function stackValue(frame: number, offset: number, atLeast = false): number {
  // far offsets carry no information: the whole frame may be meant
  const far = offset < -4096 || offset > 4096;
  const lowest = far || (atLeast && offset < -MAX_STACK) ? -MAX_STACK : offset;
  return STACK | (atLeast || far ? AT_LEAST : 0) | (frame << 16) | (lowest + 0x8000);
}

export function isStack(value: number): boolean {
  return (value & STACK) !== 0;
}

export function isExactStack(value: number): boolean {
  return isStack(value) && (value & AT_LEAST) === 0;
}

export function stackFrame(value: number): number {
  return (value >> 16) & 15;
}

export function stackOffset(value: number): number {
  return (value & 0xffff) - 0x8000;
}

export function functionValue(index: number): number {
  return FUNCTION | index;
}

/** The function whose address this is; undefined for other values. */
export function functionOf(value: number): number | undefined {
  return (value & (STACK | FUNCTION)) === FUNCTION ? value & 0xffff : undefined;
}

function isNumber(value: number): boolean {
  return value === U32 || value === POSITIVE;
}

/** What holds when either may be there. */
export function join(a: number, b: number): number {
  if (a === b) return a;
  if (a === CONFLICT || b === CONFLICT) return CONFLICT;
  const [x, y] = [Math.min(a, b), Math.max(a, b)];
  if (x === CTX || x === CTX_MOVED || y === CTX || y === CTX_MOVED) {
    const other = x === CTX || x === CTX_MOVED ? y : x;
    if (isStack(other) || other === CTX_MOVED) return CONFLICT;
    return x === CTX || y === CTX ? CTX : CTX_MOVED;
  }
  if (isStack(a) && isStack(b)) {
    if (stackFrame(a) !== stackFrame(b)) return stackValue(stackFrame(b), -MAX_STACK, true);
    return stackValue(stackFrame(a), Math.min(stackOffset(a), stackOffset(b)), true);
  }
  if (isStack(a) || isStack(b)) {
    const stack = isStack(a) ? a : b;
    return stackValue(stackFrame(stack), stackOffset(stack), true);
  }
  if (isNumber(a) && isNumber(b)) return POSITIVE;
  return OTHER;
}

/** The value of a 64-bit addition. `constant` is the right operand when it is an immediate. */
export function add(left: number, right: number, constant?: number): number {
  if (constant === 0) return left;
  if (isStack(left)) {
    const [frame, offset] = [stackFrame(left), stackOffset(left)];
    if (constant !== undefined) return stackValue(frame, offset + constant, !isExactStack(left));
    return stackValue(frame, isNumber(right) ? offset : -MAX_STACK, true);
  }
  if (isStack(right)) return add(right, left);
  for (const value of [left, right]) {
    if (value === CTX || value === CTX_MOVED || value === CONFLICT) {
      return value === CTX ? CTX_MOVED : value;
    }
  }
  if (constant !== undefined) return isNumber(left) && constant > 0 ? POSITIVE : OTHER;
  return left === U32 && right === U32 ? POSITIVE : OTHER;
}
