/** What else goes wrong: systems that die, tokens that nobody has, too many handshakes. */
import { expect, it } from 'vitest';
import { ERRNO } from '../../src/common/errno.js';
import { encodeAcceptConfirm } from '../../src/smc/clc/messages.js';
import { decodeAcceptConfirm } from '../../src/smc/clc/parse.js';
import { SMC_CLC_DECL, SMC_STATE } from '../../src/smc/constants.js';
import { SMCD_GID } from '../../src/smc/structs.js';
import { listLinkGroups } from '../../src/smc/state.js';
import type { TcpSocket } from '../../src/smc/socket/tcp.js';
import { ADDRESS, bootSmc, connectPair } from './pair.js';

it('a peer system that dies: the link groups of its GID end, no record is sent', async () => {
  const { kernel, smc } = await bootSmc({ loopback: 'none', ism: [{}] });
  const pair = await connectPair(smc);
  const device = smc.device('ism');
  const gid = kernel.physical.alloc(SMCD_GID.size);
  smc.ram.set64(gid, device.gid + 1n);
  kernel.invoke('smc_smcd_terminate', device.address, gid, 0x1fff);
  expect(listLinkGroups(smc).length).toBe(2);
  smc.ram.set64(gid, device.gid);
  const { cdcs } = smc.stats;
  kernel.invoke('smc_smcd_terminate', device.address, gid, 0x1fff);
  expect([listLinkGroups(smc).length, smc.stats.cdcs]).toEqual([0, cdcs]);
  expect([pair.client.state, pair.client.takeError()]).toEqual([
    SMC_STATE.CLOSED,
    ERRNO.ECONNABORTED,
  ]);
  pair.close();
  expect(smc.dmbCount(device)).toBe(0);
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
  expect([smc.stats.sndbufTooSmall, smc.stats.rmbPeerTooSmall]).toEqual([0, 1]);
  pair.client.sendNow(new Uint8Array(70_000));
  expect([smc.stats.sndbufTooSmall, smc.stats.rmbPeerTooSmall]).toEqual([1, 2]);
  kernel.close();
});
