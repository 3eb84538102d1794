/**
 * Records of `vectors/smc` about a peer whose bytes were written by hand: proposals to a listening socket,
 * answers to a connecting one.
 */
import { bytesToHex, hexToBytes } from '../../../common/bytes.js';
import { ERRNO } from '../../../common/errno.js';
import { encodeProposal } from '../../../smc/clc/messages.js';
import { blankPadded } from '../../../smc/clc/values.js';
import { listSocks, type SockState } from '../../../smc/state.js';
import type { VectorRecord } from '../record.js';
import { clientAnswer } from './calls.js';
import { compareFields, skip, type Difference } from './compare.js';
import { UEID, rawServer, type Machine } from './machines.js';

const CRAFTED_PORT = 22000;
const CLIENT_PORT = 21000;
const ADDRESS = '127.0.0.1';
const LOCALHOST = 0x7f000001;
/** What a decline of the crafted cases is waited for. */
const REPLY_WAIT = 1500;
const TIMEOUT_WAIT = 9010;

/** What a case came to: its own fields, and the sockets that were there. */
export interface CraftedResult {
  readonly difference: Difference;
  readonly socks: readonly SockState[];
  readonly port: number;
}

/** Bytes that the file left out because they were too many. */
function untoldBytes(record: VectorRecord): Uint8Array | undefined {
  if (record.has('sent')) return hexToBytes(record.text('sent'));
  if (!record.has('n') || record.number('n') === 0) return new Uint8Array(0);
  const count = /v2 D, (\d+) eids/.exec(record.text('case'))?.[1];
  if (count === undefined) return undefined;
  const bytes = encodeProposal({
    version: 2,
    typeV1: 2,
    typeV2: 1,
    peerId: new Uint8Array(8).fill(0x11),
    roceGid: new Uint8Array(16),
    mac: new Uint8Array(6).fill(0x22),
    ism: { gid: 0n, chid: 0 },
    v2: {
      eids: Array.from({ length: Number(count) }, () => blankPadded(UEID)),
      release: 1,
      seidIndicated: false,
      roceGid: new Uint8Array(16),
      maxConns: 0,
      maxLinks: 0,
      featureMask: 1,
      smcd: {
        systemEid: new Uint8Array(32),
        gids: [0x4040404040404040n, 0x4141414141414141n].map((gid) => ({ gid, chid: 0xffff })),
      },
    },
  });
  return bytes.length === record.number('n') ? bytes : undefined;
}

/** Bytes to a listening socket, and what comes back. */
export async function replayCrafted(
  record: VectorRecord,
  machine: Machine,
): Promise<CraftedResult> {
  const name = record.text('case');
  const smc = await machine(record.text('run').includes('6.1.') ? 'none61' : 'none');
  const sent = untoldBytes(record);
  if (!sent) return untold('what was sent is not told');
  smc.eids.flush();
  smc.eids.add(UEID);
  const listener = smc.socket();
  listener.listen({ address: ADDRESS, port: CRAFTED_PORT });
  const to = { address: LOCALHOST, port: CRAFTED_PORT };
  const peer = smc.tcp.connectRaw({ to, smcOption: !name.includes('without smc option') });
  if (!peer) return untold('refused');
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
    conn: 0,
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
  const socks = listSocks(smc);
  child?.closeNow();
  smc.tcp.release(peer);
  smc.run();
  listener.closeNow();
  smc.run();
  return { difference: compareFields(record, ours), socks, port: CRAFTED_PORT };
}

/** Bytes as an answer to a connecting socket. */
export async function replayClient(record: VectorRecord, machine: Machine): Promise<CraftedResult> {
  const name = record.text('case');
  const isWithout = name.startsWith('no dev');
  const smc = await machine(isWithout ? 'none' : 'roce');
  const answer = isWithout ? undefined : clientAnswer(name);
  if (!isWithout && answer === undefined) return untold('what was answered is not told');
  smc.eids.flush();
  smc.eids.add(UEID);
  const server = rawServer(smc, CLIENT_PORT, !name.includes('without option'));
  const client = smc.socket();
  client.connectNow({ address: ADDRESS, port: CLIENT_PORT });
  const peer = server.connected();
  const first = peer?.read(1000) ?? new Uint8Array(0);
  if (answer === 'fin') peer?.shut(1);
  else if (answer instanceof Uint8Array) peer?.send(answer);
  smc.run();
  if (name.includes('until timeout')) smc.advance(TIMEOUT_WAIT);
  const ours = {
    syn_smcopt: 1,
    msg1: bytesToHex(first),
    msg2: bytesToHex(peer?.read(1000) ?? new Uint8Array(0)),
    revents: client.poll() & (1 | 4 | 8),
    so_error: client.takeError(),
  };
  const socks = listSocks(smc);
  client.closeNow();
  server.close();
  return { difference: compareFields(record, ours), socks, port: CLIENT_PORT };
}

function untold(reason: string): CraftedResult {
  return { difference: skip(reason), socks: [], port: 0 };
}
