/**
 * Exceptions, hints, barriers and system registers, Arm ARM C4.1.94.
 * Left out: ERET, DRPS, WFET, TLB maintenance and most of SYS, flag manipulation (CFINV).
 */
import { row, type Predicate, type Row } from '../row.js';
import { field, is } from './conditions.js';
import type { Semantics } from '../semantics.js';

const nothing: Semantics = { kind: 'nothing' };

function trap(instruction: 'brk' | 'svc' | 'hvc' | 'smc' | 'hlt', opc: string, ll: string): Row {
  return row(
    instruction.toUpperCase(),
    `11010100 ${opc} imm16 000 ${ll}`,
    `${instruction} <imm16>`,
    { kind: 'trap', instruction },
  );
}

/** Named hints by CRm:op2. PACIASP and kin act as NOPs: no key is ever enabled. */
const HINTS: readonly (readonly [number: number, text: string, sem?: Semantics])[] = [
  [0, 'nop'],
  [1, 'yield'],
  [2, 'wfe'],
  [3, 'wfi'],
  [4, 'sev'],
  [5, 'sevl'],
  [7, 'xpaclri', { kind: 'stripLink' }],
  [8, 'pacia1716'],
  [10, 'pacib1716'],
  [12, 'autia1716'],
  [14, 'autib1716'],
  [16, 'esb'],
  [17, 'psb csync'],
  [18, 'tsb csync'],
  [20, 'csdb'],
  [24, 'paciaz'],
  [25, 'paciasp'],
  [26, 'pacibz'],
  [27, 'pacibsp'],
  [28, 'autiaz'],
  [29, 'autiasp'],
  [30, 'autibz'],
  [31, 'autibsp'],
];

const HINT_BITS = '1101010100 0 00 011 0010';

function hint(number: number, text: string, sem: Semantics = nothing): Row {
  const bits = number.toString(2).padStart(7, '0');
  const name = text.toUpperCase().replace(' ', '_');
  return row(name, `${HINT_BITS} ${bits} 11111`, text, sem);
}

/** UAO, PAN, SPSel, SSBS, DIT and TCO by op1:op2: one bit. */
const PSTATE_BITS = new Set([0o03, 0o04, 0o05, 0o31, 0o32, 0o34]);
/** DAIFSet, DAIFClr: a mask. */
const PSTATE_MASKS = new Set([0o36, 0o37]);

const pstateFits: Predicate = (f) => {
  const operand = (field(f, 'op1') << 3) | field(f, 'op2');
  return PSTATE_MASKS.has(operand) || (PSTATE_BITS.has(operand) && field(f, 'CRm') < 2);
};

/**
 * SYS: op1, CRn, CRm, op2. Caches are not modelled; what a CPU fetches is renewed by its engine.
 */
function maintenance(text: string, operands: string, address: boolean): Row {
  const name = text.toUpperCase().replace(' ', '_');
  const bits = `1101010100 0 01 ${operands} ${address ? 'Rt' : '11111'}`;
  return row(name, bits, address ? `${text}, <Xt>` : text, nothing);
}

export const system: readonly Row[] = [
  row('UDF', '0000000000000000 imm16', 'udf <imm16>', { kind: 'undefined' }),
  trap('svc', '000', '01'),
  trap('hvc', '000', '10'),
  trap('smc', '000', '11'),
  trap('brk', '001', '00'),
  trap('hlt', '010', '00'),

  row('HINT', `${HINT_BITS} CRm op2 11111`, 'hint <hint>', nothing),
  ...HINTS.map(([number, text, sem]) => hint(number, text, sem)),
  row('BTI', `${HINT_BITS} 0100 targets 0 11111`, 'bti<targets>', nothing),

  row(
    'CLREX',
    '1101010100 0 00 011 0011 CRm 010 11111',
    [[is('CRm', 15), 'clrex'], 'clrex <CRm>'],
    {
      kind: 'clearExclusive',
    },
  ),
  row(
    'DSB',
    '1101010100 0 00 011 0011 CRm 1 00 11111',
    [[is('CRm', 0), 'ssbb'], [is('CRm', 4), 'pssbb'], 'dsb <barrier>'],
    nothing,
  ),
  row('DMB', '1101010100 0 00 011 0011 CRm 1 01 11111', 'dmb <barrier>', nothing),
  row(
    'ISB',
    '1101010100 0 00 011 0011 CRm 1 10 11111',
    [[is('CRm', 15), 'isb'], 'isb <CRm>'],
    nothing,
  ),
  // the operations of Linux's caches_clean_inval_pou and dcache_clean_poc
  maintenance('ic iallu', '000 0111 0101 000', false),
  maintenance('ic ialluis', '000 0111 0001 000', false),
  maintenance('ic ivau', '011 0111 0101 001', true),
  maintenance('dc cvac', '011 0111 1010 001', true),
  maintenance('dc cvau', '011 0111 1011 001', true),
  maintenance('dc civac', '011 0111 1110 001', true),

  row('SB', '1101010100 0 00 011 0011 0000 1 11 11111', 'sb', nothing),

  row(
    'MSR_immediate',
    '1101010100 0 00 op1 0100 CRm op2 11111',
    'msr <pstate>, <CRm>',
    { kind: 'writePstate' },
    pstateFits,
  ),
  row('MSR_register', '1101010100 0 1 o0 op1 CRn CRm op2 Rt', 'msr <sysreg>, <Xt>', {
    kind: 'writeSystem',
  }),
  row('MRS', '1101010100 1 1 o0 op1 CRn CRm op2 Rt', 'mrs <Xt>, <sysreg>', { kind: 'readSystem' }),
];
