/**
 * Loads and stores of general registers, Arm ARM C4.1.96: literal, unsigned and unscaled offset,
 * post- and pre-indexed, register offset, unprivileged, pairs, prefetch.
 * Left out: SIMD&FP registers, tagged memory (MTE), LDAPUR/STLUR, LDRAA.
 */
import { row, type Predicate, type Row } from '../row.js';
import { all, field } from './conditions.js';
import type { AccessBytes, Semantics } from '../semantics.js';

interface Access {
  /** Mnemonic without the addressing: `str`, `ldrsb`. */
  readonly name: string;
  /** size and opc columns of the manual. */
  readonly size: string;
  readonly opc: string;
  readonly bytes: AccessBytes;
  readonly signed?: boolean;
  readonly rt: string;
}

const ACCESSES: readonly Access[] = [
  { name: 'strb', size: '00', opc: '00', bytes: 1, rt: '<Wt>' },
  { name: 'ldrb', size: '00', opc: '01', bytes: 1, rt: '<Wt>' },
  { name: 'ldrsb', size: '00', opc: '1 opc0', bytes: 1, signed: true, rt: '<Rt>' },
  { name: 'strh', size: '01', opc: '00', bytes: 2, rt: '<Wt>' },
  { name: 'ldrh', size: '01', opc: '01', bytes: 2, rt: '<Wt>' },
  { name: 'ldrsh', size: '01', opc: '1 opc0', bytes: 2, signed: true, rt: '<Rt>' },
  { name: 'ldrsw', size: '10', opc: '10', bytes: 4, signed: true, rt: '<Xt>' },
  { name: 'str', size: '1 sf', opc: '00', bytes: 'sf', rt: '<Rt>' },
  { name: 'ldr', size: '1 sf', opc: '01', bytes: 'sf', rt: '<Rt>' },
];

/** Writeback of a base that is also transferred is CONSTRAINED UNPREDICTABLE. */
const writebackFits: Predicate = (f) => f['Rn'] === 31 || f['Rn'] !== f['Rt'];
const extendFits: Predicate = (f) => (field(f, 'option') & 2) !== 0;

type Mode = 'unsigned' | 'unscaled' | 'unprivileged' | 'post' | 'pre' | 'register';

/** Per mode: bits 25:24, the fields between opc and Rn, operands, name, validity. */
const MODES: Readonly<
  Record<
    Mode,
    { readonly head: string; readonly tail: string; readonly asm: string; valid?: Predicate }
  >
> = {
  unsigned: { head: '01', tail: 'imm12', asm: '[<Xn|SP><offset12>]' },
  unscaled: { head: '00', tail: '0 imm9 00', asm: '[<Xn|SP><offset9>]' },
  unprivileged: { head: '00', tail: '0 imm9 10', asm: '[<Xn|SP><offset9>]' },
  post: { head: '00', tail: '0 imm9 01', asm: '[<Xn|SP>], <imm9>', valid: writebackFits },
  pre: { head: '00', tail: '0 imm9 11', asm: '[<Xn|SP>, <imm9>]!', valid: writebackFits },
  register: {
    head: '00',
    tail: '1 Rm option S 10',
    asm: '[<Xn|SP>, <offsetRm><offsetExtend>]',
    valid: extendFits,
  },
};

/** LDRSB → LDURSB (unscaled), LDTRSB (unprivileged). */
function mnemonic(name: string, mode: Mode): string {
  if (mode === 'unscaled') return `${name.slice(0, 2)}u${name.slice(2)}`;
  if (mode === 'unprivileged') return `${name.slice(0, 2)}t${name.slice(2)}`;
  return name;
}

function accessRow(access: Access, mode: Mode): Row {
  const { head, tail, asm, valid } = MODES[mode];
  const name = mnemonic(access.name, mode);
  const plain = mode === 'unscaled' || mode === 'unprivileged';
  const addressing = mode === 'unprivileged' ? 'unscaled' : mode;
  const sem: Semantics = access.name.startsWith('ld')
    ? {
        kind: 'load',
        bytes: access.bytes,
        signed: access.signed ?? false,
        ordered: false,
        addressing,
      }
    : { kind: 'store', bytes: access.bytes, ordered: false, addressing };
  return row(
    plain ? name.toUpperCase() : `${name.toUpperCase()}_${mode}`,
    `${access.size} 111 0 ${head} ${access.opc} ${tail} Rn Rt`,
    `${name} ${access.rt}, ${asm}`,
    sem,
    valid,
  );
}

type PairMode = 'offset' | 'post' | 'pre' | 'nontemporal';

const PAIR_MODES: Readonly<Record<PairMode, { readonly bits: string; readonly asm: string }>> = {
  nontemporal: { bits: '000', asm: '[<Xn|SP><offset7>]' },
  post: { bits: '001', asm: '[<Xn|SP>], <imm7>' },
  offset: { bits: '010', asm: '[<Xn|SP><offset7>]' },
  pre: { bits: '011', asm: '[<Xn|SP>, <imm7>]!' },
};

const pairLoads: Predicate = (f) => f['Rt'] !== f['Rt2'];
const pairWriteback: Predicate = (f) =>
  f['Rn'] === 31 || (f['Rn'] !== f['Rt'] && f['Rn'] !== f['Rt2']);

function pairRow(name: 'ldp' | 'stp' | 'ldpsw', mode: PairMode): Row {
  const load = name !== 'stp';
  const nontemporal = mode === 'nontemporal';
  const text = nontemporal ? `${name.slice(0, 2)}np` : name;
  const addressing = nontemporal ? 'offset' : mode;
  const rules: Predicate[] = [];
  if (load) rules.push(pairLoads);
  if (mode === 'post' || mode === 'pre') rules.push(pairWriteback);
  const [t, t2] = name === 'ldpsw' ? ['<Xt>', '<Xt2>'] : ['<Rt>', '<Rt2>'];
  return row(
    nontemporal ? text.toUpperCase() : `${text.toUpperCase()}_${mode}`,
    `${name === 'ldpsw' ? '01' : 'sf 0'} 101 0 ${PAIR_MODES[mode].bits} ${load ? 1 : 0} imm7 Rt2 Rn Rt`,
    `${text} ${t}, ${t2}, ${PAIR_MODES[mode].asm}`,
    load
      ? {
          kind: 'loadPair',
          bytes: name === 'ldpsw' ? 4 : 'sf',
          signed: name === 'ldpsw',
          addressing,
        }
      : { kind: 'storePair', bytes: 'sf', addressing },
    rules.length > 0 ? all(...rules) : undefined,
  );
}

const MODE_LIST: readonly Mode[] = [
  'unsigned',
  'unscaled',
  'unprivileged',
  'post',
  'pre',
  'register',
];
const PAIRS: readonly PairMode[] = ['offset', 'post', 'pre', 'nontemporal'];

const prefetch: Semantics = { kind: 'nothing' };

export const loadsStores: readonly Row[] = [
  row('LDR_literal', '0 sf 011 0 00 imm19 Rt', 'ldr <Rt>, <imm19>', {
    kind: 'load',
    bytes: 'sf',
    signed: false,
    ordered: false,
    addressing: 'literal',
  }),
  row('LDRSW_literal', '10 011 0 00 imm19 Rt', 'ldrsw <Xt>, <imm19>', {
    kind: 'load',
    bytes: 4,
    signed: true,
    ordered: false,
    addressing: 'literal',
  }),
  ...ACCESSES.flatMap((access) => MODE_LIST.map((mode) => accessRow(access, mode))),
  ...PAIRS.flatMap((mode) => [pairRow('stp', mode), pairRow('ldp', mode)]),
  ...(['offset', 'post', 'pre'] as const).map((mode) => pairRow('ldpsw', mode)),

  row('PRFM_literal', '11 011 0 00 imm19 prfop', 'prfm <prfop>, <imm19>', prefetch),
  row(
    'PRFM_unsigned',
    '11 111 0 01 10 imm12 Rn prfop',
    'prfm <prfop>, [<Xn|SP><prfmOffset>]',
    prefetch,
  ),
  row('PRFUM', '11 111 0 00 10 0 imm9 00 Rn prfop', 'prfum <prfop>, [<Xn|SP><offset9>]', prefetch),
  row(
    'PRFM_register',
    '11 111 0 00 10 1 Rm option S 10 Rn prfop',
    'prfm <prfop>, [<Xn|SP>, <offsetRm><offsetExtend>]',
    prefetch,
    // prfop 11xxx with these bits is RPRFM
    all(extendFits, (f) => field(f, 'prfop') < 24),
  ),
];
