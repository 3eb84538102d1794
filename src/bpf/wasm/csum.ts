/**
 * bpf_csum_diff in place, as kernels up to 6.12 have it: sizes are multiples of 4 and at most 512 together.
 *
 * Other sizes, and memory that is not there, are the body's: `helpers/checksum.ts`.
 */
import { MAX_DIFF } from '../helpers/checksum.js';
import type { FunctionContext, ModuleContext } from './context.js';
import { I32, I64, OP, type CodeWriter } from './emitter.js';
import type { InPlace } from './in-place.js';
import { spanBits, spanClass } from './span.js';
import { ACCESS } from './state.js';

export function csumDiff(context: FunctionContext, insn: number): InPlace {
  const { code, locals, program } = context;
  const { registers, at, second, temporary } = locals;
  const sum = (register: 1 | 3, into: number, body: number): void => {
    const kind = spanClass(context, insn, register);
    code.get(registers[register] as number).get(registers[register + 1] as number);
    code.op(OP.i32_wrap_i64).i32(program.site(context.plan, insn)).i32(spanBits(kind, false));
    code.i32(kind.slot).call(sumFunction(program)).tee(into);
    code.i32(0).op(OP.i32_lt_s).branch(body, OP.br_if);
  };
  const size = (register: 2 | 4): void =>
    void code.get(registers[register] as number).op(OP.i32_wrap_i64);
  const write = (body: number): void => {
    for (const register of [2, 4] as const) {
      size(register);
      code.i32(MAX_DIFF).op(OP.i32_gt_u).branch(body, OP.br_if);
    }
    size(2);
    size(4);
    code.op(OP.i32_or).i32(3).op(OP.i32_and).branch(body, OP.br_if);
    size(2);
    size(4);
    code.op(OP.i32_add).i32(MAX_DIFF).op(OP.i32_gt_u).branch(body, OP.br_if);
    sum(1, at, body);
    sum(3, second, body);
    // the complement of every 16-bit word of R1, and those of R3
    size(2);
    code.i32(1).op(OP.i32_shr_u).i32(0xffff).op(OP.i32_mul).get(at).op(OP.i32_sub);
    code.get(second).op(OP.i32_add).set(at);
    // twice is enough: the sum of at most 256 words is below 2^24
    for (let fold = 0; fold < 2; fold++) {
      code.get(at).i32(0xffff).op(OP.i32_and).get(at).i32(16).op(OP.i32_shr_u);
      code.op(OP.i32_add).set(at);
    }
    // ones' complement addition of the seed
    code
      .get(registers[5] as number)
      .i64Big(0xffff_ffffn)
      .op(OP.i64_and);
    code.get(at).op(OP.i64_extend_i32_u).op(OP.i64_add).tee(temporary);
    code.i64Big(0xffff_ffffn).op(OP.i64_and).get(temporary).i64(32).op(OP.i64_shr_u);
    code.op(OP.i64_add).set(registers[0] as number);
  };
  return { kind: 'partly', write };
}

/** (address, size, site, bits, slot) -> sum of the little-endian 16-bit words, or -1 where they are not. */
function sumFunction(program: ModuleContext): number {
  return program.shared('sum16', {
    parameters: [I64, I32, I32, I32, I32],
    results: [I32],
    locals: [[2, I32]],
    write: (code) => emitSum(code, program.locate),
  });
}

const ADDRESS = 0;
const SIZE = 1;
const SITE = 2;
const BITS = 3;
const SLOT_AT = 4;
const AT = 5;
const SUM = 6;

function emitSum(code: CodeWriter, locate: number): void {
  const end = code.open(OP.block);
  code.get(SIZE).op(OP.i32_eqz).branch(end, OP.br_if);
  code.get(ADDRESS).get(SITE);
  code.get(SIZE).i32(ACCESS.sizeShift).op(OP.i32_shl).get(BITS).op(OP.i32_or);
  code.get(SLOT_AT).call(locate).tee(AT).i32(0).op(OP.i32_lt_s);
  code.open(OP.if);
  code.i32(-1).op(OP.return).end();
  code.get(SIZE).get(AT).op(OP.i32_add).set(SIZE);
  const again = code.open(OP.loop);
  for (const half of [0, 2]) {
    code.get(SUM).get(AT).memory(OP.i32_load16_u, half).op(OP.i32_add).set(SUM);
  }
  code.get(AT).i32(4).op(OP.i32_add).tee(AT).get(SIZE).op(OP.i32_lt_u).branch(again, OP.br_if);
  code.end().end();
  code.get(SUM);
}
