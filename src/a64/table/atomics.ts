/**
 * Exclusives, acquire/release and LSE atomics, Arm ARM C4.1.96. `size` is 0 byte, 1 halfword, 2
 * word, 3 doubleword. The manual's separate pages per size (LDADDB, LDADDH, LDADD) are one row
 * here. Left out: LDLAR/STLLR, LSE128, RCpc with offsets (LDAPUR).
 */
import { row, type Predicate, type Row } from '../row.js';
import { all, field, is } from './conditions.js';
import type { AtomicOperation } from '../semantics.js';

/** Rs may be neither the base nor what is stored (CONSTRAINED UNPREDICTABLE). */
const statusFits: Predicate = (f) => f['Rs'] !== f['Rt'] && (f['Rs'] !== f['Rn'] || f['Rn'] === 31);
const pairStatusFits: Predicate = (f) => statusFits(f) && f['Rs'] !== f['Rt2'];
const pairLoads: Predicate = (f) => f['Rt'] !== f['Rt2'];
const evenPairs: Predicate = (f) => (field(f, 'Rs') & 1) === 0 && (field(f, 'Rt') & 1) === 0;

/** o0: 1 for the acquire/release form. */
function exclusive(o0: 0 | 1): readonly Row[] {
  const load = o0 === 1 ? 'ldaxr' : 'ldxr';
  const store = o0 === 1 ? 'stlxr' : 'stxr';
  const loadPair = o0 === 1 ? 'ldaxp' : 'ldxp';
  const storePair = o0 === 1 ? 'stlxp' : 'stxp';
  return [
    row(
      load.toUpperCase(),
      `size 001000 0 1 0 11111 ${o0} 11111 Rn Rt`,
      `${load}<bh> <Rt>, [<Xn|SP>]`,
      { kind: 'loadExclusive', pair: false },
    ),
    row(
      store.toUpperCase(),
      `size 001000 0 0 0 Rs ${o0} 11111 Rn Rt`,
      `${store}<bh> <Ws>, <Rt>, [<Xn|SP>]`,
      { kind: 'storeExclusive', pair: false },
      statusFits,
    ),
    row(
      loadPair.toUpperCase(),
      `1 sf 001000 0 1 1 11111 ${o0} Rt2 Rn Rt`,
      `${loadPair} <Rt>, <Rt2>, [<Xn|SP>]`,
      { kind: 'loadExclusive', pair: true },
      pairLoads,
    ),
    row(
      storePair.toUpperCase(),
      `1 sf 001000 0 0 1 Rs ${o0} Rt2 Rn Rt`,
      `${storePair} <Ws>, <Rt>, <Rt2>, [<Xn|SP>]`,
      { kind: 'storeExclusive', pair: true },
      pairStatusFits,
    ),
  ];
}

/** LDADD and kin; without acquire and with Rt = 31 the ST form is preferred. */
function atomic(operation: AtomicOperation, o3opc: string): Row {
  const operands = '<Rs>, <Rt>, [<Xn|SP>]';
  const bits = `size 111 0 00 A R 1 Rs ${o3opc} 00 Rn Rt`;
  const sem = { kind: 'atomic', operation } as const;
  if (operation === 'swp') return row('SWP', bits, `swp<aq><rl><bh> ${operands}`, sem);
  return row(
    `LD${operation.toUpperCase()}`,
    bits,
    [
      [all(is('Rt', 31), is('A', 0)), `st${operation}<rl><bh> <Rs>, [<Xn|SP>]`],
      `ld${operation}<aq><rl><bh> ${operands}`,
    ],
    sem,
  );
}

export const atomics: readonly Row[] = [
  ...exclusive(0),
  ...exclusive(1),
  row('LDAR', 'size 001000 1 1 0 11111 1 11111 Rn Rt', 'ldar<bh> <Rt>, [<Xn|SP>]', {
    kind: 'load',
    bytes: 'size',
    signed: false,
    ordered: true,
    addressing: 'base',
  }),
  row('STLR', 'size 001000 1 0 0 11111 1 11111 Rn Rt', 'stlr<bh> <Rt>, [<Xn|SP>]', {
    kind: 'store',
    bytes: 'size',
    ordered: true,
    addressing: 'base',
  }),
  row('LDAPR', 'size 111 0 00 1 0 1 11111 1 100 00 Rn Rt', 'ldapr<bh> <Rt>, [<Xn|SP>]', {
    kind: 'load',
    bytes: 'size',
    signed: false,
    ordered: true,
    addressing: 'base',
  }),
  row('CAS', 'size 001000 1 L 1 Rs o0 11111 Rn Rt', 'cas<casOrder><bh> <Rs>, <Rt>, [<Xn|SP>]', {
    kind: 'compareAndSwap',
    pair: false,
  }),
  row(
    'CASP',
    '0 sf 001000 0 L 1 Rs o0 11111 Rn Rt',
    'casp<casOrder> <Rs>, <RsNext>, <Rt>, <RtNext>, [<Xn|SP>]',
    { kind: 'compareAndSwap', pair: true },
    evenPairs,
  ),
  atomic('add', '0 000'),
  atomic('clr', '0 001'),
  atomic('eor', '0 010'),
  atomic('set', '0 011'),
  atomic('smax', '0 100'),
  atomic('smin', '0 101'),
  atomic('umax', '0 110'),
  atomic('umin', '0 111'),
  atomic('swp', '1 000'),
];
