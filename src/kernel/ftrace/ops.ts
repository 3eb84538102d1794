/**
 * struct ftrace_ops: who wants to be called at which sites.
 *
 * The struct lies in kernel memory where ftrace_caller reads it (func, direct_call); filters are kept
 * beside it. Reference: include/linux/ftrace.h (6.12). Left out: notrace hashes per instance,
 * subops, allocated trampolines.
 */
import type { Memory } from '../../cpu/memory.js';
import { FTRACE_OPS } from '../offsets.js';

/** FTRACE_OPS_FL_* by bit number. */
export const FTRACE_OPS_FL = {
  ENABLED: 1 << 0,
  DYNAMIC: 1 << 1,
  SAVE_REGS: 1 << 2,
  SAVE_REGS_IF_SUPPORTED: 1 << 3,
  RECURSION: 1 << 4,
  STUB: 1 << 5,
  INITIALIZED: 1 << 6,
  DELETED: 1 << 7,
  ADDING: 1 << 8,
  REMOVING: 1 << 9,
  MODIFYING: 1 << 10,
  IPMODIFY: 1 << 12,
  PID: 1 << 13,
  RCU: 1 << 14,
  PERMANENT: 1 << 16,
  DIRECT: 1 << 17,
} as const;

export class FtraceOps {
  readonly name: string;
  readonly address: bigint;
  /** Sites (rec->ip) it covers; empty: all. */
  readonly filter = new Set<bigint>();
  /** Sites it never covers. */
  readonly notrace = new Set<bigint>();
  readonly #memory: Memory;

  /** @param address FTRACE_OPS.size bytes of kernel memory, zeroed */
  constructor(memory: Memory, name: string, address: bigint) {
    this.#memory = memory;
    this.name = name;
    this.address = address;
  }

  get func(): bigint {
    return this.#get(FTRACE_OPS.func);
  }

  set func(value: bigint) {
    this.#set(FTRACE_OPS.func, value);
  }

  get next(): bigint {
    return this.#get(FTRACE_OPS.next);
  }

  set next(value: bigint) {
    this.#set(FTRACE_OPS.next, value);
  }

  get flags(): number {
    return Number(this.#get(FTRACE_OPS.flags));
  }

  set flags(value: number) {
    this.#set(FTRACE_OPS.flags, BigInt(value));
  }

  get savedFunc(): bigint {
    return this.#get(FTRACE_OPS.saved_func);
  }

  set savedFunc(value: bigint) {
    this.#set(FTRACE_OPS.saved_func, value);
  }

  get trampoline(): bigint {
    return this.#get(FTRACE_OPS.trampoline);
  }

  set trampoline(value: bigint) {
    this.#set(FTRACE_OPS.trampoline, value);
  }

  get directCall(): bigint {
    return this.#get(FTRACE_OPS.direct_call);
  }

  set directCall(value: bigint) {
    this.#set(FTRACE_OPS.direct_call, value);
  }

  has(flag: number): boolean {
    return (this.flags & flag) !== 0;
  }

  covers(ip: bigint): boolean {
    return (this.filter.size === 0 || this.filter.has(ip)) && !this.notrace.has(ip);
  }

  #get(offset: number): bigint {
    return this.#memory.read64(this.address + BigInt(offset));
  }

  #set(offset: number, value: bigint): void {
    this.#memory.write64(this.address + BigInt(offset), value);
  }
}
