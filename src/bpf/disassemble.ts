/**
 * eBPF instructions as text, in the syntax of `bpftool prog dump xlated`:
 *
 *      0: (bf) r6 = r1
 *      1: (79) r0 = *(u64 *)(r1 +8)
 *      2: (25) if r1 > 0x5 goto pc+3
 *
 * Reference: kernel/bpf/disasm.c (print_bpf_insn) of 6.12. `assemble` reads the same syntax, but for moves that
 * make addresses of per-CPU pointers. Left out: arena accesses.
 *
 * Usage:
 *   for (const line of disassemble(insns)) print(`${line.index}: ${line.text}`);
 */
import { imm64, readSlots, type Slot } from './instruction.js';
import {
  ATOMIC,
  atomicOperation,
  OPCODES,
  PERCPU_MOVE,
  PSEUDO,
  type Opcode,
  type Size,
} from './opcodes.js';

/** Names that make a listing readable; each may give undefined for "no name". */
export interface DisassemblyNames {
  /** What a call shows after `call `: default `pc+5` for local calls, `helper#5` else. */
  readonly call?: (slot: Slot, index: number) => string | undefined;
  /** What ld_imm64 loads: default the constant, `map[fd:N]` or `subprog[+N]`. */
  readonly constant?: (value: bigint, slot: Slot, index: number) => string | undefined;
}

export interface DisassembledLine {
  /** Slot number. */
  readonly index: number;
  /** Slots it takes: 2 for ld_imm64. */
  readonly slots: 1 | 2;
  /** Without index: `(bf) r6 = r1`. */
  readonly text: string;
}

export function disassemble(insns: Uint8Array, names: DisassemblyNames = {}): DisassembledLine[] {
  const slots = readSlots(insns);
  const lines: DisassembledLine[] = [];
  for (let index = 0; index < slots.length; index++) {
    const slot = slots[index] as Slot;
    const second = OPCODES[slot.code]?.kind === 'ld_imm64' ? slots[index + 1] : undefined;
    const text = disassembleSlot(slot, second, index, names);
    lines.push({ index, slots: second ? 2 : 1, text: `(${hex8(slot.code)}) ${text}` });
    if (second) index++;
  }
  return lines;
}

/** One instruction without the opcode in parentheses. `second` is the other slot of ld_imm64. */
export function disassembleSlot(
  slot: Slot,
  second: Slot | undefined,
  index = 0,
  names: DisassemblyNames = {},
): string {
  const opcode = OPCODES[slot.code];
  if (!opcode) return `BUG_${hex8(slot.code)}`;
  const { dst, src, off, imm } = slot;
  switch (opcode.kind) {
    case 'alu':
      return disassembleAlu(slot, opcode);
    case 'neg':
      return `${letter(opcode.width)}${dst} = -${letter(opcode.width)}${dst}`;
    case 'end': {
      const name = opcode.to === 'swap' ? 'bswap' : opcode.to;
      return `r${dst} = ${name}${imm} r${dst}`;
    }
    case 'jump': {
      const left = `${letter(opcode.width)}${dst} ${opcode.symbol}`;
      const right =
        opcode.source === 'register' ? `${letter(opcode.width)}${src}` : `0x${hex(imm)}`;
      return `if ${left} ${right} goto pc${signed(off)}`;
    }
    case 'goto':
      return opcode.long ? `gotol pc${signed(imm)}` : `goto pc${signed(off)}`;
    case 'may_goto':
      return `may_goto pc${signed(off)}`;
    case 'call':
      return disassembleCall(slot, opcode.source, index, names);
    case 'exit':
      return 'exit';
    case 'tail_call':
      return 'tail_call';
    case 'nospec':
      return 'nospec';
    case 'load': {
      const type = `${opcode.signed ? 's' : 'u'}${opcode.size * 8}`;
      const probe = opcode.probe ? 'probe ' : '';
      return `r${dst} = ${probe}*(${type} *)(r${src} ${signed(off)})`;
    }
    case 'store':
      return `${place(opcode.size, dst, off)} = ${opcode.source === 'register' ? `r${src}` : imm}`;
    case 'atomic':
      return disassembleAtomic(slot, opcode.size);
    case 'ld_imm64':
      return second
        ? `r${dst} = ${constantText(slot, second, index, names)}`
        : `BUG_ld_${hex8(slot.code)}`;
    case 'packet_load':
      return opcode.mode === 'abs'
        ? `r0 = *(u${opcode.size * 8} *)skb[${imm}]`
        : `r0 = *(u${opcode.size * 8} *)skb[r${src} + ${imm}]`;
  }
}

function disassembleAlu(slot: Slot, opcode: Opcode & { readonly kind: 'alu' }): string {
  const register = letter(opcode.width);
  if (opcode.op === 'mov' && opcode.width === 64 && slot.off === PERCPU_MOVE) {
    return `r${slot.dst} = &(void __percpu *)(r${slot.src})`;
  }
  const isSigned = (opcode.op === 'div' || opcode.op === 'mod') && slot.off === 1;
  const symbol = isSigned ? `s${opcode.symbol}` : opcode.symbol;
  const extension = opcode.op === 'mov' && slot.off !== 0 ? `(s${slot.off})` : '';
  const right = opcode.source === 'register' ? `${extension}${register}${slot.src}` : `${slot.imm}`;
  return `${register}${slot.dst} ${symbol} ${right}`;
}

function disassembleCall(
  slot: Slot,
  source: 'immediate' | 'register',
  index: number,
  names: DisassemblyNames,
): string {
  if (source === 'register') return `callx r${slot.dst}`;
  const name = names.call?.(slot, index);
  if (name !== undefined) return `call ${name}`;
  if (slot.src === PSEUDO.CALL) return `call pc${signed(slot.imm)}`;
  return slot.src === PSEUDO.KFUNC_CALL
    ? `call kernel-function#${slot.imm}`
    : `call helper#${slot.imm}`;
}

function disassembleAtomic(slot: Slot, size: Size): string {
  const op = atomicOperation(slot.imm, size);
  const { dst, src, off } = slot;
  const suffix = size === 8 ? '64' : '';
  const row = ATOMIC.find(({ imm }) => imm === slot.imm);
  switch (op) {
    case undefined:
      return `BUG_${hex8(slot.code)}`;
    case 'load_acquire':
      return `r${dst} = load_acquire(${pointer(size, src, off)})`;
    case 'store_release':
      return `store_release(${pointer(size, dst, off)}, r${src})`;
    case 'cmpxchg':
      return `r0 = atomic${suffix}_cmpxchg(${pointer(size, dst, off)}, r0, r${src})`;
    case 'add':
    case 'or':
    case 'and':
    case 'xor':
      return `lock ${place(size, dst, off)} ${row?.symbol} r${src}`;
    default:
      return `r${src} = atomic${suffix}_${op}(${pointer(size, dst, off)}, r${src})`;
  }
}

function constantText(slot: Slot, second: Slot, index: number, names: DisassemblyNames): string {
  const value = imm64(slot, second);
  const name = names.constant?.(value, slot, index);
  if (name !== undefined) return name;
  switch (slot.src) {
    case PSEUDO.MAP_FD:
      return `map[fd:${slot.imm}]`;
    case PSEUDO.MAP_VALUE:
      return `map[fd:${slot.imm}][0]+${second.imm >>> 0}`;
    case PSEUDO.FUNC:
      return `subprog[${signed(slot.imm)}]`;
    default:
      return `0x${value.toString(16)}`;
  }
}

function pointer(size: Size, register: number, off: number): string {
  return `(u${size * 8} *)(r${register} ${signed(off)})`;
}

function place(size: Size, register: number, off: number): string {
  return `*${pointer(size, register, off)}`;
}

function letter(width: 32 | 64): 'w' | 'r' {
  return width === 32 ? 'w' : 'r';
}

function signed(value: number): string {
  return value < 0 ? `${value}` : `+${value}`;
}

function hex(value: number): string {
  return (value >>> 0).toString(16);
}

function hex8(value: number): string {
  return value.toString(16).padStart(2, '0');
}
