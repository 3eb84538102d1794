/** Kernels with SMC, and connected sockets, for tests. */
import { connectPair as connect, type BufferSizes, type SmcPair } from '../../src/lab/smc-pair.js';
import type { Kernel } from '../../src/kernel/kernel.js';
import { labBooter, type LabBooter, type LabOptions } from '../../src/node/boot.js';
import { createSmc, type Smc, type SmcOptions } from '../../src/smc/smc.js';

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

export type SocketPair = SmcPair;

let port = 10000;

/** On a port of its own. */
export function connectPair(smc: Smc, sizes: BufferSizes = {}): Promise<SocketPair> {
  return connect(smc, { address: ADDRESS, port: port++ }, sizes);
}

/** Bytes whose values tell their place in the stream. */
export function pattern(size: number, from = 0): Uint8Array {
  return Uint8Array.from({ length: size }, (_, i) => ((from + i) * 7 + ((from + i) >> 8)) & 0xff);
}
