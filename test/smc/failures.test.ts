/** What else goes wrong: systems that die, tokens that nobody has, too many handshakes. */
import { describe, expect, it } from 'vitest';
import { ERRNO } from '../../src/common/errno.js';
import { encodeAcceptConfirm } from '../../src/smc/clc/messages.js';
import { decodeAcceptConfirm } from '../../src/smc/clc/parse.js';
import { SMC_CLC_DECL, SMC_STATE } from '../../src/smc/constants.js';
import { DEV } from '../../src/smc/core/fields.js';
import {
  ISM_EVENT,
  ISM_EVENT_REQUEST,
  ISM_EVENT_RESPONSE,
  eventInfo,
} from '../../src/smc/core/ism-events.js';
import type { SmcdDevice } from '../../src/smc/device/devices.js';
import type { Smc } from '../../src/smc/smc.js';
import { listLinkGroups } from '../../src/smc/state.js';
import { smcStatistics } from '../../src/smc/statistics.js';
import type { TcpSocket } from '../../src/smc/socket/tcp.js';
import { ADDRESS, bootSmc, connectPair } from './pair.js';

function firstLgr({ ram }: Smc, { address }: SmcdDevice): number {
  return ram.pointer(address + DEV.lgr_list);
}

describe('over ISM', () => {
  it('a peer system that dies: the link groups of its GID end, no record is sent', async () => {
    const { kernel, smc } = await bootSmc({ loopback: 'none', ism: [{}] });
    const pair = await connectPair(smc);
    const device = smc.device('ism');
    const gone = (tok: bigint): void =>
      smc.raiseIsmEvent(device, { type: ISM_EVENT.GID, code: 0, tok, info: 0n });
    gone(device.gid + 1n);
    expect(listLinkGroups(smc).length).toBe(2);
    const { cdcs } = smc.stats;
    gone(device.gid);
    expect([listLinkGroups(smc).length, smc.stats.cdcs]).toEqual([0, cdcs]);
    expect([pair.client.state, pair.client.takeError()]).toEqual([
      SMC_STATE.CLOSED,
      ERRNO.ECONNABORTED,
    ]);
    // who learned it from the device has nobody to tell
    expect(smc.ismEvents.length).toBe(2);
    pair.close();
    expect(smc.dmbCount(device)).toBe(0);
    kernel.close();
  });

  it('a peer that shuts its link group says so (0x80): the other end is killed too', async () => {
    const { kernel, smc } = await bootSmc({ loopback: 'none', ism: [{}] });
    const pair = await connectPair(smc);
    const device = smc.device('ism');
    kernel.invoke('smc_lgr_terminate_sched', firstLgr(smc, device));
    smc.run();
    // the server's group, no VLAN, a request; nobody answers with an event of his own
    const info = eventInfo(0x100, 0, ISM_EVENT_REQUEST);
    expect(smc.ismEvents).toEqual([{ type: ISM_EVENT.SWR, code: 0x80, tok: device.gid, info }]);
    expect(listLinkGroups(smc)).toEqual([]);
    for (const end of [pair.client, pair.server]) {
      expect([end.state, end.sendNow(new Uint8Array(1))]).toEqual([SMC_STATE.CLOSED, -ERRNO.EPIPE]);
    }
    pair.close();
    expect(smc.dmbCount(device)).toBe(0);
    kernel.close();
  });

  it('a test of the link (0x83) is answered once, other codes are not', async () => {
    const { kernel, smc } = await bootSmc({ loopback: 'none', ism: [{}] });
    const device = smc.device('ism');
    const ask = (type: number, code: number): void => {
      const info = eventInfo(0x600, 5, ISM_EVENT_REQUEST);
      smc.raiseIsmEvent(device, { type, code, tok: device.gid, info });
    };
    ask(ISM_EVENT.SWR, 0x83);
    expect(smc.ismEvents.map(({ code, info }) => [code, info])).toEqual([
      [0x83, eventInfo(0x600, 5, ISM_EVENT_REQUEST)],
      [0x83, eventInfo(0x600, 5, ISM_EVENT_RESPONSE)],
    ]);
    ask(ISM_EVENT.SWR, 0x81);
    ask(ISM_EVENT.DMB, 0);
    expect(smc.ismEvents.length).toBe(4);
    kernel.close();
  });
});

it('loopback has no events: nobody is told of a shut link group', async () => {
  const { kernel, smc } = await bootSmc();
  await connectPair(smc);
  kernel.invoke('smc_lgr_terminate_sched', firstLgr(smc, smc.device('loopback')));
  smc.run();
  expect(smc.ismEvents).toEqual([]);
  expect(listLinkGroups(smc).map(({ role }) => role)).toEqual(['client']);
  kernel.close();
});

it('a confirm with a token that the device does not know: no connection, no fallback', async () => {
  const { kernel, smc } = await bootSmc();
  const listener = smc.socket();
  listener.listen({ address: ADDRESS, port: 9200 });
  // a real client proposes; what it sends goes through our hands
  const relay = smc.tcp.create();
  let front: TcpSocket | undefined;
  smc.tcp.synackOption = () => true;
  smc.tcp.bind(relay, { address: 0x7f000001, port: 9201 });
  smc.tcp.listen(relay, (socket) => (front = socket));
  const client = smc.socket();
  client.connectNow({ address: ADDRESS, port: 9201 });
  const back = smc.tcp.connectRaw({
    to: { address: 0x7f000001, port: 9200 },
    smcOption: true,
  });
  if (!front || !back) throw new Error('not connected');
  smc.run();
  back.send(front.read(1000));
  smc.run();
  front.send(back.read(1000));
  smc.run();
  const confirm = decodeAcceptConfirm(front.read(1000));
  back.send(encodeAcceptConfirm({ ...confirm, token: confirm.token ^ 1n }));
  smc.run();
  expect(listener.acceptNow()).toBeUndefined();
  expect(back.finReceived).toBe(true);
  // the server's buffer outlives its group: the client's ghost is attached to it
  expect(listLinkGroups(smc).map(({ role }) => role)).toEqual(['client']);
  expect(smc.dmbCount(smc.device('loopback'))).toBe(2);
  kernel.close();
});

it('too many handshakes: the SYN is answered without the option', async () => {
  const { kernel, smc } = await bootSmc({ handshakeLimit: 1 });
  const listener = smc.socket();
  const to = { address: ADDRESS, port: 9300 };
  listener.listen(to);
  // the first one never sends its proposal
  smc.tcp.connectRaw({ to: { address: 0x7f000001, port: 9300 }, smcOption: true });
  smc.run();
  const client = smc.socket();
  await client.connect(to);
  expect(client.fallbackReason).toBe(SMC_CLC_DECL.PEERNOSMC);
  client.closeNow();
  smc.advance(6000);
  const later = smc.socket();
  await later.connect(to);
  expect(later.isFallback).toBe(false);
  kernel.close();
});

it('a process that dies: unread data is an abort, else the stream ends', async () => {
  const { kernel, smc } = await bootSmc();
  for (const isUnread of [true, false]) {
    const { client, server, close } = await connectPair(smc);
    if (isUnread) client.sendNow(new Uint8Array(10));
    server.closeNow();
    expect(client.recvNow(new Uint8Array(1))).toBe(0);
    expect(client.takeError()).toBe(isUnread ? ERRNO.ECONNRESET : 0);
    close();
  }
  kernel.close();
});

it('counts sends that are larger than a ring', async () => {
  const { kernel, smc } = await bootSmc({ nocopy: false });
  const pair = await connectPair(smc, { rcvbuf: 16384, sndbuf: 65536 });
  pair.client.sendNow(new Uint8Array(20_000));
  const tooSmall = (): number[] => {
    const { buf_size_small_cnt: own, buf_size_small_peer_cnt: peer } =
      smcStatistics(smc).smcd.rmb_tx;
    return [own, peer];
  };
  expect(tooSmall()).toEqual([0, 1]);
  pair.client.sendNow(new Uint8Array(70_000));
  expect(tooSmall()).toEqual([1, 2]);
  kernel.close();
});

it('a device that is going away is neither offered nor matched; another GID cannot be reached', async () => {
  const { kernel, smc } = await bootSmc();
  const { address, gid } = smc.device('loopback');
  const peer = kernel.physical.alloc(16);
  const canTalk = (): number => kernel.invoke('smc_ism_cantalk', peer, 0x1fff, address);
  smc.ram.set64(peer, gid);
  expect(canTalk()).toBe(-ERRNO.ENETUNREACH);
  smc.ram.set64(peer + 8, smc.device('loopback').gidExt);
  expect(canTalk()).toBe(0);
  smc.ram.set8(address + DEV.going_away, 1);
  const pair = await connectPair(smc);
  expect(pair.client.fallbackReason).toBe(SMC_CLC_DECL.NOSMCDEV);
  kernel.close();
});

it('no slot: one downgrade is counted, however many sizes are tried', async () => {
  const { kernel, smc } = await bootSmc({ maxDmbs: 0 });
  await connectPair(smc, { rcvbuf: 65536, sndbuf: 65536 });
  expect(smcStatistics(smc).smcd.rmb_rx.dgrade_cnt).toBe(1);
  kernel.close();
});
