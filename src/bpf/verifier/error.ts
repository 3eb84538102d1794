/**
 * A program the verifier refuses: errno, what is wrong, where, and what was known there.
 *
 * The message is one line; `log` is what the kernel's log level 1 would show: source lines,
 * instructions and states of the path that led there.
 */
import type { ErrnoName } from '../../common/errno.js';
import { KernelError } from '../../common/errors.js';

export class VerifierError extends KernelError {
  /** What is wrong, without place: `R0 invalid mem access 'map_value_or_null'`. */
  readonly reason: string;
  /** Function and slot; -1 when the program as a whole is refused. */
  readonly fn: number;
  readonly insn: number;
  /** `R0=... R1=ctx() R10=fp0` before that instruction; empty outside the walk. */
  readonly registers: string;
  readonly log: readonly string[];

  constructor(refusal: Refusal, where: string, log: readonly string[]) {
    const registers = refusal.registers === '' ? '' : ` [${refusal.registers}]`;
    super(refusal.errno, `${refusal.reason}: ${where}${registers}`);
    this.name = 'VerifierError';
    this.reason = refusal.reason;
    this.fn = refusal.fn;
    this.insn = refusal.insn;
    this.registers = refusal.registers;
    this.log = log;
  }
}

/** Thrown inside the verifier; `verify` makes a `VerifierError` of it. */
export class Refusal extends Error {
  readonly errno: ErrnoName;
  readonly reason: string;
  readonly fn: number;
  readonly insn: number;
  readonly registers: string;

  constructor(errno: ErrnoName, reason: string, fn: number, insn: number, registers: string) {
    super(reason);
    this.name = 'Refusal';
    this.errno = errno;
    this.reason = reason;
    this.fn = fn;
    this.insn = insn;
    this.registers = registers;
  }
}
