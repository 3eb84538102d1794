/** Kernels with SMC, and connected sockets, for tests. */
import type { Kernel } from '../../src/kernel/kernel.js';
import { labBooter, type LabBooter, type LabOptions } from '../../src/node/boot.js';
import { createSmc, type Smc, type SmcOptions } from '../../src/smc/smc.js';
import type { SmcSocket } from '../../src/smc/socket/smc-socket.js';

export const UEID = 'SMC-LAB';
export const ADDRESS = '127.0.0.1';

export interface SmcMachine {
  readonly kernel: Kernel;
  readonly smc: Smc;
}

const booters = new Map<string, Promise<LabBooter>>();

/** A kernel with SMC and one user EID. */
export async function bootSmc(
  options: SmcOptions & { readonly ueid?: string | false } = {},
  lab: LabOptions = {},
): Promise<SmcMachine> {
  const { ueid = UEID, ...rest } = options;
  const { engine = 'embedded', ...setting } = lab;
  const booter = booters.get(engine) ?? labBooter(engine);
  booters.set(engine, booter);
  const kernel = (await booter)(setting);
  const smc = createSmc(kernel, rest);
  if (ueid !== false) smc.eids.add(ueid);
  return { kernel, smc };
}

export interface SocketPair {
  readonly client: SmcSocket;
  readonly server: SmcSocket;
  close(): void;
}

let port = 10000;

/** Sizes are what SO_RCVBUF and SO_SNDBUF of both ends are set to. */
export async function connectPair(
  smc: Smc,
  size: { readonly rcvbuf?: number; readonly sndbuf?: number } = {},
): Promise<SocketPair> {
  const to = { address: ADDRESS, port: port++ };
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

/** Bytes whose values tell their place in the stream. */
export function pattern(size: number, from = 0): Uint8Array {
  return Uint8Array.from({ length: size }, (_, i) => ((from + i) * 7 + ((from + i) >> 8)) & 0xff);
}
