/**
 * Data processing (immediate), Arm ARM C4.1.93: ADR, add/subtract, logical, move wide, bitfield,
 * extract. Left out: add/subtract with tags (MTE), min/max (CSSC).
 */
import { row, type Predicate, type Row } from '../row.js';
import {
  all,
  bitfieldFits,
  field,
  is,
  maskFits,
  moveWidePreferred,
  not,
  same,
} from './conditions.js';

const plain: Predicate = all(is('imm12', 0), is('sh', 0));
const withSp: Predicate = (f) => f['Rd'] === 31 || f['Rn'] === 31;

function addSub(operation: 'add' | 'sub', flags: boolean): Row {
  const op = operation === 'add' ? '0' : '1';
  const sem = { kind: 'arithmetic', operation, flags, operand: 'immediate' } as const;
  const bits = `sf ${op} ${flags ? 1 : 0} 100010 sh imm12 Rn Rd`;
  if (flags) {
    const compare = operation === 'add' ? 'cmn' : 'cmp';
    const asm = [
      [is('Rd', 31), `${compare} <Rn|SP>, <imm12><sh>`],
      `${operation}s <Rd>, <Rn|SP>, <imm12><sh>`,
    ] as const;
    return row(`${operation.toUpperCase()}S_immediate`, bits, asm, sem);
  }
  const long = `${operation} <Rd|SP>, <Rn|SP>, <imm12><sh>`;
  const asm =
    operation === 'add' ? ([[all(plain, withSp), 'mov <Rd|SP>, <Rn|SP>'], long] as const) : long;
  return row(`${operation.toUpperCase()}_immediate`, bits, asm, sem);
}

const wide: Predicate = (f) => f['sf'] === 1 || field(f, 'hw') < 2;
const movz: Predicate = (f) => f['imm16'] !== 0 || f['hw'] === 0;
const movn: Predicate = (f) => movz(f) && (f['sf'] === 1 || f['imm16'] !== 0xffff);

const last = (f: Readonly<Record<string, number>>): number => (f['sf'] === 1 ? 63 : 31);
const shiftsRight: Predicate = (f) => f['imms'] === last(f);
const shiftsLeft: Predicate = (f) =>
  f['imms'] !== last(f) && field(f, 'imms') + 1 === field(f, 'immr');
const inserts: Predicate = (f) => field(f, 'imms') < field(f, 'immr');
const extends_ = (bits: number): Predicate => all(is('immr', 0), is('imms', bits - 1));

export const dataProcessingImmediate: readonly Row[] = [
  row('ADR', '0 immlo 10000 immhi Rd', 'adr <Xd>, <adr>', { kind: 'address', page: false }),
  row('ADRP', '1 immlo 10000 immhi Rd', 'adrp <Xd>, <adrp>', { kind: 'address', page: true }),

  addSub('add', false),
  addSub('add', true),
  addSub('sub', false),
  addSub('sub', true),

  row(
    'AND_immediate',
    'sf 00 100100 N immr imms Rn Rd',
    'and <Rd|SP>, <Rn>, <bitmask>',
    { kind: 'logical', operation: 'and', invert: false, flags: false, operand: 'immediate' },
    maskFits,
  ),
  row(
    'ORR_immediate',
    'sf 01 100100 N immr imms Rn Rd',
    [
      [all(is('Rn', 31), not(moveWidePreferred)), 'mov <Rd|SP>, <bitmaskValue>'],
      'orr <Rd|SP>, <Rn>, <bitmask>',
    ],
    { kind: 'logical', operation: 'orr', invert: false, flags: false, operand: 'immediate' },
    maskFits,
  ),
  row(
    'EOR_immediate',
    'sf 10 100100 N immr imms Rn Rd',
    'eor <Rd|SP>, <Rn>, <bitmask>',
    { kind: 'logical', operation: 'eor', invert: false, flags: false, operand: 'immediate' },
    maskFits,
  ),
  row(
    'ANDS_immediate',
    'sf 11 100100 N immr imms Rn Rd',
    [[is('Rd', 31), 'tst <Rn>, <bitmask>'], 'ands <Rd>, <Rn>, <bitmask>'],
    { kind: 'logical', operation: 'and', invert: false, flags: true, operand: 'immediate' },
    maskFits,
  ),

  row(
    'MOVN',
    'sf 00 100101 hw imm16 Rd',
    [[movn, 'mov <Rd>, <movn>'], 'movn <Rd>, <imm16><hw>'],
    { kind: 'moveWide', operation: 'movn' },
    wide,
  ),
  row(
    'MOVZ',
    'sf 10 100101 hw imm16 Rd',
    [[movz, 'mov <Rd>, <movz>'], 'movz <Rd>, <imm16><hw>'],
    { kind: 'moveWide', operation: 'movz' },
    wide,
  ),
  row(
    'MOVK',
    'sf 11 100101 hw imm16 Rd',
    'movk <Rd>, <imm16><hw>',
    { kind: 'moveWide', operation: 'movk' },
    wide,
  ),

  row(
    'SBFM',
    'sf 00 100110 N immr imms Rn Rd',
    [
      [extends_(8), 'sxtb <Rd>, <Wn>'],
      [extends_(16), 'sxth <Rd>, <Wn>'],
      [all(extends_(32), is('sf', 1)), 'sxtw <Rd>, <Wn>'],
      [shiftsRight, 'asr <Rd>, <Rn>, <immr>'],
      [inserts, 'sbfiz <Rd>, <Rn>, <insertLsb>, <insertWidth>'],
      'sbfx <Rd>, <Rn>, <immr>, <extractWidth>',
    ],
    { kind: 'bitfield', operation: 'sbfm' },
    bitfieldFits,
  ),
  row(
    'BFM',
    'sf 01 100110 N immr imms Rn Rd',
    [
      [all(inserts, is('Rn', 31)), 'bfc <Rd>, <insertLsb>, <insertWidth>'],
      [inserts, 'bfi <Rd>, <Rn>, <insertLsb>, <insertWidth>'],
      'bfxil <Rd>, <Rn>, <immr>, <extractWidth>',
    ],
    { kind: 'bitfield', operation: 'bfm' },
    bitfieldFits,
  ),
  row(
    'UBFM',
    'sf 10 100110 N immr imms Rn Rd',
    [
      [all(extends_(8), is('sf', 0)), 'uxtb <Rd>, <Wn>'],
      [all(extends_(16), is('sf', 0)), 'uxth <Rd>, <Wn>'],
      [shiftsLeft, 'lsl <Rd>, <Rn>, <lsl>'],
      [shiftsRight, 'lsr <Rd>, <Rn>, <immr>'],
      [inserts, 'ubfiz <Rd>, <Rn>, <insertLsb>, <insertWidth>'],
      'ubfx <Rd>, <Rn>, <immr>, <extractWidth>',
    ],
    { kind: 'bitfield', operation: 'ubfm' },
    bitfieldFits,
  ),
  row(
    'EXTR',
    'sf 00 100111 N 0 Rm imms Rn Rd',
    [[same('Rn', 'Rm'), 'ror <Rd>, <Rn>, <imms>'], 'extr <Rd>, <Rn>, <Rm>, <imms>'],
    { kind: 'extract' },
    (f) => f['N'] === f['sf'] && (f['sf'] === 1 || field(f, 'imms') < 32),
  ),
];
