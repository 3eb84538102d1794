/**
 * Comparing what the model did with a record of `vectors/smc`: fields, sockets, and why something is skipped.
 */
import { SMC_STATE } from '../../smc/constants.js';
import type { SockState } from '../../smc/state.js';
import type { VectorRecord } from './record.js';

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

export const RING = 'a DMB has 32 bytes less than the buffer of SMC-R';

/** From here on ports are those of clients, here and there. */
const FIRST_EPHEMERAL_PORT = 32768;

export function skip(reason: string): Difference {
  return { kind: 'skipped', reason };
}

export function differenceOf(
  compared: readonly (readonly [name: string, ours: unknown, theirs: unknown])[],
): Difference {
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

/** Sockets are paired by who listens: the server's end has the listener's port. */
export function compareSocks(record: VectorRecord, socks: readonly SockState[]): Difference {
  const compared: (readonly [string, unknown, unknown])[] = [];
  const theirs = record
    .records('socks')
    .filter((each) => each.number('state') !== SMC_STATE.LISTEN);
  for (const each of theirs) {
    if (hasWrap(each)) return skip(RING);
    const isClient = isClientEnd(each);
    const who = isClient ? 'client' : 'server';
    const ours = socks.find(
      ({ state, accepted, local }) =>
        state !== 'LISTEN' && accepted && isClient === local.port >= FIRST_EPHEMERAL_PORT,
    );
    if (!ours) {
      compared.push([who, 'no socket', `state ${each.number('state')}`]);
      continue;
    }
    compared.push(
      [`${who} state`, SMC_STATE[ours.state], each.number('state')],
      [`${who} shutdown`, ours.shutdown, each.number('shutdown')],
      [`${who} reason`, hex32(ours.fallbackReason), each.text('fb_reason')],
      [`${who} peer diagnosis`, hex32(ours.peerDiagnosis), each.text('peer_diag')],
      ...compareConnection(who, ours, each),
    );
  }
  return compared.length === 0 ? skip('no socket is listed') : differenceOf(compared);
}

/** A TCP socket that is shut both ways has lost its own port. */
function isClientEnd(sock: VectorRecord): boolean {
  const port = sock.number('sport');
  return port === 0 ? sock.number('dport') < FIRST_EPHEMERAL_PORT : port >= FIRST_EPHEMERAL_PORT;
}

function hasWrap(sock: VectorRecord): boolean {
  return ['rx_prod', 'tx_prod', 'tx_cons', 'tx_prep'].some(
    (name) => sock.has(name) && (sock.numbers(name)[0] ?? 0) > 0,
  );
}

function compareConnection(
  who: string,
  { connection }: SockState,
  theirs: VectorRecord,
): (readonly [string, unknown, unknown])[] {
  if (!theirs.has('flags') || !connection) return [];
  const hex = (value: number): string => value.toString(16).padStart(2, '0');
  const { flags } = connection;
  return [
    [`${who} rx prod`, connection.rxProd, theirs.numbers('rx_prod')],
    [`${who} rx cons`, connection.rxCons, theirs.numbers('rx_cons')],
    [`${who} tx prod`, connection.txProd, theirs.numbers('tx_prod')],
    [`${who} tx cons`, connection.txCons, theirs.numbers('tx_cons')],
    [`${who} tx prep`, connection.txPrep, theirs.numbers('tx_prep')],
    [`${who} tx sent`, connection.txSent, theirs.numbers('tx_sent')],
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
