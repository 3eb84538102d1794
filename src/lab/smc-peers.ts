/**
 * Two peers that send and receive at random over one SMC connection, and what must hold all the time.
 *
 * Checked: bytes arrive as they were sent, counters stay within their rings, somebody can always go on, and
 * at the end each side has read all that the other has sent. Property tests run it with small amounts,
 * `trampolab smc run` and the benchmark with large ones.
 *
 * Usage:
 *   const { problem, bytes } = await runPeers(smc, { seed: 1, rcvbuf: 16384, sndbuf: 65536, bytes: 1e6 });
 */
import { ERRNO } from '../common/errno.js';
import { Random } from '../common/random.js';
import { connOf } from '../smc/core/fields.js';
import type { Smc } from '../smc/smc.js';
import type { SmcSocket } from '../smc/socket/smc-socket.js';
import { connectPair } from './smc-pair.js';
import { connectionState } from '../smc/state.js';

export interface PeersOptions {
  readonly seed: number;
  readonly rcvbuf: number;
  readonly sndbuf: number;
  /** Both directions together, about. */
  readonly bytes: number;
}

export interface PeersResult {
  /** What did not hold; undefined when all did. */
  readonly problem: string | undefined;
  /** Received, both directions. */
  readonly bytes: number;
  readonly calls: number;
}

const PORT = 4711;
const ADDRESS = '127.0.0.1';
/** Calls in a row that moved nothing: nobody can go on. */
const STALLED = 2000;

/** Largest call, and the period of the bytes: a prime, so that no ring divides it. */
const CHUNK = 1 << 18;
const PERIOD = 65521;

/** One direction: the byte at a position is that of a table, read over and over. */
class Stream {
  sent = 0;
  received = 0;
  readonly #table = new Uint8Array(PERIOD + CHUNK);

  constructor(seed: number) {
    const random = new Random(seed);
    for (let i = 0; i < PERIOD; i++) this.#table[i] = random.u32();
    for (let i = PERIOD; i < this.#table.length; i++) this.#table[i] = this.#table[i - PERIOD] ?? 0;
  }

  fill(buffer: Uint8Array): void {
    const from = this.sent % PERIOD;
    buffer.set(this.#table.subarray(from, from + buffer.length));
  }

  /** Position of the first wrong byte. */
  check(buffer: Uint8Array): number | undefined {
    const table = this.#table;
    const from = this.received % PERIOD;
    for (let i = 0; i < buffer.length; i++) {
      if (buffer[i] !== table[from + i]) return this.received + i;
    }
    return undefined;
  }
}

/** A connection is made, used and closed. */
export async function runPeers(smc: Smc, options: PeersOptions): Promise<PeersResult> {
  const random = new Random(options.seed);
  const pair = await connectPair(smc, { address: ADDRESS, port: PORT }, options);
  const run = new PeersRun(smc, [pair.client, pair.server], random);
  const problem = run.exchange(options.bytes) ?? run.finish();
  pair.close();
  return { problem, bytes: run.bytes, calls: run.calls };
}

class PeersRun {
  calls = 0;
  readonly #smc: Smc;
  readonly #ends: readonly [SmcSocket, SmcSocket];
  readonly #streams: readonly [Stream, Stream] = [new Stream(1), new Stream(99)];
  readonly #random: Random;
  readonly #buffer = new Uint8Array(CHUNK);

  constructor(smc: Smc, ends: readonly [SmcSocket, SmcSocket], random: Random) {
    this.#smc = smc;
    this.#ends = ends;
    this.#random = random;
  }

  get bytes(): number {
    return this.#streams[0].received + this.#streams[1].received;
  }

  /** Random calls until `bytes` have arrived. */
  exchange(bytes: number): string | undefined {
    let idle = 0;
    while (this.bytes < bytes) {
      const before = this.#streams[0].sent + this.#streams[1].sent + this.bytes;
      const who = this.#random.below(2) as 0 | 1;
      const problem = this.#random.below(2) === 0 ? this.#send(who) : this.#receive(who);
      if (problem !== undefined) return problem;
      const after = this.#streams[0].sent + this.#streams[1].sent + this.bytes;
      idle = after === before ? idle + 1 : 0;
      if (idle > STALLED) return `nobody can go on after ${this.bytes} bytes`;
    }
    return undefined;
  }

  /** In good order, or one end closes all of a sudden, with bytes that nobody has read or without. */
  finish(): string | undefined {
    return this.#random.below(3) === 0 ? this.#closeOne() : this.#stopBoth();
  }

  /** What the closing end had sent arrives, then the end; who sends learns it, an abort is told once. */
  #closeOne(): string | undefined {
    const closer = this.#random.below(2) as 0 | 1;
    const [end, other] = [this.#ends[closer], this.#ends[1 - closer] as SmcSocket];
    const before = connectionState(this.#smc, connOf(end.sock));
    if (this.#random.below(2) === 0) {
      const problem = this.#readAll((1 - closer) as 0 | 1, -ERRNO.EAGAIN);
      if (problem !== undefined) return problem;
    }
    const isUnread = (connectionState(this.#smc, connOf(end.sock))?.bytesToReceive ?? 0) > 0;
    end.closeNow();
    const problem = this.#readAll(closer, 0);
    if (problem !== undefined) return problem;
    const left = this.#streams[closer].sent - this.#streams[closer].received;
    if (left > (before?.sndbufSize ?? 0)) return `${left} bytes that were sent are lost`;
    const sent = other.sendNow(this.#buffer.subarray(0, 1));
    const expected = isUnread ? -ERRNO.EPIPE : -ERRNO.ECONNRESET;
    if (sent !== expected) return `a send after the end gave ${sent}`;
    const errors = [other.takeError(), other.takeError()];
    if (errors[0] !== (isUnread ? ERRNO.ECONNRESET : 0) || errors[1] !== 0) {
      return `SO_ERROR gave ${errors.join(', ')}`;
    }
    return undefined;
  }

  /** Reads what `who` has sent until a call gives `last`: 0 for the end of the stream. */
  #readAll(who: 0 | 1, last: number): string | undefined {
    const stream = this.#streams[who];
    const reader = this.#ends[1 - who] as SmcSocket;
    for (;;) {
      const got = reader.recvNow(this.#buffer);
      if (got === last) return undefined;
      if (got <= 0) return `a read that should give ${last} gave ${got}`;
      const wrong = stream.check(this.#buffer.subarray(0, got));
      if (wrong !== undefined) return `byte ${wrong} is wrong`;
      stream.received += got;
    }
  }

  /** Each side stops writing and reads what is left. */
  #stopBoth(): string | undefined {
    for (const end of this.#ends) {
      const rc = end.shutdownNow('wr');
      if (rc !== 0) return `shutdown gave ${rc}`;
    }
    for (const who of [0, 1] as const) {
      const stream = this.#streams[who];
      const problem = this.#readAll(who, 0);
      if (problem !== undefined) return problem;
      // with copy, what is in the send ring only is lost when nobody waits for it
      const conn = connectionState(this.#smc, connOf(this.#ends[who].sock));
      const unsent = conn
        ? conn.txPrep[1] !== conn.txSent[1] || conn.txPrep[0] !== conn.txSent[0]
        : false;
      if (!unsent && stream.received !== stream.sent) {
        return `${stream.sent} bytes were sent and ${stream.received} received`;
      }
    }
    return undefined;
  }

  #size(): number {
    // mostly small, at times more than a ring
    return 1 + this.#random.below(this.#random.below(8) === 0 ? this.#buffer.length : 3000);
  }

  #send(who: 0 | 1): string | undefined {
    const stream = this.#streams[who];
    const chunk = this.#buffer.subarray(0, this.#size());
    stream.fill(chunk);
    const sent = this.#ends[who].sendNow(chunk);
    this.calls++;
    if (sent < 0 && sent !== -ERRNO.EAGAIN) return `send gave ${sent}`;
    stream.sent += Math.max(sent, 0);
    return this.#outOfRange(who);
  }

  #receive(who: 0 | 1): string | undefined {
    const stream = this.#streams[1 - who] as Stream;
    const chunk = this.#buffer.subarray(0, this.#size());
    const got = this.#ends[who].recvNow(chunk);
    this.calls++;
    if (got < 0 && got !== -ERRNO.EAGAIN) return `recv gave ${got}`;
    const wrong = stream.check(chunk.subarray(0, Math.max(got, 0)));
    if (wrong !== undefined) return `byte ${wrong} is wrong`;
    stream.received += Math.max(got, 0);
    return this.#outOfRange(who);
  }

  #outOfRange(who: 0 | 1): string | undefined {
    const conn = connectionState(this.#smc, connOf(this.#ends[who].sock));
    if (!conn) return 'the connection is gone';
    const counters: readonly (readonly [string, number, number])[] = [
      ['sndbuf_space', conn.sndbufSpace, conn.sndbufSize],
      ['peer_rmbe_space', conn.peerRmbeSpace, conn.peerRmbeSize],
      ['bytes_to_rcv', conn.bytesToReceive, conn.rmbeSize],
    ];
    const bad = counters.find(([, value, ring]) => value < 0 || value > ring);
    return bad && `${bad[0]} is ${bad[1]} of ${bad[2]}`;
  }
}
