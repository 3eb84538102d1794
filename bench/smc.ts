/**
 * SMC-D over loopback, with and without the copy, beside Node's own sockets in the same run.
 *
 * Counted: copies per byte, records per message. Timed, per second of processor time and as medians of runs
 * that take turns: messages of 100 bytes one way, a round trip of 14 bytes, 64 KiB at a time. Sockets of Node
 * pay for system calls and turns of the event loop, the model for neither: their figures stand beside those of
 * the model, and only copy against nocopy is like for like.
 */
import { createConnection, createServer, type Socket } from 'node:net';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { runPeers } from '../src/lab/smc-peers.js';
import {
  copyFigures,
  openTransfer,
  type CopyFigures,
  type Transfer,
} from '../src/lab/smc-transfer.js';
import { labBooter } from '../src/node/boot.js';
import { newStats } from '../src/smc/context.js';
import { createSmc, type Smc } from '../src/smc/smc.js';
import type { BenchRow } from './row.js';

export const SMALL = 100;
export const PING = 14;
export const BULK = 65536;

/** One way of getting bytes across. */
export interface SmcBenchResult {
  readonly name: 'copy' | 'nocopy' | 'node tcp' | 'node unix';
  readonly messagesPerSecond: number;
  /** Half a round trip. */
  readonly microseconds: number;
  readonly megabytesPerSecond: number;
  /** Of 100 bytes and of 64 KiB; a model only. */
  readonly small?: CopyFigures;
  readonly bulk?: CopyFigures;
}

interface Contestant {
  readonly name: SmcBenchResult['name'];
  /** `count` messages of `size` bytes one way. */
  send(size: number, count: number): Promise<void>;
  ping(size: number, count: number): Promise<void>;
  close(): void;
}

/** How much is sent in a run: counts of messages, round trips and bulk messages. */
export interface SmcBenchOptions {
  readonly runs?: number;
  /** Of 100 bytes. Default 40000. */
  readonly messages?: number;
  readonly pings?: number;
  readonly bulk?: number;
}

/** Rounds in front, in which the JavaScript engine compiles for all of them. */
const WARM_UP = 3;

/** All four, in runs that take turns. */
export async function measureSmc(
  options: SmcBenchOptions = {},
): Promise<readonly SmcBenchResult[]> {
  const { runs = 5, messages = 40_000, pings = 8000, bulk = 1500 } = options;
  const boot = await labBooter('embedded');
  const models = await Promise.all(
    [false, true].map((nocopy) => openModel(boot({ ram: 32 << 20 }), nocopy)),
  );
  const contestants: readonly Contestant[] = [
    ...models,
    await openNode('tcp'),
    await openNode('unix'),
  ];
  const samples = contestants.map(() => ({
    small: [] as number[],
    ping: [] as number[],
    bulk: [] as number[],
  }));
  for (let run = -WARM_UP; run < runs; run++) {
    for (const [i, contestant] of contestants.entries()) {
      const sample = samples[i];
      const small = await cpuSeconds(() => contestant.send(SMALL, messages));
      const ping = await cpuSeconds(() => contestant.ping(PING, pings));
      const large = await cpuSeconds(() => contestant.send(BULK, bulk));
      if (run < 0 || !sample) continue;
      sample.small.push(messages / small);
      sample.ping.push((1e6 * ping) / pings / 2);
      sample.bulk.push((BULK * bulk) / large / 1e6);
    }
  }
  const results = contestants.map(({ name }, i): SmcBenchResult => {
    const sample = samples[i] ?? { small: [], ping: [], bulk: [] };
    const model = models.find((each) => each.name === name);
    return {
      name,
      messagesPerSecond: median(sample.small),
      microseconds: median(sample.ping),
      megabytesPerSecond: median(sample.bulk),
      ...(model ? { small: model.figures(SMALL, 10_000), bulk: model.figures(BULK, 500) } : {}),
    };
  });
  for (const contestant of contestants) contestant.close();
  return results;
}

async function cpuSeconds(work: () => Promise<void>): Promise<number> {
  const before = process.cpuUsage();
  await work();
  const { user, system } = process.cpuUsage(before);
  return (user + system) / 1e6;
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[values.length >> 1] ?? 0;
}

interface Model extends Contestant {
  figures(size: number, count: number): CopyFigures;
}

async function openModel(kernel: Parameters<typeof createSmc>[0], nocopy: boolean): Promise<Model> {
  const smc = createSmc(kernel, { nocopy, memMax: 1 << 20 });
  smc.eids.add('SMC-BENCH');
  // as in the seed's test: buffers of 1 MB
  const transfer = await openTransfer(smc, { rcvbuf: 1 << 20, sndbuf: 1 << 20 });
  return {
    name: nocopy ? 'nocopy' : 'copy',
    send: async (size, count) => sendModel(transfer, size, count),
    ping: async (size, count) => pingModel(transfer, size, count),
    figures: (size, count) => {
      Object.assign(smc.stats, newStats());
      sendModel(transfer, size, count);
      return copyFigures(smc.stats, size * count, count);
    },
    close: () => kernel.close(),
  };
}

function sendModel({ client, server }: Transfer, size: number, count: number): void {
  const message = new Uint8Array(size).fill(1);
  const buffer = new Uint8Array(size);
  for (let i = 0; i < count; i++) {
    client.sendNow(message);
    server.recvNow(buffer);
  }
}

function pingModel({ client, server }: Transfer, size: number, count: number): void {
  const message = new Uint8Array(size);
  const buffer = new Uint8Array(size);
  for (let i = 0; i < count; i++) {
    client.sendNow(message);
    server.recvNow(buffer);
    server.sendNow(buffer);
    client.recvNow(message);
  }
}

async function openNode(kind: 'tcp' | 'unix'): Promise<Contestant> {
  const folder = mkdtempSync(join(tmpdir(), 'trampolab-'));
  const path = join(folder, 'socket');
  const server = createServer();
  const accepted = new Promise<Socket>((resolve) => server.once('connection', resolve));
  const listening = new Promise<void>((resolve) => server.once('listening', resolve));
  if (kind === 'tcp') server.listen(0, '127.0.0.1');
  else server.listen(path);
  await listening;
  const address = server.address();
  const client =
    typeof address === 'object' && address
      ? createConnection(address.port, '127.0.0.1')
      : createConnection(path);
  const peer = await accepted;
  for (const socket of [client, peer]) socket.setNoDelay(true);
  return {
    name: `node ${kind}`,
    send: (size, count) => sendNode(client, peer, size, count),
    ping: (size, count) => pingNode(client, peer, size, count),
    close: () => {
      client.destroy();
      peer.destroy();
      server.close();
      rmSync(folder, { recursive: true });
    },
  };
}

async function sendNode(client: Socket, peer: Socket, size: number, count: number): Promise<void> {
  const message = new Uint8Array(size).fill(1);
  let left = size * count;
  const done = new Promise<void>((resolve) => {
    const take = (data: Uint8Array): void => {
      left -= data.length;
      if (left > 0) return;
      peer.off('data', take);
      resolve();
    };
    peer.on('data', take);
  });
  for (let i = 0; i < count; i++) {
    if (!client.write(message)) await new Promise<void>((resolve) => client.once('drain', resolve));
  }
  await done;
}

async function pingNode(client: Socket, peer: Socket, size: number, count: number): Promise<void> {
  const message = new Uint8Array(size);
  let left = count;
  await new Promise<void>((resolve) => {
    const echo = (data: Uint8Array): void => void peer.write(data);
    const next = (): void => {
      if (--left > 0) {
        client.write(message);
        return;
      }
      peer.off('data', echo);
      client.off('data', next);
      resolve();
    };
    peer.on('data', echo);
    client.on('data', next);
    client.write(message);
  });
}

const GIGABYTE = 1e9;

/** A gigabyte between two random peers, checked byte by byte; in megabytes per second of processor time. */
async function randomGigabyte(smc: Smc): Promise<number> {
  const before = process.cpuUsage();
  const result = await runPeers(smc, { seed: 1, rcvbuf: 65536, sndbuf: 32768, bytes: GIGABYTE });
  if (result.problem !== undefined) throw new Error(`random peers: ${result.problem}`);
  const { user, system } = process.cpuUsage(before);
  return result.bytes / (user + system);
}

export async function benchSmc(): Promise<readonly BenchRow[]> {
  const results = await measureSmc();
  const [copy] = results;
  const rows = results.flatMap(({ name, ...figures }): BenchRow[] => {
    const ratio = (value: number, base: number | undefined): { ratio?: number } =>
      name === 'nocopy' && base ? { ratio: value / base } : {};
    return [
      {
        name: `${name}, ${SMALL} B`,
        value: figures.messagesPerSecond,
        unit: 'messages/s',
        ...ratio(figures.messagesPerSecond, copy?.messagesPerSecond),
      },
      {
        name: `${name}, ${PING} B there`,
        value: figures.microseconds,
        unit: 'us',
        ...ratio(figures.microseconds, copy?.microseconds),
      },
      {
        name: `${name}, 64 KiB`,
        value: figures.megabytesPerSecond,
        unit: 'MB/s',
        ...ratio(figures.megabytesPerSecond, copy?.megabytesPerSecond),
      },
      ...(figures.bulk
        ? [{ name: `${name}, copies of a byte`, value: figures.bulk.copiesPerByte, unit: 'copies' }]
        : []),
    ];
  });
  const boot = await labBooter('embedded');
  for (const nocopy of [false, true]) {
    const kernel = boot();
    const smc = createSmc(kernel, { nocopy });
    smc.eids.add('SMC-BENCH');
    const name = `${nocopy ? 'nocopy' : 'copy'}, random 1 GB`;
    rows.push({ name, value: await randomGigabyte(smc), unit: 'MB/s' });
    kernel.close();
  }
  return rows;
}
