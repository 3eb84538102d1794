/**
 * Faults of emulated code, as values.
 *
 * An access outside every region, or against a region's permissions, gives an `AccessFault`; an
 * engine that stops on one returns it in its `Stop`. Memory accessors used from TypeScript throw it
 * wrapped in `MemoryAccessError`. Reference: arch/arm64/mm/fault.c (what an oops prints).
 */
import { hex64 } from '../common/bytes.js';

export type AccessKind = 'read' | 'write' | 'fetch';

/** One access that memory refused. */
export interface AccessFault {
  readonly access: AccessKind;
  /** First byte of the access. */
  readonly address: bigint;
  /** Bytes accessed. */
  readonly size: number;
  /**
   * `unmapped`: no region holds all bytes; `permission`: the region forbids the access; `landing pad`: a
   * branch by register came to an instruction of guarded text that accepts none (Branch Target exception).
   */
  readonly reason: 'unmapped' | 'permission' | 'alignment' | 'landing pad';
}

/** One line: `write of 8 bytes at 0xffff... : no memory there`. */
export function describeFault(fault: AccessFault): string {
  const why = {
    unmapped: 'no memory there',
    permission: 'not permitted there',
    alignment: 'not aligned',
    'landing pad': 'no BTI landing pad there for this branch',
  }[fault.reason];
  return `${fault.access} of ${fault.size} bytes at ${hex64(fault.address)}: ${why}`;
}

/** Thrown by memory accessors that TypeScript code calls. */
export class MemoryAccessError extends Error {
  readonly fault: AccessFault;

  constructor(fault: AccessFault) {
    super(describeFault(fault));
    this.name = 'MemoryAccessError';
    this.fault = fault;
  }
}
