/**
 * Fields that an instruction does not use must be zero, others have known values only.
 *
 * Asked of each instruction that a path reaches, before its registers are looked at; what no path
 * reaches may have anything. Reference: check_alu_op, check_atomic, check_ld_imm, do_check in
 * kernel/bpf/verifier.c. A call's target and a local call's `off` are the linker's business.
 *
 * Usage:
 *   reservedFields(slot, OPCODES[slot.code], functions.length); // 'BPF_MOV uses reserved fields'
 */
import type { Slot } from '../instruction.js';
import { atomicOperation, PSEUDO, type Opcode } from '../opcodes.js';

/** What is wrong; undefined when nothing is. `count` is the number of functions. */
export function reservedFields(slot: Slot, opcode: Opcode, count: number): string | undefined {
  const { dst, src, off, imm } = slot;
  const unless = (ok: boolean, name: string): string | undefined =>
    ok ? undefined : `${name} uses reserved fields`;
  switch (opcode.kind) {
    case 'alu': {
      const isRegister = opcode.source === 'register';
      const divides = opcode.op === 'div' || opcode.op === 'mod';
      const extensions = opcode.width === 64 ? [0, 8, 16, 32] : [0, 8, 16];
      const offsets = divides ? [0, 1] : opcode.op === 'mov' && isRegister ? extensions : [0];
      const ok = offsets.includes(off) && (isRegister ? imm === 0 : src === 0);
      return unless(ok, opcode.op === 'mov' ? 'BPF_MOV' : 'BPF_ALU');
    }
    case 'neg':
      return unless(src === 0 && off === 0 && imm === 0, 'BPF_NEG');
    case 'end':
      return unless(src === 0 && off === 0 && [16, 32, 64].includes(imm), 'BPF_END');
    case 'jump':
      return unless(opcode.source === 'register' ? imm === 0 : src === 0, 'BPF_JMP');
    case 'goto':
      return unless(src === 0 && dst === 0 && (opcode.long ? off : imm) === 0, 'BPF_JA');
    case 'store':
      return opcode.source === 'register'
        ? unless(imm === 0, 'BPF_STX')
        : unless(src === 0, 'BPF_ST');
    case 'atomic':
      return atomicOperation(imm, opcode.size)
        ? undefined
        : `BPF_ATOMIC uses invalid atomic opcode ${(imm & 0xff).toString(16).padStart(2, '0')}`;
    case 'exit':
      return unless(src === 0 && dst === 0 && imm === 0, 'BPF_EXIT');
    case 'call':
      if (opcode.source === 'register') return 'unknown opcode 8d';
      if (dst !== 0 || (src === 0 && off !== 0)) return 'BPF_CALL uses reserved fields';
      if (src === PSEUDO.CALL && (off < 0 || off >= count)) return `call of function ${off}`;
      return undefined;
    case 'packet_load':
      return unless(dst === 0 && off === 0, 'BPF_LD_[ABS|IND]');
    case 'ld_imm64':
      return unless(off === 0, 'BPF_LD_IMM64');
    case 'may_goto':
      return src === 0 && dst === 0 && imm === 0 && off !== 0
        ? undefined
        : `invalid may_goto off ${off} imm ${imm}`;
    case 'load':
    case 'tail_call':
    case 'nospec':
      return undefined;
  }
}
