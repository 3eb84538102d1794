/**
 * Two connected SMC sockets of one kernel.
 *
 * Usage:
 *   const { client, server, close } = await connectPair(smc, { address: '127.0.0.1', port: 5000 });
 */
import type { Smc } from '../smc/smc.js';
import type { SmcSocket, SocketAddress } from '../smc/socket/smc-socket.js';

export interface SmcPair {
  readonly client: SmcSocket;
  readonly server: SmcSocket;
  /** Closes both at once, as processes that end. */
  close(): void;
}

/** SO_RCVBUF and SO_SNDBUF of both ends. */
export interface BufferSizes {
  readonly rcvbuf?: number | undefined;
  readonly sndbuf?: number | undefined;
}

/** Connects to a listener that is there for this connection only. */
export async function connectPair(
  smc: Smc,
  to: SocketAddress,
  { rcvbuf, sndbuf }: BufferSizes = {},
): Promise<SmcPair> {
  const listener = smc.socket();
  const client = smc.socket();
  for (const socket of [listener, client]) {
    if (rcvbuf !== undefined) socket.setOption('rcvbuf', rcvbuf);
    if (sndbuf !== undefined) socket.setOption('sndbuf', sndbuf);
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
