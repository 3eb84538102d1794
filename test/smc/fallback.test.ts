/** A socket that fell back: whose functions its calls enter, and what the kernel counts of it. */
import { expect, it } from 'vitest';
import { MSG, SMC_CLC_DECL, SMC_STATE } from '../../src/smc/constants.js';
import { dumpFallbackStats, dumpStats, encodeAttributes } from '../../src/smc/netlink.js';
import { smcStatistics } from '../../src/smc/statistics.js';
import { ERRNO } from '../../src/common/errno.js';
import { bytesToHex } from '../../src/common/bytes.js';
import { counter } from '../helpers/tracing.js';
import { ADDRESS, bootSmc, connectPair } from './pair.js';

const TRACED = [
  'smc_sendmsg',
  'smc_recvmsg',
  'smc_shutdown',
  'smc_poll',
  'smc_release',
  'inet_sendmsg',
  'tcp_sendmsg',
  'inet_recvmsg',
  'tcp_recvmsg',
  'inet_shutdown',
  'tcp_poll',
  'inet_release',
] as const;

it.each([
  // shutdown tells TCP too
  ['over SMC', 'SMC-LAB', { smc: [1, 1, 1, 1, 2], tcp: [0, 0, 0, 0, 1, 0, 2] }],
  ['fallen back', false, { smc: [0, 0, 0, 0, 2], tcp: [1, 1, 1, 1, 1, 1, 2] }],
] as const)('calls on a pair %s', async (_name, ueid, expected) => {
  const { kernel, smc } = await bootSmc({ ueid });
  const { client, server, close } = await connectPair(smc, {});
  const counts = kernel.kmalloc(8 * TRACED.length);
  const links = TRACED.map((target, i) =>
    kernel.bpf.attach(counter(kernel, counts + BigInt(8 * i)), 'fentry', target),
  );
  expect(client.sendNow(new Uint8Array(10))).toBe(10);
  expect(server.recvNow(new Uint8Array(10))).toBe(10);
  client.poll();
  expect(client.shutdownNow('wr')).toBe(0);
  close();
  const got = TRACED.map((_target, i) => Number(kernel.memory.read64(counts + BigInt(8 * i))));
  expect({ smc: got.slice(0, 5), tcp: got.slice(5) }).toEqual(expected);
  for (const link of links) link.detach();
  kernel.close();
});

it('a fallen-back socket is TCP for options, errors, states and connecting again', async () => {
  const { kernel, smc } = await bootSmc({ ueid: false });
  const { client, server, close } = await connectPair(smc, { rcvbuf: 30_000 });
  expect([client.state, client.isFallback]).toEqual([SMC_STATE.ACTIVE, true]);
  // asked for before: copied; not asked for: TCP's own
  expect([client.getOption('rcvbuf'), client.getOption('sndbuf')]).toEqual([60_000, 16_384]);
  expect([server.getOption('rcvbuf'), server.getOption('sndbuf')]).toEqual([60_000, 16_384]);
  client.setOption('cork', true);
  client.setOption('cork', false);
  client.setOption('nodelay', true);
  expect([client.getOption('cork'), client.getOption('nodelay')]).toEqual([false, true]);
  expect(smcStatistics(smc).smcd.cork_cnt).toBe(0);
  expect(client.sendNow(new Uint8Array(1), MSG.FASTOPEN)).toBe(1);
  await expect(client.connect({ address: ADDRESS, port: 1 })).rejects.toThrow('-EISCONN');
  expect(client.shutdownNow(3)).toBe(-ERRNO.EINVAL);
  expect(client.shutdownNow('rdwr')).toBe(0);
  // smc_shutdown was not asked: the smc_sock does not notice
  expect(client.state).toBe(SMC_STATE.ACTIVE);
  expect(client.sendNow(new Uint8Array(1))).toBe(-ERRNO.EPIPE);
  server.recvNow(new Uint8Array(10));
  expect(server.isReadShut).toBe(true);
  close();
  expect([...smc.socks]).toEqual([]);
  kernel.close();
});

it('what counts over SMC', async () => {
  const { kernel, smc } = await bootSmc({ nocopy: false });
  const sizes = { rcvbuf: 16384, sndbuf: 16384 };
  const { client, server, close } = await connectPair(smc, sizes);
  client.setOption('cork', true);
  client.setOption('cork', false);
  client.setOption('nodelay', true);
  client.sendNow(new Uint8Array(9000));
  expect(client.sendNow(new Uint8Array(100_000))).toBe(16384 - 32 + 16384 - 9000);
  expect(client.sendNow(new Uint8Array(1))).toBe(-ERRNO.EAGAIN);
  expect(server.recvNow(new Uint8Array(100))).toBe(100);
  expect(server.recvNow(new Uint8Array(20_000))).toBe(16384 - 32 - 100);
  server.sendNow(Uint8Array.of(1), MSG.OOB);
  const { smcd } = smcStatistics(smc);
  expect(smcd).toMatchObject({
    clnt_v2_succ_cnt: 1,
    srv_v2_succ_cnt: 1,
    cork_cnt: 1,
    ndly_cnt: 1,
    urg_data_cnt: 1,
    // a request that came to nothing is one
    tx_cnt: 4,
    tx_bytes: 9000 + 23_736 + 1,
    tx_pd: [1, 1, 0, 0, 1, 0, 0, 0, 0],
    rx_cnt: 2,
    // by what came, not by what was asked for
    rx_pd: [1, 1, 0, 0, 0, 0, 0, 0, 0],
    tx_rmbuse: 32_768,
    rx_rmbuse: 32_768,
    rmb_tx: { buf_size_small_cnt: 1, buf_size_small_peer_cnt: 1, buf_full_cnt: 1, alloc_cnt: 2 },
    rmb_rx: { buf_full_cnt: 1, buf_size_small_cnt: 1, alloc_cnt: 2 },
  });
  close();
  const after = smcStatistics(smc).smcd;
  expect([after.tx_rmbuse, after.rx_rmbuse]).toEqual([0, 0]);
  const again = await connectPair(smc, sizes);
  // both ends find the server's link group, in which one buffer is free
  expect(smcStatistics(smc).smcd.rmb_rx).toMatchObject({ reuse_cnt: 1, alloc_cnt: 3 });
  again.close();
  kernel.close();
});

it('handshakes that failed, and reasons beyond the 36 that are told apart', async () => {
  const { kernel, smc } = await bootSmc({ loopback: 'none' });
  const peer = smc.socket();
  const listener = smc.socket();
  listener.listen({ address: ADDRESS, port: 900 });
  const raw = smc.tcp.connectRaw({ to: { address: 0x7f000001, port: 900 }, smcOption: true });
  raw?.send(new Uint8Array(64));
  smc.run();
  expect(smcStatistics(smc).handshakeErrors).toEqual({ clnt: 0, srv: 1 });
  for (let reason = 1; reason <= 40; reason++) {
    kernel.invoke('smc_switch_to_fallback', peer.sock, reason);
  }
  kernel.invoke('smc_switch_to_fallback', peer.sock, 7);
  const { total, reasons } = smcStatistics(smc).fallback.clnt;
  expect([total, reasons.length, reasons[6]]).toEqual([41, 36, { code: 7, count: 2 }]);
  kernel.close();
});

it('netlink messages, as 6.12 writes them', async () => {
  const { kernel, smc } = await bootSmc({ ueid: false });
  const pair = await connectPair(smc);
  const { NOUEID, PEERDECL } = SMC_CLC_DECL;
  expect([pair.server.fallbackReason, pair.client.fallbackReason]).toEqual([NOUEID, PEERDECL]);
  expect(dumpFallbackStats(smc).map((each) => bytesToHex(encodeAttributes(each)))).toEqual([
    // type, srv_fback_cnt, clnt_fback_cnt, code, count
    '340008800500010001000000' +
      '0c0002000100000000000000' +
      '0c0003000100000000000000' +
      '08000400080003030600050001000000',
    '1c000880050001000000000008000400000000050600050001000000',
  ]);
  // usage of buffers: 4 bytes each, and not in 6.1
  expect(encodeAttributes(dumpStats(smc)).length).toBe(0x65c);
  const old = await bootSmc({ release: 0 });
  expect(encodeAttributes(dumpStats(old.smc)).length).toBe(0x63c);
  old.kernel.close();
  kernel.close();
});
