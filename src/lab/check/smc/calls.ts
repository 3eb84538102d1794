/**
 * The single calls of `vectors/smc`, by the names and letters that its records have for them.
 */
import { hexToBytes } from '../../../common/bytes.js';
import { KernelError } from '../../../common/errors.js';
import { blankPadded } from '../../../smc/clc/values.js';
import { MSG } from '../../../smc/constants.js';
import type { Smc } from '../../../smc/smc.js';
import type { SmcPair } from '../../smc-pair.js';
import type { VectorRecord } from '../record.js';
import type { Outcome } from './compare.js';

/** A pair as calls need it. */
export type CallPair = Pick<SmcPair, 'client' | 'server'>;

/** `untold`: the file has something of its own where the result would be; `unknown`: no such call. */
export type CallResult = number | 'untold' | 'unknown';

/** `client:x(ms)`: one letter of a sequence. */
export function sequenceOp(pair: CallPair, op: string): CallResult {
  const [who = '', call = ''] = op.split(':');
  const socket = who === 'client' ? pair.client : pair.server;
  switch (call) {
    case 'n':
      return socket.sendNow(new Uint8Array(10));
    case 'm':
      return socket.recvNow(new Uint8Array(10));
    case 'w':
      return socket.shutdownNow('wr');
    case 'r':
      return socket.shutdownNow('rd');
    case 'b':
      return socket.shutdownNow('rdwr');
    case 'l':
      socket.linger = 0;
      return 0;
    case 'e':
      return socket.sock === 0 ? 0 : socket.takeError();
    case 'p':
      return socket.sock === 0 ? 0 : socket.poll();
    case 'x(ms)':
      socket.closeNow();
      return 'untold';
    default:
      return 'unknown';
  }
}

/** `send10 MSG_MORE`, `recv 2303`, `recv OOB`: from client to server. */
export function dataOp({ client, server }: CallPair, op: string): CallResult {
  const size = Number(/\d+/.exec(op)?.[0] ?? 0);
  const receive = (length: number, flags = 0): number =>
    server.recvNow(new Uint8Array(length), flags);
  switch (op.replace(/\d+/g, '#')) {
    case 'send# MSG_MORE':
    case 'fill MSG_MORE #':
      return client.sendNow(new Uint8Array(size), MSG.MORE);
    case 'send#':
    case 'send #':
      return client.sendNow(new Uint8Array(size));
    case 'peek':
      return receive(100, MSG.PEEK);
    case 'trunc#':
      return receive(size, MSG.TRUNC);
    case 'recv':
    case 'recv inband':
      return receive(100);
    case 'recv #':
    case 'recv # (# of # sent)':
      return receive(size);
    case 'send abc OOB':
      return client.sendNow(new TextEncoder().encode('abc'), MSG.OOB);
    case 'recv OOB':
      // what came is told by the bytes that follow: the file has a result of its own making
      receive(1, MSG.OOB);
      return 'untold';
    case 'recv OOB again':
    case 'recv OOB none':
      return receive(1, MSG.OOB);
    case 'send while urg pend':
    case 'send after read':
      return client.sendNow(new Uint8Array(3));
    default:
      return 'unknown';
  }
}

const HEAD = 'e2d4c3d9';
const TRAIL = 'e2d4c3d9';

function hex(value: number, digits: number): string {
  return value.toString(16).padStart(digits, '0');
}

/** What the user-space peer answered, from the name of the case. */
export function clientAnswer(name: string): Uint8Array | 'fin' | 'nothing' | undefined {
  const decline = (code: string, version: 1 | 2, flags = 0): string =>
    version === 1
      ? `${HEAD}04001c${(0x10 | flags).toString(16)}${'00'.repeat(8)}${code}00000000${TRAIL}`
      : `${HEAD}04002c${(0x20 | flags).toString(16)}${'00'.repeat(8)}${code}20000000${'00'.repeat(16)}${TRAIL}`;
  const accept = (length: number, flags: number): string =>
    `e2d4c3c402${hex(length, 4)}${flags.toString(16)}${'00'.repeat(length - 12)}e2d4c3c4`;
  const broken: Readonly<Record<string, string>> = {
    'garbage eyecatcher': decline('03030001', 2).replace(HEAD, 'deadbeef'),
    'decline trailer bad': decline('00000000', 2).replace(/e2d4c3d9$/, '00000000'),
    'type proposal as answer': decline('03030001', 2).replace('04002c', '01002c'),
  };
  if (name === 'peer FIN') return 'fin';
  if (name.startsWith('propose, silent')) return 'nothing';
  const known = broken[name];
  if (known !== undefined) return hexToBytes(known);
  const [, length] = /^decline length (\d+)$/.exec(name) ?? [];
  if (length !== undefined) {
    return hexToBytes(decline('03030001', 2).replace('002c', hex(Number(length), 4)));
  }
  const [, declined, code = ''] = /^peer declines (?:v([12]) \d+ )?([0-9a-f]{8})$/.exec(name) ?? [];
  if (code !== '') return hexToBytes(decline(code, declined === '1' ? 1 : 2));
  if (name === 'peer declines SYNCERR with 0x08') return hexToBytes(decline('04000000', 2, 8));
  const [, version, size, first] =
    /^SMC-D v([12]) accept (\d+)( \(first contact\))?, not proposed$/.exec(name) ?? [];
  if (size === undefined) return undefined;
  const flags = (Number(version) << 4) | 1 | (first === undefined ? 0 : 8);
  return hexToBytes(accept(Number(size), flags));
}

export function eidBytes(record: VectorRecord): Uint8Array {
  return new TextEncoder().encode(record.text('eid'));
}

/** 0, or the negative errno. */
export function errnoOf(call: () => void): number {
  try {
    call();
    return 0;
  } catch (error) {
    if (error instanceof KernelError) return error.code;
    throw error;
  }
}

export function addPadded(smc: Smc, eid: string): Outcome {
  const add = (bytes: Uint8Array): number => {
    const rc = errnoOf(() => smc.eids.add(bytes));
    smc.eids.flush();
    return rc;
  };
  const raw = new TextEncoder().encode(eid);
  return {
    raw_r: add(raw),
    ...(raw.length > 32 ? {} : { padded_r: add(blankPadded(eid)) }),
  };
}

export function ueidRules(smc: Smc): Outcome {
  const { eids } = smc;
  const add = (eid: string): number => errnoOf(() => eids.add(eid));
  const outcome = {
    add1: add('UEID-1'),
    dup: add('UEID-1'),
    add2: add('UEID-2'),
    add3: add('UEID-3'),
    add4: add('UEID-4'),
    add5: add('UEID-5'),
    dup_when_full: add('UEID-1'),
    rm_unknown: errnoOf(() => eids.remove('UEID-9')),
    rm: errnoOf(() => eids.remove('UEID-2')),
  };
  eids.flush();
  return outcome;
}

export function initialSocket(smc: Smc): Outcome {
  const socket = smc.socket();
  const outcome = {
    rcvbuf: socket.getOption('rcvbuf'),
    sndbuf: socket.getOption('sndbuf'),
    send: socket.sendNow(new Uint8Array(1)),
    recv: socket.recvNow(new Uint8Array(1)),
    shutdown_wr: socket.shutdownNow('wr'),
    shutdown_bad: socket.shutdownNow(3),
    poll: socket.poll(),
    domain: socket.family,
    protocol: socket.protocol,
  };
  socket.closeNow();
  return outcome;
}
