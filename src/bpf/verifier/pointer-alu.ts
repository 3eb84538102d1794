/**
 * Arithmetic with pointers: pointer plus or minus number, and what is refused.
 *
 * Reference: adjust_ptr_min_max_vals, adjust_reg_min_max_vals, check_reg_sane_offset in
 * kernel/bpf/verifier.c, for programs that may see addresses (CAP_PERFMON).
 */
import type { AluOperation } from '../opcodes.js';
import type { Env } from './env.js';
import { constScalar, markPrecise, unknownScalar, type Scalar } from './scalar.js';
import { compute } from './scalar-alu.js';
import { isPacket, typeName, withFields, type Pointer, type Value } from './value.js';

/** BPF_MAX_VAR_OFF */
const MAX_DISTANCE = 1n << 29n;
const S64_MIN = -(1n << 63n);

/** `dst op src` where at least one is a pointer. */
export function pointerArithmetic(
  env: Env,
  op: Exclude<AluOperation, 'mov'>,
  symbol: string,
  width: 32 | 64,
  register: number,
  dst: Value,
  src: Value,
): Value {
  if (dst.kind === 'pointer' && src.kind === 'pointer') {
    if (op === 'sub') return unknownScalar();
    return env.refuse('EACCES', `R${register} pointer ${symbol} pointer prohibited`);
  }
  const pointer = dst.kind === 'pointer' ? dst : (src as Pointer);
  const scalar = dst.kind === 'pointer' ? (src as Scalar) : dst;
  markPrecise(scalar);
  if (width === 32) {
    if (op === 'sub') return unknownScalar();
    return env.refuse('EACCES', `R${register} 32-bit pointer arithmetic prohibited`);
  }
  if (pointer.orNull) {
    env.refuse(
      'EACCES',
      `R${register} pointer arithmetic on ${typeName(pointer)} prohibited, null-check it first`,
    );
  }
  switch (pointer.type) {
    case 'packet_end':
    case 'sock':
    case 'sock_common':
    case 'xdp_sock':
    case 'dynptr':
    case 'function':
      env.refuse('EACCES', `R${register} pointer arithmetic on ${typeName(pointer)} prohibited`);
      break;
    case 'map':
      if (op === 'add' && scalar.is(0n)) return pointer;
      env.refuse('EACCES', `R${register} pointer arithmetic on ${typeName(pointer)} prohibited`);
      break;
    default:
  }
  checkSane(env, scalar, pointer);
  switch (op) {
    case 'add':
      return moved(env, pointer, scalar, false);
    case 'sub':
      if (dst.kind === 'scalar') {
        env.refuse('EACCES', `R${register} tried to subtract pointer from scalar`);
      }
      if (pointer.type === 'stack') {
        env.refuse('EACCES', `R${register} subtraction from stack pointer prohibited`);
      }
      return moved(env, pointer, scalar, true);
    case 'and':
    case 'or':
    case 'xor':
      return env.refuse('EACCES', `R${register} bitwise operator ${symbol} on pointer prohibited`);
    default:
      return env.refuse(
        'EACCES',
        `R${register} pointer arithmetic with ${symbol} operator prohibited`,
      );
  }
}

function moved(env: Env, pointer: Pointer, scalar: Scalar, minus: boolean): Pointer {
  if (scalar.isConst) {
    const by = Number(scalar.smin);
    const off = minus ? pointer.off - by : pointer.off + by;
    const result = withFields(pointer, { off });
    checkSane(env, constScalar(BigInt(off)), pointer);
    return result;
  }
  const before = pointer.variable ?? constScalar(0n);
  const variable = compute(minus ? 'sub' : 'add', 64, before, scalar);
  const fields = isPacket(pointer)
    ? { variable, id: env.nextId(), range: minus && scalar.smin >= 0n ? pointer.range : 0 }
    : { variable };
  const result = withFields(pointer, fields);
  checkSane(env, variable, pointer);
  return result;
}

/** Distances that could wrap around are refused. */
function checkSane(env: Env, scalar: Scalar, pointer: Pointer): void {
  const { smin } = scalar;
  const name = typeName(pointer);
  if (scalar.isConst) {
    if (smin < MAX_DISTANCE && smin > -MAX_DISTANCE) return;
    env.refuse('EINVAL', `math between ${name} pointer and ${smin} is not allowed`);
  }
  if (smin === S64_MIN) {
    env.refuse(
      'EINVAL',
      `math between ${name} pointer and register with unbounded min value is not allowed`,
    );
  }
  if (smin >= MAX_DISTANCE || smin <= -MAX_DISTANCE) {
    env.refuse('EINVAL', `value ${smin} makes ${name} pointer be out of bounds`);
  }
}
