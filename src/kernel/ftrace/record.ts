/**
 * struct dyn_ftrace and the two functions that decide what a patch site becomes: the wanted state
 * when an ops comes or goes, and the transition that the patcher then makes.
 *
 * Reference: kernel/trace/ftrace.c: __ftrace_hash_rec_update, ftrace_check_record (6.12).
 */

/** FTRACE_FL_* by bit number; the low 19 bits count the ops that cover the site. */
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

export const FTRACE_REF_MAX = (1 << 19) - 1;

const STICKY = FTRACE_FL.DISABLED | FTRACE_FL.TOUCHED | FTRACE_FL.MODIFIED;
const ENABLED_STATES =
  FTRACE_FL.REGS_EN | FTRACE_FL.TRAMP_EN | FTRACE_FL.DIRECT_EN | FTRACE_FL.CALL_OPS_EN;

export interface DynFtrace {
  /** Address of the instruction that becomes the call. */
  readonly ip: bigint;
  /** Symbol of the function. */
  readonly name: string;
  flags: number;
}

export function countOf(record: DynFtrace): number {
  return record.flags & FTRACE_REF_MAX;
}

/** What the wanted-state function needs to know of the ops that comes or goes. */
export interface OpsTraits {
  readonly direct: boolean;
  readonly ipmodify: boolean;
  readonly saveRegs: boolean;
  readonly hasTrampoline: boolean;
  /** Its func can be called straight from ftrace_caller: no recursion or RCU assistance. */
  readonly callable: boolean;
}

/** Counts an added ops in and sets what the site wants to be. */
export function addOps(record: DynFtrace, ops: OpsTraits): void {
  if (countOf(record) === FTRACE_REF_MAX) throw new RangeError(`${record.name}: too many ops`);
  record.flags++;
  if (ops.direct) record.flags |= FTRACE_FL.DIRECT | FTRACE_FL.MODIFIED;
  if (ops.ipmodify) record.flags |= FTRACE_FL.MODIFIED;
  setFlag(record, FTRACE_FL.TRAMP, countOf(record) === 1 && ops.hasTrampoline);
  if (ops.saveRegs) record.flags |= FTRACE_FL.REGS;
  setFlag(record, FTRACE_FL.CALL_OPS, countOf(record) === 1 && ops.callable);
}

/**
 * Counts a removed ops out. As upstream, CALL_OPS is decided by the ops that leaves, not by the one
 * that stays: a plain ops that remains behind a RECURSION one keeps the list path.
 */
export function removeOps(
  record: DynFtrace,
  ops: OpsTraits,
  others: { readonly wantRegs: boolean; readonly haveTrampoline: boolean },
): void {
  if (countOf(record) === 0) throw new RangeError(`${record.name}: no ops to remove`);
  record.flags--;
  if (ops.direct) record.flags &= ~FTRACE_FL.DIRECT;
  if (countOf(record) > 0 && record.flags & FTRACE_FL.REGS && ops.saveRegs) {
    setFlag(record, FTRACE_FL.REGS, others.wantRegs);
  }
  setFlag(record, FTRACE_FL.TRAMP, countOf(record) === 1 && others.haveTrampoline);
  setFlag(record, FTRACE_FL.CALL_OPS, countOf(record) === 1 && ops.callable);
}

export type Transition = 'ignore' | 'make_call' | 'modify_call' | 'make_nop';

/** What to patch so that the site becomes what it wants to be; notes it in the record. */
export function updateRecord(record: DynFtrace, enable: boolean): Transition {
  const disabled = (record.flags & FTRACE_FL.DISABLED) !== 0;
  const isEnabled = (record.flags & FTRACE_FL.ENABLED) !== 0;
  if (disabled && !isEnabled) return 'ignore';
  const count = countOf(record);
  const has = (flag: number): boolean => (record.flags & flag) !== 0;

  let change = 0;
  if (enable && count > 0) {
    change = FTRACE_FL.ENABLED;
    if (has(FTRACE_FL.REGS) !== has(FTRACE_FL.REGS_EN)) change |= FTRACE_FL.REGS;
    if (has(FTRACE_FL.TRAMP) !== has(FTRACE_FL.TRAMP_EN)) change |= FTRACE_FL.TRAMP;
    const directWanted = count === 1 && has(FTRACE_FL.DIRECT);
    if (directWanted !== has(FTRACE_FL.DIRECT_EN)) change |= FTRACE_FL.DIRECT;
    const callOpsWanted = count === 1 && has(FTRACE_FL.CALL_OPS);
    if (callOpsWanted !== has(FTRACE_FL.CALL_OPS_EN)) change |= FTRACE_FL.CALL_OPS;
  }
  if ((record.flags & FTRACE_FL.ENABLED) === change) return 'ignore';

  if (change !== 0) {
    record.flags |= FTRACE_FL.ENABLED | FTRACE_FL.TOUCHED;
    if (change & FTRACE_FL.REGS) setFlag(record, FTRACE_FL.REGS_EN, has(FTRACE_FL.REGS));
    if (change & FTRACE_FL.TRAMP) setFlag(record, FTRACE_FL.TRAMP_EN, has(FTRACE_FL.TRAMP));
    if (change & FTRACE_FL.DIRECT) {
      setFlag(record, FTRACE_FL.DIRECT_EN, count === 1 && has(FTRACE_FL.DIRECT));
    }
    if (change & FTRACE_FL.CALL_OPS) {
      setFlag(record, FTRACE_FL.CALL_OPS_EN, count === 1 && has(FTRACE_FL.CALL_OPS));
    }
    return isEnabled ? 'modify_call' : 'make_call';
  }
  if (count === 0) record.flags &= STICKY;
  else record.flags &= ~(FTRACE_FL.ENABLED | ENABLED_STATES);
  return 'make_nop';
}

function setFlag(record: DynFtrace, flag: number, on: boolean): void {
  if (on) record.flags |= flag;
  else record.flags &= ~flag;
}
