/**
 * How a run of a BPF program ends, the same for every engine of this floor: interpreter and wasm tier.
 *
 * Usage:
 *   if (result.kind !== 'return') print(describeResult(result));
 */
import { hex64 } from '../common/bytes.js';
import { describeFault, type AccessFault } from '../cpu/fault.js';

/** How a run ended. `insn` is a slot number in `function`. */
export type InterpreterResult =
  | { readonly kind: 'return'; readonly r0: bigint }
  | {
      readonly kind: 'fault';
      readonly fault: AccessFault;
      readonly insn: number;
      readonly function: string;
    }
  /** The budget of instructions is used up. */
  | { readonly kind: 'budget'; readonly insn: number; readonly function: string }
  /** More than 8 nested calls, or a call through a register that points nowhere. */
  | {
      readonly kind: 'error';
      readonly reason: string;
      readonly insn: number;
      readonly function: string;
    };

export interface InterpreterOptions {
  /** R2 at entry. Default: 0. */
  readonly r2?: bigint;
  /** About how many instructions may be executed (checked on jumps). Default: 1e9. */
  readonly budget?: number;
}

export const DEFAULT_BUDGET = 1e9;

/** One line: `main insn 3: write of 8 bytes at 0x0000000000000010: no memory there`. */
export function describeResult(result: InterpreterResult): string {
  switch (result.kind) {
    case 'return':
      return `returned ${hex64(result.r0)}`;
    case 'fault':
      return `${result.function} insn ${result.insn}: ${describeFault(result.fault)}`;
    case 'budget':
      return `${result.function} insn ${result.insn}: the budget of instructions is used up`;
    case 'error':
      return `${result.function} insn ${result.insn}: ${result.reason}`;
  }
}
