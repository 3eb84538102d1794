/**
 * What a kernel of `vectors/smc` had counted (`smcr stats`, fallback reasons), byte for byte.
 *
 * Replayed is what the recorder had done until then on sockets of SMC: a send and a receive before anything was
 * connected, five connections that ended in TCP, and five bytes over each.
 */
import { bytesToHex } from '../../../common/bytes.js';
import { dumpFallbackStats, dumpStats, encodeAttributes } from '../../../smc/netlink.js';
import type { Smc } from '../../../smc/smc.js';
import type { SmcSocket } from '../../../smc/socket/smc-socket.js';
import { smcStatistics } from '../../../smc/statistics.js';
import { connectPair } from '../../smc-pair.js';
import type { VectorRecord } from '../record.js';
import { differenceOf, type Difference } from './compare.js';
import { rawServer } from './machines.js';

/** Records that have all the counts of a boot. */
export const COUNTED: ReadonlySet<string> = new Set(['stats nodev', 'fback nodev']);

const ADDRESS = '127.0.0.1';
const LOCALHOST = 0x7f000001;
const FIRST_PORT = 5001;
const BYTES = new Uint8Array(5);

export async function compareCounts(record: VectorRecord, smc: Smc): Promise<Difference> {
  if (smcStatistics(smc).fallback.clnt.total === 0) await playRecorded(smc);
  const messages = record.text('what').startsWith('stats')
    ? [dumpStats(smc)]
    : dumpFallbackStats(smc);
  const ours = messages.map((each) => bytesToHex(encodeAttributes(each)));
  return differenceOf([['messages', ours, record.fields['msgs']]]);
}

async function playRecorded(smc: Smc): Promise<void> {
  const unconnected = smc.socket();
  unconnected.sendNow(BYTES);
  unconnected.recvNow(new Uint8Array(1));
  unconnected.closeNow();
  const talk = (client: SmcSocket, server: SmcSocket): void => {
    client.sendNow(BYTES);
    server.recvNow(new Uint8Array(100));
    client.closeNow();
    server.closeNow();
  };
  for (const port of [FIRST_PORT, FIRST_PORT + 1]) {
    const { client, server } = await connectPair(smc, { address: ADDRESS, port });
    talk(client, server);
  }
  await smcClientOfTcp(smc, FIRST_PORT + 2);
  await smcServerOfTcp(smc, FIRST_PORT + 3);
  const to = { address: ADDRESS, port: FIRST_PORT + 4 };
  const listener = smc.socket();
  listener.listen(to);
  const client = smc.socket();
  await client.connect(to, { fastopen: true });
  talk(client, await listener.accept());
  listener.closeNow();
}

async function smcClientOfTcp(smc: Smc, port: number): Promise<void> {
  const server = rawServer(smc, port, false);
  const client = smc.socket();
  await client.connect({ address: ADDRESS, port });
  client.sendNow(BYTES);
  client.closeNow();
  server.close();
}

async function smcServerOfTcp(smc: Smc, port: number): Promise<void> {
  const listener = smc.socket();
  listener.listen({ address: ADDRESS, port });
  const client = smc.tcp.connectRaw({ to: { address: LOCALHOST, port }, smcOption: false });
  smc.run();
  const server = await listener.accept();
  client?.send(BYTES);
  server.recvNow(new Uint8Array(100));
  server.closeNow();
  listener.closeNow();
  if (client) smc.tcp.release(client);
}
