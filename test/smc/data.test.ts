/** The data path with and without copy: copies, cursors, window, urgent data, states, failures. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import fc from 'fast-check';
import { ERRNO } from '../../src/common/errno.js';
import { MSG, POLL, SMC_STATE, STATE_FLAG, compressBufsize } from '../../src/smc/constants.js';
import { C, TX, connOf } from '../../src/smc/core/fields.js';
import { cursSet } from '../../src/smc/cursor.js';
import { SMCD_DEV, SMCD_DMB, SMC_LO_DEV } from '../../src/smc/structs.js';
import { connectionState, type ConnectionState } from '../../src/smc/state.js';
import { newStats } from '../../src/smc/context.js';
import { runPeers } from '../../src/lab/smc-peers.js';
import { bootSmc, connectPair, pattern, type SmcMachine, type SocketPair } from './pair.js';

const machines = new Map<boolean, SmcMachine>();
beforeAll(async () => {
  for (const nocopy of [true, false]) {
    machines.set(
      nocopy,
      await bootSmc({ nocopy, softirq: 'auto', memMax: 1 << 21 }, { ram: 32 << 20 }),
    );
  }
});
afterAll(() => {
  for (const { kernel } of machines.values()) kernel.close();
});

async function open(
  nocopy: boolean,
  size = 16384,
): Promise<SmcMachine & SocketPair & { state: (end: 'client' | 'server') => ConnectionState }> {
  const machine = machines.get(nocopy) as SmcMachine;
  const pair = await connectPair(machine.smc, { rcvbuf: size, sndbuf: size });
  Object.assign(machine.smc.stats, newStats());
  const state = (end: 'client' | 'server'): ConnectionState => {
    const found = connectionState(machine.smc, connOf(pair[end].sock));
    if (!found) throw new Error('no connection');
    return found;
  };
  return { ...machine, ...pair, state };
}

const read = (size: number): Uint8Array => new Uint8Array(size);

describe.each([
  ['copy', false],
  ['nocopy', true],
] as const)('%s', (_name, nocopy) => {
  it(`copies a byte ${nocopy ? 2 : 3} times, and 32 bytes for a record`, async () => {
    const { client, server, smc, close } = await open(nocopy, 65536);
    for (let i = 0; i < 100; i++) {
      client.sendNow(pattern(1000, 1000 * i));
      expect(server.recvNow(read(1000))).toBe(1000);
    }
    const { userToKernel, deviceCopied, kernelToUser, cdcCopied, cdcs, windowUpdates } = smc.stats;
    expect([userToKernel, deviceCopied, kernelToUser]).toEqual([1e5, nocopy ? 0 : 1e5, 1e5]);
    expect(cdcCopied).toBe(32 * cdcs);
    expect(cdcs - windowUpdates).toBe(100);
    close();
  });

  it('takes what both rings hold, then EAGAIN; limit + 1 bytes later there is room', async () => {
    for (const size of [16384, 65536, 1 << 20]) {
      const { client, server, smc, state, close } = await open(nocopy, size);
      const ring = size - 32;
      expect(state('server').rmbeSize).toBe(ring);
      const total = nocopy ? ring : size + ring;
      expect(client.sendNow(read(4 << 20))).toBe(total);
      expect([client.sendNow(read(1)), client.poll() & POLL.OUT]).toEqual([-ERRNO.EAGAIN, 0]);
      expect(state('client').flags.txProd).toBe(0x80);
      const limit = Math.max(Math.floor(ring / 10), 2304);
      let reads = server.recvNow(read(limit - 9));
      while ((client.poll() & POLL.OUT) === 0) {
        server.recvNow(read(1));
        reads++;
      }
      expect(reads).toBe(limit + 1);
      expect(smc.stats.windowUpdates).toBe(1);
      close();
    }
  });

  it('updates the window at 3000 and 6000 of 12000, not at 7000 and 8000', async () => {
    const { client, server, state, close } = await open(nocopy);
    client.sendNow(read(12000));
    const seen = Array.from({ length: 8 }, () => {
      server.recvNow(read(1000));
      return state('client').rxCons[1];
    });
    expect(seen).toEqual([0, 0, 3000, 3000, 3000, 6000, 6000, 6000]);
    // what goes the other way takes it along
    server.sendNow(read(1));
    expect(state('client').rxCons[1]).toBe(8000);
    close();
  });

  it('passes 65535 rounds', async () => {
    const { client, server, state, smc, close } = await open(nocopy);
    const { ram } = smc;
    const [a, b] = [connOf(client.sock), connOf(server.sock)];
    for (const at of [a + TX.prod, a + C.tx_curs_prep, a + C.tx_curs_sent, a + C.tx_curs_fin]) {
      cursSet(ram, at, 65535, 0);
    }
    for (const at of [b + TX.cons, b + C.rx_curs_confirmed]) cursSet(ram, at, 65535, 0);
    cursSet(ram, a + C.local_rx_ctrl + 8, 65535, 0);
    cursSet(ram, b + C.local_rx_ctrl, 65535, 0);
    let sent = 0;
    for (let i = 0; i < 40; i++) {
      const size = client.sendNow(pattern(900, sent));
      expect(size).toBe(900);
      const got = read(900);
      expect(server.recvNow(got)).toBe(900);
      expect(got).toEqual(pattern(900, sent));
      sent += size;
    }
    expect(state('client').txProd[0]).toBe(Math.floor(sent / 16352) - 1);
    close();
  });

  it('holds back what is corked', async () => {
    const { client, server, state, close } = await open(nocopy);
    expect(client.sendNow(pattern(10), MSG.MORE)).toBe(10);
    expect([server.recvNow(read(100)), state('client').txPrep[1]]).toEqual([-ERRNO.EAGAIN, 10]);
    client.setOption('cork', true);
    client.sendNow(pattern(5, 10));
    expect(state('client').txSent[1]).toBe(0);
    client.setOption('cork', false);
    const got = read(100);
    expect(server.recvNow(got, MSG.PEEK)).toBe(15);
    expect(got.subarray(0, 15)).toEqual(pattern(15));
    expect([server.recvNow(read(4), MSG.TRUNC), server.recvNow(read(100))]).toEqual([4, 11]);
    close();
  });

  it('urgent data: out of band, inline, and nothing more until it was read', async () => {
    const { client, server, close } = await open(nocopy);
    expect(client.sendNow(new TextEncoder().encode('abc'), MSG.OOB)).toBe(3);
    expect(server.poll() & POLL.PRI).toBe(POLL.PRI);
    expect(client.sendNow(read(1))).toBe(-ERRNO.EAGAIN);
    const urgent = read(1);
    expect([server.recvNow(urgent, MSG.OOB), urgent[0]]).toEqual([1, 0x63]);
    expect(server.recvNow(urgent, MSG.OOB)).toBe(-ERRNO.EINVAL);
    expect(server.recvNow(read(10))).toBe(2);
    expect(client.sendNow(read(1))).toBe(1);
    expect(server.recvNow(read(10))).toBe(1);
    server.setOption('oobInline', true);
    client.sendNow(new TextEncoder().encode('xyz'), MSG.OOB);
    const inline = read(10);
    expect(server.recvNow(urgent, MSG.OOB)).toBe(-ERRNO.EINVAL);
    expect(server.recvNow(inline)).toBe(3);
    expect(new TextDecoder().decode(inline.subarray(0, 3))).toBe('xyz');
    close();
  });

  it('coalesces signals: three sends before the tasklet are one receive event', async () => {
    const { kernel, smc } = await bootSmc({ nocopy, softirq: 'manual' });
    smc.eids.flush();
    smc.eids.add('MANUAL');
    const listener = smc.socket();
    const client = smc.socket();
    listener.listen({ address: '127.0.0.1', port: 1 });
    const connected = client.connect({ address: '127.0.0.1', port: 1 });
    smc.run();
    await connected;
    const server = await listener.accept();
    for (const size of [10, 20, 30]) client.sendNow(read(size));
    expect(server.recvNow(read(100))).toBe(-ERRNO.EAGAIN);
    expect([smc.stats.signals, smc.run(), server.recvNow(read(100))]).toEqual([3, 1, 60]);
    kernel.close();
  });

  it('waits with promises: for data, for room, for the end', async () => {
    const { client, server, close } = await open(nocopy);
    const data = pattern(100_000);
    const received = server.recv(data.length, MSG.WAITALL);
    await client.sendAll(data);
    expect(await received).toEqual(data);
    const rest = server.recv(10);
    await client.close();
    expect((await rest).length).toBe(0);
    await expect(server.send(read(1))).rejects.toThrow('-ECONNRESET');
    close();
  });

  it('SO_SNDTIMEO and SO_RCVTIMEO: EAGAIN when the time is over, what was done before that counts', async () => {
    const { client, server, smc, close } = await open(nocopy);
    while (client.sendNow(read(1 << 16)) > 0);
    Object.assign(client, { sndtimeo: 1000, rcvtimeo: 500 });
    const sending = client.send(read(1)).catch(String);
    const receiving = client.recv(1).catch(String);
    await new Promise((resolve) => setImmediate(resolve));
    smc.advance(999);
    expect(await receiving).toContain('-EAGAIN');
    smc.advance(1);
    expect(await sending).toContain('-EAGAIN');
    server.sendNow(read(3));
    const part = client.recv(10, MSG.WAITALL);
    await new Promise((resolve) => setImmediate(resolve));
    smc.advance(500);
    expect((await part).length).toBe(3);
    close();
  });

  it('close waits for unsent data, two seconds at most', async () => {
    const { client, server, smc, close } = await open(nocopy);
    client.sendNow(read(16352));
    client.sendNow(read(100), MSG.MORE);
    let isClosed = false;
    const closing = client.close().then(() => (isClosed = true));
    await new Promise((resolve) => setImmediate(resolve));
    // without copy the ring is full before anything is left over
    expect(isClosed).toBe(nocopy);
    smc.advance(2000);
    await closing;
    expect((await server.recv(20000)).length).toBe(16352);
    close();
  });

  it('unread data at close: abort, 0 for who reads, EPIPE for who writes, ECONNRESET once', async () => {
    const { client, server, close } = await open(nocopy);
    client.sendNow(read(10));
    server.closeNow();
    expect(client.state).toBe(SMC_STATE.PROCESSABORT);
    expect(client.poll()).toBe(POLL.IN | POLL.OUT | POLL.ERR | POLL.RDHUP);
    expect([client.recvNow(read(1)), client.sendNow(read(1))]).toEqual([0, -ERRNO.EPIPE]);
    expect([client.takeError(), client.takeError()]).toEqual([ERRNO.ECONNRESET, 0]);
    close();
  });

  it('removing the device kills: EPIPE, ENOTCONN, ECONNABORTED, and nothing is held', async () => {
    const { kernel, smc } = await bootSmc({ nocopy });
    const pair = await connectPair(smc);
    pair.client.sendNow(read(100));
    smc.removeDevice(smc.device('loopback'));
    for (const end of [pair.client, pair.server]) {
      expect(end.state).toBe(SMC_STATE.CLOSED);
      expect(end.sendNow(read(1))).toBe(-ERRNO.EPIPE);
      // closed, and no record of the peer came that would have said so before
      expect(end.recvNow(read(10))).toBe(-ERRNO.ENOTCONN);
      expect(end.takeError()).toBe(ERRNO.ECONNABORTED);
    }
    pair.close();
    expect(smc.devices.list).toEqual([]);
    kernel.close();
  });

  it('two peers with random calls: byte-exact, counters in range, nothing held', async () => {
    const { smc, kernel, close } = await open(nocopy);
    // the tasks that handshakes run in are there from now on
    close();
    const sizes = fc.constantFrom(16384, 32768, 65536, 1 << 20);
    await fc.assert(
      fc.asyncProperty(fc.integer(), sizes, sizes, async (seed, rcvbuf, sndbuf) => {
        const before = kernel.linear.liveBytes;
        const result = await runPeers(smc, { seed, rcvbuf, sndbuf, bytes: 400_000 });
        expect(result.problem).toBeUndefined();
        expect(result.bytes).toBeGreaterThan(0);
        smc.advance(600_000);
        expect(smc.dmbCount(smc.device('loopback'))).toBe(0);
        expect(kernel.linear.liveBytes).toBeLessThanOrEqual(before);
      }),
      { numRuns: 12 },
    );
  });
});

describe('the loopback device', () => {
  it('keeps a buffer until owner and ghost have let go, in either order', () => {
    const { smc, kernel } = machines.get(true) as SmcMachine;
    const { ram } = smc;
    const { address: dev, ops } = smc.device('loopback');
    const dmb = kernel.physical.alloc(SMCD_DMB.size);
    const count = (): number => smc.dmbCount(smc.device('loopback'));
    const start = count();
    for (const ghostLast of [true, false]) {
      ram.set32(dmb + SMCD_DMB.offset.dmb_len, 16384);
      expect(kernel.invoke(ops.register_dmb, dev, dmb, 0)).toBe(0);
      const token = ram.u53(dmb + SMCD_DMB.offset.dmb_tok);
      expect(kernel.invoke(ops.attach_dmb ?? '', dev, dmb)).toBe(0);
      const drops = [
        () => kernel.invoke(ops.unregister_dmb, dev, dmb),
        () => kernel.invoke(ops.detach_dmb ?? '', dev, token),
      ];
      if (!ghostLast) drops.reverse();
      expect([drops[0]?.(), count(), drops[1]?.(), count()]).toEqual([0, start + 1, 0, start]);
      expect(drops[0]?.()).toBe(-ERRNO.EINVAL);
    }
    expect(kernel.invoke(ops.attach_dmb ?? '', dev, dmb)).toBe(-ERRNO.EINVAL);
    kernel.physical.free(dmb);
  });

  it('move_data: EINVAL, EPIPE with the bytes written, 0 for nothing to move', () => {
    for (const nocopy of [true, false]) {
      const { smc, kernel } = machines.get(nocopy) as SmcMachine;
      const { ram } = smc;
      const { address: dev, ops } = smc.device('loopback');
      const dmb = kernel.physical.alloc(SMCD_DMB.size);
      ram.set32(dmb + SMCD_DMB.offset.dmb_len, 16384);
      kernel.invoke(ops.register_dmb, dev, dmb, 0);
      const token = ram.u53(dmb + SMCD_DMB.offset.dmb_tok);
      const data = kernel.physical.alloc(64);
      ram.set32(data, 0x11223344);
      const move = (tok: number, sf: number, offset: number): number =>
        kernel.invoke(ops.move_data, dev, tok, 0, sf, offset, data, 64);
      expect(move(token + 1, 0, 0)).toBe(nocopy ? 0 : -ERRNO.EINVAL);
      expect(move(token + 1, 1, 0)).toBe(-ERRNO.EINVAL);
      expect(move(token, 1, 16384 - 63)).toBe(-ERRNO.EINVAL);
      expect(move(token, 1, 128)).toBe(-ERRNO.EPIPE);
      const memory = ram.pointer(dmb + SMCD_DMB.offset.cpu_addr);
      expect(ram.u32(memory + 128)).toBe(0x11223344);
      kernel.invoke(ops.unregister_dmb, dev, dmb);
    }
  });

  it('has 5000 slots', () => {
    const { smc, kernel } = machines.get(true) as SmcMachine;
    const { address: dev, ops } = smc.device('loopback');
    const dmb = kernel.physical.alloc(SMCD_DMB.size);
    const lo = smc.ram.pointer(dev + SMCD_DEV.offset.priv);
    expect(smc.ram.u32(lo + SMC_LO_DEV.offset.max_dmbs)).toBe(5000);
    const tokens: bigint[] = [];
    smc.ram.set32(dmb + SMCD_DMB.offset.dmb_len, 16);
    while (kernel.invoke(ops.register_dmb, dev, dmb, 0) === 0) {
      tokens.push(smc.ram.u64(dmb + SMCD_DMB.offset.dmb_tok));
    }
    expect(kernel.invoke(ops.register_dmb, dev, dmb, 0)).toBe(-ERRNO.ENOSPC);
    expect([smc.dmbCount(smc.device('loopback')), new Set(tokens).size]).toEqual([
      5000,
      tokens.length,
    ]);
    for (const token of tokens) {
      smc.ram.set64(dmb + SMCD_DMB.offset.dmb_tok, token);
      kernel.invoke(ops.unregister_dmb, dev, dmb);
    }
  });
});

it('shares memory without copy: a byte that is sent lies in the peer behind its record', async () => {
  const { client, server, smc, close } = await open(true);
  const { ram } = smc;
  const ghost = ram.pointer(ram.pointer(connOf(client.sock) + C.sndbuf_desc) + 8);
  const own = ram.pointer(ram.pointer(connOf(server.sock) + C.rmb_desc) + 8);
  expect(ghost).toBe(own + 32);
  // corked: there already, and not to be read yet
  client.sendNow(Uint8Array.of(0xab), MSG.MORE);
  expect([ram.u8(own + 32), server.recvNow(read(1))]).toEqual([0xab, -ERRNO.EAGAIN]);
  expect(smc.stats.deviceCopied).toBe(0);
  close();
});

it('a token that the device does not know: sends go on until the ring is full', async () => {
  for (const nocopy of [true, false]) {
    const { client, smc, close } = await open(nocopy);
    const conn = connOf(client.sock);
    const token = smc.ram.u64(conn + C.peer_token);
    smc.ram.set64(conn + C.peer_token, token ^ 1n);
    let total = 0;
    for (let sent = 1; sent > 0; total += Math.max(sent, 0)) sent = client.sendNow(read(1000));
    expect(total).toBe(nocopy ? 16352 : 16384);
    expect(client.sendNow(read(1))).toBe(-ERRNO.EAGAIN);
    expect(smc.ram.u8(conn + TX.stateFlags)).toBe(STATE_FLAG.PEER_CONN_ABORT);
    smc.ram.set64(conn + C.peer_token, token);
    close();
  }
});

it('a peer that lies about the size of its buffer is not attached to', async () => {
  const { client, smc, kernel, close } = await open(true);
  const conn = connOf(client.sock);
  smc.ram.set32(conn + C.peer_rmbe_size, 32736);
  expect(kernel.invoke('smcd_buf_attach', client.sock)).toBe(-ERRNO.EINVAL);
  smc.ram.set32(conn + C.peer_rmbe_size, 16352);
  close();
});

it.each([
  [1, 0],
  [16384, 0],
  [16385, 1],
  [32768, 1],
  [32769, 2],
  [65536, 2],
  [131072, 3],
  [1 << 20, 6],
  [1 << 24, 6],
])('a request of %i bytes is size %i', (size, n) => {
  expect(compressBufsize(size)).toBe(n);
});
