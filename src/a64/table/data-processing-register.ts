/**
 * Data processing (register), Arm ARM C4.1.95: shifted, extended and carry arithmetic, logical,
 * conditional select and compare, multiply, divide, variable shifts, bit reversal, CRC32.
 * Left out: pointer authentication (PACIA ..), flag manipulation (RMIF, SETF8), CSSC, MTE.
 */
import { row, type Alias, type Predicate, type Row } from '../row.js';
import { all, amountFits, field, is, same } from './conditions.js';

const arithmeticShift: Predicate = (f) => f['shift'] !== 3 && amountFits(f);
const noShift: Predicate = all(is('shift', 0), is('imm6', 0));

function addSubShifted(operation: 'add' | 'sub', flags: boolean): Row {
  const name = `${operation}${flags ? 's' : ''}`;
  const aliases: Alias[] = [];
  if (flags) {
    aliases.push([is('Rd', 31), `${operation === 'add' ? 'cmn' : 'cmp'} <Rn>, <Rm><shift>`]);
  }
  if (operation === 'sub') {
    aliases.push([is('Rn', 31), `${flags ? 'negs' : 'neg'} <Rd>, <Rm><shift>`]);
  }
  return row(
    `${name.toUpperCase()}_shifted`,
    `sf ${operation === 'add' ? 0 : 1} ${flags ? 1 : 0} 01011 shift 0 Rm imm6 Rn Rd`,
    [...aliases, `${name} <Rd>, <Rn>, <Rm><shift>`],
    { kind: 'arithmetic', operation, flags, operand: 'shifted' },
    arithmeticShift,
  );
}

function addSubExtended(operation: 'add' | 'sub', flags: boolean): Row {
  const name = `${operation}${flags ? 's' : ''}`;
  const rd = flags ? '<Rd>' : '<Rd|SP>';
  const aliases: Alias[] = flags
    ? [[is('Rd', 31), `${operation === 'add' ? 'cmn' : 'cmp'} <Rn|SP>, <extendedRm><extend>`]]
    : [];
  return row(
    `${name.toUpperCase()}_extended`,
    `sf ${operation === 'add' ? 0 : 1} ${flags ? 1 : 0} 01011 00 1 Rm option imm3 Rn Rd`,
    [...aliases, `${name} ${rd}, <Rn|SP>, <extendedRm><extend>`],
    { kind: 'arithmetic', operation, flags, operand: 'extended' },
    (f) => field(f, 'imm3') <= 4,
  );
}

function addSubCarry(operation: 'add' | 'sub', flags: boolean): Row {
  const name = `${operation === 'add' ? 'adc' : 'sbc'}${flags ? 's' : ''}`;
  const aliases: Alias[] =
    operation === 'sub' ? [[is('Rn', 31), `ngc${flags ? 's' : ''} <Rd>, <Rm>`]] : [];
  return row(
    name.toUpperCase(),
    `sf ${operation === 'add' ? 0 : 1} ${flags ? 1 : 0} 11010000 Rm 000000 Rn Rd`,
    [...aliases, `${name} <Rd>, <Rn>, <Rm>`],
    { kind: 'arithmetic', operation, flags, operand: 'carry' },
  );
}

function logical(
  name: string,
  opc: string,
  operation: 'and' | 'orr' | 'eor',
  invert: boolean,
  aliases: readonly Alias[] = [],
): Row {
  return row(
    `${name.toUpperCase()}_shifted`,
    `sf ${opc} 01010 shift ${invert ? 1 : 0} Rm imm6 Rn Rd`,
    [...aliases, `${name} <Rd>, <Rn>, <Rm><shift>`],
    { kind: 'logical', operation, invert, flags: opc === '11', operand: 'shifted' },
    amountFits,
  );
}

const bothOnes: Predicate = all(is('Rn', 31), is('Rm', 31));
const realCondition: Predicate = (f) => field(f, 'cond') < 14;

function select(name: string, invert: boolean, increment: boolean, aliases: readonly Alias[]): Row {
  return row(
    name.toUpperCase(),
    `sf ${invert ? 1 : 0} 0 11010100 Rm cond 0 ${increment ? 1 : 0} Rn Rd`,
    [...aliases, `${name} <Rd>, <Rn>, <Rm>, <cond>`],
    { kind: 'conditionalSelect', invert, increment },
  );
}

function compare(name: 'ccmn' | 'ccmp', operand: 'immediate' | 'register'): Row {
  const immediate = operand === 'immediate';
  return row(
    `${name.toUpperCase()}_${operand}`,
    `sf ${name === 'ccmn' ? 0 : 1} 1 11010010 ${immediate ? 'imm5' : 'Rm'} cond ${immediate ? 1 : 0} 0 Rn 0 nzcv`,
    `${name} <Rn>, ${immediate ? '<imm5>' : '<Rm>'}, <nzcv>, <cond>`,
    { kind: 'conditionalCompare', operation: name === 'ccmn' ? 'add' : 'sub', operand },
  );
}

function multiply(
  name: string,
  alias: string,
  op31: string,
  operation: 'add' | 'sub',
  long: 'no' | 'signed' | 'unsigned',
): Row {
  const [d, n, m, a] =
    long === 'no' ? ['<Rd>', '<Rn>', '<Rm>', '<Ra>'] : ['<Xd>', '<Wn>', '<Wm>', '<Xa>'];
  return row(
    name.toUpperCase(),
    `${long === 'no' ? 'sf' : '1'} 00 11011 ${op31} Rm ${operation === 'add' ? 0 : 1} Ra Rn Rd`,
    [[is('Ra', 31), `${alias} ${d}, ${n}, ${m}`], `${name} ${d}, ${n}, ${m}, ${a}`],
    { kind: 'multiply', operation, long },
  );
}

function shiftVariable(operation: 'lsl' | 'lsr' | 'asr' | 'ror', op2: string): Row {
  return row(
    `${operation.toUpperCase()}V`,
    `sf 0 0 11010110 Rm 0010 ${op2} Rn Rd`,
    `${operation} <Rd>, <Rn>, <Rm>`,
    { kind: 'shiftVariable', operation },
  );
}

export const dataProcessingRegister: readonly Row[] = [
  addSubShifted('add', false),
  addSubShifted('add', true),
  addSubShifted('sub', false),
  addSubShifted('sub', true),
  addSubExtended('add', false),
  addSubExtended('add', true),
  addSubExtended('sub', false),
  addSubExtended('sub', true),
  addSubCarry('add', false),
  addSubCarry('add', true),
  addSubCarry('sub', false),
  addSubCarry('sub', true),

  logical('and', '00', 'and', false),
  logical('bic', '00', 'and', true),
  logical('orr', '01', 'orr', false, [[all(is('Rn', 31), noShift), 'mov <Rd>, <Rm>']]),
  logical('orn', '01', 'orr', true, [[is('Rn', 31), 'mvn <Rd>, <Rm><shift>']]),
  logical('eor', '10', 'eor', false),
  logical('eon', '10', 'eor', true),
  logical('ands', '11', 'and', false, [[is('Rd', 31), 'tst <Rn>, <Rm><shift>']]),
  logical('bics', '11', 'and', true),

  select('csel', false, false, []),
  select('csinc', false, true, [
    [all(bothOnes, realCondition), 'cset <Rd>, <inverseCond>'],
    [all(same('Rn', 'Rm'), realCondition), 'cinc <Rd>, <Rn>, <inverseCond>'],
  ]),
  select('csinv', true, false, [
    [all(bothOnes, realCondition), 'csetm <Rd>, <inverseCond>'],
    [all(same('Rn', 'Rm'), realCondition), 'cinv <Rd>, <Rn>, <inverseCond>'],
  ]),
  select('csneg', true, true, [
    [all(same('Rn', 'Rm'), realCondition), 'cneg <Rd>, <Rn>, <inverseCond>'],
  ]),
  compare('ccmn', 'immediate'),
  compare('ccmn', 'register'),
  compare('ccmp', 'immediate'),
  compare('ccmp', 'register'),

  multiply('madd', 'mul', '000', 'add', 'no'),
  multiply('msub', 'mneg', '000', 'sub', 'no'),
  multiply('smaddl', 'smull', '001', 'add', 'signed'),
  multiply('smsubl', 'smnegl', '001', 'sub', 'signed'),
  multiply('umaddl', 'umull', '101', 'add', 'unsigned'),
  multiply('umsubl', 'umnegl', '101', 'sub', 'unsigned'),
  row('SMULH', '1 00 11011 010 Rm 0 11111 Rn Rd', 'smulh <Xd>, <Xn>, <Xm>', {
    kind: 'multiplyHigh',
    signed: true,
  }),
  row('UMULH', '1 00 11011 110 Rm 0 11111 Rn Rd', 'umulh <Xd>, <Xn>, <Xm>', {
    kind: 'multiplyHigh',
    signed: false,
  }),

  row('UDIV', 'sf 0 0 11010110 Rm 00001 0 Rn Rd', 'udiv <Rd>, <Rn>, <Rm>', {
    kind: 'divide',
    signed: false,
  }),
  row('SDIV', 'sf 0 0 11010110 Rm 00001 1 Rn Rd', 'sdiv <Rd>, <Rn>, <Rm>', {
    kind: 'divide',
    signed: true,
  }),
  shiftVariable('lsl', '00'),
  shiftVariable('lsr', '01'),
  shiftVariable('asr', '10'),
  shiftVariable('ror', '11'),
  row(
    'CRC32',
    'sf 0 0 11010110 Rm 010 C sz Rn Rd',
    'crc32<crcKind> <Wd>, <Wn>, <crcRm>',
    { kind: 'crc32' },
    (f) => (f['sf'] === 1) === (f['sz'] === 3),
  ),

  row('RBIT', 'sf 1 0 11010110 00000 000000 Rn Rd', 'rbit <Rd>, <Rn>', {
    kind: 'reverse',
    operation: 'rbit',
  }),
  row('REV16', 'sf 1 0 11010110 00000 000001 Rn Rd', 'rev16 <Rd>, <Rn>', {
    kind: 'reverse',
    operation: 'rev16',
  }),
  // REV of a W register; `REV32` and `REV_64` are the 64-bit forms
  row('REV_32', '0 1 0 11010110 00000 000010 Rn Rd', 'rev <Wd>, <Wn>', {
    kind: 'reverse',
    operation: 'rev32',
  }),
  row('REV32', '1 1 0 11010110 00000 000010 Rn Rd', 'rev32 <Xd>, <Xn>', {
    kind: 'reverse',
    operation: 'rev32',
  }),
  row('REV_64', '1 1 0 11010110 00000 000011 Rn Rd', 'rev <Xd>, <Xn>', {
    kind: 'reverse',
    operation: 'rev64',
  }),
  row('CLZ', 'sf 1 0 11010110 00000 000100 Rn Rd', 'clz <Rd>, <Rn>', {
    kind: 'reverse',
    operation: 'clz',
  }),
  row('CLS', 'sf 1 0 11010110 00000 000101 Rn Rd', 'cls <Rd>, <Rn>', {
    kind: 'reverse',
    operation: 'cls',
  }),
];
