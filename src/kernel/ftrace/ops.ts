/**
 * struct ftrace_ops: who wants to be called at which sites.
 *
 * The struct lies in kernel memory where ftrace_caller reads it (func, direct_call); filters are kept
 * beside it. Reference: include/linux/ftrace.h. Left out: subops, allocated trampolines, pid filters.
 */
import type { Memory } from '../../cpu/memory.js';
import { FTRACE_OPS } from '../offsets.js';
import type { FtraceOpsOffsets } from './profile.js';

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
  ALLOC_TRAMP: 1 << 11,
  IPMODIFY: 1 << 12,
  PID: 1 << 13,
  RCU: 1 << 14,
  TRACE_ARRAY: 1 << 15,
  PERMANENT: 1 << 16,
  DIRECT: 1 << 17,
} as const;

/** What ftrace asks the ops of a direct call when IPMODIFY ops come to its sites or leave them. */
export type OpsCommand =
  /** A direct call is being registered where an IPMODIFY ops is. */
  | 'ENABLE_SHARE_IPMODIFY_SELF'
  /** An IPMODIFY ops is being registered where the direct call is; and unregistered. */
  | 'ENABLE_SHARE_IPMODIFY_PEER'
  | 'DISABLE_SHARE_IPMODIFY_PEER';

export class FtraceOps {
  readonly name: string;
  readonly address: bigint;
  /** Sites (rec->ip) it covers; empty: all. Registered ops change through `Ftrace`. */
  readonly filter = new Set<bigint>();
  /** Sites it never covers. */
  readonly notrace = new Set<bigint>();
  /** ops->ops_func: throws KernelError to refuse. */
  opsFunc: ((command: OpsCommand) => void) | undefined;
  readonly #memory: Memory;
  readonly #offsets: FtraceOpsOffsets;

  /** @param address offsets.size bytes of kernel memory, zeroed */
  constructor(memory: Memory, name: string, address: bigint, offsets: FtraceOpsOffsets) {
    this.#memory = memory;
    this.#offsets = offsets;
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

  get private(): bigint {
    return this.#get(FTRACE_OPS.private);
  }

  set private(value: bigint) {
    this.#set(FTRACE_OPS.private, value);
  }

  get savedFunc(): bigint {
    return this.#get(FTRACE_OPS.saved_func);
  }

  set savedFunc(value: bigint) {
    this.#set(FTRACE_OPS.saved_func, value);
  }

  get trampoline(): bigint {
    return this.#get(this.#offsets.trampoline);
  }

  set trampoline(value: bigint) {
    this.#set(this.#offsets.trampoline, value);
  }

  /** 0 in versions whose struct has no such member. */
  /** Where direct_call lies, in versions that have it. */
  get directCallAddress(): bigint | undefined {
    const { direct_call } = this.#offsets;
    return direct_call === undefined ? undefined : this.address + BigInt(direct_call);
  }

  get directCall(): bigint {
    const { direct_call } = this.#offsets;
    return direct_call === undefined ? 0n : this.#get(direct_call);
  }

  set directCall(value: bigint) {
    const { direct_call } = this.#offsets;
    if (direct_call !== undefined) this.#set(direct_call, value);
  }

  has(flag: number): boolean {
    return (this.flags & flag) !== 0;
  }

  covers(ip: bigint): boolean {
    return (this.filter.size === 0 || this.filter.has(ip)) && !this.notrace.has(ip);
  }

  /** It covers every site. */
  get coversAll(): boolean {
    return this.filter.size === 0 && this.notrace.size === 0;
  }

  #get(offset: number): bigint {
    return this.#memory.read64(this.address + BigInt(offset));
  }

  #set(offset: number, value: bigint): void {
    this.#memory.write64(this.address + BigInt(offset), value);
  }
}
