/**
 * Records of `vectors/smc` that follow each other on one pair of sockets, cut into sessions and replayed.
 *
 * | sessions                        | are replayed as                                                     |
 * | ------------------------------- | ------------------------------------------------------------------- |
 * | `smc-smc`, `smc client`, `tcp client` | a pair of which both, or one, speak SMC, without a device     |
 * | `rxe no ueid`, `rxe ueid first` | a pair that proposes an InfiniBand device and ends in TCP            |
 * | `rxe lo first`, `lgr conns`     | a pair over SMC-D for what SMC-R did there                           |
 * | `rxe rbN sbM`                   | a ring filled, read byte by byte, filled and drained                 |
 * | `seq LETTERS`                   | single calls, a letter each                                          |
 * | `more`, `oob`, `win`, `bufs`    | sends and receives with flags, cursors after each; sizes of buffers  |
 *
 * Where the recorded kernel had SMC-R the pair runs over a loopback device that copies and whose rings are
 * whole powers of two, as SMC-R's are: cursors, windows and states are of the code that both share.
 */
import { bytesToHex, hexToBytes } from '../../../common/bytes.js';
import { partsOfProposal } from '../../../smc/clc/parse.js';
import { CLC_TYPE } from '../../../smc/clc/values.js';
import type { Smc } from '../../../smc/smc.js';
import type { TcpSocket } from '../../../smc/socket/tcp.js';
import { listSocks } from '../../../smc/state.js';
import { connectPair, type BufferSizes } from '../../smc-pair.js';
import type { VectorRecord } from '../record.js';
import { dataOp, sequenceOp } from './calls.js';
import { compareFields, compareSocks, differenceOf, skip, type Difference } from './compare.js';
import { UEID, firstProposal, type Machine } from './machines.js';

const ADDRESS = '127.0.0.1';
const LOCALHOST = 0x7f000001;
const KINDS: ReadonlySet<string> = new Set([
  'pair',
  'tcp',
  'op',
  'diag',
  'oob',
  'fill',
  'read1',
  'blocking_send',
  'bufs',
  'fastopen',
]);
/** Names that stand for a session by their beginning. */
const PREFIX = /^(seq \w+|more|oob|win2|win|rxe rb\d+ sb\d+|fastopen)/;
const UNTOLD = 'what was called is not told';
const LARGER = 'SMC-R goes to 4 MiB, SMC-D to 1 MiB';
const MAX_DMB = 1 << 20;
const COMPLETIONS = 'SMC-R has room again when a completion comes, after the call';

export interface Session {
  readonly key: string;
  readonly run: string;
  readonly records: readonly VectorRecord[];
}

/** Cuts the records of a file; those of other kinds are left out. */
export function sessionsOf(file: readonly VectorRecord[]): readonly Session[] {
  const sessions: { key: string; run: string; records: VectorRecord[] }[] = [];
  for (const record of file) {
    if (!KINDS.has(record.text('x'))) continue;
    const run = record.text('run');
    const last = sessions.at(-1);
    const before = last?.run === run ? last.key : undefined;
    const key = keyOf(record, before);
    const isNew = last === undefined || key !== before || record.text('x') === 'pair';
    if (isNew) sessions.push({ key, run, records: [record] });
    else last.records.push(record);
  }
  return sessions;
}

function keyOf(record: VectorRecord, before: string | undefined): string {
  const what = record.text('x');
  if (what === 'bufs') return `bufs ${record.number('req')}`;
  const at = record.has('at') ? record.text('at') : what;
  const isBufs = at.startsWith('bufs ') && before?.startsWith('bufs ');
  const isSame = at === 'rxe' || at.endsWith(' data') || isBufs;
  if (isSame && before !== undefined) return before;
  return PREFIX.exec(at)?.[0] ?? at;
}

interface Ends {
  readonly smc: Smc;
  /** Of the server, here. */
  readonly port: number;
  readonly client?: Awaited<ReturnType<typeof connectPair>>['client'] | undefined;
  readonly server?: Awaited<ReturnType<typeof connectPair>>['server'] | undefined;
  send(bytes: Uint8Array): number;
  recv(buffer: Uint8Array): number;
  close(): void;
}

let nextPort = 1024;

/** Replays a session; undefined: the lab has nothing of the kind. */
export async function replaySession(
  session: Session,
  machine: Machine,
): Promise<ReadonlyMap<VectorRecord, Difference> | undefined> {
  const isSmcr = session.run.includes('smcr');
  const ends = await openEnds(session, machine, isSmcr);
  if (!ends) return undefined;
  const replay = new SessionReplay(session, ends, isSmcr ? await machine('roce') : undefined);
  const differences = new Map<VectorRecord, Difference>();
  for (const record of session.records) differences.set(record, await replay.step(record));
  ends.close();
  return differences;
}

async function openEnds(
  session: Session,
  machine: Machine,
  isSmcr: boolean,
): Promise<Ends | undefined> {
  const { key, run } = session;
  const port = nextPort++;
  const to = { address: ADDRESS, port };
  const endpoint = { address: LOCALHOST, port };
  if (key === 'lgr conns') return undefined;
  if (isSmcr) {
    const isRaised = run.includes('raised');
    const smc = prepared(await machine(isRaised ? 'raised' : 'whole'), true);
    return pairEnds(smc, port, await connectPair(smc, to, sizesOf(session)));
  }
  if (key.startsWith('rxe ')) {
    const smc = prepared(await machine('roce'), !key.includes('no ueid'));
    return pairEnds(smc, port, await connectPair(smc, to));
  }
  const smc = prepared(await machine('none'), !key.includes('no ueid'));
  if (key.startsWith('smc-smc')) {
    return pairEnds(smc, port, await connectPair(smc, to));
  }
  if (key === 'fastopen') {
    const listener = smc.socket();
    listener.listen(to);
    const client = smc.socket();
    await client.connect(to, { fastopen: true });
    const server = await listener.accept();
    listener.closeNow();
    const close = (): void => {
      client.closeNow();
      server.closeNow();
      smc.run();
    };
    return pairEnds(smc, port, { client, server, close });
  }
  if (key === 'smc client - tcp server') {
    const listener = smc.tcp.create();
    let server: TcpSocket | undefined;
    smc.tcp.bind(listener, endpoint);
    smc.tcp.listen(listener, (socket) => (server = socket));
    const client = smc.socket();
    await client.connect(to);
    return {
      smc,
      port,
      client,
      send: (bytes) => client.sendNow(bytes),
      recv: (buffer) => server?.read(buffer.length).length ?? 0,
      close: () => {
        client.closeNow();
        if (server) smc.tcp.release(server);
        smc.tcp.release(listener);
      },
    };
  }
  if (key === 'tcp client - smc server') {
    const listener = smc.socket();
    listener.listen(to);
    const client = smc.tcp.connectRaw({ to: endpoint, smcOption: false });
    smc.run();
    const server = await listener.accept();
    return {
      smc,
      port,
      server,
      send: (bytes) => client?.send(bytes) ?? -1,
      recv: (buffer) => server.recvNow(buffer),
      close: () => {
        server.closeNow();
        listener.closeNow();
        if (client) smc.tcp.release(client);
        smc.run();
      },
    };
  }
  return undefined;
}

/** A machine whose messages are those of the next session only. */
function prepared(smc: Smc, hasUeid: boolean): Smc {
  smc.messages.splice(0);
  smc.eids.flush();
  if (hasUeid) smc.eids.add(UEID);
  return smc;
}

function pairEnds(smc: Smc, port: number, pair: Awaited<ReturnType<typeof connectPair>>): Ends {
  const { client, server } = pair;
  return {
    ...pair,
    smc,
    port,
    send: (bytes) => client.sendNow(bytes),
    recv: (buffer) => server.recvNow(buffer),
  };
}

/** What was asked for, or what the buffers came to. */
function sizesOf({ key, records }: Session): BufferSizes {
  const request = records.find((each) => each.text('x') === 'bufs')?.number('req');
  if (request !== undefined) return { rcvbuf: request, sndbuf: request };
  const [, rcvbuf, sndbuf] = /rb(\d+) sb(\d+)/.exec(key) ?? [];
  if (rcvbuf !== undefined) return { rcvbuf: Number(rcvbuf), sndbuf: Number(sndbuf) };
  if (records.some((each) => each.text('x') === 'blocking_send')) {
    return { rcvbuf: 16384, sndbuf: 16384 };
  }
  for (const record of records) {
    const socks = record.text('x') === 'diag' ? record.records('socks') : [];
    const [first, second] = socks.filter((each) => each.has('rmbe'));
    if (first) {
      const client = second && second.number('sport') > second.number('dport') ? second : first;
      return { rcvbuf: first.number('rmbe'), sndbuf: client.number('sndbuf') };
    }
  }
  return {};
}

class SessionReplay {
  readonly #session: Session;
  readonly #ends: Ends;
  /** Where proposals of an InfiniBand device are made, for a session over SMC-R. */
  readonly #roce: Smc | undefined;
  #blockingSends = 0;

  constructor(session: Session, ends: Ends, roce: Smc | undefined) {
    this.#session = session;
    this.#ends = ends;
    this.#roce = roce;
    const before = session.records.map((each) => (each.has('op') ? each.text('op') : ''));
    const preset = before.map((op) => /\((\d+) of \d+ sent\)/.exec(op)).find((match) => match);
    if (preset) ends.send(new Uint8Array(Number(preset[1])));
  }

  async step(record: VectorRecord): Promise<Difference> {
    switch (record.text('x')) {
      case 'pair':
        return compareFields(record, { connect: 0, accept: 0 });
      case 'fastopen':
        return compareFields(record, { set_connect: 0 });
      case 'tcp':
        return this.#segment(record);
      case 'op':
        return this.#op(record);
      case 'oob':
        return compareFields(record, { spoll: this.#ends.server?.poll() });
      case 'diag':
        return this.#diag(record);
      case 'fill':
        return this.#fill(record);
      case 'read1':
        return this.#readSingly(record);
      case 'bufs':
        return this.#buffers(record);
      default:
        return this.#blockingSend(record);
    }
  }

  // ---- handshake

  async #segment(record: VectorRecord): Promise<Difference> {
    const flags = record.number('flags');
    if (!record.has('data')) {
      // SYN, and SYN with ACK
      const { client, server } = this.#ends;
      const isFastopen = this.#session.key === 'fastopen';
      const has = client !== undefined && !isFastopen && (flags === 2 || server !== undefined);
      return differenceOf([['option', has, record.text('opt').includes('fe06e2d4c3d9')]]);
    }
    const theirs = hexToBytes(record.text('data'));
    const type = theirs[4];
    const isOfRdma = type === CLC_TYPE.ACCEPT || type === CLC_TYPE.CONFIRM;
    if (isOfRdma) return skip('rdma');
    const ours = this.#roce
      ? firstProposal(this.#roce)
      : this.#ends.smc.messages.find(({ bytes }) => bytes[4] === type)?.bytes;
    if (!ours) return differenceOf([['data', undefined, record.text('data')]]);
    return differenceOf([['data', bytesToHex(withHardwareOf(ours, theirs)), record.text('data')]]);
  }

  // ---- calls

  #op(record: VectorRecord): Difference {
    const { client, server } = this.#ends;
    const name = this.#isPeek(record) ? 'peek' : record.text('op');
    const isPair = client !== undefined && server !== undefined;
    let r: number | undefined;
    switch (name) {
      case 'send':
        r = this.#ends.send(new Uint8Array(5));
        break;
      case 'recv':
        r = this.#ends.recv(new Uint8Array(100));
        break;
      case 'connect':
        // was made when the session began
        r = 0;
        break;
      case 'send_after':
        r = this.#ends.send(new Uint8Array(1 << 20));
        break;
      case 'drain':
        r = this.#drain();
        break;
      default: {
        if (!isPair) return skip(UNTOLD);
        const call = this.#session.key.startsWith('seq') ? sequenceOp : dataOp;
        const done = call({ client, server }, name);
        if (done === 'unknown') return skip(UNTOLD);
        // milliseconds, or a sum of the recorder's own: poll bits remain
        r = done === 'untold' ? undefined : done;
      }
    }
    return compareFields(record, { r, cpoll: client?.poll(), spoll: server?.poll() });
  }

  /** What is called a read here has consumed nothing, as the listing behind it says. */
  #isPeek(record: VectorRecord): boolean {
    const { records } = this.#session;
    const before = records[records.indexOf(record) - 1];
    const isAfterFill = before?.has('op') === true && before.text('op').startsWith('fill');
    return record.text('op') === 'recv' && isAfterFill;
  }

  #drain(): number {
    const buffer = new Uint8Array(1 << 20);
    let total = 0;
    for (;;) {
      const got = this.#ends.recv(buffer);
      if (got <= 0) return total;
      total += got;
    }
  }

  #diag(record: VectorRecord): Difference {
    const { smc, port, server } = this.#ends;
    if (record.text('at').includes('reverse send')) server?.sendNow(new Uint8Array(1));
    const [first] = record.records('socks');
    if (first?.has('rmbe') && first.number('rmbe') > MAX_DMB) return skip(LARGER);
    return compareSocks(record, listSocks(smc), port);
  }

  #fill(record: VectorRecord): Difference {
    const { client, server } = this.#ends;
    let total = 0;
    for (;;) {
      const sent = this.#ends.send(new Uint8Array(1 << 20));
      if (sent <= 0) break;
      total += sent;
    }
    return compareFields(record, {
      total,
      poll: client?.poll(),
      c_rcvbuf: client?.getOption('rcvbuf'),
      c_sndbuf: client?.getOption('sndbuf'),
      s_rcvbuf: server?.getOption('rcvbuf'),
      s_sndbuf: server?.getOption('sndbuf'),
    });
  }

  /** Reads byte by byte until there is room; as many bytes as theirs, who may have looked late. */
  #readSingly(record: VectorRecord): Difference {
    const theirs = record.number('bytes_until_pollout');
    const byte = new Uint8Array(1);
    let ours: number | undefined;
    for (let read = 1; read <= theirs; read++) {
      this.#ends.recv(byte);
      const hasRoom = ((this.#ends.client?.poll() ?? 0) & 4) !== 0;
      if (hasRoom) ours ??= read;
    }
    // the next send takes as much as was returned when the window moved
    const next = this.#session.records.find(
      (each) => each.has('op') && each.text('op') === 'send_after',
    );
    const known = Math.min(theirs, next?.number('r') ?? theirs);
    return differenceOf([['bytes_until_pollout', ours, known]]);
  }

  #buffers(record: VectorRecord): Difference {
    const { client, server } = this.#ends;
    if (record.number('c_rcvbuf') > 2 * MAX_DMB) return skip(LARGER);
    return compareFields(record, {
      c_rcvbuf: client?.getOption('rcvbuf'),
      c_sndbuf: client?.getOption('sndbuf'),
      s_rcvbuf: server?.getOption('rcvbuf'),
    });
  }

  /** 100000 bytes into rings of 16384 that nobody reads: short, short, and nothing within a second. */
  async #blockingSend(record: VectorRecord): Promise<Difference> {
    const { client, smc } = this.#ends;
    if (!client) return skip(UNTOLD);
    this.#blockingSends++;
    if (this.#blockingSends === 1) {
      client.sendNow(new Uint8Array(record.number('r')));
      return skip(COMPLETIONS);
    }
    client.sndtimeo = 1000;
    const before = smc.now();
    const sending = client.send(new Uint8Array(100_000)).then(
      (sent) => sent,
      (error: { readonly code: number }) => error.code,
    );
    await Promise.resolve();
    if (record.number('ms') >= client.sndtimeo) smc.advance(client.sndtimeo);
    const r = await sending;
    const waited: boolean = smc.now() - before >= client.sndtimeo;
    return differenceOf([
      ['r', r, record.number('r')],
      ['waited', waited, record.number('ms') >= client.sndtimeo],
    ]);
  }
}

/** Our message with the addresses of their hardware, which the file does not tell otherwise. */
function withHardwareOf(ours: Uint8Array, theirs: Uint8Array): Uint8Array {
  const bytes = ours.slice();
  const take = (at: number, size: number): void => {
    if (at + size <= theirs.length) bytes.set(theirs.subarray(at, at + size), at);
  };
  // peer id; gid and mac of version 1
  take(8, 8);
  if (ours[4] !== CLC_TYPE.PROPOSAL) return bytes;
  take(16, 22);
  const { v2 } = partsOfProposal(ours);
  if (v2 !== undefined) take(v2 + 8, 16);
  return bytes;
}
