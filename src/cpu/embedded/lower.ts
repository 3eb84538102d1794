/**
 * Lowers a decoded instruction to a record of micro-operation and operands.
 *
 * The only place where the engine looks at the instruction table: what to do comes from the row's
 * `sem`, with what from the fields. Frequent forms become operations of the hot switch, the others
 * general ones.
 */
import { high32, low32 } from '../../common/bytes.js';
import type { Decoded } from '../../a64/codec.js';
import type { AccessBytes, AtomicOperation, Semantics } from '../../a64/semantics.js';
import { decodeLogical } from '../../a64/immediates.js';
import { CONDITION_MASKS, SINK_SLOT, ZERO_SLOT } from './core.js';
import { BTYPE } from './landing.js';
import {
  ACCESS,
  AMOUNT_SHIFT,
  FLAGS,
  INCREMENT,
  INVERT,
  KIND_SHIFT,
  LOGIC_CONSTANT,
  LOGIC_SHIFT,
  OP,
  PAIR,
  SIGNED,
  SUBTRACT,
  WIDE,
} from './operations.js';

/** What goes into a record, before packing. */
export interface Lowered {
  readonly op: number;
  readonly d?: number;
  readonly n?: number;
  readonly m?: number;
  readonly a?: number;
  readonly b?: number;
}

type Get = (name: string) => number;
type Of<K extends Semantics['kind']> = Extract<Semantics, { kind: K }>;

const source = (register: number): number => (register === 31 ? ZERO_SLOT : register);
const target = (register: number): number => (register === 31 ? SINK_SLOT : register);

const SHIFT_KINDS = ['lsl', 'lsr', 'asr', 'ror'];
const REVERSALS = ['rbit', 'rev16', 'rev32', 'rev64', 'clz', 'cls'];
export const ATOMIC_OPERATIONS: readonly AtomicOperation[] = [
  'add',
  'clr',
  'eor',
  'set',
  'smax',
  'smin',
  'umax',
  'umin',
  'swp',
];

/** BR through x16 or x17 is what PLTs use: it may also come to where only calls may. */
function branchType(link: boolean, register: number): number {
  if (link) return BTYPE.CALL;
  return register === 16 || register === 17 ? BTYPE.PLT : BTYPE.JUMP;
}

/** Operands of `decoded` at address `pc`. */
export function lower({ row, fields }: Decoded, pc: bigint, word: number): Lowered {
  const get: Get = (name) => fields[name] ?? 0;
  const { sem } = row;
  const wide = get('sf') === 1;
  const d = target(get('Rd'));
  const n = source(get('Rn'));
  const m = source(get('Rm'));
  switch (sem.kind) {
    case 'arithmetic':
      return arithmetic(sem, get);
    case 'logical':
      return logical(sem, get);
    case 'moveWide':
      return moveWide(sem, get);
    case 'address': {
      const immediate = BigInt(get('immhi') * 4 + get('immlo'));
      const address = sem.page ? (pc & ~0xfffn) + (immediate << 12n) : pc + immediate;
      return constant(d, address);
    }
    case 'bitfield':
      return bitfield(sem, get);
    case 'extract':
      return { op: OP.EXTRACT, d, n, m, a: wide ? WIDE : 0, b: get('imms') };
    case 'conditionalSelect': {
      const a = (wide ? WIDE : 0) | (sem.invert ? INVERT : 0) | (sem.increment ? INCREMENT : 0);
      return { op: OP.SELECT, d, n, m, a, b: CONDITION_MASKS[get('cond')] as number };
    }
    case 'conditionalCompare': {
      // d holds the immediate, m the register
      const immediate = sem.operand === 'immediate';
      const a =
        (wide ? WIDE : 0) |
        (sem.operation === 'sub' ? SUBTRACT : 0) |
        (immediate ? INVERT : 0) |
        (get('nzcv') << KIND_SHIFT) |
        (get('imm5') << AMOUNT_SHIFT);
      const b = CONDITION_MASKS[get('cond')] as number;
      return { op: OP.COMPARE, d: SINK_SLOT, n, m, a, b };
    }
    case 'multiply': {
      const a =
        (sem.operation === 'sub' ? SUBTRACT : 0) |
        (sem.long === 'no' && !wide ? 0 : WIDE) |
        (sem.long === 'signed' ? SIGNED : 0) |
        (sem.long === 'unsigned' ? INVERT : 0);
      return { op: OP.MULTIPLY, d, n, m, a, b: source(get('Ra')) };
    }
    case 'multiplyHigh':
      return { op: OP.MULTIPLY_HIGH, d, n, m, a: sem.signed ? SIGNED : 0 };
    case 'divide':
      return { op: OP.DIVIDE, d, n, m, a: (wide ? WIDE : 0) | (sem.signed ? SIGNED : 0) };
    case 'shiftVariable': {
      const kind = SHIFT_KINDS.indexOf(sem.operation);
      return { op: OP.SHIFT, d, n, m, a: (wide ? WIDE : 0) | (kind << KIND_SHIFT) };
    }
    case 'reverse': {
      const kind = REVERSALS.indexOf(sem.operation);
      const is64 = wide || row.name === 'REV32' || row.name === 'REV_64';
      return { op: OP.REVERSE, d, n, a: (is64 ? WIDE : 0) | (kind << KIND_SHIFT) };
    }
    case 'crc32':
      return { op: OP.CRC, d, n, m, a: get('sz'), b: get('C') === 1 ? 0x82f63b78 : 0xedb88320 };
    case 'branch':
      return { op: sem.link ? OP.BL : OP.B, d: sem.link ? 30 : SINK_SLOT, a: get('imm26') * 4 };
    case 'branchConditional': {
      const b = CONDITION_MASKS[get('cond')] as number;
      return { op: OP.BCOND, d: SINK_SLOT, a: get('imm19') * 4, b };
    }
    case 'compareBranch': {
      const ops = sem.nonzero ? [OP.CBNZ32, OP.CBNZ64] : [OP.CBZ32, OP.CBZ64];
      const op = ops[get('sf')] as number;
      return { op, d: SINK_SLOT, n: source(get('Rt')), a: get('imm19') * 4 };
    }
    case 'testBranch':
      return {
        op: sem.nonzero ? OP.TBNZ : OP.TBZ,
        d: SINK_SLOT,
        n: source(get('Rt')),
        m: get('b5'),
        a: get('imm14') * 4,
        b: 1 << get('b40'),
      };
    case 'branchRegister':
      return {
        op: sem.link ? OP.BLR : OP.BR,
        d: sem.link ? 30 : SINK_SLOT,
        n,
        a: sem.returns ? BTYPE.NONE : branchType(sem.link, n),
      };
    case 'load':
    case 'store':
      return access(sem, get);
    case 'loadPair':
    case 'storePair':
      return pair(sem, get);
    case 'loadExclusive':
    case 'storeExclusive': {
      const size = sem.pair ? 2 + get('sf') : get('size');
      const load = sem.kind === 'loadExclusive';
      const register = load ? target : source;
      return {
        op: load ? OP.LOAD_EXCLUSIVE : OP.STORE_EXCLUSIVE,
        d: load ? target(get('Rt')) : target(get('Rs')),
        n: get('Rn'),
        m: sem.pair ? register(get('Rt2')) : SINK_SLOT,
        a: size | (sem.pair ? PAIR : 0),
        b: source(get('Rt')),
      };
    }
    case 'atomic':
      return {
        op: OP.ATOMIC,
        d: target(get('Rt')),
        n: get('Rn'),
        m: source(get('Rs')),
        a: get('size'),
        b: ATOMIC_OPERATIONS.indexOf(sem.operation),
      };
    case 'compareAndSwap': {
      const base = { n: get('Rn') };
      // Rs of CASP is even, so below 31
      if (sem.pair) return { op: OP.SWAP_PAIR, d: get('Rs'), m: get('Rt'), ...base, a: get('sf') };
      return { op: OP.SWAP, d: target(get('Rs')), m: source(get('Rt')), ...base, a: get('size') };
    }
    case 'clearExclusive':
      return { op: OP.CLEAR_EXCLUSIVE, d: SINK_SLOT };
    case 'nothing':
      return { op: OP.NOP, d: SINK_SLOT };
    case 'stripLink':
      return { op: OP.STRIP, d: 30 };
    case 'readSystem':
    case 'writeSystem': {
      const read = sem.kind === 'readSystem';
      const rt = get('Rt');
      return {
        op: read ? OP.READ_SYSTEM : OP.WRITE_SYSTEM,
        d: read ? target(rt) : source(rt),
        a: word,
      };
    }
    case 'writePstate':
      return { op: OP.WRITE_PSTATE, d: SINK_SLOT, a: word };
    case 'trap':
    case 'undefined':
      return { op: sem.kind === 'trap' ? OP.TRAP : OP.UNDEFINED, d: SINK_SLOT, a: word };
  }
}

function constant(d: number, value: bigint): Lowered {
  return { op: OP.CONST, d, a: low32(value), b: high32(value) };
}

function arithmetic(sem: Of<'arithmetic'>, get: Get): Lowered {
  const wide = get('sf') === 1;
  const subtract = sem.operation === 'sub';
  const a = (wide ? WIDE : 0) | (subtract ? SUBTRACT : 0) | (sem.flags ? FLAGS : 0);
  const zero = { d: target(get('Rd')), n: source(get('Rn')), m: source(get('Rm')) };
  const stack = { d: sem.flags ? zero.d : get('Rd'), n: get('Rn') };
  switch (sem.operand) {
    case 'immediate': {
      const value = get('imm12') << (get('sh') * 12);
      if (!sem.flags) {
        const signed = subtract ? -value : value;
        return { op: wide ? OP.ADD64I : OP.ADD32I, ...stack, a: signed, b: signed >> 31 };
      }
      if (subtract) return { op: wide ? OP.SUBS64I : OP.SUBS32I, ...stack, a: value };
      return { op: OP.ARITH_IMMEDIATE, ...stack, a, b: value };
    }
    case 'shifted': {
      const amount = get('imm6');
      if (amount === 0) {
        if (!sem.flags) {
          const ops = subtract ? [OP.SUB32, OP.SUB64] : [OP.ADD32, OP.ADD64];
          return { op: ops[get('sf')] as number, ...zero };
        }
        if (subtract) return { op: wide ? OP.SUBS64 : OP.SUBS32, ...zero };
      }
      const kind = (get('shift') << KIND_SHIFT) | (amount << AMOUNT_SHIFT);
      return { op: OP.ARITH_SHIFTED, ...zero, a: a | kind };
    }
    case 'extended': {
      const kind = (get('option') << KIND_SHIFT) | (get('imm3') << AMOUNT_SHIFT);
      return { op: OP.ARITH_EXTENDED, ...zero, ...stack, a: a | kind };
    }
    case 'carry':
      return { op: OP.ARITH_CARRY, ...zero, a };
  }
}

const LOGICAL_KINDS = ['and', 'orr', 'eor'];

function logical(sem: Of<'logical'>, get: Get): Lowered {
  const wide = get('sf') === 1;
  const n = source(get('Rn'));
  const d = target(get('Rd'));
  const kind = LOGICAL_KINDS.indexOf(sem.operation);
  if (sem.operand === 'immediate') {
    const mask = decodeLogical(get('N'), get('immr'), get('imms'), wide ? 64 : 32) ?? 0n;
    const operands = { n, a: low32(mask), b: high32(mask) };
    if (sem.flags) return { op: OP.TEST_IMMEDIATE, d, m: wide ? 1 : 0, ...operands };
    const stack = get('Rd');
    if (sem.operation === 'orr' && n === ZERO_SLOT) return constant(stack, mask);
    if (wide || sem.operation === 'and') {
      return { op: [OP.AND64I, OP.ORR64I, OP.EOR64I][kind] as number, d: stack, ...operands };
    }
    return {
      op: OP.LOGIC_SHIFTED,
      d: stack,
      n,
      a: (kind << LOGIC_SHIFT) | LOGIC_CONSTANT,
      b: low32(mask),
    };
  }
  const m = source(get('Rm'));
  if (get('imm6') === 0 && !sem.flags && !sem.invert) {
    const ops = wide ? [OP.AND64, OP.ORR64, OP.EOR64] : [OP.AND32, OP.ORR32, OP.EOR32];
    return { op: ops[kind] as number, d, n, m };
  }
  const a =
    (wide ? WIDE : 0) |
    (sem.flags ? FLAGS : 0) |
    (sem.invert ? INVERT : 0) |
    (kind << LOGIC_SHIFT) |
    (get('shift') << KIND_SHIFT) |
    (get('imm6') << AMOUNT_SHIFT);
  return { op: OP.LOGIC_SHIFTED, d, n, m, a };
}

function moveWide(sem: Of<'moveWide'>, get: Get): Lowered {
  const d = target(get('Rd'));
  const wide = get('sf') === 1;
  if (sem.operation === 'movk') {
    return { op: wide ? OP.MOVK64 : OP.MOVK32, d, a: get('imm16'), b: get('hw') };
  }
  const value = BigInt(get('imm16')) << BigInt(16 * get('hw'));
  return constant(d, sem.operation === 'movz' ? value : BigInt.asUintN(wide ? 64 : 32, ~value));
}

function bitfield(sem: Of<'bitfield'>, get: Get): Lowered {
  const wide = get('sf') === 1;
  const [immr, imms] = [get('immr'), get('imms')];
  const operands = { d: target(get('Rd')), n: source(get('Rn')) };
  const last = wide ? 63 : 31;
  if (sem.operation === 'ubfm') {
    if (wide && imms === 63) return { op: OP.LSR64I, ...operands, a: immr };
    if (wide && imms + 1 === immr) return { op: OP.LSL64I, ...operands, a: 63 - imms };
    // bits imms..immr move down, or bits imms..0 up to 32 - immr
    if (!wide && imms >= immr) {
      return { op: OP.UBF32, ...operands, a: 31 - imms, b: 31 - imms + immr };
    }
    if (!wide) return { op: OP.UBF32, ...operands, a: 31 - imms, b: immr - imms - 1 };
  }
  if (sem.operation === 'sbfm' && wide && imms === last) {
    return { op: OP.ASR64I, ...operands, a: immr };
  }
  const op = { sbfm: OP.SBFM, bfm: OP.BFM, ubfm: OP.UBFM }[sem.operation];
  return { op, ...operands, a: wide ? WIDE : 0, b: immr | (imms << 8) };
}

function sizeOf(bytes: AccessBytes, get: Get): number {
  if (bytes === 'sf') return 2 + get('sf');
  return bytes === 'size' ? get('size') : Math.log2(bytes);
}

const HOT_LOADS = [OP.LDRB, OP.LDRH, OP.LDR32, OP.LDR64];
const HOT_STORES = [OP.STRB, OP.STRH, OP.STR32, OP.STR64];

function access(sem: Of<'load'> | Of<'store'>, get: Get): Lowered {
  const load = sem.kind === 'load';
  const size = sizeOf(sem.bytes, get);
  const signed = sem.kind === 'load' && sem.signed;
  const d = load ? target(get('Rt')) : source(get('Rt'));
  const base = { d, n: get('Rn') };
  const flags =
    size |
    (signed ? ACCESS.SIGNED : 0) |
    (signed && get('opc0') === 1 ? ACCESS.TO32 : 0) |
    (sem.ordered ? ACCESS.ORDERED : 0);
  const op = load ? OP.LOAD : OP.STORE;
  const plain = (offset: number): Lowered => {
    if (signed || sem.ordered) return { op, ...base, a: offset, b: flags };
    const hot = (load ? HOT_LOADS : HOT_STORES)[size] as number;
    return { op: hot, ...base, a: offset, b: offset >> 31 };
  };
  switch (sem.addressing) {
    case 'base':
      return plain(0);
    case 'unsigned':
      return plain(get('imm12') << size);
    case 'unscaled':
      return plain(get('imm9'));
    case 'post':
      return { op, ...base, a: get('imm9'), b: flags | ACCESS.POST };
    case 'pre':
      return { op, ...base, a: get('imm9'), b: flags | ACCESS.PRE };
    case 'register': {
      const shift = get('S') === 1 ? size : 0;
      const b = flags | ACCESS.REGISTER | (get('option') << 8) | (shift << 12);
      return { op, ...base, m: source(get('Rm')), b };
    }
    case 'literal': {
      return { op, d, n: ZERO_SLOT, a: get('imm19') * 4, b: flags | ACCESS.LITERAL };
    }
    case 'offset':
      throw new RangeError('addressing of pairs');
  }
}

function pair(sem: Of<'loadPair'> | Of<'storePair'>, get: Get): Lowered {
  const load = sem.kind === 'loadPair';
  const size = sizeOf(sem.bytes, get);
  const register = load ? target : source;
  const operands = { d: register(get('Rt')), n: get('Rn'), m: register(get('Rt2')) };
  const offset = get('imm7') << size;
  const [first, writeback] = { offset: [offset, 0], post: [0, offset], pre: [offset, offset] }[
    sem.addressing
  ] as [number, number];
  if (size === 3) return { op: load ? OP.LDP64 : OP.STP64, ...operands, a: first, b: writeback };
  const b = (sem.kind === 'loadPair' && sem.signed ? ACCESS.SIGNED : 0) | (writeback << 8);
  return { op: load ? OP.LOAD_PAIR : OP.STORE_PAIR, ...operands, a: first, b };
}
