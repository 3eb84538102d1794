/**
 * What libunicorn reports while it runs, collected by callbacks: refused accesses, exceptions, stops.
 *
 * A callback only takes notes: neither an error nor a decision can pass through libunicorn.
 */
import type { AccessFault, AccessKind } from '../fault.js';
import { UC_MEM } from './constants.js';

const ACCESS_OF_EVENT: Readonly<Record<number, readonly [AccessKind, AccessFault['reason']]>> = {
  [UC_MEM.READ_UNMAPPED]: ['read', 'unmapped'],
  [UC_MEM.WRITE_UNMAPPED]: ['write', 'unmapped'],
  [UC_MEM.FETCH_UNMAPPED]: ['fetch', 'unmapped'],
  [UC_MEM.READ_PROT]: ['read', 'permission'],
  [UC_MEM.WRITE_PROT]: ['write', 'permission'],
  [UC_MEM.FETCH_PROT]: ['fetch', 'permission'],
};

/** An access that libunicorn reports as refused. */
export interface Refused {
  readonly type: number;
  readonly address: bigint;
  readonly size: number;
}

/** What callbacks saw in one call of `uc_emu_start`. */
export interface Events {
  refused: Refused | undefined;
  interrupt: number | undefined;
  /** A stop address was reached. */
  stopped: boolean;
  error?: Error;
}

/** Kind of the access that a memory event is about, and why it was refused. */
export function accessOfEvent(type: number): readonly [AccessKind, AccessFault['reason']] {
  const known = ACCESS_OF_EVENT[type];
  if (!known) throw new Error(`libunicorn: memory event ${type}`);
  return known;
}
