/**
 * bpf_xdp_get_buff_len and bpf_xdp_adjust_head in place, for packets in one piece, without metadata.
 *
 * Reference: net/core/filter.c. Fragments and metadata are the body's: `helpers/xdp.ts`.
 */
import { ERRNO } from '../../common/errno.js';
import { ETH_HLEN, XDP_BUFF, XDP_FLAGS_HAS_FRAGS, XDP_FRAME_SIZE } from '../xdp-buff.js';
import type { Place } from './access.js';
import type { FunctionContext } from './context.js';
import { OP } from './emitter.js';
import type { InPlace } from './in-place.js';
import { emitSpan } from './span.js';

function emitBuff(context: FunctionContext, insn: number, body: number): Place {
  // the body asks for a buff that it could store to
  const span = { register: 1, size: XDP_BUFF.size, write: true, insn } as const;
  return emitSpan(context, span, context.locals.at, body);
}

export function xdpBuffLength(context: FunctionContext, insn: number): InPlace {
  const { code, locals } = context;
  const write = (body: number): void => {
    const { local, offset } = emitBuff(context, insn, body);
    const push = (field: number): void => void code.get(local).memory(OP.i32_load, offset + field);
    push(XDP_BUFF.flags);
    code.i32(XDP_FLAGS_HAS_FRAGS).op(OP.i32_and).branch(body, OP.br_if);
    push(XDP_BUFF.dataEnd);
    push(XDP_BUFF.data);
    code
      .op(OP.i32_sub)
      .op(OP.i64_extend_i32_s)
      .set(locals.registers[0] as number);
  };
  return { kind: 'partly', write };
}

export function xdpAdjustHead(context: FunctionContext, insn: number): InPlace {
  const { code, locals } = context;
  const r0 = locals.registers[0] as number;
  const write = (body: number): void => {
    const { local, offset } = emitBuff(context, insn, body);
    const push = (field: number): void => void code.get(local).memory(OP.i32_load, offset + field);
    /** A border as distance from data_hard_start. */
    const distance = (field: number): void => {
      push(field);
      push(XDP_BUFF.dataHardStart);
      code.op(OP.i32_sub);
    };
    distance(XDP_BUFF.dataMeta);
    distance(XDP_BUFF.data);
    code.op(OP.i32_lt_s).branch(body, OP.br_if);
    // where the packet would begin: the sum takes more than 32 bits
    distance(XDP_BUFF.data);
    code.op(OP.i64_extend_i32_s);
    code.get(locals.registers[2] as number).op(OP.i64_extend32_s);
    code.op(OP.i64_add).tee(locals.temporary).i64(XDP_FRAME_SIZE).op(OP.i64_lt_s);
    code.get(locals.temporary);
    distance(XDP_BUFF.dataEnd);
    code.op(OP.i64_extend_i32_s).i64(ETH_HLEN).op(OP.i64_sub).op(OP.i64_gt_s).op(OP.i32_or);
    code.open(OP.if);
    code.i64(-ERRNO.EINVAL).set(r0);
    code.op(OP.else);
    for (const field of [XDP_BUFF.dataMeta, XDP_BUFF.data]) {
      code.get(local);
      push(field);
      code
        .get(locals.registers[2] as number)
        .op(OP.i32_wrap_i64)
        .op(OP.i32_add);
      code.memory(OP.i32_store, offset + field);
    }
    code.i64(0).set(r0).end();
  };
  return { kind: 'partly', write };
}
