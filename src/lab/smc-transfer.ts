/**
 * A transfer over SMC-D told step by step: cursors, and what of the receiver's ring is taken.
 *
 * Usage:
 *   const transfer = await openTransfer(smc, { rcvbuf: 16384, sndbuf: 16384 });
 *   for (const step of transfer.run({ size: 6000, count: 4 })) print(step.picture);
 */
import { connOf } from '../smc/core/fields.js';
import type { SmcStats } from '../smc/context.js';
import type { Smc } from '../smc/smc.js';
import type { SmcSocket } from '../smc/socket/smc-socket.js';
import { connectPair, type BufferSizes, type SmcPair } from './smc-pair.js';
import { connectionState, type ConnectionState, type CursorValue } from '../smc/state.js';

export interface TransferOptions extends BufferSizes {
  readonly port?: number;
}

export interface TransferStep {
  /** `send 6000`, `recv 6000`. */
  readonly call: string;
  /** Bytes, or a negative errno. */
  readonly result: number;
  readonly sender: ConnectionState;
  readonly receiver: ConnectionState;
  /** The receiver's ring: `#` unread, `+` written and not yet told, `-` free. */
  readonly picture: string;
  /** What the call added to the counters. */
  readonly stats: Partial<SmcStats>;
}

export interface Transfer extends SmcPair {
  /** `count` messages; the receiver reads when `unread` of them wait, and at the end all. */
  run(messages: {
    readonly size: number;
    readonly count: number;
    readonly unread?: number;
  }): Generator<TransferStep>;
}

const WIDTH = 48;
const ADDRESS = '127.0.0.1';

export async function openTransfer(smc: Smc, options: TransferOptions = {}): Promise<Transfer> {
  const { port = 5000 } = options;
  const pair = await connectPair(smc, { address: ADDRESS, port }, options);
  return { ...pair, run: (messages) => steps(smc, pair.client, pair.server, messages) };
}

function* steps(
  smc: Smc,
  client: SmcSocket,
  server: SmcSocket,
  { size, count, unread = 2 }: { size: number; count: number; unread?: number },
): Generator<TransferStep> {
  const message = new Uint8Array(size).fill(0x61);
  const buffer = new Uint8Array(size);
  let waiting = 0;
  for (let i = 0; i < count; i++) {
    const sent = step(smc, client, server, `send ${size}`, () => client.sendNow(message));
    yield sent;
    waiting += Math.max(sent.result, 0);
    if (waiting < unread * size && sent.result >= 0) continue;
    const read = step(smc, client, server, `recv ${size}`, () => server.recvNow(buffer));
    yield read;
    waiting -= Math.max(read.result, 0);
  }
  while (waiting > 0) {
    const read = step(smc, client, server, `recv ${size}`, () => server.recvNow(buffer));
    yield read;
    if (read.result <= 0) return;
    waiting -= read.result;
  }
}

function step(
  smc: Smc,
  client: SmcSocket,
  server: SmcSocket,
  call: string,
  act: () => number,
): TransferStep {
  const before = { ...smc.stats };
  const result = act();
  const sender = connectionState(smc, connOf(client.sock));
  const receiver = connectionState(smc, connOf(server.sock));
  if (!sender || !receiver) throw new Error('the connection is gone');
  const stats = Object.fromEntries(
    Object.entries(smc.stats).flatMap(([name, value]) => {
      const added = value - before[name as keyof SmcStats];
      return added === 0 ? [] : [[name, added]];
    }),
  );
  return { call, result, sender, receiver, picture: picture(sender, receiver), stats };
}

/** The ring from its start, a character for each 48th. */
function picture(sender: ConnectionState, receiver: ConnectionState): string {
  const ring = receiver.rmbeSize;
  const isShared = sender.sndbufSize === ring;
  const from = receiver.txCons[1];
  const unread = distance(ring, receiver.txCons, receiver.rxProd);
  const staged = isShared ? distance(ring, sender.txSent, sender.txPrep) : 0;
  const cells = Array.from({ length: WIDTH }, (_, i) => {
    const start = Math.floor((i * ring) / WIDTH);
    const end = Math.floor(((i + 1) * ring) / WIDTH);
    if (overlaps(ring, from, unread, start, end)) return '#';
    return overlaps(ring, from + unread, staged, start, end) ? '+' : '-';
  });
  return `[${cells.join('')}]`;
}

function distance(ring: number, from: CursorValue, to: CursorValue): number {
  return to[1] - from[1] + (to[0] === from[0] ? 0 : ring);
}

/** Do `size` bytes from `at` on, round the ring, meet [start, end)? */
function overlaps(ring: number, at: number, size: number, start: number, end: number): boolean {
  if (size <= 0) return false;
  const first = at % ring;
  const isDirect = first < end && first + size > start;
  return isDirect || first + size - ring > start;
}

/** What the counters say about each byte and message. */
export interface CopyFigures {
  /** User memory to user memory. */
  readonly copiesPerByte: number;
  /** With the records. */
  readonly deviceBytesPerByte: number;
  readonly cdcsPerMessage: number;
  readonly signalsPerMessage: number;
  readonly windowUpdates: number;
}

export function copyFigures(stats: SmcStats, bytes: number, messages: number): CopyFigures {
  const { userToKernel, deviceCopied, kernelToUser, cdcCopied } = stats;
  return {
    copiesPerByte: (userToKernel + deviceCopied + kernelToUser) / bytes,
    deviceBytesPerByte: (deviceCopied + cdcCopied) / bytes,
    cdcsPerMessage: stats.cdcs / messages,
    signalsPerMessage: stats.signals / messages,
    windowUpdates: stats.windowUpdates,
  };
}
