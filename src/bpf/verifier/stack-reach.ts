/**
 * Whether an access stays inside a frame's stack.
 *
 * Reference: check_stack_access_within_bounds in kernel/bpf/verifier.c.
 */
import type { ErrnoName } from '../../common/errno.js';
import type { Env } from './env.js';
import { MAX_STACK } from './state.js';
import { distance, variableText, type Pointer } from './value.js';

const MAX_DISTANCE = 1n << 29n;

/** Lowest and highest offset from R10 at which an access may begin. */
export interface Reach {
  readonly low: number;
  readonly high: number;
}

type How = 'read' | 'write';

const PHRASES: Readonly<Record<How, string>> = {
  read: ' read from',
  write: ' write to',
};

/** Checks that `size` bytes at `pointer + off` are in the frame. */
export function stackReach(
  env: Env,
  register: number,
  pointer: Pointer,
  off: number,
  size: number,
  how: How,
): Reach {
  const { smin, smax } = distance(pointer);
  const base = pointer.off + off;
  if (!pointer.variable) {
    const errno = outsideStack(base, base + size);
    if (errno) {
      env.refuse(errno, `invalid${PHRASES[how]} stack R${register} off=${base} size=${size}`);
    }
  } else if (smin <= -MAX_DISTANCE || smax >= MAX_DISTANCE) {
    env.refuse('EACCES', `invalid unbounded variable-offset${PHRASES[how]} stack R${register}`);
  }
  const low = base + Number(smin);
  const high = base + Number(smax);
  const errno = outsideStack(low, high + size);
  if (errno) {
    env.refuse(
      errno,
      `invalid variable-offset${PHRASES[how]} stack R${register} var_off=${variableText(pointer)} off=${base} size=${size}`,
    );
  }
  env.noteStack(pointer.frame, low);
  return { low, high };
}

/** The kernel has another errno for what begins in the frame and ends above it. */
function outsideStack(first: number, end: number): ErrnoName | undefined {
  if (first < -MAX_STACK || first > -1) return 'EACCES';
  return end > 0 ? 'EINVAL' : undefined;
}
