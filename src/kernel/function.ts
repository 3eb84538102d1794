/**
 * Kernel functions whose body is TypeScript.
 *
 * Such a function has real text: a patch site (unless `notrace`), a frame record if it calls others,
 * and a BRK at which the engine stops and the body runs with x0..x7 as its arguments; its result goes
 * to x0. A body keeps no state outside kernel memory. There are two kinds:
 *
 * | kind      | written as             | arguments       | calls others with  | may sleep, step |
 * | --------- | ---------------------- | --------------- | ------------------ | --------------- |
 * | generator | a `KernelFunction`     | raw registers   | `yield* call(...)` | yes             |
 * | atomic    | `atomic({...})`        | numbers         | `kernel.invoke`    | no              |
 *
 * Either way a callee that is traced runs on the CPU as if called from this function's text, so call
 * traces, patch sites and trampolines see what they would see in Linux; one that is not is entered
 * directly. An atomic body is what Linux runs in softirq or under a spinlock: a plain function, so
 * untraced calls allocate nothing. Its pointers are physical addresses (`Ram`). A `KernelFunction` with
 * a plain body is a leaf.
 *
 * Usage (in a subsystem):
 *   const receiveBuf = atomic({
 *     prototype: 'void receive_buf(struct virtnet_info *vi, struct receive_queue *rq, ...)',
 *     calls: true,
 *     body(kernel, vi, rq) { const skb = kernel.invoke('receive_small', vi, rq); ... },
 *   });
 */
import { high32, join64, low32 } from '../common/bytes.js';
import type { Cpu } from '../cpu/cpu.js';
import type { Memory } from '../cpu/memory.js';
import type { Ram } from '../cpu/ram.js';
import { parsePrototype, type Parameter } from './prototype.js';

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

/** Zeroed memory for atomic bodies, by physical address. */
export interface PhysicalAllocator {
  /** As kmalloc. */
  alloc(size: number): number;
  free(at: number): void;
  allocPages(count: number): number;
  freePages(at: number): void;
  /** Pages that are not zeroed and not poisoned: buffers that are written before they are read. */
  allocDirtyPages(count: number): number;
  freeDirtyPages(at: number): void;
}

/**
 * An atomic function as one who calls it for each packet names it: a kernel keeps what it found by `index`,
 * where a name would be looked up each time.
 */
export class Callee {
  static #count = 0;
  readonly name: string;
  readonly index = Callee.#count++;

  constructor(name: string) {
    this.name = name;
  }
}

/** What a body sees of the kernel. The whole `Kernel` implements it. */
export interface KernelContext {
  readonly memory: Memory;
  readonly physical: PhysicalAllocator;
  /**
   * Calls an atomic function, its arguments and result as numbers: from an atomic body, or from outside on
   * CPU 0 in a task of its own.
   */
  invoke(
    callee: string | Callee,
    a?: number,
    b?: number,
    c?: number,
    d?: number,
    e?: number,
    f?: number,
    g?: number,
    h?: number,
  ): number;
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
  /** The same as `body`, a plain one, on the registers of the CPU itself: makes no bigint. */
  readonly leaf?: (cpu: Cpu) => void;
  /** What `atomic` made: how to enter the body without registers. */
  readonly entry?: AtomicEntry;
  /** Plain function: a leaf. Generator: may call others. Arguments are raw 64-bit registers. */
  readonly body: (
    kernel: KernelContext,
    ...args: bigint[]
  ) => bigint | void | BodyGenerator<bigint | void>;
}

/** A plain body on numbers: pointers are physical addresses, 0 is NULL. */
type AtomicBody = (kernel: KernelContext, ...args: number[]) => number | void;

interface AtomicEntry {
  readonly body: AtomicBody;
  /** It calls others. */
  readonly calls: boolean;
  /** The registers that hold what `body` takes as numbers. */
  registers(ram: Ram, args: readonly number[]): bigint[];
  /** What `body` returns, for x0. */
  toRegister(ram: Ram, value: number): bigint;
  fromRegister(ram: Ram, register: bigint): number;
}

export interface AtomicFunction {
  /** C prototype: gives the name and how each register is read. */
  readonly prototype: string;
  /** Parameters that are pointers in C and hold a number. Default none. */
  readonly numbers?: readonly string[];
  /** u64 parameters that the body takes as two numbers, the low 32 bits first: bit masks. Default none. */
  readonly halves?: readonly string[];
  /** It calls others: its text has a frame record. Default false. */
  readonly calls?: boolean;
  readonly body: AtomicBody;
}

/** A kernel function with a plain body on numbers. */
export function atomic(fn: AtomicFunction): KernelFunction {
  const { name, parameters, returnType, returnSize } = parsePrototype(fn.prototype);
  const kinds = parameters.map((parameter) => {
    if (fn.halves?.includes(parameter.name)) return HALVES;
    return fn.numbers?.includes(parameter.name) ? NUMBER : kindOf(parameter);
  });
  const result = kindOf({ type: returnType, size: returnSize });
  const entry: AtomicEntry = {
    body: fn.body,
    calls: fn.calls ?? false,
    registers: (ram, args) => {
      let next = 0;
      return kinds.map((kind) => {
        const value = args[next++] ?? 0;
        return kind === HALVES ? join64(value, args[next++] ?? 0) : kind.toRegister(ram, value);
      });
    },
    toRegister: (ram, value) => result.toRegister(ram, value),
    fromRegister: (ram, register) => result.fromRegister(ram, register),
  };
  return {
    name,
    prototype: fn.prototype,
    parameters: parameters.length,
    entry,
    body: (kernel, ...registers) => {
      const { ram } = kernel.memory;
      const args = kinds.flatMap((kind, i) => {
        const register = registers[i] ?? 0n;
        return kind === HALVES
          ? [low32(register) >>> 0, high32(register) >>> 0]
          : [kind.fromRegister(ram, register)];
      });
      const value = fn.body(kernel, ...args);
      return value === undefined ? undefined : result.toRegister(ram, value);
    },
  };
}

/** How a register and a number stand for the same value. */
interface Kind {
  toRegister(ram: Ram, value: number): bigint;
  fromRegister(ram: Ram, register: bigint): number;
}

const POINTER: Kind = {
  toRegister: (ram, value) => ram.physToVirt(value),
  fromRegister: (ram, register) => ram.virtToPhys(register),
};

const SIGNED: Kind = {
  toRegister: (_ram, value) => BigInt.asUintN(64, BigInt(value)),
  fromRegister: (_ram, register) => Number(BigInt.asIntN(32, register)),
};

function unsigned(bits: number): Kind {
  return {
    toRegister: (_ram, value) => BigInt.asUintN(bits, BigInt(value)),
    fromRegister: (_ram, register) => Number(BigInt.asUintN(bits, register)),
  };
}

const NUMBER = unsigned(53);
/** Marks a parameter that two numbers stand for. */
const HALVES = unsigned(53);

function kindOf({ type, size }: Pick<Parameter, 'type' | 'size'>): Kind {
  if (type.includes('*')) return POINTER;
  return type === 'int' || type === 's32' ? SIGNED : unsigned(Math.min(8 * size, 53));
}

/** Calls another kernel function from a generator body; the value is the callee's x0. */
export function* call(target: string | bigint, ...args: bigint[]): BodyGenerator {
  return yield { kind: 'call', target, args };
}

/** Lets other CPUs run here when interleavings are explored. */
export function* step(): BodyGenerator<void> {
  yield { kind: 'step' };
}
