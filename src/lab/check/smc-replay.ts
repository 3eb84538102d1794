/**
 * Replays the sequences of `vectors/smc` on the model, and compares record by record.
 *
 * | records of                                  | are replayed as                                            |
 * | ------------------------------------------- | ---------------------------------------------------------- |
 * | `seq OPS`                                   | single calls on a pair of sockets, a letter each            |
 * | `more`, `oob`, `win`, `win2`                | sends and receives with flags, cursors after each           |
 * | `crafted`                                   | bytes to a listening socket, what comes back                |
 * | `client`                                    | bytes as an answer to a connecting socket                   |
 * | `ueid_*`, `seid`, `sock_*`, `bufs`          | the call itself                                             |
 */
import { bytesToHex, hexToBytes } from '../../common/bytes.js';
import { ERRNO } from '../../common/errno.js';
import { KernelError } from '../../common/errors.js';
import { blankPadded } from '../../smc/clc/messages.js';
import { MSG, SMC_STATE } from '../../smc/constants.js';
import type { Smc } from '../../smc/smc.js';
import type { SmcSocket } from '../../smc/socket/smc-socket.js';
import type { TcpSocket } from '../../smc/socket/tcp.js';
import { listSocks, type SockState } from '../../smc/state.js';
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

type Setting = 'none' | 'roce' | 'loopback';
type Outcome = Readonly<Record<string, unknown>>;

const RING = 'a DMB has 32 bytes less than the buffer of SMC-R';
const POWER_OF_TWO_ONLY = 16384;
/** From here on ports are those of clients, here and there. */
const FIRST_EPHEMERAL_PORT = 32768;
const CRAFTED_PORT = 22000;
const CLIENT_PORT = 21000;
const ADDRESS = '127.0.0.1';
/** What a decline of the crafted cases is waited for. */
const REPLY_WAIT = 1500;
const TIMEOUT_WAIT = 9010;

export class SmcReplay {
  readonly #file: readonly VectorRecord[];
  readonly #machine: (setting: Setting) => Promise<Smc>;
  /** What each record came to, filled a sequence at a time. */
  readonly #outcomes = new Map<VectorRecord, Outcome>();
  readonly #replayed = new Set<string>();
  #port = 30000;

  constructor(file: readonly VectorRecord[], machine: (setting: Setting) => Promise<Smc>) {
    this.#file = file;
    this.#machine = machine;
  }

  async compare(record: VectorRecord): Promise<Difference> {
    const what = record.text('x');
    switch (what) {
      case 'crafted':
        return this.#crafted(record);
      case 'client':
        return this.#client(record);
      case 'bufs':
        return this.#bufs(record);
      case 'op':
      case 'diag':
      case 'oob':
        return this.#sequence(record);
      case 'fill':
      case 'read1':
        return this.#filled(record);
      case 'blocking_send':
        return this.#blockingSend(record);
      case 'tcp':
        return this.#segment(record);
      case 'pair':
        return this.#pair(record);
      default:
        return this.#single(record);
    }
  }

  /** The runs without a device, and those over soft-RoCE. */
  #isSmcr(record: VectorRecord): boolean {
    return record.text('run').includes('smcr');
  }

  // ---- single calls

  async #single(record: VectorRecord): Promise<Difference> {
    const smc = await this.#machine('none');
    const is61 = record.text('run').includes('6.1.');
    switch (record.text('x')) {
      case 'sysctl': {
        const path = record.text('p');
        if (!/net\/smc\/[rw]mem$/.test(path)) return skip('the lab has no such sysctl');
        const socket = smc.socket();
        const half = socket.getOption(path.endsWith('rmem') ? 'rcvbuf' : 'sndbuf') / 2;
        socket.closeNow();
        return compareFields(record, { v: String(half) });
      }
      case 'ueid_add_padded32':
        return compareFields(record, addPadded(smc, record.text('eid')));
      case 'ueid_add': {
        const r = errnoOf(() => smc.eids.add(eidBytes(record)));
        smc.eids.flush();
        return compareFields(record, { r, flush: 0 });
      }
      case 'ueid_rules':
        return compareFields(record, ueidRules(smc));
      case 'ueid_flush':
        smc.eids.flush();
        return compareFields(record, { r: 0, r2: 0 });
      case 'seid': {
        const set = (on: boolean): number => errnoOf(() => smc.eids.enableSeid(on));
        return compareFields(record, { enable: set(true), disable: set(false) });
      }
      case 'sock_init':
        return compareFields(record, initialSocket(smc));
      case 'sock_min': {
        const socket = smc.socket();
        socket.setOption('rcvbuf', 1);
        socket.setOption('sndbuf', 1);
        const result = { rcvbuf: socket.getOption('rcvbuf'), sndbuf: socket.getOption('sndbuf') };
        socket.closeNow();
        return compareFields(record, result);
      }
      case 'sock_proto1':
        return compareFields(record, { r: errnoOf(() => smc.socket(1, 1).closeNow()) });
      case 'sock_proto2':
        return compareFields(record, { r: errnoOf(() => smc.socket(1, 2).closeNow()) });
      case 'sock_dgram':
        return compareFields(record, { r: errnoOf(() => smc.socket(2).closeNow()) });
      case 'sock_inet_256': {
        if (is61) return skip('the lab has AF_INET sockets of SMC as 6.12 has');
        const socket = smc.inetSocket(1, 256);
        const protocol = socket?.protocol;
        socket?.closeNow();
        return compareFields(record, { r: socket ? 0 : -ERRNO.EPROTONOSUPPORT, protocol });
      }
      case 'sock_listen': {
        const socket = smc.socket();
        socket.listen({ address: ADDRESS, port: this.#port++ });
        const result = {
          send: socket.sendNow(new Uint8Array(1)),
          recv: socket.recvNow(new Uint8Array(1)),
        };
        socket.closeNow();
        return compareFields(record, result);
      }
      case 'fastopen':
        return skip('what the option does is in the sequence that follows it');
      default:
        return skip('the lab has no such call');
    }
  }

  async #bufs(record: VectorRecord): Promise<Difference> {
    const isRaised = record.text('run').includes('raised');
    const request = record.number('req');
    if (isRaised && request > 1 << 20) return skip('SMC-R goes to 4 MiB, SMC-D to 1 MiB');
    if (isRaised && request > 1 << 18) return skip('net.core.rmem_max was raised');
    const smc = await this.#machine('loopback');
    const pair = await this.#connect(smc, { rcvbuf: request, sndbuf: request });
    const ours = {
      c_rcvbuf: pair.client.getOption('rcvbuf'),
      c_sndbuf: pair.client.getOption('sndbuf'),
      s_rcvbuf: pair.server.getOption('rcvbuf'),
    };
    pair.close();
    return compareFields(record, ours);
  }

  async #filled(record: VectorRecord): Promise<Difference> {
    const [, rcvbuf = 0, sndbuf = 0] = (/rb(\d+) sb(\d+)/.exec(record.text('at')) ?? []).map(
      Number,
    );
    const isFill = record.text('x') === 'fill';
    if (rcvbuf !== POWER_OF_TWO_ONLY) return skip(RING);
    const smc = await this.#machine('loopback');
    const pair = await this.#connect(smc, { rcvbuf, sndbuf });
    try {
      const chunk = new Uint8Array(1 << 20);
      let total = 0;
      for (let sent = 1; sent > 0;) {
        sent = pair.client.sendNow(chunk);
        total += Math.max(sent, 0);
      }
      if (isFill) {
        // the peer's ring is the only one that differs
        return compareFields(record, {
          c_rcvbuf: pair.client.getOption('rcvbuf'),
          c_sndbuf: pair.client.getOption('sndbuf'),
          total: total + 32,
          poll: pair.client.poll(),
        });
      }
      let bytes = 0;
      while ((pair.client.poll() & 4) === 0) {
        pair.server.recvNow(new Uint8Array(1));
        bytes++;
      }
      return compareFields(record, { bytes_until_pollout: bytes });
    } finally {
      pair.close();
    }
  }

  async #blockingSend(record: VectorRecord): Promise<Difference> {
    const index = this.#file.filter((each) => each.text('x') === 'blocking_send').indexOf(record);
    if (index !== 0) return skip(RING);
    // 100000 bytes into a ring of 16384 with nobody reading: short, at once
    const smc = await this.#machine('loopback');
    const pair = await this.#connect(smc, { rcvbuf: 16384, sndbuf: 16384 });
    await pair.client.send(new Uint8Array(16352));
    const sent = await pair.client.send(new Uint8Array(100000));
    pair.close();
    return compareFields(record, { r: sent });
  }

  // ---- handshakes

  async #pair(record: VectorRecord): Promise<Difference> {
    if (record.text('at').includes('rxe')) return skip('rdma');
    await this.#replayPair(record);
    return this.#fromOutcome(record);
  }

  async #segment(record: VectorRecord): Promise<Difference> {
    if (record.text('at').includes('rxe')) return skip('rdma');
    await this.#replayPair(record);
    return this.#fromOutcome(record);
  }

  /** `smc-smc no dev no ueid`, `smc client - tcp server`, `tcp client - smc server`. */
  async #replayPair(record: VectorRecord): Promise<void> {
    const at = record.text('at');
    const run = record.text('run');
    if (this.#replayed.has(`${run} ${at}`)) return;
    this.#replayed.add(`${run} ${at}`);
    const smc = await this.#machine('none');
    if (at.includes('ueid') && !at.includes('no ueid')) smc.eids.add('SMCTEST-UEID-1');
    const first = smc.messages.length;
    const pair = await this.#open(smc, at);
    smc.eids.flush();
    if (!pair) return;
    const sent = smc.messages.slice(first).map(({ bytes }) => bytesToHex(bytes));
    const isSmcClient = pair.client !== undefined;
    const isSmcServer = pair.server !== undefined;
    const ops = new Map<string, () => number>([
      ['send', () => pair.send()],
      ['recv', () => pair.recv()],
    ]);
    let fromClient = 0;
    for (const each of this.#file) {
      if (each.text('run') !== run || each.fields['at'] !== at) continue;
      switch (each.text('x')) {
        case 'pair':
          this.#outcomes.set(each, { connect: 0, accept: 0 });
          break;
        case 'op': {
          const call = ops.get(each.text('op'));
          if (call) this.#outcomes.set(each, { r: call() });
          break;
        }
        case 'diag':
          this.#outcomes.set(each, { socks: listSocks(smc) });
          break;
        case 'tcp': {
          const isSyn = each.number('flags') === 2;
          const isSynAck = each.number('flags') === 18;
          if (isSyn || isSynAck) {
            const has = isSyn ? isSmcClient : isSmcClient && isSmcServer;
            this.#outcomes.set(each, { option: has });
          } else if (each.has('data')) {
            this.#outcomes.set(each, { data: sent[fromClient++] });
          }
          break;
        }
        default:
          break;
      }
    }
    pair.close();
  }

  async #open(smc: Smc, at: string): Promise<OpenPair | undefined> {
    const port = this.#port++;
    const to = { address: ADDRESS, port };
    const endpoint = { address: 0x7f000001, port };
    if (at.startsWith('smc-smc')) {
      const pair = await this.#connect(smc, {});
      return {
        client: pair.client,
        server: pair.server,
        send: () => pair.client.sendNow(new Uint8Array(5)),
        recv: () => pair.server.recvNow(new Uint8Array(100)),
        close: () => pair.close(),
      };
    }
    if (at === 'smc client - tcp server') {
      const listener = smc.tcp.create();
      let server: TcpSocket | undefined;
      smc.tcp.bind(listener, endpoint);
      smc.tcp.listen(listener, (socket) => (server = socket));
      const client = smc.socket();
      await client.connect(to);
      return {
        client,
        server: undefined,
        send: () => client.sendNow(new Uint8Array(5)),
        recv: () => server?.read(100).length ?? 0,
        close: () => {
          client.closeNow();
          if (server) smc.tcp.release(server);
          smc.tcp.release(listener);
        },
      };
    }
    if (at === 'tcp client - smc server') {
      const listener = smc.socket();
      listener.listen(to);
      const client = smc.tcp.connectRaw({ to: endpoint, smcOption: false });
      smc.run();
      const server = await listener.accept();
      return {
        client: undefined,
        server,
        send: () => client?.send(new Uint8Array(5)) ?? -1,
        recv: () => server.recvNow(new Uint8Array(100)),
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

  async #crafted(record: VectorRecord): Promise<Difference> {
    const name = record.text('case');
    if (!record.has('sent') || !record.has('lpoll'))
      return skip('only what was captured of it is known');
    const is61 = record.text('run').includes('6.1.');
    if (is61 && / R |B |=B/.test(name)) return skip('6.12 looks at the features of v2.1 first');
    const smc = await this.#machine('none');
    const listener = smc.socket();
    listener.listen({ address: ADDRESS, port: CRAFTED_PORT });
    const to = { address: 0x7f000001, port: CRAFTED_PORT };
    const peer = smc.tcp.connectRaw({ to, smcOption: true });
    if (!peer) return skip('refused');
    const sent = hexToBytes(record.text('sent'));
    const hasOption = smc.tcp.synSmc(peer) ? 1 : 0;
    smc.run();
    if (sent.length > 0) peer.send(sent);
    if (name.includes('fin')) peer.shut(1);
    smc.run();
    smc.advance(name.includes('timeout') ? TIMEOUT_WAIT : REPLY_WAIT);
    const before = { fin: peer.finReceived ? 1 : 0, rst: peer.error === 0 ? 0 : 1 };
    const reply = peer.read(1000);
    const lpoll = listener.poll();
    const child = listener.acceptNow();
    const ours: Record<string, unknown> = {
      synack_smcopt: hasOption,
      fin: before.fin,
      rst: before.rst,
      reply: bytesToHex(reply),
      lpoll,
      accepted: child ? 1 : 0,
    };
    if (child) ours['so_error'] = child.takeError();
    else {
      ours['accept_err'] = -ERRNO.EAGAIN;
      ours['fin_after_accept'] = peer.finReceived ? 1 : 0;
      ours['rst_after_accept'] = peer.error === 0 ? 0 : 1;
    }
    this.#noteSocks(record, name, smc);
    child?.closeNow();
    smc.tcp.release(peer);
    smc.run();
    listener.closeNow();
    smc.run();
    return compareFields(record, ours);
  }

  async #client(record: VectorRecord): Promise<Difference> {
    const name = record.text('case');
    const isWithout = name.startsWith('no dev');
    const smc = await this.#machine(isWithout ? 'none' : 'roce');
    const answer = isWithout ? undefined : clientAnswer(name);
    if (!isWithout && answer === undefined) return skip('what was answered is not known');
    if (!isWithout && smc.eids.ueids.length === 0) smc.eids.add('SMCTEST-UEID-1');
    const listener = smc.tcp.create();
    let peer: TcpSocket | undefined;
    const { synackOption } = smc.tcp;
    smc.tcp.synackOption = () => name !== 'no dev, server without option';
    smc.tcp.bind(listener, { address: 0x7f000001, port: CLIENT_PORT });
    smc.tcp.listen(listener, (socket) => (peer = socket));
    const client = smc.socket();
    client.connectNow({ address: ADDRESS, port: CLIENT_PORT });
    smc.tcp.synackOption = synackOption;
    const first = peer?.read(1000) ?? new Uint8Array(0);
    if (answer === 'fin') peer?.shut(1);
    else if (answer instanceof Uint8Array) peer?.send(answer);
    smc.run();
    if (name === 'propose, silent until timeout') smc.advance(TIMEOUT_WAIT);
    const ours = {
      syn_smcopt: 1,
      msg1: bytesToHex(first),
      msg2: bytesToHex(peer?.read(1000) ?? new Uint8Array(0)),
      revents: client.poll() & (1 | 4 | 8),
      so_error: client.takeError(),
    };
    this.#noteSocks(record, name, smc);
    client.closeNow();
    if (peer) smc.tcp.release(peer);
    smc.tcp.release(listener);
    smc.run();
    return compareFields(record, ours);
  }

  /** For the listing that the file has of a case. */
  #noteSocks(record: VectorRecord, at: string, smc: Smc): void {
    const run = record.text('run');
    for (const each of this.#file) {
      const isOf = each.text('x') === 'diag' && each.fields['at'] === at;
      if (isOf && each.text('run') === run) this.#outcomes.set(each, { socks: listSocks(smc) });
    }
  }

  // ---- sequences of calls

  async #sequence(record: VectorRecord): Promise<Difference> {
    const at = record.has('at') ? record.text('at') : 'oob';
    if (this.#outcomes.has(record)) return this.#fromOutcome(record);
    if (!this.#isSmcr(record)) {
      if (/^(smc-smc|smc client|tcp client)/.test(at)) {
        await this.#replayPair(record);
        return this.#fromOutcome(record);
      }
      return skip('the sequence is not told in full');
    }
    const group = /^(seq \w+|more|oob|win2|win)/.exec(at)?.[0];
    if (group === undefined) return skip(/rb\d/.test(at) ? RING : 'rdma');
    const key = `${record.text('run')} ${group}`;
    if (!this.#replayed.has(key)) {
      this.#replayed.add(key);
      await this.#replaySequence(group, record.text('run'));
    }
    return this.#fromOutcome(record);
  }

  async #replaySequence(group: string, run: string): Promise<void> {
    const smc = await this.#machine('loopback');
    const isSeq = group.startsWith('seq');
    const size = isSeq ? {} : { rcvbuf: 16384, sndbuf: 16384 };
    const pair = await this.#connect(smc, size);
    if (group === 'win2') pair.client.sendNow(new Uint8Array(12000));
    for (const record of this.#file) {
      if (record.text('run') !== run) continue;
      const at = record.has('at') ? record.text('at') : 'oob';
      const isMember = at === group || at.startsWith(`${group} `);
      if (!isMember) continue;
      switch (record.text('x')) {
        case 'op': {
          const r = isSeq ? sequenceOp(pair, record.text('op')) : dataOp(pair, record.text('op'));
          this.#outcomes.set(record, {
            ...(r === undefined ? {} : { r }),
            cpoll: pair.client.poll(),
            spoll: pair.server.poll(),
          });
          break;
        }
        case 'oob':
          this.#outcomes.set(record, { spoll: pair.server.poll() });
          break;
        case 'diag':
          if (at.includes('reverse send')) pair.server.sendNow(new Uint8Array(1));
          this.#outcomes.set(record, { socks: listSocks(smc) });
          break;
        default:
          break;
      }
    }
    pair.close();
  }

  #fromOutcome(record: VectorRecord): Difference {
    const outcome = this.#outcomes.get(record);
    if (!outcome) return skip('the sequence is not told in full');
    if (record.text('x') === 'diag') {
      return compareSocks(record, outcome['socks'] as readonly SockState[]);
    }
    if (record.text('x') === 'tcp' && 'option' in outcome) {
      const theirs = record.text('opt').includes('fe06e2d4c3d9');
      return differenceOf([['option', outcome['option'], theirs]]);
    }
    return compareFields(record, outcome);
  }

  async #connect(smc: Smc, size: { rcvbuf?: number; sndbuf?: number }): Promise<SmcPair> {
    const to = { address: ADDRESS, port: this.#port++ };
    const isSmcd = smc.devices.list.length > 0;
    if (isSmcd && smc.eids.ueids.length === 0) smc.eids.add('SMCTEST-UEID-1');
    const listener = smc.socket();
    const client = smc.socket();
    for (const socket of [listener, client]) {
      if (size.rcvbuf !== undefined) socket.setOption('rcvbuf', size.rcvbuf);
      if (size.sndbuf !== undefined) socket.setOption('sndbuf', size.sndbuf);
    }
    listener.listen(to);
    await client.connect(to);
    const server = await listener.accept();
    listener.closeNow();
    return {
      client,
      server,
      close: () => {
        client.closeNow();
        server.closeNow();
        smc.run();
      },
    };
  }
}

interface SmcPair {
  readonly client: SmcSocket;
  readonly server: SmcSocket;
  close(): void;
}

interface OpenPair {
  readonly client: SmcSocket | undefined;
  readonly server: SmcSocket | undefined;
  send(): number;
  recv(): number;
  close(): void;
}

function skip(reason: string): Difference {
  return { kind: 'skipped', reason };
}

function differenceOf(
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
function compareFields(record: VectorRecord, ours: Outcome): Difference {
  const shared = Object.entries(ours).filter(
    ([name, value]) => record.has(name) && value !== undefined,
  );
  if (shared.length === 0) return skip('nothing of it can be compared');
  return differenceOf(shared.map(([name, value]) => [name, value, record.fields[name]]));
}

/** Sockets are paired by who listens: the server's end has the listener's port. */
function compareSocks(record: VectorRecord, socks: readonly SockState[]): Difference {
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

/** `client:x(ms)`: one letter of a sequence; undefined where the file has no result. */
function sequenceOp(pair: SmcPair, op: string): number | undefined {
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
      return undefined;
    default:
      throw new RangeError(`no call '${call}' in sequences`);
  }
}

/** `send10 MSG_MORE`, `recv 2303`, `recv OOB`: from client to server. */
function dataOp({ client, server }: SmcPair, op: string): number | undefined {
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
      return undefined;
    case 'recv OOB again':
    case 'recv OOB none':
      return receive(1, MSG.OOB);
    case 'send while urg pend':
    case 'send after read':
      return client.sendNow(new Uint8Array(3));
    default:
      throw new RangeError(`no call '${op}' in sequences`);
  }
}

const HEAD = 'e2d4c3d9';
const TRAIL = 'e2d4c3d9';

/** What the user-space peer answered, from the name of the case. */
function clientAnswer(name: string): Uint8Array | 'fin' | 'nothing' | undefined {
  const decline = (code: string, version: 1 | 2, flags = 0): string =>
    version === 1
      ? `${HEAD}04001c${(0x10 | flags).toString(16)}${'00'.repeat(8)}${code}00000000${TRAIL}`
      : `${HEAD}04002c${(0x20 | flags).toString(16)}${'00'.repeat(8)}${code}20000000${'00'.repeat(16)}${TRAIL}`;
  const accept = (length: number, flags: number): string =>
    `e2d4c3c402${length.toString(16).padStart(4, '0')}${flags.toString(16)}${'00'.repeat(length - 12)}e2d4c3c4`;
  const answers: Readonly<Record<string, string>> = {
    'peer declines v2 44 03030001': decline('03030001', 2),
    'peer declines v1 28 03030007': decline('03030007', 1),
    'peer declines 030d0000': decline('030d0000', 2),
    'peer declines SYNCERR with 0x08': decline('04000000', 2, 8),
    'garbage eyecatcher': decline('03030001', 2).replace(HEAD, 'deadbeef'),
    'decline length 43': decline('03030001', 2).replace('04002c', '04002b'),
    'decline trailer bad': decline('00000000', 2).replace(/e2d4c3d9$/, '00000000'),
    'type proposal as answer': decline('03030001', 2).replace('04002c', '01002c'),
    'SMC-D v2 accept 78, not proposed': accept(78, 0x21),
    'SMC-D v2 accept 130 (first contact), not proposed': accept(130, 0x29),
    'SMC-D v1 accept 48, not proposed': accept(48, 0x11),
  };
  if (name === 'peer FIN') return 'fin';
  if (name.startsWith('propose, silent')) return 'nothing';
  const hex = answers[name];
  return hex === undefined ? undefined : hexToBytes(hex);
}

function eidBytes(record: VectorRecord): Uint8Array {
  return new TextEncoder().encode(record.text('eid'));
}

/** 0, or the negative errno. */
function errnoOf(call: () => void): number {
  try {
    call();
    return 0;
  } catch (error) {
    if (error instanceof KernelError) return error.code;
    throw error;
  }
}

function addPadded(smc: Smc, eid: string): Outcome {
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

function ueidRules(smc: Smc): Outcome {
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

function initialSocket(smc: Smc): Outcome {
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
