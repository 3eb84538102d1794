/**
 * Kernel functions whose body is TypeScript.
 *
 * Such a function has real text: a patch site (unless `notrace`), a frame record if it calls others,
 * and a BRK at which the engine stops and the body runs with x0..x7 as its arguments; its result goes
 * to x0. A body that calls other kernel functions is a generator and says `yield* call(...)`; the
 * callee then runs on the CPU as if called from this function's text, so call traces, patch sites and
 * trampolines see what they would see in Linux. A body keeps no state outside kernel memory.
 *
 * Usage (in a subsystem):
 *   const receiveBuf: KernelFunction = {
 *     name: 'receive_buf',
 *     prototype: 'void receive_buf(struct virtnet_info *vi, struct receive_queue *rq, ...)',
 *     parameters: 7,
 *     *body(kernel, vi, rq) { const skb = yield* call('receive_small', vi, rq); ... },
 *   };
 */
import type { Memory } from '../cpu/memory.js';

/** What a body may ask the kernel to do while it waits. */
export type Effect =
  /** Run another kernel function (by name or address) to its return. */
  | { readonly kind: 'call'; readonly target: string | bigint; readonly args: readonly bigint[] }
  /** A point where another CPU may run: around accesses of shared memory. */
  | { readonly kind: 'step' }
  /** Give up the CPU until woken through `wake(channel)`. */
  | { readonly kind: 'sleep'; readonly channel: bigint };

/** A body in progress: yields effects, is resumed with the callee's x0 (0 for the others). */
export type BodyGenerator<T = bigint> = Generator<Effect, T, bigint>;

/** What a body sees of the kernel. The whole `Kernel` implements it. */
export interface KernelContext {
  readonly memory: Memory;
  /** Address of a symbol. Throws InputError when there is none. */
  symbol(name: string): bigint;
  /** `size` zeroed bytes of slab memory, 64-byte aligned when `size` >= 64 (else 8). */
  kmalloc(size: number): bigint;
  kfree(address: bigint): void;
  /** `count` zeroed contiguous pages of the linear map. */
  allocPages(count: number): bigint;
  freePages(address: bigint): void;
  /** The task that runs now: address of its task_struct. */
  readonly current: bigint;
  /** The CPU that runs now. */
  readonly currentCpu: number;
  /** A line in the kernel log. */
  printk(line: string): void;
}

export interface KernelFunction {
  readonly name: string;
  /** C prototype, as BTF would give it: shown in listings and used to name arguments. */
  readonly prototype: string;
  /** Bytes of the structures that it takes by value, by tag. */
  readonly structs?: Readonly<Record<string, number>>;
  /** Number of argument registers, 0..8. */
  readonly parameters: number;
  /** No patch site: ftrace and BPF cannot attach. Default false. */
  readonly notrace?: boolean;
  /** ALLOW_ERROR_INJECTION: fmod_ret may answer for it, tracing programs on it may sleep. Default false. */
  readonly errorInjection?: boolean;
  /** Plain function: a leaf. Generator: may call others. Arguments are raw 64-bit registers. */
  readonly body: (
    kernel: KernelContext,
    ...args: bigint[]
  ) => bigint | void | BodyGenerator<bigint | void>;
}

/** Calls another kernel function from a generator body; the value is the callee's x0. */
export function* call(target: string | bigint, ...args: bigint[]): BodyGenerator {
  return yield { kind: 'call', target, args };
}

/** Lets other CPUs run here when interleavings are explored. */
export function* step(): BodyGenerator<void> {
  yield { kind: 'step' };
}
