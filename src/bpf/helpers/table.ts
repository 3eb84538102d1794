/**
 * The table of helpers: every one that programs may call here, with arguments and body.
 *
 * Helper 12 (tail_call) is missing on purpose: the loader turns it into opcode 0xf5. Reference:
 * include/uapi/linux/bpf.h (numbers), kernel/bpf and net/core (struct bpf_func_proto).
 *
 * Usage:
 *   const host = new PlainHost({ helpers: helperBodies() });
 */
import { withSignature, type BpfHost, type HelperBody } from '../host.js';
import { KFUNCS } from '../kfuncs/table.js';
import { checksumHelpers, type HelperVersion } from './checksum.js';
import { DYNPTR_HELPERS } from './dynptr.js';
import { generalHelpers, taskHelpers } from './general.js';
import type { Helper } from './helper.js';
import { KPTR_HELPERS } from './kptr.js';
import { LOCK_HELPERS } from './locks.js';
import { loopHelpers } from './loops.js';
import { mapHelpers } from './maps.js';
import { REDIRECT_HELPERS } from './redirect.js';
import { RING_HELPERS } from './rings.js';
import { SOCKET_HELPERS } from './sockets.js';
import { SYN_COOKIE_HELPERS } from './syn-cookies.js';
import { tracingHelpers } from './tracing.js';
import { XDP_HELPERS } from './xdp.js';

export interface HelperOptions {
  /** Kernel whose semantics the helpers have. Default: 6.12. */
  readonly version?: HelperVersion;
  /** The running program's attach cookie. Default: 0, that of an attachment without one. */
  readonly attachCookie?: (host: BpfHost) => bigint;
  /**
   * Address of the probed function, 0 inside of one: what kprobe programs get from bpf_get_func_ip, which the
   * loader inlines for tracing programs. Default: ctx[-2].
   */
  readonly funcIp?: (host: BpfHost) => bigint;
  /** tgid << 32 | pid of the current task. Default: 0, the idle task. */
  readonly pidTgid?: (host: BpfHost) => bigint;
  /** Address of the current `struct task_struct`. Default: there is none, and no helper that gives it. */
  readonly currentTask?: (host: BpfHost) => bigint;
}

/** All helpers, by number. Each call makes new ones, which share no state with others. */
export function helperTable(options: HelperOptions = {}): ReadonlyMap<number, Helper> {
  const helpers = [
    ...mapHelpers(),
    ...generalHelpers(options.pidTgid ?? (() => 0n)),
    ...(options.currentTask ? taskHelpers(options.currentTask) : []),
    ...tracingHelpers(options.attachCookie ?? (() => 0n), options.funcIp),
    ...checksumHelpers(options.version ?? '6.12'),
    ...loopHelpers(),
    ...LOCK_HELPERS,
    ...KPTR_HELPERS,
    ...RING_HELPERS,
    ...DYNPTR_HELPERS,
    ...REDIRECT_HELPERS,
    ...XDP_HELPERS,
    ...SOCKET_HELPERS,
    ...SYN_COOKIE_HELPERS,
  ].sort((a, b) => a.id - b.id);
  for (const { arguments: kinds, result, body } of helpers) {
    withSignature({ arguments: kinds.length, result: result !== 'void' }, body);
  }
  return new Map(helpers.map((helper) => [helper.id, helper]));
}

/** The bodies alone, kfuncs among them, as `PlainHost` takes them. */
export function helperBodies(options: HelperOptions = {}): ReadonlyMap<number, HelperBody> {
  const all = [...helperTable(options).values(), ...KFUNCS];
  return new Map(all.map(({ id, body }) => [id, body]));
}
