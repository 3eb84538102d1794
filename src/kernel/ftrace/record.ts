/**
 * The flags of struct dyn_ftrace and the functions that decide what a patch site becomes: the wanted state
 * when an ops comes or goes, and the transition that the patcher then makes.
 *
 * All work on the number alone, so that 60,000 records are looked at in no time; the records
 * themselves are in `record-table.ts`. Reference: kernel/trace/ftrace.c: __ftrace_hash_rec_update,
 * ftrace_check_record.
 */
import type { FtraceProfile } from './profile.js';

/** FTRACE_FL_* by bit number; the low bits count the ops that cover the site. */
export const FTRACE_FL = {
  ENABLED: 1 << 31,
  REGS: 1 << 30,
  REGS_EN: 1 << 29,
  TRAMP: 1 << 28,
  TRAMP_EN: 1 << 27,
  IPMODIFY: 1 << 26,
  DISABLED: 1 << 25,
  DIRECT: 1 << 24,
  DIRECT_EN: 1 << 23,
  CALL_OPS: 1 << 22,
  CALL_OPS_EN: 1 << 21,
  TOUCHED: 1 << 20,
  MODIFIED: 1 << 19,
} as const;

/** What of it a version has. */
export interface RecordRules {
  /** FTRACE_REF_MAX. */
  readonly refMax: number;
  readonly callOps: boolean;
  /** Set when a site is enabled; set with DIRECT and IPMODIFY; 0 where there is no such flag. */
  readonly touched: number;
  readonly modified: number;
  /** What stays when the last ops has gone. */
  readonly sticky: number;
  /** All *_EN. */
  readonly enabledStates: number;
}

export function recordRules(profile: FtraceProfile): RecordRules {
  const { callOps, refBits } = profile;
  const touched = profile.touched ? FTRACE_FL.TOUCHED : 0;
  const modified = profile.modified ? FTRACE_FL.MODIFIED : 0;
  return {
    refMax: (1 << refBits) - 1,
    callOps,
    touched,
    modified,
    sticky: FTRACE_FL.DISABLED | touched | modified,
    enabledStates:
      FTRACE_FL.REGS_EN |
      FTRACE_FL.TRAMP_EN |
      FTRACE_FL.DIRECT_EN |
      (callOps ? FTRACE_FL.CALL_OPS_EN : 0),
  };
}

/** What the wanted-state functions need to know of the ops that comes or goes. */
export interface OpsTraits {
  readonly direct: boolean;
  readonly ipmodify: boolean;
  readonly saveRegs: boolean;
  readonly hasTrampoline: boolean;
  /** Its func can be called straight from ftrace_caller: no recursion or RCU assistance. */
  readonly callable: boolean;
}

/** Asked only where it matters: what ops other than the leaving one want at the site. */
export interface OtherOps {
  wantRegs(): boolean;
  haveTrampoline(): boolean;
}

/** Counts an added ops in and sets what the site wants to be. Throws RangeError when the count is full. */
export function addOps(flags: number, ops: OpsTraits, rules: RecordRules): number {
  if ((flags & rules.refMax) === rules.refMax) throw new RangeError('too many ops');
  let next = flags + 1;
  if (ops.direct) next |= FTRACE_FL.DIRECT | rules.modified;
  if (ops.ipmodify) next |= rules.modified;
  const isOnly = (next & rules.refMax) === 1;
  next = withFlag(next, FTRACE_FL.TRAMP, isOnly && ops.hasTrampoline);
  if (ops.saveRegs) next |= FTRACE_FL.REGS;
  if (rules.callOps) next = withFlag(next, FTRACE_FL.CALL_OPS, isOnly && ops.callable);
  return next;
}

/**
 * Counts a removed ops out. As upstream, CALL_OPS is decided by the ops that leaves, not by the one
 * that stays: a plain ops that remains behind a RECURSION one keeps the list path.
 */
export function removeOps(
  flags: number,
  ops: OpsTraits,
  others: OtherOps,
  rules: RecordRules,
): number {
  if ((flags & rules.refMax) === 0) throw new RangeError('no ops to remove');
  let next = flags - 1;
  const count = next & rules.refMax;
  if (ops.direct) next &= ~FTRACE_FL.DIRECT;
  if (count > 0 && next & FTRACE_FL.REGS && ops.saveRegs) {
    next = withFlag(next, FTRACE_FL.REGS, others.wantRegs());
  }
  next = withFlag(next, FTRACE_FL.TRAMP, count === 1 && others.haveTrampoline());
  if (rules.callOps) next = withFlag(next, FTRACE_FL.CALL_OPS, count === 1 && ops.callable);
  return next;
}

export type Transition = 'ignore' | 'make_call' | 'modify_call' | 'make_nop';

/** What has to be patched so that the site becomes what it wants to be. */
export function checkRecord(flags: number, enable: boolean, rules: RecordRules): Transition {
  if ((flags & FTRACE_FL.DISABLED) !== 0 && (flags & FTRACE_FL.ENABLED) === 0) return 'ignore';
  const change = changeOf(flags, enable, rules);
  const isEnabled = flags & FTRACE_FL.ENABLED;
  if (isEnabled === change) return 'ignore';
  if (change === 0) return 'make_nop';
  return isEnabled ? 'modify_call' : 'make_call';
}

/** The flags once the transition has been noted. */
export function commitRecord(flags: number, enable: boolean, rules: RecordRules): number {
  const change = changeOf(flags, enable, rules);
  const isOnly = (flags & rules.refMax) === 1;
  if (change === 0) {
    if ((flags & rules.refMax) === 0) return flags & rules.sticky;
    return flags & ~(FTRACE_FL.ENABLED | rules.enabledStates);
  }
  let next = flags | FTRACE_FL.ENABLED | rules.touched;
  if (change & FTRACE_FL.REGS) {
    next = withFlag(next, FTRACE_FL.REGS_EN, (flags & FTRACE_FL.REGS) !== 0);
  }
  if (change & FTRACE_FL.TRAMP) {
    next = withFlag(next, FTRACE_FL.TRAMP_EN, (flags & FTRACE_FL.TRAMP) !== 0);
  }
  if (change & FTRACE_FL.DIRECT) {
    next = withFlag(next, FTRACE_FL.DIRECT_EN, isOnly && (flags & FTRACE_FL.DIRECT) !== 0);
  }
  if (rules.callOps && change & FTRACE_FL.CALL_OPS) {
    next = withFlag(next, FTRACE_FL.CALL_OPS_EN, isOnly && (flags & FTRACE_FL.CALL_OPS) !== 0);
  }
  return next;
}

/** ENABLED if the site shall be a call, and each of REGS, TRAMP, DIRECT, CALL_OPS whose *_EN is out of date. */
function changeOf(flags: number, enable: boolean, rules: RecordRules): number {
  const count = flags & rules.refMax;
  if (!enable || count === 0) return 0;
  let change: number = FTRACE_FL.ENABLED;
  const has = (flag: number): boolean => (flags & flag) !== 0;
  if (has(FTRACE_FL.REGS) !== has(FTRACE_FL.REGS_EN)) change |= FTRACE_FL.REGS;
  if (has(FTRACE_FL.TRAMP) !== has(FTRACE_FL.TRAMP_EN)) change |= FTRACE_FL.TRAMP;
  const directWanted = count === 1 && has(FTRACE_FL.DIRECT);
  if (directWanted !== has(FTRACE_FL.DIRECT_EN)) change |= FTRACE_FL.DIRECT;
  if (rules.callOps) {
    const callOpsWanted = count === 1 && has(FTRACE_FL.CALL_OPS);
    if (callOpsWanted !== has(FTRACE_FL.CALL_OPS_EN)) change |= FTRACE_FL.CALL_OPS;
  }
  return change;
}

function withFlag(flags: number, flag: number, on: boolean): number {
  return on ? flags | flag : flags & ~flag;
}
