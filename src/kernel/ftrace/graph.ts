/**
 * Function graph: being told of the return of a function as well as of its entry.
 *
 * The callback of `graph_ops` keeps the return address of the traced function on a shadow stack of the task and puts
 * `return_to_handler` in its place; there the function returns to, and what was kept is taken off again.
 * Whoever wants to know is a `GraphOps`; from 6.12 on several share one graph_ops (their filters together
 * are its filter), before there is one at a time.
 *
 *   shadow stack   one page; records { ret, func, fp, bitmap of those who said yes } of 32 bytes
 *   task_struct    ret_stack (the page), curr_ret_stack (records in use), tracing_graph_pause
 *
 * Reference: kernel/trace/fgraph.c (function_graph_enter, ftrace_return_to_handler,
 * register_ftrace_graph), arch/arm64/kernel/ftrace.c (ftrace_graph_func). Left out: data of users on the
 * shadow stack, filters by pid.
 */
import { KernelError } from '../../common/errors.js';
import type { KernelData } from '../data.js';
import { KernelOops } from '../executor.js';
import type { KernelContext, KernelFunction } from '../function.js';
import { FTRACE_REGS, PT_REGS, TASK_STRUCT } from '../offsets.js';
import type { Task } from '../task.js';
import type { Ftrace } from './ftrace.js';
import { FTRACE_OPS_FL, type FtraceOps } from './ops.js';
import type { FtraceProfile } from './profile.js';

/** What differs between kernels. */
export interface GraphProfile {
  /** Where ftrace_caller has saved the frame pointer and the return address for its callbacks. */
  readonly fregs: { readonly fp: number; readonly lr: number };
  /** What return_to_handler hands over: its frame pointer, or registers that hold it. */
  readonly handlerArgument: 'fp' | 'fregs';
  /** Most users at a time: FGRAPH_ARRAY_SIZE. */
  readonly users: number;
  /** Most functions that a task is followed into: FTRACE_RETFUNC_DEPTH, or what fits a page. */
  readonly depth: number;
}

/** Since 6.12 users share, and return_to_handler saves a struct ftrace_regs. */
const SHARED = { handlerArgument: 'fregs', users: 16, depth: 127 } as const;
const EXCLUSIVE = { handlerArgument: 'fp', users: 1, depth: 50 } as const;

export function graphProfile({ version, frame }: FtraceProfile): GraphProfile {
  const { fp, lr } = frame === 'pt_regs' ? PT_REGS : FTRACE_REGS;
  const rest = version === '6.12' || version === '7.3' ? SHARED : EXCLUSIVE;
  return { fregs: { fp, lr }, ...rest };
}

export interface GraphEvent {
  /** The patch site. */
  readonly ip: bigint;
  /** Where the function returns to when nobody follows it. */
  readonly ret: bigint;
  /** Functions of this task that are followed and have not returned, this one not counted. */
  readonly depth: number;
  /** struct ftrace_regs; 0 at a return in kernels whose return_to_handler saves none. */
  readonly fregs: bigint;
}

/** struct fgraph_ops. */
export interface GraphOps {
  readonly name: string;
  /** Sites; empty: all. */
  readonly filter: ReadonlySet<bigint>;
  /** False: not interested in the return. */
  entry(kernel: KernelContext, event: GraphEvent): boolean;
  return(kernel: KernelContext, event: GraphEvent): void;
}

export interface GraphParts {
  readonly ftrace: Ftrace;
  readonly data: KernelData;
  readonly kernel: KernelContext;
  readonly tasks: () => readonly Task[];
  readonly profile: GraphProfile;
}

const RECORD = { ret: 0n, func: 8n, fp: 16n, bitmap: 24n, size: 32n } as const;

export class FunctionGraph {
  /** The manager of all users. */
  readonly ops: FtraceOps;
  readonly #parts: GraphParts;
  /** By number; a number is not used again while a return waits for it. */
  readonly #users: (GraphOps | undefined)[] = [];

  constructor(parts: GraphParts) {
    this.#parts = parts;
    const address = parts.data.define('graph_ops', parts.ftrace.profile.ops.size);
    this.ops = parts.ftrace.createOps(
      'graph_ops',
      address,
      parts.kernel.symbol('ftrace_graph_func'),
    );
    this.ops.flags = FTRACE_OPS_FL.INITIALIZED;
  }

  get users(): readonly GraphOps[] {
    return this.#users.filter((user) => user !== undefined);
  }

  /** register_ftrace_graph. */
  register(user: GraphOps): void {
    const { profile } = this.#parts;
    if (this.users.includes(user)) {
      throw new KernelError('EBUSY', `${user.name} is registered already`);
    }
    if (this.users.length >= profile.users) {
      const [code, why] =
        profile.users === 1
          ? (['EBUSY', 'function graph has a user already (one at a time before 6.12)'] as const)
          : (['ENOSPC', `function graph has ${profile.users} users already`] as const);
      throw new KernelError(code, why);
    }
    const free = this.#users.findIndex((each, i) => !each && !this.#isWaitedFor(i));
    this.#users[free < 0 ? this.#users.length : free] = user;
    try {
      this.#update();
    } catch (error) {
      this.#users[this.#users.indexOf(user)] = undefined;
      throw error;
    }
  }

  /** unregister_ftrace_graph: returns that wait find nobody to tell. */
  unregister(user: GraphOps): void {
    const at = this.#users.indexOf(user);
    if (at < 0) throw new KernelError('EINVAL', `${user.name} is not registered`);
    this.#users[at] = undefined;
    this.#update();
    if (this.users.length === 0) for (const task of this.#parts.tasks()) this.#freeStack(task);
  }

  /** Functions of the running task that are followed. */
  depth(kernel: KernelContext, task = kernel.current): number {
    return kernel.memory.read32(task + BigInt(TASK_STRUCT.curr_ret_stack));
  }

  /** pause_graph_tracing and unpause_graph_tracing of the running task. */
  pause(kernel: KernelContext, amount: 1 | -1): void {
    const address = kernel.current + BigInt(TASK_STRUCT.tracing_graph_pause);
    kernel.memory.write32(address, kernel.memory.read32(address) + amount);
  }

  /** ftrace_graph_func: a function is entered. */
  enter(kernel: KernelContext, ip: bigint, fregs: bigint): void {
    const { memory, current } = kernel;
    if (memory.read32(current + BigInt(TASK_STRUCT.tracing_graph_pause)) !== 0) return;
    const { fp, lr } = this.#parts.profile.fregs;
    const depth = this.depth(kernel);
    if (depth >= this.#parts.profile.depth) {
      const overrun = current + BigInt(TASK_STRUCT.trace_overrun);
      memory.write32(overrun, memory.read32(overrun) + 1);
      return;
    }
    const ret = memory.read64(fregs + BigInt(lr));
    const event = { ip, ret, depth, fregs };
    let bitmap = 0;
    for (const [i, user] of this.#users.entries()) {
      if (!user || (user.filter.size > 0 && !user.filter.has(ip))) continue;
      if (user.entry(kernel, event)) bitmap |= 1 << i;
    }
    if (bitmap === 0) return;
    const record = this.#stackOf(kernel) + RECORD.size * BigInt(depth);
    memory.write64(record + RECORD.ret, ret);
    memory.write64(record + RECORD.func, ip);
    memory.write64(record + RECORD.fp, memory.read64(fregs + BigInt(fp)));
    memory.write64(record + RECORD.bitmap, BigInt(bitmap));
    memory.write32(current + BigInt(TASK_STRUCT.curr_ret_stack), depth + 1);
    memory.write64(fregs + BigInt(lr), this.#parts.kernel.symbol('return_to_handler'));
  }

  /** ftrace_return_to_handler: a function that is followed has returned; the value is where it goes on. */
  leave(kernel: KernelContext, argument: bigint): bigint {
    const { memory, current } = kernel;
    const { handlerArgument, fregs } = this.#parts.profile;
    const inFregs = handlerArgument === 'fregs';
    const fp = inFregs ? memory.read64(argument + BigInt(fregs.fp)) : argument;
    const depth = this.depth(kernel) - 1;
    if (depth < 0) return this.#badFrame(kernel, 'nothing is on the shadow stack');
    const record = this.#stackOf(kernel) + RECORD.size * BigInt(depth);
    const ret = memory.read64(record + RECORD.ret);
    const ip = memory.read64(record + RECORD.func);
    const expected = memory.read64(record + RECORD.fp);
    if (fp !== expected) {
      const text = `expected ${expected.toString(16)}, received ${fp.toString(16)}`;
      return this.#badFrame(kernel, `${text} from func at 0x${ip.toString(16)}`);
    }
    const bitmap = Number(memory.read64(record + RECORD.bitmap));
    const event = { ip, ret, depth, fregs: inFregs ? argument : 0n };
    for (const [i, user] of this.#users.entries()) {
      if (bitmap & (1 << i)) user?.return(kernel, event);
    }
    memory.write32(current + BigInt(TASK_STRUCT.curr_ret_stack), depth);
    if (depth === 0 && this.users.length === 0) {
      const task = this.#parts.tasks().find(({ address }) => address === current);
      if (task) this.#freeStack(task);
    }
    return ret;
  }

  /** ftrace_graph_stop and a return to panic(). */
  #badFrame(kernel: KernelContext, detail: string): bigint {
    kernel.printk(`WARNING: Bad frame pointer: ${detail}`);
    return this.#parts.kernel.symbol('panic');
  }

  /** Brings graph_ops to what the users want together: its filter is the union of theirs. */
  #update(): void {
    const { ftrace } = this.#parts;
    const { ops, users } = this;
    const all = users.some(({ filter }) => filter.size === 0);
    const wanted = new Set(all ? [] : users.flatMap(({ filter }) => [...filter]));
    const isRegistered = ops.has(FTRACE_OPS_FL.ENABLED);
    // an empty filter means all functions, so between that and others there is no step by step
    if (isRegistered && (wanted.size === 0 || ops.filter.size === 0)) {
      ftrace.unregister(ops);
      ops.filter.clear();
    }
    if (users.length === 0) return;
    for (const ip of wanted) if (!ops.filter.has(ip)) ftrace.setFilterIp(ops, ip, false);
    for (const ip of ops.filter) if (!wanted.has(ip)) ftrace.setFilterIp(ops, ip, true);
    if (!ops.has(FTRACE_OPS_FL.ENABLED)) ftrace.register(ops);
  }

  #isWaitedFor(user: number): boolean {
    const { memory } = this.#parts.kernel;
    return this.#parts.tasks().some(({ address }) => {
      const stack = memory.read64(address + BigInt(TASK_STRUCT.ret_stack));
      const used = memory.read32(address + BigInt(TASK_STRUCT.curr_ret_stack));
      return Array.from({ length: used }, (_, i) => i).some((i) => {
        const bitmap = memory.read64(stack + RECORD.size * BigInt(i) + RECORD.bitmap);
        return ((bitmap >> BigInt(user)) & 1n) === 1n;
      });
    });
  }

  /** The shadow stack of the running task. Linux gives one to every task when the first user comes. */
  #stackOf(kernel: KernelContext): bigint {
    const pointer = kernel.current + BigInt(TASK_STRUCT.ret_stack);
    const known = kernel.memory.read64(pointer);
    if (known !== 0n) return known;
    const stack = kernel.allocPages(1);
    kernel.memory.write64(pointer, stack);
    return stack;
  }

  #freeStack({ address }: Task): void {
    const { memory } = this.#parts.kernel;
    if (memory.read32(address + BigInt(TASK_STRUCT.curr_ret_stack)) !== 0) return;
    const pointer = address + BigInt(TASK_STRUCT.ret_stack);
    const stack = memory.read64(pointer);
    if (stack === 0n) return;
    this.#parts.kernel.freePages(stack);
    memory.write64(pointer, 0n);
  }
}

/** The kernel functions that text calls; `graph` is asked late because it is made after they are placed. */
export function graphFunctions(graph: () => FunctionGraph): KernelFunction[] {
  return [
    {
      name: 'ftrace_graph_func',
      prototype:
        'void ftrace_graph_func(unsigned long ip, unsigned long parent_ip, struct ftrace_ops *op, struct ftrace_regs *fregs)',
      parameters: 4,
      notrace: true,
      body: (kernel, ip: bigint, _parent: bigint, _op: bigint, fregs: bigint) =>
        graph().enter(kernel, ip, fregs),
    },
    {
      name: 'ftrace_return_to_handler',
      prototype: 'unsigned long ftrace_return_to_handler(unsigned long fregs)',
      parameters: 1,
      notrace: true,
      body: (kernel, argument: bigint) => graph().leave(kernel, argument),
    },
    {
      name: 'panic',
      prototype: 'void panic(const char *fmt)',
      parameters: 1,
      notrace: true,
      body: (kernel) => {
        kernel.printk('Kernel panic - not syncing: Bad frame pointer');
        throw new KernelOops('Kernel panic - not syncing: Bad frame pointer (function graph)');
      },
    },
  ];
}
