/** The states of closing: every transition of a connection, by what this end does and what the peer tells. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ERRNO } from '../../src/common/errno.js';
import { SMC_STATE, STATE_FLAG, smcStateName, type SmcStateName } from '../../src/smc/constants.js';
import { C, RX, S, TX, connOf, setSkState, skState } from '../../src/smc/core/fields.js';
import { SOCK_DEAD } from '../../src/smc/structs.js';
import type { SmcSocket } from '../../src/smc/socket/smc-socket.js';
import { bootSmc, connectPair, type SmcMachine, type SocketPair } from './pair.js';

let machine: SmcMachine;
let pair: SocketPair;
let socket: SmcSocket;
beforeAll(async () => {
  machine = await bootSmc();
  pair = await connectPair(machine.smc);
  socket = pair.client;
});
afterAll(() => machine.kernel.close());

const { PEER_DONE_WRITING: WR, PEER_CONN_CLOSED: CLOSED, PEER_CONN_ABORT: ABORT } = STATE_FLAG;

interface Before {
  readonly state: SmcStateName;
  /** State flags sent and received until now. */
  readonly sent?: number;
  readonly received?: number;
  readonly unread?: boolean;
  readonly released?: boolean;
}

/** Puts the client's end into a state. */
function place({ state, sent = 0, received = 0, unread = false, released = false }: Before): void {
  const { ram } = machine.smc;
  const conn = connOf(socket.sock);
  setSkState(ram, socket.sock, SMC_STATE[state]);
  ram.set8(conn + TX.stateFlags, sent);
  ram.set8(conn + RX.stateFlags, received);
  ram.set32(conn + C.bytes_to_rcv, unread ? 10 : 0);
  ram.set8(socket.sock + S.sk_flags, released ? SOCK_DEAD : 0);
  ram.set8(socket.sock + S.sk_shutdown, 0);
  ram.set32(socket.sock + S.sk_err, 0);
}

const now = (): SmcStateName => smcStateName(skState(machine.smc.ram, socket.sock));
const flagsSent = (): number => machine.smc.ram.u8(connOf(socket.sock) + TX.stateFlags);

describe('close here', () => {
  it.each<[Before, SmcStateName, number]>([
    [{ state: 'ACTIVE' }, 'PEERCLOSEWAIT1', CLOSED],
    [{ state: 'ACTIVE', unread: true }, 'PEERCLOSEWAIT1', ABORT],
    [{ state: 'APPCLOSEWAIT1', received: WR }, 'PEERFINCLOSEWAIT', CLOSED],
    [{ state: 'APPCLOSEWAIT1', received: CLOSED }, 'CLOSED', CLOSED],
    [{ state: 'APPCLOSEWAIT2', sent: WR, received: WR }, 'PEERFINCLOSEWAIT', WR | CLOSED],
    [{ state: 'APPCLOSEWAIT2', sent: WR, received: CLOSED }, 'CLOSED', WR | CLOSED],
    [{ state: 'APPFINCLOSEWAIT', sent: WR, received: CLOSED }, 'CLOSED', WR | CLOSED],
    [{ state: 'APPFINCLOSEWAIT', sent: CLOSED, received: CLOSED }, 'CLOSED', CLOSED],
    [{ state: 'PEERCLOSEWAIT1', sent: WR }, 'PEERCLOSEWAIT1', WR | CLOSED],
    [{ state: 'PEERCLOSEWAIT2', sent: WR, received: WR }, 'PEERCLOSEWAIT2', WR | CLOSED],
    [{ state: 'PEERCLOSEWAIT1', sent: CLOSED }, 'PEERCLOSEWAIT1', CLOSED],
    [{ state: 'PEERFINCLOSEWAIT', sent: CLOSED }, 'PEERFINCLOSEWAIT', CLOSED],
    [{ state: 'PROCESSABORT', received: ABORT }, 'CLOSED', ABORT],
    [{ state: 'PEERABORTWAIT' }, 'CLOSED', 0],
    [{ state: 'INIT' }, 'CLOSED', 0],
    [{ state: 'CLOSED' }, 'CLOSED', 0],
  ])('%o: %s', (before, after, sent) => {
    place(before);
    machine.kernel.invoke('smc_close_active', socket.sock);
    expect([now(), flagsSent()]).toEqual([after, sent]);
  });
});

describe('shutdown of the sending side', () => {
  it.each<[SmcStateName, SmcStateName, number]>([
    ['ACTIVE', 'PEERCLOSEWAIT1', WR],
    ['APPCLOSEWAIT1', 'APPCLOSEWAIT2', WR],
    ['APPCLOSEWAIT2', 'APPCLOSEWAIT2', 0],
    ['PEERCLOSEWAIT1', 'PEERCLOSEWAIT1', 0],
    ['PEERCLOSEWAIT2', 'PEERCLOSEWAIT2', 0],
    ['APPFINCLOSEWAIT', 'APPFINCLOSEWAIT', 0],
  ])('%s: %s', (state, after, sent) => {
    place({ state });
    expect(socket.shutdownNow('wr')).toBe(0);
    expect([now(), flagsSent()]).toEqual([after, sent]);
  });

  it.each<SmcStateName>(['INIT', 'PEERFINCLOSEWAIT', 'PROCESSABORT', 'CLOSED'])('%s', (state) => {
    place({ state });
    expect([socket.shutdownNow('wr'), socket.shutdownNow(3)]).toEqual([
      -ERRNO.ENOTCONN,
      -ERRNO.EINVAL,
    ]);
  });
});

describe('the peer tells', () => {
  const none = ['PROCESSABORT', 'CLOSED'] as const;
  it.each<[string, number, Before, SmcStateName]>([
    ['done writing', WR, { state: 'INIT' }, 'APPCLOSEWAIT1'],
    ['done writing', WR, { state: 'ACTIVE' }, 'APPCLOSEWAIT1'],
    ['done writing', WR, { state: 'APPCLOSEWAIT1' }, 'APPCLOSEWAIT1'],
    ['done writing', WR, { state: 'PEERCLOSEWAIT1', sent: WR }, 'PEERCLOSEWAIT2'],
    ['done writing', WR, { state: 'PEERCLOSEWAIT2', sent: WR }, 'PEERCLOSEWAIT2'],
    ['done writing', WR, { state: 'PEERFINCLOSEWAIT', sent: CLOSED }, 'PEERFINCLOSEWAIT'],
    ['closed', CLOSED, { state: 'ACTIVE' }, 'APPCLOSEWAIT1'],
    ['closed', CLOSED, { state: 'APPCLOSEWAIT2', sent: WR }, 'APPCLOSEWAIT2'],
    ['closed', CLOSED, { state: 'PEERCLOSEWAIT1', sent: WR }, 'APPFINCLOSEWAIT'],
    ['closed', CLOSED, { state: 'PEERCLOSEWAIT2', sent: WR }, 'APPFINCLOSEWAIT'],
    ['closed', CLOSED, { state: 'PEERFINCLOSEWAIT', sent: CLOSED }, 'CLOSED'],
    ['closed', CLOSED, { state: 'APPFINCLOSEWAIT' }, 'APPFINCLOSEWAIT'],
    ['closed', CLOSED, { state: 'PEERABORTWAIT' }, 'PEERABORTWAIT'],
    ['abort', ABORT, { state: 'ACTIVE' }, 'PROCESSABORT'],
    ['abort', ABORT, { state: 'INIT' }, 'PROCESSABORT'],
    ['abort', ABORT, { state: 'APPCLOSEWAIT1' }, 'PROCESSABORT'],
    ['abort', ABORT, { state: 'APPCLOSEWAIT2', sent: WR }, 'CLOSED'],
    ['abort', ABORT, { state: 'PEERFINCLOSEWAIT', sent: CLOSED }, 'CLOSED'],
    ['abort', ABORT, { state: 'APPFINCLOSEWAIT', sent: WR }, 'PROCESSABORT'],
    ['abort', ABORT, { state: 'PEERABORTWAIT' }, 'CLOSED'],
    ['abort', ABORT, { state: 'PEERCLOSEWAIT1', sent: WR }, 'PROCESSABORT'],
    ['abort', ABORT, { state: 'PEERCLOSEWAIT2', sent: CLOSED }, 'CLOSED'],
    // as smc_cdc_msg_recv_action leaves it
    ['abort', ABORT, { state: 'PEERCLOSEWAIT1', sent: WR | ABORT }, 'CLOSED'],
    ...none.flatMap((state) =>
      [WR, CLOSED, ABORT].map((flag): [string, number, Before, SmcStateName] => [
        String(flag),
        flag,
        { state },
        state,
      ]),
    ),
  ])('%s %i: %o to %s', (_what, flag, before, after) => {
    place({ ...before, received: flag });
    machine.kernel.invoke('smc_close_passive_work', connOf(socket.sock) + C.close_work);
    expect(now()).toBe(after);
  });
});

it('a socket that is released and closed frees its connection', async () => {
  const { smc } = machine;
  const other = await connectPair(smc);
  const { sock } = other.client;
  const before = [...smc.socks].length;
  await other.client.close();
  expect([...smc.socks]).toContain(sock);
  await other.server.close();
  expect([...smc.socks]).not.toContain(sock);
  expect([...smc.socks].length).toBe(before - 2);
});
