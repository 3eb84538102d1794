/**
 * The scenario matrix: which packet, which program, where it goes, and what is expected of it under each way
 * to have checksum offload beside XDP. Pure data; `matrix.ts` runs it.
 *
 * Sections are those of the discussion: 10.1 the program passes the packet as it is, 10.2 it rewrites the
 * destination (NAT), 10.3 it sends the packet back, 10.4 it puts it into a tunnel, 10.5 it drops or redirects it, 10.6
 * packets in which no TCP or UDP checksum can be found anew.
 */
import type { XdpChecksum } from '../../virtio/driver/profiles.js';
import type { CsumKind, L4Kind } from './frames.js';
import { NAT_STRATEGIES, type NatStrategy } from './programs.js';

/** A checksum variant of the native driver, or generic XDP. */
export const CSUM_VARIANTS = ['base', 'v4-literal', 'v4-fixed', 'upstream', 'generic'] as const;
export type CsumVariant = (typeof CSUM_VARIANTS)[number];

/** The way of a native variant; generic XDP runs on the upstream driver. */
export function driverVariant(variant: CsumVariant): XdpChecksum {
  return variant === 'generic' ? 'upstream' : variant;
}

export const CSUM_MODES = [
  'small',
  'mergeable',
  'two-buffers',
  'two-buffers-frags',
  'big',
] as const;
export type CsumMode = (typeof CSUM_MODES)[number];

/**
 * Where a packet ended.
 *
 * - `delivered`: its receiver's socket got it, here or at the peer, checksum right.
 * - `AF_XDP`: a socket of that kind got it, bytes as they came.
 * - `delivered wrong`: a socket here got it although the checksum is wrong.
 * - `L4 drop`: TCP or UDP here dropped it. `peer L4 drop`: it left, and the peer's did.
 * - `driver drop`: in front of the program. `XDP drop`: by its verdict. `frame error`: behind it.
 * - `stack drop`: elsewhere in the stack.
 */
export type CsumOutcome =
  | 'delivered'
  | 'AF_XDP'
  | 'delivered wrong'
  | 'L4 drop'
  | 'peer L4 drop'
  | 'driver drop'
  | 'XDP drop'
  | 'frame error'
  | 'stack drop';

export type CsumTarget = 'local' | 'fwdHW' | 'fwdSW' | 'peer';

export type CsumProgram =
  | 'pass'
  | 'drop'
  | 'aborted'
  | 'tx'
  | 'encap+TX'
  | 'encap+PASS'
  | `nat-${NatStrategy}`
  | 'to NIC'
  | 'to cpumap'
  | 'to AF_XDP';

/** What is odd about a frame of 10.6. */
export type OddFrame = 'vlan' | 'fragment' | 'udp-lite' | 'esp' | 'arp' | 'sctp';

/** The sections of the matrix. */
export const CSUM_SECTIONS = {
  '10.1': 'the program passes the packet as it is',
  '10.2': 'the program gives it another destination (NAT)',
  '10.3': 'the program sends it back',
  '10.4': 'the program puts it into an IPIP tunnel',
  '10.5': 'the program drops it, or redirects it',
  '10.6': 'no TCP or UDP checksum can be found in it',
} as const;

export interface CsumRow {
  readonly section: keyof typeof CSUM_SECTIONS;
  readonly kind: CsumKind;
  readonly l4: L4Kind;
  /** Undefined: no XDP. */
  readonly program: CsumProgram | undefined;
  readonly target: CsumTarget;
  readonly odd?: OddFrame;
  readonly expected: Readonly<Record<CsumVariant, CsumOutcome>>;
}

type Expected = CsumRow['expected'];

function all(outcome: CsumOutcome): Expected {
  return {
    base: outcome,
    'v4-literal': outcome,
    'v4-fixed': outcome,
    upstream: outcome,
    generic: outcome,
  };
}

function columns(
  base: CsumOutcome,
  v4: CsumOutcome,
  upstream: CsumOutcome,
  generic: CsumOutcome,
): Expected {
  return { base, 'v4-literal': v4, 'v4-fixed': v4, upstream, generic };
}

/** Where a wrong checksum shows. */
function lost(target: CsumTarget): CsumOutcome {
  return target === 'local' ? 'L4 drop' : 'peer L4 drop';
}

/** What becomes of a wrong checksum that nobody here verifies. */
function hidden(target: CsumTarget): CsumOutcome {
  return target === 'local' ? 'delivered wrong' : 'peer L4 drop';
}

const STACK_TARGETS: readonly CsumTarget[] = ['local', 'fwdHW', 'fwdSW'];
const OK = 'delivered';
const EARLY = 'driver drop';

function passed(kind: CsumKind, target: CsumTarget): Expected {
  switch (kind) {
    case 'P':
      return columns(lost(target), OK, EARLY, OK);
    case 'V':
    case 'U':
    case 'U0':
      return all(OK);
    case 'Vbad':
      return columns(lost(target), hidden(target), hidden(target), hidden(target));
    case 'Ubad':
      return all(lost(target));
  }
}

function translated(kind: 'P' | 'V' | 'U', strategy: NatStrategy, target: CsumTarget): Expected {
  const complete = strategy === 'S1' || strategy === 'S2';
  switch (kind) {
    case 'P': {
      const base = strategy === 'S2' ? OK : lost(target);
      return columns(base, OK, EARLY, strategy === 'S3' ? OK : hidden(target));
    }
    case 'V':
      if (complete) return all(OK);
      return columns(lost(target), hidden(target), hidden(target), hidden(target));
    case 'U':
      return all(complete ? OK : lost(target));
  }
}

const L4S: readonly L4Kind[] = ['udp4', 'tcp4'];

const unmodified: readonly CsumRow[] = L4S.concat('udp6').flatMap((l4) =>
  STACK_TARGETS.flatMap((target) => [
    ...(['P', 'V', 'U', 'Ubad', 'Vbad'] as const).map((kind): CsumRow => ({
      section: '10.1',
      kind,
      l4,
      program: 'pass',
      target,
      expected: passed(kind, target),
    })),
    ...(l4 === 'udp4'
      ? [
          {
            section: '10.1',
            kind: 'U0',
            l4,
            program: 'pass',
            target,
            expected: passed('U0', target),
          } as const,
        ]
      : []),
    { section: '10.1', kind: 'P', l4, program: undefined, target, expected: all(OK) } as const,
  ]),
);

const nat: readonly CsumRow[] = L4S.flatMap((l4) =>
  STACK_TARGETS.flatMap((target) =>
    (['P', 'V', 'U'] as const).flatMap((kind) =>
      NAT_STRATEGIES.map((strategy): CsumRow => ({
        section: '10.2',
        kind,
        l4,
        program: `nat-${strategy}`,
        target,
        expected: translated(kind, strategy, target),
      })),
    ),
  ),
);

/** XDP_TX zeroes the header, so that nobody completes a partial checksum; generic XDP keeps it. */
function sentBack(kind: 'P' | 'V' | 'U' | 'Ubad'): Expected {
  if (kind === 'P') return columns('peer L4 drop', 'peer L4 drop', EARLY, OK);
  return all(kind === 'Ubad' ? 'peer L4 drop' : OK);
}

const transmitted: readonly CsumRow[] = (['tx', 'encap+TX'] as const).flatMap((program) =>
  L4S.flatMap((l4) =>
    (['P', 'V', 'U', 'Ubad'] as const).map((kind): CsumRow => ({
      section: program === 'tx' ? '10.3' : '10.4',
      kind,
      l4,
      program,
      target: 'peer',
      expected: sentBack(kind),
    })),
  ),
);

function tunnelled(kind: CsumKind, target: CsumTarget): Expected {
  if (kind !== 'P') return passed(kind, target);
  // protocol 4 is neither TCP nor UDP
  return { ...columns(lost(target), OK, EARLY, OK), 'v4-literal': 'frame error' };
}

const encapsulated: readonly CsumRow[] = L4S.flatMap((l4) =>
  STACK_TARGETS.flatMap((target) =>
    (['P', 'V', 'U', 'Ubad', 'Vbad'] as const).map((kind): CsumRow => ({
      section: '10.4',
      kind,
      l4,
      program: 'encap+PASS',
      target,
      expected: tunnelled(kind, target),
    })),
  ),
);

const dropped: readonly CsumRow[] = (['drop', 'aborted'] as const).flatMap((program) =>
  (['P', 'V', 'U'] as const).map((kind): CsumRow => ({
    section: '10.5',
    kind,
    l4: 'udp4',
    program,
    target: 'local',
    expected: kind === 'P' ? { ...all('XDP drop'), upstream: EARLY } : all('XDP drop'),
  })),
);

/** A frame sent through a NIC, as with XDP_TX; the Ethernet addresses are swapped. */
const toDevice: readonly CsumRow[] = L4S.flatMap((l4) =>
  (['P', 'V', 'U', 'Ubad'] as const).map((kind): CsumRow => ({
    section: '10.5',
    kind,
    l4,
    program: 'to NIC',
    target: 'peer',
    expected: sentBack(kind),
  })),
);

/** Of a frame the CPU's thread makes an skb that knows nothing; generic XDP hands over the skb that is there. */
function onOtherCpu(kind: CsumKind, target: CsumTarget): Expected {
  const { generic } = passed(kind, target);
  switch (kind) {
    case 'P':
      return columns(lost(target), lost(target), EARLY, generic);
    case 'Vbad':
    case 'Ubad':
      return columns(lost(target), lost(target), lost(target), generic);
    case 'V':
    case 'U':
    case 'U0':
      return all(OK);
  }
}

const toCpu: readonly CsumRow[] = STACK_TARGETS.flatMap((target) =>
  (['P', 'V', 'U', 'Ubad', 'Vbad'] as const).map((kind): CsumRow => ({
    section: '10.5',
    kind,
    l4: 'udp4',
    program: 'to cpumap',
    target,
    expected: onOtherCpu(kind, target),
  })),
);

const toSocket: readonly CsumRow[] = (['P', 'V', 'U'] as const).map((kind): CsumRow => ({
  section: '10.5',
  kind,
  l4: 'udp4',
  program: 'to AF_XDP',
  target: 'local',
  expected: kind === 'P' ? { ...all('AF_XDP'), upstream: EARLY } : all('AF_XDP'),
}));

/** What the stack makes of each when no program is there, and what the literal patch makes of it. */
const ODD: readonly (readonly [OddFrame, CsumOutcome, L4Kind])[] = [
  ['vlan', OK, 'udp4'],
  ['fragment', 'stack drop', 'udp4'],
  ['udp-lite', 'stack drop', 'udp4'],
  ['sctp', 'stack drop', 'udp4'],
  ['esp', 'stack drop', 'udp6'],
  ['arp', 'stack drop', 'udp4'],
];

const odd: readonly CsumRow[] = ODD.flatMap(([name, untouched, l4]): CsumRow[] => [
  {
    section: '10.6',
    kind: 'P',
    l4,
    program: undefined,
    target: 'local',
    odd: name,
    expected: all(untouched),
  },
  {
    section: '10.6',
    kind: 'P',
    l4,
    program: 'pass',
    target: 'local',
    odd: name,
    expected: {
      // the field of a VLAN-tagged packet is still the pseudo-header's sum
      base: untouched === OK ? 'L4 drop' : untouched,
      'v4-literal': 'frame error',
      'v4-fixed': untouched,
      upstream: EARLY,
      generic: untouched,
    },
  },
]);

export const CSUM_ROWS: readonly CsumRow[] = [
  ...unmodified,
  ...nat,
  ...transmitted,
  ...encapsulated,
  ...dropped,
  ...toDevice,
  ...toCpu,
  ...toSocket,
  ...odd,
];

/** Whether a row can be run in a mode: S2 sums the payload, which then does not lie in one piece. */
export function rowRunsIn(row: CsumRow, variant: CsumVariant, mode: CsumMode): boolean {
  if (mode === 'two-buffers-frags' && variant !== 'generic') return row.program !== 'nat-S2';
  return true;
}

/** Where a packet goes that no program has touched: the others send or rewrite one for this host. */
export function untouchedTarget({ program, target }: CsumRow): CsumTarget {
  const forwards = program === undefined || program === 'pass' || program === 'to cpumap';
  return forwards ? target : 'local';
}

/** What the stack makes of a packet with the state that its header told, or with none. */
function untouchedOutcome(row: CsumRow, isBlind: boolean): CsumOutcome {
  if (row.odd !== undefined) return row.expected[isBlind ? 'base' : 'generic'];
  const { base, generic } = passed(row.kind, untouchedTarget(row));
  return isBlind ? base : generic;
}

/**
 * The expectation for a mode. In small and big mode the literal patch reads the flags from the buffer's padding or its
 * page structure and finds none: partial checksums and verified ones are lost as in the driver before it. In
 * big mode no program of the driver runs.
 */
export function expectedOutcome(row: CsumRow, variant: CsumVariant, mode: CsumMode): CsumOutcome {
  const isBlind =
    variant === 'v4-literal' && (mode === 'small' || mode === 'big') && row.program !== undefined;
  const runs = mode !== 'big' || variant === 'generic' || row.program === undefined;
  if (!runs) return untouchedOutcome(row, isBlind);
  return row.expected[isBlind ? 'base' : variant];
}

/** `P udp4 nat-S1 fwdHW`. */
export function describeRow(row: CsumRow): string {
  const parts = [row.kind, row.l4, row.odd, row.program ?? 'no XDP', row.target];
  return parts.filter((part) => part !== undefined).join(' ');
}
