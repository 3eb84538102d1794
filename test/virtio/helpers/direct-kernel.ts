/**
 * The smallest kernel that virtio-net runs in: an allocator on a Memory, and functions called directly.
 *
 * Bodies that are generators are driven recursively, so that every call passes through `call` where a
 * test can watch it, as a trampoline would.
 */
import { alignUp } from '../../../src/common/bytes.js';
import { InputError } from '../../../src/common/errors.js';
import { Memory } from '../../../src/cpu/memory.js';
import type {
  BodyGenerator,
  Callee,
  KernelFunction,
  PhysicalAllocator,
} from '../../../src/kernel/function.js';
import type { StackKernel } from '../../../src/stack/net-stack.js';

const LINEAR = 0xffff_0000_4000_0000n;
const SLAB_BYTES = 1 << 20;

export class DirectKernel implements StackKernel {
  readonly memory: Memory;
  readonly current = LINEAR;
  currentCpu = 0;
  readonly log: string[] = [];
  /** Called before each kernel function runs. */
  onCall: ((name: string, args: readonly bigint[]) => void) | undefined;

  readonly #functions = new Map<string, KernelFunction>();
  readonly #freeSlab = new Map<number, bigint[]>();
  readonly #slabSizes = new Map<bigint, number>();
  readonly #freePages = new Map<number, bigint[]>();
  readonly #pageCounts = new Map<bigint, number>();
  // the first byte is NULL by physical address
  #slabTop = LINEAR + 64n;
  #pageTop: bigint;

  /** @param memory where to map `bytes` of linear map; a memory of its own by default. */
  constructor(bytes = 48 << 20, memory = new Memory(bytes + 65536)) {
    this.memory = memory;
    this.memory.map({ name: 'linear', address: LINEAR, size: bytes, permissions: 'rw' });
    this.#pageTop = LINEAR + BigInt(SLAB_BYTES);
  }

  /** Allocations that were not freed. */
  get allocated(): { readonly slab: number; readonly pages: number } {
    return { slab: this.#slabSizes.size, pages: this.#pageCounts.size };
  }

  symbol(name: string): bigint {
    throw new InputError(`no symbol ${name}`);
  }

  kmalloc(size: number): bigint {
    const bytes = alignUp(size, size >= 64 ? 64 : 8);
    let address = this.#freeSlab.get(bytes)?.pop();
    if (address === undefined) {
      address = (this.#slabTop + 63n) & ~63n;
      this.#slabTop = address + BigInt(bytes);
      if (this.#slabTop > LINEAR + BigInt(SLAB_BYTES)) throw new RangeError('slab is full');
    }
    this.#slabSizes.set(address, bytes);
    this.memory.writeBytes(address, new Uint8Array(bytes));
    return address;
  }

  kfree(address: bigint): void {
    const bytes = this.#slabSizes.get(address);
    if (bytes === undefined) throw new RangeError(`kfree of 0x${address.toString(16)}`);
    this.#slabSizes.delete(address);
    const free = this.#freeSlab.get(bytes) ?? [];
    free.push(address);
    this.#freeSlab.set(bytes, free);
  }

  allocPages(count: number): bigint {
    let address = this.#freePages.get(count)?.pop();
    if (address === undefined) {
      address = this.#pageTop;
      this.#pageTop += BigInt(4096 * count);
    }
    this.#pageCounts.set(address, count);
    this.memory.writeBytes(address, new Uint8Array(4096 * count));
    return address;
  }

  freePages(address: bigint): void {
    const count = this.#pageCounts.get(address);
    if (count === undefined) throw new RangeError(`freePages of 0x${address.toString(16)}`);
    this.#pageCounts.delete(address);
    const free = this.#freePages.get(count) ?? [];
    free.push(address);
    this.#freePages.set(count, free);
    // poison: what reads freed pages is found out
    this.memory.writeBytes(address, new Uint8Array(4096 * count).fill(0xdd));
  }

  readonly physical: PhysicalAllocator = {
    alloc: (size) => this.memory.ram.virtToPhys(this.kmalloc(size)),
    free: (at) => this.kfree(this.memory.ram.physToVirt(at)),
    allocPages: (count) => this.memory.ram.virtToPhys(this.allocPages(count)),
    freePages: (at) => this.freePages(this.memory.ram.physToVirt(at)),
    allocDirtyPages: (count) => this.memory.ram.virtToPhys(this.allocPages(count)),
    freeDirtyPages: (at) => this.freePages(this.memory.ram.physToVirt(at)),
  };

  /** Threads that sleep, by what they sleep on. */
  readonly #sleeping = new Map<bigint, BodyGenerator<bigint | void>>();

  kthreadRun(_name: string, target: string, argument: bigint, cpu: number): void {
    const body = this.#functions.get(target)?.body(this, argument);
    if (typeof body !== 'object') throw new InputError(`${target} is no thread`);
    this.#runThread(body, cpu);
  }

  wake(channel: bigint, cpu: number): void {
    const body = this.#sleeping.get(channel);
    this.#sleeping.delete(channel);
    if (body) this.#runThread(body, cpu);
  }

  #runThread(body: BodyGenerator<bigint | void>, cpu: number): void {
    const before = this.currentCpu;
    this.currentCpu = cpu;
    let next = body.next(0n);
    while (!next.done && next.value.kind === 'call') {
      next = body.next(this.call(next.value.target as string, ...next.value.args));
    }
    if (!next.done && next.value.kind === 'sleep') this.#sleeping.set(next.value.channel, body);
    this.currentCpu = before;
  }

  invoke(callee: string | Callee, ...args: number[]): number {
    const name = typeof callee === 'string' ? callee : callee.name;
    const fn = this.#functions.get(name);
    if (!fn?.entry) throw new InputError(`no atomic function ${name}`);
    const { ram } = this.memory;
    return fn.entry.fromRegister(ram, this.call(name, ...fn.entry.registers(ram, args)));
  }

  printk(line: string): void {
    this.log.push(line);
  }

  define(fn: KernelFunction): void {
    if (this.#functions.has(fn.name)) throw new InputError(`${fn.name} is defined already`);
    if (fn.parameters > 8) throw new InputError(`${fn.name} has ${fn.parameters} parameters`);
    this.#functions.set(fn.name, fn);
  }

  call(name: string, ...args: bigint[]): bigint {
    const fn = this.#functions.get(name);
    if (!fn) throw new InputError(`no function ${name}`);
    if (args.length !== fn.parameters) throw new InputError(`${name}: ${args.length} arguments`);
    const registers = args.map((value) => BigInt.asUintN(64, value));
    this.onCall?.(name, registers);
    const result = fn.body(this, ...registers);
    const value = typeof result === 'object' ? this.#drive(result) : result;
    return BigInt.asUintN(64, value ?? 0n);
  }

  #drive(body: BodyGenerator<bigint | void>): bigint | void {
    let next = body.next(0n);
    while (!next.done) {
      const effect = next.value;
      if (effect.kind === 'step') {
        next = body.next(0n);
        continue;
      }
      if (effect.kind !== 'call') throw new InputError(`effect ${effect.kind}`);
      if (typeof effect.target !== 'string') throw new InputError('call by address');
      next = body.next(this.call(effect.target, ...effect.args));
    }
    return next.value;
  }
}
