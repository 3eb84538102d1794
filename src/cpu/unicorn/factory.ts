/**
 * libunicorn as a `CpuFactory`.
 */
import type { CpuFactory } from '../engines.js';
import { UnicornCpu } from './cpu.js';
import { loadUnicorn } from './library.js';

export type UnicornFactory =
  | { readonly factory: CpuFactory; readonly reason?: undefined }
  | { readonly factory?: undefined; readonly reason: string };

/** The factory, or one line that says why libunicorn cannot be used here. */
export async function unicornFactory(): Promise<UnicornFactory> {
  const { library, reason } = await loadUnicorn();
  if (!library) return { reason };
  return {
    factory: { name: 'unicorn', create: (memory) => new UnicornCpu(library, memory) },
  };
}
