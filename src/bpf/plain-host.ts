/**
 * A `BpfHost` without a kernel: for programs that run in the interpreter alone.
 *
 * Every allocation gets pages of its own in the vmalloc range, ends at a page end and is followed by
 * an unmapped guard page. Helper N is at `callBase + N * helperStride`; clock and random numbers are
 * deterministic, printk lines are kept in `log`.
 *
 * Usage:
 *   const host = new PlainHost({ helpers: helperBodies() });
 *   const map = createMap({ name: 'counts', type: 'ARRAY', ... }, host);
 */
import { alignUp } from '../common/bytes.js';
import { Memory, PAGE_SIZE, type Region } from '../cpu/memory.js';
import { CallbackTable } from './callbacks.js';
import type { BpfHost, Callback, HelperBody, HostCells } from './host.js';
import { CELLS_SIZE, CellState } from './host-cells.js';
import { kernelKfunc } from './kfuncs/kernel-kfuncs.js';
import { findKfunc } from './kfuncs/table.js';
import { LocalObjects } from './local/objects.js';
import { Slab } from './local/slab.js';
import type { BpfMap } from './maps/map.js';
import { Network } from './network.js';
import { BPF_REDIRECT_INFO } from './redirect-info.js';
import { Timers } from './timers.js';

export interface PlainHostOptions {
  /** Bodies by helper id. Default: none. */
  readonly helpers?: ReadonlyMap<number, HelperBody>;
  /** Bytes of backing store. Default: 16 MiB. */
  readonly memorySize?: number;
  /** Default: 1. */
  readonly cpuCount?: number;
  /** Seed of `random`. Default: 1. */
  readonly seed?: number;
  /** What helper call immediates are relative to. Default: 0xffff800081000000. */
  readonly callBase?: bigint;
  /** Bytes between the entries of helper N and N + 1. Default: 0x100. */
  readonly helperStride?: number;
}

const FIRST_ADDRESS = 0xffff_8000_9000_0000n;
const CELLS_ADDRESS = FIRST_ADDRESS - 2n * BigInt(PAGE_SIZE);
const FOUR_GIB = 1n << 32n;
const CLOCK_STEP_NS = 1000n;

export class PlainHost implements BpfHost {
  readonly memory: Memory;
  readonly callBase: bigint;
  readonly cpuCount: number;
  /** Lines that programs printed, oldest first. */
  readonly log: string[] = [];
  readonly network = new Network();
  readonly timers = new Timers();
  readonly objects = new LocalObjects();

  readonly #helpers: ReadonlyMap<number, HelperBody>;
  readonly #stride: bigint;
  readonly #maps = new Map<bigint, BpfMap>();
  readonly #callbacks = new CallbackTable();
  readonly #seed: number;
  /** Made when it is first asked for. */
  #cellState: CellState | undefined;
  /** Of all CPUs: one runs at a time. */
  #redirectInfo: Region | undefined;
  readonly #slab = new Slab(this);
  /** Regions of per-CPU memory, by address: that of CPU 0, which the others follow. */
  readonly #perCpu = new Map<bigint, { readonly region: Region; readonly size: number }>();
  #mapCount = 0;
  #next = FIRST_ADDRESS;
  #cpu = 0;

  constructor(options: PlainHostOptions = {}) {
    this.memory = new Memory(options.memorySize ?? 16 << 20);
    this.callBase = options.callBase ?? 0xffff_8000_8100_0000n;
    this.cpuCount = options.cpuCount ?? 1;
    this.#helpers = options.helpers ?? new Map();
    this.#stride = BigInt(options.helperStride ?? 0x100);
    this.#seed = options.seed ?? 1;
  }

  allocate(name: string, size: number): Region {
    const span = BigInt(alignUp(size, PAGE_SIZE) + PAGE_SIZE);
    const boundary = (this.#next / FOUR_GIB + 1n) * FOUR_GIB;
    if (this.#next + span > boundary) this.#next = boundary;
    const pageAddress = this.#next;
    this.#next += span;
    return this.memory.mapAtPageEnd({ name, size, permissions: 'rw', pageAddress });
  }

  release(region: Region): void {
    this.memory.unmap(region);
  }

  kmalloc(size: number): bigint {
    const block = this.#slab.take(size);
    this.memory.writeBytes(block.address, new Uint8Array(block.size));
    return block.address;
  }

  kfree(address: bigint): void {
    this.#slab.put(address);
  }

  /** Bytes that `kmalloc` gave and that were not given back. */
  get liveBytes(): number {
    return this.#slab.liveBytes;
  }

  allocPercpu(size: number): bigint {
    const stride = alignUp(size, 8);
    const region = this.allocate('per-CPU memory', stride * this.cpuCount);
    this.#perCpu.set(region.address, { region, size: stride });
    return region.address;
  }

  freePercpu(pointer: bigint): void {
    const found = this.#perCpu.get(pointer);
    if (!found) throw new RangeError(`0x${pointer.toString(16)} is no per-CPU pointer`);
    this.#perCpu.delete(pointer);
    this.release(found.region);
  }

  perCpuAddress(pointer: bigint, cpu: number): bigint {
    return pointer + BigInt(cpu * (this.#perCpu.get(pointer)?.size ?? 0));
  }

  helperAddress(id: number): bigint | undefined {
    return this.#helpers.has(id) ? this.callBase + BigInt(id) * this.#stride : undefined;
  }

  helperAt(address: bigint): HelperBody | undefined {
    const distance = address - this.callBase;
    if (distance % this.#stride !== 0n) return undefined;
    return this.#helpers.get(Number(distance / this.#stride));
  }

  kfuncAddress(name: string): bigint | undefined {
    const kfunc = findKfunc(name);
    return kfunc && this.helperAddress(kfunc.id);
  }

  hasKfunc(name: string): boolean {
    return kernelKfunc(name) !== undefined;
  }

  addCallbacks(callbacks: readonly Callback[]): bigint {
    return this.#callbacks.add(callbacks);
  }

  removeCallbacks(base: bigint): void {
    this.#callbacks.remove(base);
  }

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

  currentCpu(): number {
    return this.#cpu;
  }

  /** Programs run on `cpu` from here on. */
  setCurrentCpu(cpu: number): void {
    if (cpu < 0 || cpu >= this.cpuCount) throw new RangeError(`no CPU ${cpu}`);
    this.#cpu = cpu;
  }

  clock(): bigint {
    return this.#state.clock();
  }

  get cells(): HostCells {
    return this.#state.cells;
  }

  get #state(): CellState {
    if (this.#cellState) return this.#cellState;
    const { offset } = this.memory.mapAtPageEnd({
      name: 'clock and random numbers',
      size: CELLS_SIZE,
      permissions: 'r',
      pageAddress: CELLS_ADDRESS,
    });
    this.#cellState = new CellState(this.memory, offset, CLOCK_STEP_NS, this.#seed);
    return this.#cellState;
  }

  /** Sets the clock, and how much each reading moves it on (default: as it was). */
  setClock(now: bigint, step?: bigint): void {
    this.#state.setClock(now, step);
  }

  /** Starts the random numbers again from a seed. */
  setSeed(seed: number): void {
    this.#state.setSeed(seed);
  }

  /** Moves the clock to `now` and runs the timers that expire up to then; their number. */
  runTimers(now: bigint): number {
    if (now > this.#state.now) this.#state.setClock(now);
    return this.timers.run(this, now);
  }

  random(): number {
    return this.#state.random();
  }

  printk(text: string): void {
    this.log.push(text);
  }

  redirectInfo(): number {
    this.#redirectInfo ??= this.allocate('bpf_redirect_info', BPF_REDIRECT_INFO.size);
    return this.#redirectInfo.offset;
  }
}
