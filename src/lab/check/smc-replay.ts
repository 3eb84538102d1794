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
import type { Smc } from '../../smc/smc.js';
import type { SmcSocket } from '../../smc/socket/smc-socket.js';
import type { TcpSocket } from '../../smc/socket/tcp.js';
import { listSocks, type SockState } from '../../smc/state.js';
import type { VectorRecord } from './record.js';
import {
  addPadded,
  clientAnswer,
  dataOp,
  eidBytes,
  errnoOf,
  initialSocket,
  sequenceOp,
  ueidRules,
  type SmcPair,
} from './smc-calls.js';
import {
  RING,
  compareFields,
  compareSocks,
  differenceOf,
  skip,
  type Difference,
  type Outcome,
} from './smc-compare.js';

type Setting = 'none' | 'roce' | 'loopback';

const POWER_OF_TWO_ONLY = 16384;
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

interface OpenPair {
  readonly client: SmcSocket | undefined;
  readonly server: SmcSocket | undefined;
  send(): number;
  recv(): number;
  close(): void;
}
