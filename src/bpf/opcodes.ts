/**
 * The one table of eBPF opcodes: ISA v1 to v4 and the forms that only exist after the verifier.
 *
 * Decoder, validator, disassembler, assembler and interpreter look instructions up here. Reference:
 * RFC 9669 (BPF ISA), include/uapi/linux/bpf.h, include/linux/filter.h (kernel-internal opcodes).
 * An opcode byte is
 *
 *   ALU, JMP    oooo s ccc   operation, source (0 immediate, 1 register), class
 *   LD, ST      mmm zz ccc   mode, size (W 0, H 1, B 2, DW 3), class
 *
 * Left out: arena accesses (PROBE_MEM32, PROBE_ATOMIC), gotox.
 */

export const CLASS = { LD: 0, LDX: 1, ST: 2, STX: 3, ALU: 4, JMP: 5, JMP32: 6, ALU64: 7 } as const;

/** Values of src_reg that change what an instruction means. */
export const PSEUDO = {
  MAP_FD: 1,
  MAP_VALUE: 2,
  BTF_ID: 3,
  FUNC: 4,
  MAP_IDX: 5,
  MAP_IDX_VALUE: 6,
  /** in a call: imm is relative, or off is the callee's index in an xlated program */
  CALL: 1,
  KFUNC_CALL: 2,
} as const;

/** BPF_ADDR_PERCPU: off of a 64-bit move that makes an address of a per-CPU pointer. Kernel-internal. */
export const PERCPU_MOVE = -1;

type Source = 'immediate' | 'register';
export type Width = 32 | 64;
export type Size = 1 | 2 | 4 | 8;

export type AluOperation =
  'add' | 'sub' | 'mul' | 'div' | 'or' | 'and' | 'lsh' | 'rsh' | 'mod' | 'xor' | 'mov' | 'arsh';

export type JumpOperation =
  'jeq' | 'jgt' | 'jge' | 'jset' | 'jne' | 'jsgt' | 'jsge' | 'jlt' | 'jle' | 'jslt' | 'jsle';

export type Opcode =
  | {
      readonly kind: 'alu';
      readonly op: AluOperation;
      readonly width: Width;
      readonly source: Source;
      readonly symbol: string;
    }
  | { readonly kind: 'neg'; readonly width: Width }
  /** Byte swap: to little endian, to big endian, unconditional. imm is the width in bits. */
  | { readonly kind: 'end'; readonly to: 'le' | 'be' | 'swap' }
  | {
      readonly kind: 'jump';
      readonly op: JumpOperation;
      readonly width: Width;
      readonly source: Source;
      readonly symbol: string;
    }
  /** Unconditional jump; `long` takes its distance from imm. */
  | { readonly kind: 'goto'; readonly long: boolean }
  | { readonly kind: 'may_goto' }
  | { readonly kind: 'call'; readonly source: Source }
  | { readonly kind: 'exit' }
  /** Kernel-internal: what helper 12 becomes. */
  | { readonly kind: 'tail_call' }
  /** `probe`: kernel-internal, a faulting load gives 0. */
  | {
      readonly kind: 'load';
      readonly size: Size;
      readonly signed: boolean;
      readonly probe: boolean;
    }
  | { readonly kind: 'store'; readonly size: Size; readonly source: Source }
  /** imm says what it does: see `ATOMIC`. */
  | { readonly kind: 'atomic'; readonly size: Size }
  | { readonly kind: 'ld_imm64' }
  /** Kernel-internal: speculation barrier. */
  | { readonly kind: 'nospec' }
  /** Classic packet load; recognised, not runnable here. */
  | { readonly kind: 'packet_load'; readonly mode: 'abs' | 'ind'; readonly size: Size };

export type AtomicOperation =
  | 'add'
  | 'or'
  | 'and'
  | 'xor'
  | 'fetch_add'
  | 'fetch_or'
  | 'fetch_and'
  | 'fetch_xor'
  | 'xchg'
  | 'cmpxchg'
  | 'load_acquire'
  | 'store_release';

/** Atomic operations by imm. `symbol` is the assignment operator of those that fetch nothing. */
export const ATOMIC: readonly {
  readonly imm: number;
  readonly op: AtomicOperation;
  readonly symbol?: string;
}[] = [
  { imm: 0x00, op: 'add', symbol: '+=' },
  { imm: 0x40, op: 'or', symbol: '|=' },
  { imm: 0x50, op: 'and', symbol: '&=' },
  { imm: 0xa0, op: 'xor', symbol: '^=' },
  { imm: 0x01, op: 'fetch_add' },
  { imm: 0x41, op: 'fetch_or' },
  { imm: 0x51, op: 'fetch_and' },
  { imm: 0xa1, op: 'fetch_xor' },
  { imm: 0xe1, op: 'xchg' },
  { imm: 0xf1, op: 'cmpxchg' },
  { imm: 0x100, op: 'load_acquire' },
  { imm: 0x110, op: 'store_release' },
];

const ALU_OPERATIONS: readonly (readonly [number, AluOperation, string])[] = [
  [0x00, 'add', '+='],
  [0x10, 'sub', '-='],
  [0x20, 'mul', '*='],
  [0x30, 'div', '/='],
  [0x40, 'or', '|='],
  [0x50, 'and', '&='],
  [0x60, 'lsh', '<<='],
  [0x70, 'rsh', '>>='],
  [0x90, 'mod', '%='],
  [0xa0, 'xor', '^='],
  [0xb0, 'mov', '='],
  [0xc0, 'arsh', 's>>='],
];

const JUMP_OPERATIONS: readonly (readonly [number, JumpOperation, string])[] = [
  [0x10, 'jeq', '=='],
  [0x20, 'jgt', '>'],
  [0x30, 'jge', '>='],
  [0x40, 'jset', '&'],
  [0x50, 'jne', '!='],
  [0x60, 'jsgt', 's>'],
  [0x70, 'jsge', 's>='],
  [0xa0, 'jlt', '<'],
  [0xb0, 'jle', '<='],
  [0xc0, 'jslt', 's<'],
  [0xd0, 'jsle', 's<='],
];

const SIZES: readonly (readonly [number, Size])[] = [
  [0x00, 4],
  [0x08, 2],
  [0x10, 1],
  [0x18, 8],
];

const SOURCES: readonly (readonly [number, Source])[] = [
  [0x00, 'immediate'],
  [0x08, 'register'],
];

function buildTable(): readonly (Opcode | undefined)[] {
  const table: (Opcode | undefined)[] = Array.from({ length: 256 }, () => undefined);
  for (const [sourceBit, source] of SOURCES) {
    for (const [bits, op, symbol] of ALU_OPERATIONS) {
      table[bits | sourceBit | CLASS.ALU] = { kind: 'alu', op, width: 32, source, symbol };
      table[bits | sourceBit | CLASS.ALU64] = { kind: 'alu', op, width: 64, source, symbol };
    }
    for (const [bits, op, symbol] of JUMP_OPERATIONS) {
      table[bits | sourceBit | CLASS.JMP] = { kind: 'jump', op, width: 64, source, symbol };
      table[bits | sourceBit | CLASS.JMP32] = { kind: 'jump', op, width: 32, source, symbol };
    }
    table[0x80 | sourceBit | CLASS.JMP] = { kind: 'call', source };
  }
  table[0x84] = { kind: 'neg', width: 32 };
  table[0x87] = { kind: 'neg', width: 64 };
  table[0xd4] = { kind: 'end', to: 'le' };
  table[0xdc] = { kind: 'end', to: 'be' };
  table[0xd7] = { kind: 'end', to: 'swap' };
  table[0x05] = { kind: 'goto', long: false };
  table[0x06] = { kind: 'goto', long: true };
  table[0xe5] = { kind: 'may_goto' };
  table[0x95] = { kind: 'exit' };
  table[0xf5] = { kind: 'tail_call' };
  for (const [bits, size] of SIZES) {
    // modes: MEM 0x60, MEMSX 0x80, PROBE_MEM 0x20, PROBE_MEMSX 0x40, ATOMIC 0xc0, ABS 0x20, IND 0x40
    table[0x60 | bits | CLASS.LDX] = { kind: 'load', size, signed: false, probe: false };
    table[0x20 | bits | CLASS.LDX] = { kind: 'load', size, signed: false, probe: true };
    if (size < 8) {
      table[0x80 | bits | CLASS.LDX] = { kind: 'load', size, signed: true, probe: false };
      table[0x40 | bits | CLASS.LDX] = { kind: 'load', size, signed: true, probe: true };
      table[0x20 | bits | CLASS.LD] = { kind: 'packet_load', mode: 'abs', size };
      table[0x40 | bits | CLASS.LD] = { kind: 'packet_load', mode: 'ind', size };
    }
    table[0x60 | bits | CLASS.ST] = { kind: 'store', size, source: 'immediate' };
    table[0x60 | bits | CLASS.STX] = { kind: 'store', size, source: 'register' };
    table[0xc0 | bits | CLASS.STX] = { kind: 'atomic', size };
  }
  table[0x18] = { kind: 'ld_imm64' };
  table[0xc2] = { kind: 'nospec' };
  return table;
}

/** What each opcode byte means; `undefined` for those that mean nothing here. */
export const OPCODES: readonly (Opcode | undefined)[] = buildTable();

/** The atomic operation of an imm that `size` allows, or undefined. */
export function atomicOperation(imm: number, size: Size): AtomicOperation | undefined {
  const op = ATOMIC.find((row) => row.imm === imm)?.op;
  if (size >= 4 || op === 'load_acquire' || op === 'store_release') return op;
  return undefined;
}
