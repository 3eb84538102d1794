/**
 * The kernel as a `BpfHost`: maps and program data in vmalloc space, helpers as kernel functions that
 * JIT images call by address.
 *
 * Reference: `__bpf_call_base` of kernel/bpf/core.c, helper functions of kernel/bpf/helpers.c and
 * net/core/filter.c. Each helper has real text, so it shows in traces and can itself be traced.
 */
import { join64, low32, high32, alignUp } from '../../common/bytes.js';
import { Random } from '../../common/random.js';
import { helperTable } from '../../bpf/helpers/table.js';
import type { Btf } from '../../bpf/btf/btf.js';
import { CallbackTable } from '../../bpf/callbacks.js';
import type { BpfHost, Callback, HelperBody } from '../../bpf/host.js';
import { Network } from '../../bpf/network.js';
import { Timers } from '../../bpf/timers.js';
import type { BpfMap } from '../../bpf/maps/map.js';
import { ProgArray } from '../../bpf/maps/prog-array.js';
import type { XlatedProgram } from '../../bpf/program.js';
import { PAGE_SIZE, type Memory, type Region } from '../../cpu/memory.js';
import type { KernelFunction } from '../function.js';
import type { Kernel } from '../kernel.js';
import { BPF_TRAMP_RUN_CTX, TASK_STRUCT } from '../offsets.js';
import type { BpfProfile } from './profile.js';
import { KernelTypes } from './types.js';

const FOUR_GIB = 1n << 32n;
/** Nanoseconds that pass from one reading of the clock to the next. */
const CLOCK_STEP = 1000n;

export class KernelBpfHost implements BpfHost {
  readonly memory: Memory;
  readonly arrayOffsets: BpfProfile['offsets'];
  readonly callBase: bigint;
  readonly cpuCount: number;
  readonly types: KernelTypes;
  readonly network = new Network();
  readonly timers = new Timers();
  readonly #kernel: Kernel;
  readonly #addresses = new Map<number, bigint>();
  readonly #bodies = new Map<bigint, HelperBody>();
  readonly #maps = new Map<bigint, BpfMap>();
  readonly #callbacks = new CallbackTable();
  /** Programs of which functions are replaced, and how many of them. */
  readonly #extended = new Map<XlatedProgram, number>();
  readonly #random: Random;
  #mapCount = 0;
  #now = 0n;

  constructor(kernel: Kernel, seed: number, profile: BpfProfile) {
    this.arrayOffsets = profile.offsets;
    this.#kernel = kernel;
    this.types = new KernelTypes(profile);
    this.memory = kernel.memory;
    this.cpuCount = kernel.cpus.length;
    this.#random = new Random(seed);
    this.callBase = kernel.symbol('__bpf_call_base');
    const helpers = helperTable({
      attachCookie: () => this.#attachCookie(),
      pidTgid: () => this.#pidTgid(),
    });
    const functions = [...helpers.values()].map(({ name, body }) =>
      helperFunction(`bpf_${name}`, body, this),
    );
    kernel.define(...functions);
    for (const { id, name, body } of helpers.values()) {
      const address = kernel.symbol(`bpf_${name}`);
      this.#addresses.set(id, address);
      this.#bodies.set(address, body);
    }
  }

  allocate(name: string, size: number): Region {
    const span = BigInt(alignUp(size, PAGE_SIZE) + PAGE_SIZE);
    let start = this.#kernel.vmalloc.take(span, BigInt(PAGE_SIZE));
    if (start / FOUR_GIB !== (start + span) / FOUR_GIB) {
      // a region does not cross a 4 GiB boundary: leave the piece in front of it unused
      start = this.#kernel.vmalloc.take(span + FOUR_GIB, FOUR_GIB);
    }
    return this.memory.mapAtPageEnd({ name, size, permissions: 'rw', pageAddress: start });
  }

  release(region: Region): void {
    this.memory.unmap(region);
    this.#kernel.vmalloc.release(region.pageAddress);
  }

  helperAddress(id: number): bigint | undefined {
    return this.#addresses.get(id);
  }

  helperAt(address: bigint): HelperBody | undefined {
    return this.#bodies.get(address);
  }

  /** Makes the kernel function at `address` a helper; the engines without A64 code run its body. */
  addHelper(address: bigint, body: HelperBody): void {
    this.#bodies.set(address, body);
  }

  get kernelBtf(): Btf {
    return this.types.btf;
  }

  symbolAddress(name: string): bigint | undefined {
    return this.#kernel.symbols.find(name)?.address;
  }

  addCallbacks(callbacks: readonly Callback[]): bigint {
    return this.#callbacks.add(callbacks);
  }

  removeCallbacks(base: bigint): void {
    this.#callbacks.remove(base);
  }

  /** Functions of programs in the interpreter and in wasm: a JIT image's have to be called by the engine. */
  callbackAt(address: bigint): Callback | undefined {
    return this.#callbacks.at(address);
  }

  addMap(map: BpfMap): number {
    this.#maps.set(map.address, map);
    return ++this.#mapCount;
  }

  removeMap(map: BpfMap): void {
    this.#maps.delete(map.address);
  }

  mapAt(address: bigint): BpfMap | undefined {
    return this.#maps.get(address);
  }

  /** aux->is_extended of the program. */
  setExtended({ xlated }: { readonly xlated: XlatedProgram }, extended: boolean): void {
    const count = (this.#extended.get(xlated) ?? 0) + (extended ? 1 : -1);
    if (count > 0) this.#extended.set(xlated, count);
    else this.#extended.delete(xlated);
  }

  isExtended(program: XlatedProgram): boolean {
    return this.#extended.has(program);
  }

  /** Is the program in a prog array? */
  isTailCallTarget({ xlated }: { readonly xlated: XlatedProgram }): boolean {
    for (const map of this.#maps.values()) {
      if (!(map instanceof ProgArray)) continue;
      for (let i = 0; i < map.spec.maxEntries; i++) if (map.programAt(i) === xlated) return true;
    }
    return false;
  }

  currentCpu(): number {
    return this.#kernel.currentCpu;
  }

  clock(): bigint {
    this.#now += CLOCK_STEP;
    return this.#now;
  }

  random(): number {
    return this.#random.u32();
  }

  printk(text: string): void {
    this.#kernel.printk(text);
  }

  /** The cookie in the run context that the trampoline made: current->bpf_ctx. */
  #attachCookie(): bigint {
    const runContext = this.memory.read64(this.#kernel.current + BigInt(TASK_STRUCT.bpf_ctx));
    if (runContext === 0n) return 0n;
    return this.memory.read64(runContext + BigInt(BPF_TRAMP_RUN_CTX.bpf_cookie));
  }

  /** Kernel threads are their own thread group. */
  #pidTgid(): bigint {
    const pid = this.memory.read32(this.#kernel.current + BigInt(TASK_STRUCT.pid));
    return (BigInt(pid) << 32n) | BigInt(pid);
  }
}

/** A helper as JIT images call it: r1..r5 in x0..x4, result in x0. */
export function helperFunction(name: string, body: HelperBody, host: BpfHost): KernelFunction {
  const registers = new Int32Array(22);
  return {
    name,
    prototype: `u64 ${name}(u64 r1, u64 r2, u64 r3, u64 r4, u64 r5)`,
    parameters: 5,
    body: (_kernel, ...args) => {
      args.forEach((value, i) => {
        registers[2 * (i + 1)] = low32(value);
        registers[2 * (i + 1) + 1] = high32(value);
      });
      body(registers, host);
      return join64(registers[0] ?? 0, registers[1] ?? 0);
    },
  };
}
