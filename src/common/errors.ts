/**
 * The error classes of the lab. Each message is one line that says what is wrong and where.
 *
 * `KernelError` is a refusal of the modelled kernel and carries its errno; `InputError` is a file or
 * argument the lab cannot use; `UsageError` is a command line that cannot be parsed (exit code 2).
 * Faults of emulated code are not errors but values: see `cpu/fault.ts`.
 */
import { ERRNO, type ErrnoName } from './errno.js';

/** Names from files may hold line ends and terminal controls: a message shows them as `\x0a`. */
function oneLine(message: string): string {
  return message.replace(
    /\p{Cc}/gu,
    (control) => `\\x${(control.codePointAt(0) ?? 0).toString(16).padStart(2, '0')}`,
  );
}

/** A refusal of the modelled kernel: `-EBUSY: bpf_fentry_test1 already has a direct call`. */
export class KernelError extends Error {
  readonly errno: ErrnoName;

  constructor(errno: ErrnoName, why: string) {
    super(oneLine(`-${errno}: ${why}`));
    this.name = 'KernelError';
    this.errno = errno;
  }

  /** The negative number the kernel function would return. */
  get code(): number {
    return -ERRNO[this.errno];
  }
}

/** Input that cannot be used: a malformed file, an unknown symbol. */
export class InputError extends Error {
  constructor(message: string) {
    super(oneLine(message));
    this.name = 'InputError';
  }
}

/** A command line that cannot be understood. */
export class UsageError extends Error {
  constructor(message: string) {
    super(message);
    this.name = 'UsageError';
  }
}
