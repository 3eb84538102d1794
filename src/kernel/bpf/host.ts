/**
 * The kernel as a `BpfHost`: maps and program data in vmalloc space, helpers as kernel functions that
 * JIT images call by address.
 *
 * Reference: `__bpf_call_base` of kernel/bpf/core.c, helper functions of kernel/bpf/helpers.c and
 * net/core/filter.c. Each helper has real text, so it shows in traces and can itself be traced.
 */
import { join64, alignUp } from '../../common/bytes.js';
import type { HelperVersion } from '../../bpf/helpers/checksum.js';
import { helperTable } from '../../bpf/helpers/table.js';
import type { Btf } from '../../bpf/btf/btf.js';
import { CallbackTable } from '../../bpf/callbacks.js';
import { argument, setArgument, setResult64 } from '../../bpf/helpers/helper.js';
import type {
  AdjustTailBug,
  BpfHost,
  Callback,
  HelperBody,
  HostCells,
  RegisterPairs,
} from '../../bpf/host.js';
import { CELLS_SIZE, CellState } from '../../bpf/host-cells.js';
import { Network } from '../../bpf/network.js';
import { BPF_REDIRECT_INFO, type RedirectTargets } from '../../bpf/redirect-info.js';
import { Timers } from '../../bpf/timers.js';
import { hasKernelKfunc } from '../../bpf/kfuncs/kernel-kfuncs.js';
import { KFUNCS } from '../../bpf/kfuncs/table.js';
import { LocalObjects } from '../../bpf/local/objects.js';
import type { BpfMap } from '../../bpf/maps/map.js';
import { ProgArray } from '../../bpf/maps/prog-array.js';
import type { XlatedProgram } from '../../bpf/program.js';
import { PAGE_SIZE, type Memory, type Region } from '../../cpu/memory.js';
import { call, type KernelFunction } from '../function.js';
import type { Kernel } from '../kernel.js';
import { BPF_PROBE_RUN_CTX, BPF_TRAMP_RUN_CTX, TASK_STRUCT } from '../offsets.js';
import { INLINED_HELPERS } from '../../jit/calls.js';
import { PROFILES } from '../../jit/profiles.js';
import type { BpfProfile } from './profile.js';
import type { KernelProgram } from './program.js';
import { KernelTypes } from './types.js';

const FOUR_GIB = 1n << 32n;
/** Nanoseconds that pass from one reading of the clock to the next. */
const CLOCK_STEP = 1000n;

export class KernelBpfHost implements BpfHost {
  readonly memory: Memory;
  readonly arrayOffsets: BpfProfile['offsets'];
  readonly callBase: bigint;
  readonly argumentCountMask: number | undefined;
  readonly jitInlines: ReadonlySet<number>;
  readonly cpuCount: number;
  readonly types: KernelTypes;
  readonly network = new Network();
  readonly timers = new Timers();
  readonly objects = new LocalObjects();
  readonly #kernel: Kernel;
  readonly #addresses = new Map<number, bigint>();
  readonly #kfuncs = new Map<string, bigint>();
  readonly #bodies = new Map<bigint, HelperBody>();
  readonly #maps = new Map<bigint, BpfMap>();
  readonly #callbacks = new CallbackTable();
  /** Programs of which functions are replaced, and how many of them. */
  readonly #extended = new Map<XlatedProgram, number>();
  readonly #state: CellState;
  /** Physical address of the bpf_redirect_info of each CPU. */
  readonly #redirectInfo: number;
  /** Set by the network stack, where there is one. */
  redirectTargets: RedirectTargets | undefined;
  returnFragment: ((page: number) => void) | undefined;
  adjustTailBug: AdjustTailBug | undefined;
  readonly #version: BpfProfile['version'];
  readonly #isBpfText: (address: bigint) => boolean;
  readonly #loadProgram: (program: XlatedProgram) => KernelProgram;
  /** Programs in prog arrays, and in how many slots. */
  readonly #inArrays = new Map<XlatedProgram, { readonly loaded: KernelProgram; slots: number }>();
  #mapCount = 0;

  /** @param isBpfText whether a JIT image's function begins or goes on at the address */
  constructor(
    kernel: Kernel,
    options: {
      readonly seed: number;
      readonly profile: BpfProfile;
      readonly isBpfText: (address: bigint) => boolean;
      readonly loadProgram: (program: XlatedProgram) => KernelProgram;
      readonly helpers: HelperVersion;
    },
  ) {
    const { seed, profile } = options;
    this.#isBpfText = options.isBpfText;
    this.#loadProgram = options.loadProgram;
    this.#version = profile.version;
    this.arrayOffsets = profile.offsets;
    this.argumentCountMask = profile.sessions ? 0xff : undefined;
    this.jitInlines = inlinedHelpers(profile);
    this.#kernel = kernel;
    this.types = new KernelTypes(profile, kernel.text.prototypes);
    this.memory = kernel.memory;
    this.cpuCount = kernel.cpus.length;
    const { data, memory } = kernel;
    const within = data.define('bpf_clock_and_random', CELLS_SIZE) - data.region.address;
    const offset = data.region.offset + Number(within);
    this.#state = new CellState(memory, offset, CLOCK_STEP, seed);
    const infos = data.define('bpf_redirect_info', BPF_REDIRECT_INFO.size * this.cpuCount);
    this.#redirectInfo = memory.ram.virtToPhys(infos);
    this.callBase = kernel.symbol('__bpf_call_base');
    const helpers = helperTable({
      version: options.helpers,
      attachCookie: () => this.#attachCookie(),
      funcIp: () => this.#funcIp(),
      pidTgid: () => this.#pidTgid(),
      currentTask: () => this.#kernel.current,
    });
    const functions = [...helpers.values()].map(({ name, body }) =>
      helperFunction(`bpf_${name}`, body, this),
    );
    const kfuncs = KFUNCS.map(({ name, prototype, body }) => ({
      ...helperFunction(name, body, this),
      prototype,
    }));
    kernel.define(...functions, ...kfuncs);
    for (const { name, body } of KFUNCS) {
      const address = kernel.symbol(name);
      this.#kfuncs.set(name, address);
      this.#bodies.set(address, body);
    }
    for (const { id, name, body } of helpers.values()) {
      const address = kernel.symbol(`bpf_${name}`);
      this.#addresses.set(id, address);
      this.#bodies.set(address, body);
      if (this.jitInlines.has(id)) this.#bodies.set(this.callBase + BigInt(id), body);
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

  kmalloc(size: number): bigint {
    return this.#kernel.kmalloc(size);
  }

  kfree(address: bigint): void {
    this.#kernel.kfree(address);
  }

  allocPercpu(size: number): bigint {
    return this.#kernel.allocPercpu(size);
  }

  freePercpu(pointer: bigint): void {
    this.#kernel.freePercpu(pointer);
  }

  perCpuAddress(pointer: bigint, cpu: number): bigint {
    return this.#kernel.perCpuAddress(pointer, cpu);
  }

  helperAddress(id: number): bigint | undefined {
    return this.#addresses.get(id);
  }

  kfuncAddress(name: string): bigint | undefined {
    return this.#kfuncs.get(name);
  }

  hasKfunc(name: string): boolean {
    return hasKernelKfunc(name, this.#version);
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

  /**
   * Functions of programs in the interpreter and in wasm, and of JIT images: one of these is called as a
   * task of its own, as a timer does. A helper's body calls it from the text that it runs for
   * (`HelperBody.calling`).
   */
  callbackAt(address: bigint): Callback | undefined {
    const known = this.#callbacks.at(address);
    if (known || !this.#isBpfText(address)) return known;
    return (registers) => {
      setResult64(registers, this.#kernel.call(address, ...argumentsOf(registers)));
    };
  }

  /** Moves the clock to `now` and runs the timers that expire up to then; their number. */
  runTimers(now: bigint): number {
    if (now > this.#state.now) this.#state.setClock(now);
    return this.timers.run(this, now);
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

  holdProgram(program: XlatedProgram): bigint {
    let entry = this.#inArrays.get(program);
    if (!entry) {
      entry = { loaded: this.#loadProgram(program), slots: 0 };
      this.#inArrays.set(program, entry);
    }
    entry.slots++;
    return entry.loaded.address;
  }

  putProgram(program: XlatedProgram): void {
    const entry = this.#inArrays.get(program);
    if (!entry || --entry.slots > 0) return;
    this.#inArrays.delete(program);
    entry.loaded.free();
  }

  currentCpu(): number {
    return this.#kernel.currentCpu;
  }

  clock(): bigint {
    return this.#state.clock();
  }

  /** Lets time pass. */
  advanceClock(nanoseconds: bigint): void {
    this.#state.setClock(this.#state.now + nanoseconds);
  }

  random(): number {
    return this.#state.random();
  }

  get cells(): HostCells {
    return this.#state.cells;
  }

  printk(text: string): void {
    this.#kernel.printk(text);
  }

  redirectInfo(): number {
    return this.#redirectInfo + BPF_REDIRECT_INFO.size * this.#kernel.currentCpu;
  }

  /** The cookie in the run context that a trampoline or a probe made: both begin with it. */
  #attachCookie(): bigint {
    return this.#inRunContext(BPF_TRAMP_RUN_CTX.bpf_cookie);
  }

  /** bpf_get_func_ip_kprobe, bpf_get_func_ip_kprobe_multi. */
  #funcIp(): bigint {
    return this.#inRunContext(BPF_PROBE_RUN_CTX.entry_ip);
  }

  /** A u64 of current->bpf_ctx. */
  #inRunContext(offset: number): bigint {
    const runContext = this.memory.read64(this.#kernel.current + BigInt(TASK_STRUCT.bpf_ctx));
    return runContext === 0n ? 0n : this.memory.read64(runContext + BigInt(offset));
  }

  /** Kernel threads are their own thread group. */
  #pidTgid(): bigint {
    const pid = this.memory.read32(this.#kernel.current + BigInt(TASK_STRUCT.pid));
    return (BigInt(pid) << 32n) | BigInt(pid);
  }
}

/** A helper as JIT images call it: r1..r5 in x0..x4, result in x0. */
export function helperFunction(name: string, body: HelperBody, host: BpfHost): KernelFunction {
  const signature = {
    name,
    prototype: `u64 ${name}(u64 r1, u64 r2, u64 r3, u64 r4, u64 r5)`,
    parameters: 5,
  };
  const { calling } = body;
  if (calling) {
    return {
      ...signature,
      *body(_kernel, ...args) {
        const registers = registerPairs(args);
        for (const address of calling(registers, host)) {
          setResult64(registers, yield* call(address, ...argumentsOf(registers)));
        }
        return join64(registers[0] ?? 0, registers[1] ?? 0);
      },
    };
  }
  // made when it is first called: a kernel has hundreds of helpers, and few are
  let file: RegisterPairs | undefined;
  return {
    ...signature,
    leaf: (cpu) => {
      file ??= new Int32Array(22);
      file.fill(0);
      for (let i = 0; i < 5; i++) {
        file[2 * i + 2] = cpu.low(i);
        file[2 * i + 3] = cpu.high(i);
      }
      body(file, host);
      cpu.setHalves(0, file[0] ?? 0, file[1] ?? 0);
    },
    body: (_kernel, ...args) => {
      const registers = registerPairs(args);
      body(registers, host);
      return join64(registers[0] ?? 0, registers[1] ?? 0);
    },
  };
}

/** A register file with R1.. set. */
function registerPairs(args: readonly bigint[]): RegisterPairs {
  const registers = new Int32Array(22);
  args.forEach((value, i) => setArgument(registers, i + 1, value));
  return registers;
}

/** What bpf_jit_inlines_helper_call says of this kernel's JIT. */
function inlinedHelpers({ version, codegen }: BpfProfile): ReadonlySet<number> {
  const { inlinesHelpers } = { ...PROFILES[version], ...codegen.jit };
  return inlinesHelpers ? INLINED_HELPERS : new Set();
}

/** R1..R5. */
function argumentsOf(registers: RegisterPairs): bigint[] {
  return [1, 2, 3, 4, 5].map((n) => argument(registers, n));
}
