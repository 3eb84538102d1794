/**
 * Text of A64 instructions in the style of Capstone and LLVM: preferred aliases, small numbers
 * in decimal, others in hexadecimal, branch targets as absolute addresses.
 *
 *   print(0xa9bf7bfd, pc)                    // stp x29, x30, [sp, #-0x10]!
 *   print(0x94000000, pc, symbolOf)          // bl #0xffff800080010000 <memcpy>
 *
 * The table's `asm` templates say which operands an instruction shows; this file says how each kind
 * of operand is written.
 */
import { hex32, u64 } from '../common/bytes.js';
import { decode, type Decoded } from './codec.js';
import type { Fields, Instruction } from './row.js';
import {
  BARRIERS,
  PSTATE_FIELDS,
  prefetchName,
  systemRegisterName,
  type SystemRegisterFields,
} from './system-registers.js';
import { field, logicalMask } from './table/conditions.js';

/** A name for an address, as `symbol+0x10`. */
export type Symbolize = (address: bigint) => string | undefined;

interface Context {
  readonly row: Instruction;
  readonly f: Fields;
  readonly pc: bigint;
  readonly symbolize: Symbolize | undefined;
}

type Part = string | ((context: Context) => string);

const CONDITIONS = 'eq ne hs lo mi pl vs vc hi ls ge lt gt le al nv'.split(' ');
const EXTENDS = 'uxtb uxth uxtw uxtx sxtb sxth sxtw sxtx'.split(' ');
const SHIFTS = 'lsl lsr asr ror'.split(' ');

/** Numbers up to 9 in decimal, others in hexadecimal. */
function number(value: number | bigint): string {
  const magnitude = value < 0 ? -value : value;
  const digits = magnitude > 9 ? `0x${magnitude.toString(16)}` : magnitude.toString();
  return `#${value < 0 ? '-' : ''}${digits}`;
}

/** Whether the transferred or computed register is 64 bits wide. */
function isWide(f: Fields): boolean {
  if (f['sf'] !== undefined) return f['sf'] === 1;
  if (f['opc0'] !== undefined) return f['opc0'] === 0;
  if (f['b5'] !== undefined) return f['b5'] === 1;
  return f['size'] === 3;
}

function register(index: number, wide: boolean, stackPointer = false): string {
  if (index === 31) return stackPointer ? (wide ? 'sp' : 'wsp') : wide ? 'xzr' : 'wzr';
  return `${wide ? 'x' : 'w'}${index}`;
}

function target({ pc, symbolize }: Context, distance: bigint): string {
  const address = u64(pc + distance);
  const name = symbolize?.(address);
  return `#0x${address.toString(16)}${name === undefined ? '' : ` <${name}>`}`;
}

function offset(value: number): string {
  return value === 0 ? '' : `, ${number(value)}`;
}

/** Bytes per unit of a scaled immediate. */
function accessSize({ row, f }: Context): number {
  const { sem } = row;
  if (!('bytes' in sem)) return 8;
  if (sem.bytes === 'sf') return f['sf'] === 1 ? 8 : 4;
  if (sem.bytes === 'size') return 1 << field(f, 'size');
  return sem.bytes;
}

function shifted(shift: number, amount: number): string {
  return shift === 0 && amount === 0 ? '' : `, ${SHIFTS[shift]} #${amount}`;
}

/** Extension of an add/subtract operand; UXTX (UXTW for W) beside SP is written as LSL. */
function extension(f: Fields, usesSp: boolean): string {
  const option = field(f, 'option');
  const amount = field(f, 'imm3');
  if (usesSp && option === (isWide(f) ? 3 : 2))
    return amount === 0 ? '' : `, lsl ${number(amount)}`;
  return `, ${EXTENDS[option]}${amount === 0 ? '' : ` ${number(amount)}`}`;
}

function movedImmediate(f: Fields, invert: boolean): string {
  const value = BigInt(field(f, 'imm16')) << BigInt(16 * field(f, 'hw'));
  const width = isWide(f) ? 64 : 32;
  return number(BigInt.asIntN(width, invert ? ~value : value));
}

/** Operand formats by the name they have between angle brackets. */
const FORMATS: Readonly<Record<string, (context: Context) => string>> = {
  imm5: ({ f }) => number(field(f, 'imm5')),
  imm7: (c) => number(field(c.f, 'imm7') * accessSize(c)),
  imm9: ({ f }) => number(field(f, 'imm9')),
  imm12: ({ f }) => number(field(f, 'imm12')),
  imm16: ({ f }) => number(field(f, 'imm16')),
  immr: ({ f }) => number(field(f, 'immr')),
  imms: ({ f }) => number(field(f, 'imms')),
  nzcv: ({ f }) => number(field(f, 'nzcv')),
  CRm: ({ f }) => number(field(f, 'CRm')),
  sh: ({ f }) => (f['sh'] === 1 ? ', lsl #12' : ''),
  hw: ({ f }) => (f['hw'] === 0 ? '' : `, lsl #${16 * field(f, 'hw')}`),
  movz: ({ f }) => movedImmediate(f, false),
  movn: ({ f }) => movedImmediate(f, true),
  bitmask: ({ f }) => number(logicalMask(f) ?? 0n),
  bitmaskValue: ({ f }) => number(BigInt.asIntN(isWide(f) ? 64 : 32, logicalMask(f) ?? 0n)),
  shift: ({ f }) => shifted(field(f, 'shift'), field(f, 'imm6')),
  extendedRm: ({ f }) => register(field(f, 'Rm'), isWide(f) && (field(f, 'option') & 3) === 3),
  extend: ({ row, f }) => {
    const flags = row.sem.kind === 'arithmetic' && row.sem.flags;
    return extension(f, f['Rn'] === 31 || (!flags && f['Rd'] === 31));
  },
  cond: ({ f }) => CONDITIONS[field(f, 'cond')] as string,
  inverseCond: ({ f }) => CONDITIONS[field(f, 'cond') ^ 1] as string,
  lsl: ({ f }) => number((isWide(f) ? 63 : 31) - field(f, 'imms')),
  insertLsb: ({ f }) => number((isWide(f) ? 64 : 32) - field(f, 'immr')),
  insertWidth: ({ f }) => number(field(f, 'imms') + 1),
  extractWidth: ({ f }) => number(field(f, 'imms') - field(f, 'immr') + 1),
  crcKind: ({ f }) => `${f['C'] === 1 ? 'c' : ''}${'bhwx'[field(f, 'sz')]}`,
  crcRm: ({ f }) => register(field(f, 'Rm'), f['sz'] === 3),

  adr: (c) => target(c, BigInt(field(c.f, 'immhi') * 4 + field(c.f, 'immlo'))),
  adrp: (c) => {
    const pages = BigInt(field(c.f, 'immhi') * 4 + field(c.f, 'immlo'));
    return target({ ...c, pc: c.pc & ~0xfffn }, pages << 12n);
  },
  imm14: (c) => target(c, BigInt(field(c.f, 'imm14') * 4)),
  imm19: (c) => target(c, BigInt(field(c.f, 'imm19') * 4)),
  imm26: (c) => target(c, BigInt(field(c.f, 'imm26') * 4)),
  bit: ({ f }) => number(field(f, 'b5') * 32 + field(f, 'b40')),

  offset7: (c) => offset(field(c.f, 'imm7') * accessSize(c)),
  offset9: ({ f }) => offset(field(f, 'imm9')),
  offset12: (c) => offset(field(c.f, 'imm12') * accessSize(c)),
  prfmOffset: ({ f }) => offset(field(f, 'imm12') * 8),
  offsetRm: ({ f }) => register(field(f, 'Rm'), (field(f, 'option') & 1) === 1),
  offsetExtend: (c) => {
    const option = field(c.f, 'option');
    const scale = Math.log2(accessSize(c));
    const scaled = c.f['S'] === 1;
    if (option === 3) return scaled ? `, lsl #${scale}` : '';
    return `, ${EXTENDS[option]}${scaled ? ` #${scale}` : ''}`;
  },
  bh: ({ f }) => ['b', 'h', '', ''][field(f, 'size')] as string,
  aq: ({ f }) => (f['A'] === 1 ? 'a' : ''),
  rl: ({ f }) => (f['R'] === 1 ? 'l' : ''),
  casOrder: ({ f }) => `${f['L'] === 1 ? 'a' : ''}${f['o0'] === 1 ? 'l' : ''}`,
  RsNext: ({ f }) => register(field(f, 'Rs') + 1, isWide(f)),
  RtNext: ({ f }) => register(field(f, 'Rt') + 1, isWide(f)),

  hint: ({ f }) => number(field(f, 'CRm') * 8 + field(f, 'op2')),
  targets: ({ f }) => ['', ' c', ' j', ' jc'][field(f, 'targets')] as string,
  barrier: ({ f }) => BARRIERS[field(f, 'CRm')] ?? number(field(f, 'CRm')),
  pstate: ({ f }) => PSTATE_FIELDS[field(f, 'op1') * 8 + field(f, 'op2')] as string,
  sysreg: ({ f }) => systemRegisterName(f as unknown as SystemRegisterFields),
  prfop: ({ f }) => prefetchName(field(f, 'prfop')) ?? number(field(f, 'prfop')),
};

/** `<Xd|SP>`, `<Rt2>` or the name of a format. */
function operand(name: string): Part {
  const match = /^([RWX])(d|n|m|a|t2?|s)(\|SP)?$/.exec(name);
  if (match) {
    const [, width, suffix, sp] = match;
    const from = `R${suffix}`;
    return ({ f }) =>
      register(field(f, from), width === 'X' || (width === 'R' && isWide(f)), sp !== undefined);
  }
  const format = FORMATS[name];
  if (!format) throw new RangeError(`no operand format <${name}>`);
  return format;
}

const templates = new Map<string, readonly Part[]>();

function parse(asm: string): readonly Part[] {
  let parts = templates.get(asm);
  if (!parts) {
    parts = asm.split(/<([^>]*)>/).map((text, index) => (index % 2 === 0 ? text : operand(text)));
    templates.set(asm, parts);
  }
  return parts;
}

function chooseTemplate({ row, fields }: Decoded): string {
  if (typeof row.asm === 'string') return row.asm;
  for (const rule of row.asm) {
    if (typeof rule === 'string') return rule;
    if (rule[0](fields)) return rule[1];
  }
  throw new RangeError(`${row.name} has no plain form`);
}

/** Text of a decoded instruction at `pc`. */
export function printDecoded(decoded: Decoded, pc: bigint, symbolize?: Symbolize): string {
  const context: Context = { row: decoded.row, f: decoded.fields, pc, symbolize };
  return parse(chooseTemplate(decoded))
    .map((part) => (typeof part === 'string' ? part : part(context)))
    .join('');
}

/** Text of the instruction `word` at `pc`; a word that is none is written `.inst 0x...`. */
export function print(word: number, pc: bigint, symbolize?: Symbolize): string {
  const decoded = decode(word);
  return decoded ? printDecoded(decoded, pc, symbolize) : `.inst 0x${hex32(word)}`;
}
