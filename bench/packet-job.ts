/**
 * Measurements of packets, each in a process of its own: what the JavaScript engine learnt from the kernels of
 * others would slow it down, as in no run of a user.
 *
 * Usage:
 *   const { speed } = await measureApart({ kind: 'receive', rx: 'small', ring: 'split', drops: true });
 */
import { fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import type { RunEngine } from '../src/lab/run-program.js';
import type { PacketRate } from './packet-rate.js';

export const RX_MODES = ['small', 'mergeable', 'big'] as const;
export const RINGS = ['split', 'packed'] as const;

/** The receive path with frames of 64 bytes. */
export interface ReceiveSetting {
  readonly rx: (typeof RX_MODES)[number];
  readonly ring: (typeof RINGS)[number];
  /** A program is attached that returns XDP_DROP. */
  readonly drops: boolean;
}

/** An example program on packets of the example capture. */
export interface Workload {
  readonly program: string;
  readonly settings: readonly string[];
  /** Packets of the capture with this verdict; absent: all. */
  readonly verdict?: string;
}

export interface TrafficSetting {
  readonly workload: Workload;
  readonly engine: RunEngine;
  /** Packets per poll. */
  readonly batch: number;
}

export type PacketJob =
  (ReceiveSetting & { readonly kind: 'receive' }) | (TrafficSetting & { readonly kind: 'traffic' });

export function measureApart(job: PacketJob): Promise<PacketRate> {
  return new Promise((resolve, reject) => {
    const path = fileURLToPath(new URL('./packet-child.js', import.meta.url));
    const child = fork(path, [JSON.stringify(job)]);
    child.once('message', (rate) => resolve(rate as PacketRate));
    child.once('error', reject);
    child.once('exit', (code) => reject(new Error(`the measuring process ended with ${code}`)));
  });
}
