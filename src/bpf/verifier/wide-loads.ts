/**
 * The loads that stand alone: 64-bit immediates, and the packet loads of classic BPF.
 *
 * Reference: check_ld_imm, check_ld_abs in kernel/bpf/verifier.c.
 */
import { imm64, type Slot } from '../instruction.js';
import { PSEUDO } from '../opcodes.js';
import { refusedMap } from './context.js';
import type { Env } from './env.js';
import { refuseLeaks } from './references.js';
import { constScalar, unsignedScalar } from './scalar.js';
import { Pointer, type Value } from './value.js';

/** What ld_imm64 loads: a number, a map or its value, a function, a variable. */
export function constantAt(env: Env, slot: Slot): Value {
  const second = env.function.slots[env.at + 1] as Slot;
  if (slot.src === PSEUDO.FUNC) return new Pointer('function', { frame: second.off });
  const reference = env.function.references.get(env.at);
  if (!reference) {
    if (slot.src !== 0) env.refuse('EINVAL', 'unrecognized bpf_ld_imm64 insn');
    return constScalar(imm64(slot, second));
  }
  const refused = reference.kind !== 'memory' && refusedMap(env.input, reference.map);
  if (refused) env.refuse('EINVAL', refused);
  switch (reference.kind) {
    case 'map':
      return new Pointer('map', { map: reference.map });
    case 'value':
      return new Pointer('map_value', { map: reference.map, off: reference.offset });
    case 'memory':
      return new Pointer('mem', { size: reference.size, readOnly: reference.readOnly });
  }
}

/** A classic load from a socket buffer, whose address is in R6. */
export function packetLoad(env: Env, slot: Slot, isIndirect: boolean): void {
  if (env.input.kind !== 'tc' && env.input.kind !== 'socket') {
    env.refuse('EINVAL', 'BPF_LD_[ABS|IND] instructions not allowed for this program type');
  }
  refuseLeaks(env, 'BPF_LD_[ABS|IND]');
  const base = env.read(6);
  if (base.kind !== 'pointer' || base.type !== 'ctx') {
    env.refuse('EINVAL', 'at the time of BPF_LD_ABS|IND R6 != pointer to skb');
  }
  if (isIndirect) env.read(slot.src);
  const { regs } = env.frame;
  regs.fill(undefined, 0, 6);
  regs[0] = unsignedScalar(0xffff_ffffn);
}
