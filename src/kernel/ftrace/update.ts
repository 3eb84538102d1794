/**
 * The command that brings all patch sites, and the BL inside ftrace_caller, to what the ops want.
 *
 * Reference: kernel/trace/ftrace.c: ftrace_modify_all_code, ftrace_replace_code, __ftrace_replace_code,
 * update_ftrace_function, ftrace_bug. arm64 does it without stop_machine. Without CALL_OPS the BL at
 * `ftrace_call` goes to the list function while sites change; only when every CPU is known to see the new
 * function_trace_op (the IPI) may it go to the one function. A failing patch is an ftrace bug: nothing
 * more is patched, and ftrace stays off for good.
 */
import { hex64 } from '../../common/bytes.js';
import { KernelError } from '../../common/errors.js';
import type { Memory } from '../../cpu/memory.js';
import type { DirectFunctions } from './direct-functions.js';
import { FTRACE_OPS_FL, type FtraceOps } from './ops.js';
import type { OpsList } from './ops-list.js';
import type { SitePatcher } from './patch.js';
import type { FtraceProfile } from './profile.js';
import { FTRACE_FL, checkRecord, commitRecord, type RecordRules } from './record.js';
import type { RecordTable } from './record-table.js';
import type { StoreObserver } from './store-observer.js';

export interface UpdaterParts {
  readonly memory: Memory;
  readonly profile: FtraceProfile;
  readonly rules: RecordRules;
  readonly table: RecordTable;
  readonly list: OpsList;
  readonly stores: StoreObserver;
  readonly patcher: SitePatcher;
  readonly direct: DirectFunctions;
  readonly nopOps: FtraceOps;
  readonly listOps: FtraceOps;
  readonly listEnd: FtraceOps;
  readonly ftraceCaller: bigint;
  /** FTRACE_REGS_ADDR: ftrace_regs_caller where there is one. */
  readonly ftraceRegsCaller: bigint;
  readonly stub: bigint;
  readonly listFunc: bigint;
  readonly assistFunc: bigint;
  /** Without CALL_OPS: the BL inside ftrace_caller, and the variable it passes. */
  readonly call: { readonly ftraceCall: bigint; readonly functionTraceOp: bigint } | undefined;
  /** Every CPU executes a barrier (smp_call_function). */
  readonly ipi: () => void;
  readonly printk: (line: string) => void;
}

export class CodeUpdater {
  readonly #parts: UpdaterParts;
  /** ftrace_trace_function, and as it was when last patched for. */
  #traceFunction: bigint;
  #savedFunction: bigint;
  #traceOp: bigint;
  /** Target of the BL at ftrace_call. */
  #called: bigint;
  #bug: string | undefined;
  /** Trampolines that sites call, other than the entry code of the kernel. */
  readonly #trampolines = new Map<bigint, bigint>();
  #warnedOfTwo = false;

  constructor(parts: UpdaterParts) {
    this.#parts = parts;
    this.#traceFunction = parts.stub;
    this.#savedFunction = parts.stub;
    this.#called = parts.stub;
    this.#traceOp = parts.listEnd.address;
    if (parts.call) this.#storeTraceOp();
  }

  /** Why ftrace is off for good (ftrace_disabled). */
  get bug(): string | undefined {
    return this.#bug;
  }

  /** update_ftrace_function: which function the entry code shall call, from what is in the list. */
  chooseFunction(): void {
    const { list, stub, listFunc, listEnd } = this.#parts;
    const [only, ...more] = list.ops;
    this.#traceOp = only && more.length === 0 ? only.address : listEnd.address;
    if (!only) this.#traceFunction = stub;
    else if (more.length > 0) this.#traceFunction = listFunc;
    else this.#traceFunction = this.#functionOfOnly(only);
  }

  /** Calls go to ftrace_stub (sysctl ftrace_enabled=0). */
  stopFunction(): void {
    this.#traceFunction = this.#parts.stub;
  }

  /** ftrace_shutdown_sysctl: every site becomes a NOP, whatever its ops want. */
  disableCalls(): void {
    this.#replaceCode(false);
  }

  /** ftrace_startup_sysctl: whatever was called before, ftrace_call is patched again. */
  restart(): void {
    this.#savedFunction = 0n;
    this.run();
  }

  /** ftrace_ops_get_func: the function to call for a single ops. */
  callableFunc(ops: FtraceOps): bigint {
    const assisted = ops.has(FTRACE_OPS_FL.RECURSION | FTRACE_OPS_FL.RCU);
    return assisted ? this.#parts.assistFunc : ops.func;
  }

  /** ftrace_run_update_code: UPDATE_CALLS, and UPDATE_TRACE_FUNC if that has changed. */
  run(): void {
    const { listFunc, call } = this.#parts;
    const updateFunction = this.#savedFunction !== this.#traceFunction;
    this.#savedFunction = this.#traceFunction;
    if (updateFunction) this.#updateFtraceCall(listFunc);
    this.#replaceCode(true);
    if (updateFunction && this.#traceFunction !== listFunc && call) {
      this.#storeTraceOp();
      this.#synchronize();
      this.#updateFtraceCall(this.#traceFunction);
    }
  }

  /** ftrace_bug: reports, and turns ftrace off. */
  reportBug(error: unknown, index: number): void {
    if (!(error instanceof KernelError)) throw error;
    const { table, printk, rules } = this.#parts;
    const what = BUG_LINES[error.errno] ?? 'ftrace faulted on unknown error';
    const ip = table.ip(index);
    const flags = table.flags[index] as number;
    this.#bug = `${table.nameOf(index)} (${error.message})`;
    printk(`------------[ ftrace bug ]------------`);
    printk(`${what} [<${hex64(ip).slice(2)}>] ${table.nameOf(index)}: ${error.message}`);
    printk(`ftrace record flags: ${(flags >>> 0).toString(16)} (${flags & rules.refMax})`);
  }

  #functionOfOnly(ops: FtraceOps): bigint {
    const { profile, listFunc } = this.#parts;
    // the list function is told which ops it is by looking: nobody then reads a freed one
    const needsList = ops.has(FTRACE_OPS_FL.DYNAMIC | FTRACE_OPS_FL.RCU);
    return needsList && !profile.callOps ? listFunc : this.callableFunc(ops);
  }

  #updateFtraceCall(func: bigint): void {
    const { call, patcher } = this.#parts;
    if (!call || func === this.#called) return;
    this.#called = func;
    patcher.updateFtraceCall(call.ftraceCall, func);
  }

  #storeTraceOp(): void {
    const { memory, call, stores } = this.#parts;
    if (!call) return;
    const { functionTraceOp: address } = call;
    memory.write64(address, this.#traceOp);
    stores.onStore?.({ kind: 'function_trace_op', address, value: this.#traceOp });
  }

  /** smp_call_function(ftrace_sync_ipi): from here on every CPU sees the new function_trace_op. */
  #synchronize(): void {
    const { ipi, stores } = this.#parts;
    ipi();
    stores.onStore?.({ kind: 'ipi', address: 0n, value: 0n });
  }

  #replaceCode(enable: boolean): void {
    this.replaceRange(0, this.#parts.table.size, enable);
  }

  /** ftrace_replace_code for the records from `first` up to, not including, `last`. */
  replaceRange(first: number, last: number, enable = true): void {
    const { table, rules, patcher } = this.#parts;
    const { flags } = table;
    try {
      for (let index = first; index < last; index++) {
        const transition = checkRecord(flags[index] as number, enable, rules);
        if (transition !== 'ignore' && !this.#replaceOne(index, transition, enable)) return;
      }
    } finally {
      patcher.flush();
    }
  }

  /** __ftrace_replace_code; false after an ftrace bug. */
  #replaceOne(
    index: number,
    transition: 'make_call' | 'modify_call' | 'make_nop',
    enable: boolean,
  ): boolean {
    const { table, rules, patcher, nopOps } = this.#parts;
    const to = this.#newAddress(index);
    const from = this.#currentAddress(index);
    this.#noteTrampoline(index, to);
    table.flags[index] = commitRecord(table.flags[index] as number, enable, rules);
    const at = table.offset(index);
    const site = { at, entry: table.entryOffset(index) };
    try {
      switch (transition) {
        case 'make_call':
          patcher.makeCall(site, this.#literal(index), to);
          break;
        case 'modify_call':
          patcher.modifyCall(site, this.#literal(index), from, to);
          break;
        case 'make_nop':
          patcher.makeNop(site, nopOps.address, from);
          break;
      }
      return true;
    } catch (error) {
      this.reportBug(error, index);
      return false;
    }
  }

  /** What ftrace_find_tramp_ops_curr finds out from the ops that is being removed. */
  #noteTrampoline(index: number, to: bigint): void {
    const { table, ftraceRegsCaller } = this.#parts;
    const own = (table.flags[index] as number) & FTRACE_FL.TRAMP && to !== ftraceRegsCaller;
    const noted = this.#trampolines.size > 0;
    if (own) this.#trampolines.set(table.ip(index), to);
    else if (noted) this.#trampolines.delete(table.ip(index));
  }

  /** ftrace_find_unique_ops: the only ops that covers a site; two make none. */
  uniqueOps(index: number): FtraceOps | undefined {
    const { table, list, printk } = this.#parts;
    let found: FtraceOps | undefined;
    for (const ops of list.ops) {
      if (!ops.coversAll && !ops.covers(table.ip(index))) continue;
      if (found) {
        if (!this.#warnedOfTwo) printk(`WARNING: ${table.nameOf(index)} has more than one ops`);
        this.#warnedOfTwo = true;
        return undefined;
      }
      found = ops;
    }
    return found;
  }

  /** The ops that ftrace_caller shall read at this site: the only one, or the list. */
  #literal(index: number): bigint {
    const { table, listOps, profile } = this.#parts;
    if (!profile.callOps || !((table.flags[index] as number) & FTRACE_FL.CALL_OPS_EN)) {
      return listOps.address;
    }
    return (this.uniqueOps(index) ?? listOps).address;
  }

  /** ftrace_get_addr_new. */
  #newAddress(index: number): bigint {
    const { table, rules, direct, ftraceCaller, ftraceRegsCaller } = this.#parts;
    const flags = table.flags[index] as number;
    if (flags & FTRACE_FL.DIRECT && (flags & rules.refMax) === 1) {
      return direct.target(table.ip(index));
    }
    // that of a direct call is FTRACE_REGS_ADDR
    if (flags & FTRACE_FL.TRAMP) return this.#trampolineAt(index);
    return flags & FTRACE_FL.REGS ? ftraceRegsCaller : ftraceCaller;
  }

  /** ftrace_find_tramp_ops_new: ops->trampoline of the ops that has one. */
  #trampolineAt(index: number): bigint {
    const { table, list, ftraceRegsCaller } = this.#parts;
    const ip = table.ip(index);
    const ops = list.ops.find((each) => each.trampoline !== 0n && each.covers(ip));
    return ops?.trampoline ?? ftraceRegsCaller;
  }

  /** ftrace_get_addr_curr. */
  #currentAddress(index: number): bigint {
    const { table, direct, ftraceCaller, ftraceRegsCaller } = this.#parts;
    const flags = table.flags[index] as number;
    if (flags & FTRACE_FL.DIRECT_EN) return direct.target(table.ip(index));
    if (flags & FTRACE_FL.TRAMP_EN) {
      return this.#trampolines.get(table.ip(index)) ?? ftraceRegsCaller;
    }
    return flags & FTRACE_FL.REGS_EN ? ftraceRegsCaller : ftraceCaller;
  }
}

const BUG_LINES: Readonly<Record<string, string>> = {
  EFAULT: 'ftrace faulted on modifying',
  EINVAL: 'ftrace failed to modify',
  EPERM: 'ftrace faulted on writing',
};
