/**
 * Comparing what the model did with a record of `vectors/smc`: fields, sockets, and why something is skipped.
 */
import { SMC_STATE } from '../../../smc/constants.js';
import type { SockState } from '../../../smc/state.js';
import type { VectorRecord } from '../record.js';

export interface FieldDifference {
  readonly name: string;
  readonly ours: string;
  readonly theirs: string;
}

export type Difference =
  | { readonly kind: 'equal' }
  /** `rdma`: the record is about SMC-R. */
  | { readonly kind: 'skipped'; readonly reason: string }
  | { readonly kind: 'different'; readonly fields: readonly FieldDifference[] };

/** Names and values of what the model did. */
export type Outcome = Readonly<Record<string, unknown>>;

/** From here on ports are those of clients, here and there. */
/** smc_diag_mode: SMC_DIAG_MODE_FALLBACK_TCP */
const MODE_FALLBACK = 1;
const FIRST_EPHEMERAL_PORT = 32768;

export function skip(reason: string): Difference {
  return { kind: 'skipped', reason };
}

export function differenceOf(compared: readonly Compared[]): Difference {
  const fields = compared
    .map(([name, ours, theirs]) => ({
      name,
      ours: JSON.stringify(ours) ?? 'nothing',
      theirs: JSON.stringify(theirs) ?? 'nothing',
    }))
    .filter(({ ours, theirs }) => ours !== theirs);
  return fields.length === 0 ? { kind: 'equal' } : { kind: 'different', fields };
}

/** Compares the fields that both have. */
export function compareFields(record: VectorRecord, ours: Outcome): Difference {
  const shared = Object.entries(ours).filter(
    ([name, value]) => record.has(name) && value !== undefined,
  );
  if (shared.length === 0) return skip('nothing of it can be compared');
  return differenceOf(shared.map(([name, value]) => [name, value, record.fields[name]]));
}

/**
 * Compares the ends of one connection: theirs is the newest in the list, ours is at `port`. A listing has the
 * sockets that somebody holds.
 */
export function compareSocks(
  record: VectorRecord,
  socks: readonly SockState[],
  port: number,
): Difference {
  const connected = record
    .records('socks')
    .filter((each) => each.number('state') !== SMC_STATE.LISTEN);
  const [newest] = connected;
  const theirs = connected.filter((each) => newest !== undefined && isSamePair(each, newest));
  const ours = socks.filter(
    ({ state, accepted, local, remote }) =>
      state !== 'LISTEN' && accepted && (local.port === port || remote.port === port),
  );
  return differenceOf(
    [true, false].flatMap((isClient) => {
      const who = isClient ? 'client' : 'server';
      const our = ours.find(({ remote }) => isClient === (remote.port === port));
      const their = theirs.find((each) => isClientEnd(each) === isClient);
      if (our && their) return compareEnds(who, our, their);
      return our || their
        ? [[who, our?.state ?? 'no socket', their ? `state ${their.number('state')}` : 'no socket']]
        : [];
    }),
  );
}

type Compared = readonly [name: string, ours: unknown, theirs: unknown];

function compareEnds(who: string, ours: SockState, theirs: VectorRecord): Compared[] {
  return [
    [`${who} state`, SMC_STATE[ours.state], theirs.number('state')],
    [`${who} shutdown`, ours.shutdown, theirs.number('shutdown')],
    [`${who} TCP`, ours.mode === 'TCP', theirs.number('mode') === MODE_FALLBACK],
    [`${who} reason`, hex32(ours.fallbackReason), theirs.text('fb_reason')],
    [`${who} peer diagnosis`, hex32(ours.peerDiagnosis), theirs.text('peer_diag')],
    ...compareConnection(who, ours, theirs),
  ];
}

/** Ends of one connection; a port that an end has lost may be any. */
function isSamePair(a: VectorRecord, b: VectorRecord): boolean {
  return (['server', 'client'] as const).every((who) => {
    const [one, other] = [portOf(a, who), portOf(b, who)];
    return one === 0 || other === 0 || one === other;
  });
}

function portOf(sock: VectorRecord, who: 'client' | 'server'): number {
  return sock.number(isClientEnd(sock) === (who === 'client') ? 'sport' : 'dport');
}

/** A TCP socket that is shut both ways has lost its own port. */
function isClientEnd(sock: VectorRecord): boolean {
  const port = sock.number('sport');
  return port === 0 ? sock.number('dport') < FIRST_EPHEMERAL_PORT : port >= FIRST_EPHEMERAL_PORT;
}

function compareConnection(
  who: string,
  { connection }: SockState,
  theirs: VectorRecord,
): Compared[] {
  if (!theirs.has('flags') || !connection) return [];
  const hex = (value: number): string => value.toString(16).padStart(2, '0');
  const { flags } = connection;
  return [
    [`${who} sndbuf`, connection.sndbufSize, theirs.number('sndbuf')],
    [`${who} rmbe`, connection.rmbeSize, theirs.number('rmbe')],
    [`${who} peer rmbe`, connection.peerRmbeSize, theirs.number('peer_rmbe')],
    [`${who} rx prod`, connection.rxProd, theirs.numbers('rx_prod')],
    [`${who} rx cons`, connection.rxCons, theirs.numbers('rx_cons')],
    [`${who} tx prod`, connection.txProd, theirs.numbers('tx_prod')],
    [`${who} tx cons`, connection.txCons, theirs.numbers('tx_cons')],
    [`${who} tx prep`, connection.txPrep, theirs.numbers('tx_prep')],
    [`${who} tx sent`, connection.txSent, theirs.numbers('tx_sent')],
    [`${who} tx fin`, connection.txFin, theirs.numbers('tx_fin')],
    [
      `${who} flags`,
      `rxp${hex(flags.rxProd)} rxs${hex(flags.rxState)} txp${hex(flags.txProd)} txs${hex(flags.txState)}`,
      theirs.text('flags'),
    ],
  ];
}

function hex32(value: number): string {
  return `0x${value.toString(16).padStart(8, '0')}`;
}
