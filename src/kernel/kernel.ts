/**
 * The kernel: memory, CPUs, text, symbols, ftrace, tasks, put together by `bootKernel`.
 *
 * Usage:
 *   const kernel = await bootKernel({ asm: kernelAsm(), cpu: embeddedFactory });
 *   kernel.call('bpf_fentry_test2', 2n, 3n); // 5n
 *
 * Reference: the order of arm64's start_kernel as far as it shows: text, ftrace_init, per-CPU
 * areas, init_task. Left out: everything that is neither traced nor traces.
 */
import type { Cpu, Registers, SystemRegister } from '../cpu/cpu.js';
import { InputError } from '../common/errors.js';
import { Memory, type Region } from '../cpu/memory.js';
import type { Ram } from '../cpu/ram.js';
import { Assembler, withBodies } from './assembler.js';
import { Bpf } from './bpf/bpf.js';
import { KernelData } from './data.js';
import { Executor, type FaultFixup } from './executor.js';
import type { Callee, KernelContext, KernelFunction, PhysicalAllocator } from './function.js';
import { bootFtrace, directParts, ftraceEntries } from './ftrace/boot.js';
import { coreCallbacks } from './ftrace/callbacks.js';
import { DirectCallsByIp } from './ftrace/direct-by-ip.js';
import { DirectCalls } from './ftrace/direct.js';
import type { Ftrace } from './ftrace/ftrace.js';
import { FunctionGraph, graphFunctions, graphProfile } from './ftrace/graph.js';
import type { FtraceOps } from './ftrace/ops.js';
import { FTRACE_PROFILES } from './ftrace/profile.js';
import { Kprobes } from './kprobes/kprobes.js';
import { Kretprobes } from './kprobes/kretprobes.js';
import { kernelSpace } from './layout/address-space.js';
import { layoutOf, type Layout } from './layout/layout.js';
import type { KernelOptions } from './kernel-options.js';
import { LinearMap } from './linear-map.js';
import { Modules, type KernelModule, type ModuleSpec } from './module/modules.js';
import type { PatchObserver } from './patch-observer.js';
import { PerCpu } from './per-cpu.js';
import type { RangeAllocator } from './range-allocator.js';
import { Rcu } from './rcu.js';
import { SymbolTable } from './symbols.js';
import { Fprobes } from './trace/fprobe.js';
import { functionTraceCall, Tracing } from './trace/function-tracer.js';
import type { Task } from './task.js';
import { TaskList } from './task-list.js';
import { KERNEL_BODY_BRK, KernelText, NOP, TEXT_SIZE, type WordFunction } from './text.js';
import { encode } from '../a64/codec.js';

export type { AsmSources, KernelOptions } from './kernel-options.js';

/** A store of some 64 MiB would make the engine collect garbage at every boot. */
const DEFAULT_RAM = 16 << 20;

const NO_SYSTEM_REGISTERS: Readonly<Record<SystemRegister, bigint>> = {
  sp_el0: 0n,
  tpidr_el1: 0n,
  tpidr_el2: 0n,
  tpidr_el0: 0n,
};

/** As `Ram.s32` reads it: a small integer, which a word with its top bit set is not. */
const NOP_WORD = NOP | 0;

/** An atomic function of this kernel. */
interface AtomicTarget {
  readonly address: bigint;
  readonly entry: NonNullable<KernelFunction['entry']>;
  /** Physical address of the word that tracing patches: a NOP while nothing is attached. */
  readonly siteWord: number;
}

export class Kernel implements KernelContext {
  readonly memory: Memory;
  readonly layout: Layout;
  readonly symbols = new SymbolTable();
  readonly text: KernelText;
  readonly data: KernelData;
  readonly linear: LinearMap;
  readonly physical: PhysicalAllocator;
  readonly vmalloc: RangeAllocator;
  readonly perCpu: PerCpu;
  readonly cpus: readonly Cpu[];
  readonly executor: Executor;
  readonly ftrace: Ftrace;
  readonly directCalls: DirectCalls;
  readonly graph: FunctionGraph;
  /** The function tracer's instances. */
  readonly tracing: Tracing;
  readonly fprobes: Fprobes;
  readonly kprobes: Kprobes;
  readonly kretprobes: Kretprobes;
  readonly directCallsByIp: DirectCallsByIp;
  readonly modules: Modules;
  readonly rcu: Rcu;
  readonly bpf: Bpf;
  /** Lines of printk. */
  readonly log: string[] = [];
  /** Exception tables that a faulting pc is looked up in. */
  readonly fixups: FaultFixup[] = [];
  readonly #tasks: TaskList;
  readonly #atomics = new Map<string, AtomicTarget>();
  /** What `#systemRegisters` gave last. */
  #system = NO_SYSTEM_REGISTERS;
  /** Atomic functions by `Callee.index`. */
  readonly #callees: (AtomicTarget | undefined)[] = [];
  readonly #ram: Ram;
  #observer: PatchObserver | undefined;
  #running: Task | undefined;
  /** The running task began in a body, and its registers are not on the CPU yet. */
  #isBare = false;
  #runningCpu = 0;

  /** Use `bootKernel`. */
  constructor(options: KernelOptions, assembler: Assembler) {
    const { ram = DEFAULT_RAM, vmallocRam = DEFAULT_RAM, textSize = TEXT_SIZE } = options;
    this.memory = new Memory(ram + vmallocRam + textSize);
    this.#ram = this.memory.ram;
    this.layout = layoutOf(options);
    const version = options.version ?? '6.12';
    const profile = FTRACE_PROFILES[options.ftrace ?? version];
    this.text = new KernelText(this.memory, this.symbols, {
      address: this.layout.stext,
      profile,
      bti: options.bti ?? false,
      guarded: options.guarded ?? false,
      size: textSize,
    });
    this.data = new KernelData(this.memory, this.layout, this.symbols);
    if (!profile.callOps) this.data.define('function_trace_op', 8);
    this.linear = new LinearMap(this.memory, this.layout.linear, ram);
    this.physical = this.linear.physical;
    this.vmalloc = kernelSpace(this.layout, {
      used: options.vmallocUsed ?? 0,
      holes: options.vmallocHoles ?? [],
      modulesUsed: options.modulesUsed ?? 0,
    });

    // a return address belongs to the call before it: the BRK stands behind a word of the symbol
    this.text.addWords('lab_return', [NOP, encode('BRK', { imm16: KERNEL_BODY_BRK })]);
    this.text.addFunction(functionTraceCall(() => this.tracing));
    for (const fn of graphFunctions(() => this.graph)) this.text.addFunction(fn);
    for (const fn of coreCallbacks(profile, () => this.ftrace)) this.text.addFunction(fn);
    for (const [file, source] of Object.entries(options.asm)) {
      const text = options.bodies ? withBodies(source, options.bodies) : source;
      this.text.addAssembly(assembler, file, text);
    }

    this.cpus = Array.from({ length: options.cpus ?? 1 }, () => options.cpu.create(this.memory));
    this.perCpu = new PerCpu(this.memory, this.vmalloc, this.layout.vmallocEnd, this.cpus.length);
    this.#tasks = new TaskList(this.memory, this.linear, this.vmalloc);
    this.executor = new Executor(
      {
        text: this.text,
        symbols: this.symbols,
        context: this,
        fixup: (pc, fault, cpu) => this.#fixup(pc, fault, cpu),
        siteIsOff: (address) => this.siteIsOff(address),
      },
      this.symbol('lab_return') + 4n,
    );
    const reach = options.reach ?? profile.reach;
    const entries = ftraceEntries(this.symbols);
    this.modules = new Modules({
      kernel: this,
      assembler,
      reach,
      entries,
      guarded: options.guarded ?? false,
    });
    this.ftrace = bootFtrace(this.symbols, options.listFunc ?? 'arch_ftrace_ops_list_func', {
      memory: this.memory,
      data: this.data,
      profile,
      reach: { profile: reach, entries, moduleAt: (address) => this.modules.at(address) },
      base: this.layout.text,
      btiKernel: (options.bti ?? false) || (options.guarded ?? false),
      syncText: (start, end) => this.syncText(start, end),
      // one CPU patches while no other runs: its stores are seen
      ipi: () => this.#observer?.interrupted(),
      printk: (line) => this.printk(line),
      rcu: () => this.rcu,
    });
    const direct = directParts(this.symbols, this.ftrace);
    this.directCalls = new DirectCalls({ ...direct, temporary: this.#staticOps('tmp_ops') });
    this.directCallsByIp = new DirectCallsByIp({
      ...direct,
      directOps: this.#staticOps('direct_ops'),
      stubOps: this.#staticOps('stub_ops'),
    });
    this.graph = new FunctionGraph({
      ftrace: this.ftrace,
      data: this.data,
      kernel: this,
      tasks: () => this.#tasks.all,
      profile: graphProfile(profile),
    });
    this.tracing = new Tracing(this);
    this.fprobes = new Fprobes(this);
    this.kprobes = new Kprobes(this);
    this.kretprobes = new Kretprobes(this);
    this.#addNewSites();
    this.rcu = new Rcu(
      this.memory,
      () => this.#tasks.all,
      () => this.#observer,
    );
    this.bpf = new Bpf(this, {
      seed: options.seed ?? 1,
      version,
      codegen: options.codegen ?? {},
      guarded: options.guarded ?? false,
      helpers: options.helpers ?? '6.12',
      functionSite: options.functionSite,
    });
    for (const [file, source] of Object.entries(options.modules ?? {})) {
      this.text.addAssembly(assembler, file, source);
    }
    this.#addNewSites();
    this.syncText(this.text.region.address, this.text.end);
  }

  /** Places functions with TypeScript bodies and makes their sites known to ftrace. */
  define(...functions: readonly KernelFunction[]): void {
    for (const fn of functions) this.text.addFunction(fn);
    this.#addNewSites();
    this.syncText(this.text.region.address, this.text.end);
  }

  /** The same for functions that consist of words only. */
  defineWords(functions: Iterable<WordFunction>): void {
    this.text.addWordFunctions(functions);
    this.#addNewSites();
    this.syncText(this.text.region.address, this.text.end);
  }

  /** Loads a module and runs its init function. Throws KernelError when one or the other is refused. */
  loadModule(spec: ModuleSpec): KernelModule {
    return this.modules.load(spec);
  }

  /** Throws KernelError: ENOENT, EAGAIN (in use), EBUSY. */
  unloadModule(name: string): void {
    this.modules.unload(name);
  }

  symbol(name: string): bigint {
    return this.symbols.get(name).address;
  }

  /**
   * Calls an atomic function. While nothing is attached to it this is a call of its body: from a body
   * that runs, or from outside on CPU 0 in a task that has nothing else to do.
   */
  invoke(callee: string | Callee, a = 0, b = 0, c = 0, d = 0, e = 0, f = 0, g = 0, h = 0): number {
    const target =
      typeof callee === 'string'
        ? (this.#atomics.get(callee) ?? this.#findAtomic(callee))
        : (this.#callees[callee.index] ?? this.#link(callee));
    if (this.#running) return this.#enter(target, a, b, c, d, e, f, g, h);
    return this.#invokeAlone(target, a, b, c, d, e, f, g, h);
  }

  /** An atomic function is called from outside. */
  #invokeAlone(
    target: AtomicTarget,
    a: number,
    b: number,
    c: number,
    d: number,
    e: number,
    f: number,
    g: number,
    h: number,
  ): number {
    // the CPU gets the task's registers only when text has to run
    const task = this.#tasks.idle();
    this.#running = task;
    this.#isBare = true;
    this.#ram.set32(task.cpuWord, this.#runningCpu);
    task.state = 'running';
    try {
      const result = this.#enter(target, a, b, c, d, e, f, g, h);
      task.state = 'done';
      return result;
    } catch (error) {
      const failure = this.executor.asOops(task, this.#cpuOf(task), error);
      this.#tasks.kill(task);
      throw failure;
    } finally {
      this.#running = undefined;
      this.#isBare = false;
      this.rcu.advance();
    }
  }

  /** Calls text at an address for an atomic body that runs; the value is x0. */
  invokeText(address: bigint, ...args: bigint[]): bigint {
    const task = this.#running;
    if (!task) throw new Error('no body runs that could call');
    return this.executor.invoke(task, this.#cpuOf(task), address, args);
  }

  /** The same for a BPF image with its context in halves: the low half of x0. */
  invokeImage(address: bigint, lo: number, hi: number): number {
    const task = this.#running;
    if (!task) throw new Error('no body runs that could call');
    return this.executor.invokeHalves(task, this.#cpuOf(task), address, lo, hi);
  }

  /**
   * Calls a kernel function on CPU 0 and runs it to its end; the value is x0. Arguments from the ninth on go to
   * the stack.
   */
  call(target: string | bigint, ...args: bigint[]): bigint {
    const task = this.#tasks.idle();
    this.start(task, target, args);
    if (task.state !== 'done') {
      throw new Error(`${String(target)} sleeps on ${String(task.channel)} and nobody wakes it`);
    }
    return task.result;
  }

  /** Starts a task; comes back when it sleeps or is done. */
  start(task: Task, target: string | bigint, args: readonly bigint[], cpuNumber = 0): void {
    const address = typeof target === 'string' ? this.symbol(target) : target;
    const system = this.#systemRegisters(task, cpuNumber);
    this.#onCpu(task, cpuNumber, (cpu) => {
      this.executor.start(task, cpu, system, address, [...args]);
    });
  }

  /** Wakes all tasks that sleep on `channel`, one after the other. */
  wake(channel: bigint, cpuNumber = 0): void {
    for (const task of this.#tasks.all) {
      if (task.state !== 'sleeping' || task.channel !== channel) continue;
      task.channel = undefined;
      this.#onCpu(task, cpuNumber, (cpu) => this.executor.resume(task, cpu));
    }
  }

  /** kthread_create, kthread_bind and wake_up_process: a task that runs until it sleeps. */
  kthreadRun(name: string, target: string, argument: bigint, cpuNumber = 0): void {
    this.start(this.createTask(name), target, [argument], cpuNumber);
  }

  createTask(name: string): Task {
    return this.#tasks.create(name);
  }

  get tasks(): readonly Task[] {
    return this.#tasks.all;
  }

  /** Is the patch site of the function at `address`, which has a TypeScript body, a NOP, and no kprobe in it? */
  siteIsOff(address: bigint): boolean {
    const site = address + BigInt(this.text.siteOffset);
    return this.memory.read32(site) === NOP && !this.kprobes.isIn(address);
  }

  /** Every CPU fetches [start, end) anew: caches_clean_inval_pou. */
  syncText(start: bigint, end: bigint): void {
    this.#observer?.synced(start, end);
    for (const cpu of this.cpus) cpu.sync(start, end);
  }

  /** The same, and no CPU has anything of it in its pipeline: flush_icache_range. */
  flushText(start: bigint, end: bigint): void {
    this.syncText(start, end);
    this.#observer?.interrupted();
  }

  /** Tells `observer` of every step of patching from here on; returns the way to end it. */
  observePatching(observer: PatchObserver): () => void {
    const { memory } = this;
    this.#observer = observer;
    const listener = {
      mapped: () => undefined,
      unmapped: (region: Region) => observer.freed(region.address, region.size),
    };
    memory.listen(listener);
    memory.watchStores((address, bytes) => observer.stored(address, bytes));
    return () => {
      this.#observer = undefined;
      memory.unlisten(listener);
      memory.watchStores(undefined);
    };
  }

  /** What follows has to wait until the u64 at `address` is 0. */
  waitForZero(address: bigint): void {
    this.#observer?.drained(address);
  }

  kmalloc(size: number): bigint {
    return this.linear.kmalloc(size);
  }

  kfree(address: bigint): void {
    const size = this.linear.free(address);
    this.#observer?.freed(address, size);
  }

  allocPages(count: number): bigint {
    return this.linear.allocPages(count);
  }

  freePages(address: bigint): void {
    this.linear.free(address);
  }

  /**
   * `size` zeroed bytes of each CPU's area, 16-byte aligned: an offset from what TPIDR_EL1 holds. Throws
   * -ENOMEM.
   */
  allocPercpu(size: number): bigint {
    return this.perCpu.alloc(size);
  }

  freePercpu(pointer: bigint): void {
    this.perCpu.free(pointer);
  }

  /** Where a CPU has what `allocPercpu` gave. */
  perCpuAddress(pointer: bigint, cpuNumber: number): bigint {
    return this.perCpu.address(pointer, cpuNumber);
  }

  get current(): bigint {
    return (this.#running ?? this.#tasks.idle()).address;
  }

  /** Where the stack of the task at `address` is entered: one past its last byte. */
  stackOf(address: bigint): bigint {
    return this.#tasks.at(address).stackTop;
  }

  get currentCpu(): number {
    return this.#runningCpu;
  }

  printk(line: string): void {
    this.log.push(line);
  }

  close(): void {
    for (const cpu of this.cpus) cpu.close();
  }

  #findAtomic(name: string): AtomicTarget {
    const address = this.symbol(name);
    const fn = this.text.functions.get(address);
    if (!fn?.entry) throw new InputError(`${name} is no atomic function`);
    const siteWord = this.#ram.virtToPhys(address) + this.text.siteOffset;
    const target: AtomicTarget = { address, entry: fn.entry, siteWord };
    this.#atomics.set(name, target);
    return target;
  }

  #link({ name, index }: Callee): AtomicTarget {
    const target = this.#atomics.get(name) ?? this.#findAtomic(name);
    while (this.#callees.length <= index) this.#callees.push(undefined);
    this.#callees[index] = target;
    return target;
  }

  #enter(
    { address, entry, siteWord }: AtomicTarget,
    a: number,
    b: number,
    c: number,
    d: number,
    e: number,
    f: number,
    g: number,
    h: number,
  ): number {
    const isOff = this.#ram.s32(siteWord) === NOP_WORD && !this.kprobes.isIn(address);
    if (isOff && !this.executor.everyInstruction) {
      return entry.body(this, a, b, c, d, e, f, g, h) ?? 0;
    }
    const registers = entry.registers(this.#ram, [a, b, c, d, e, f, g, h]);
    return entry.fromRegister(this.#ram, this.invokeText(address, ...registers));
  }

  /** The CPU of the running task, with its registers. */
  #cpuOf(task: Task): Cpu {
    const cpu = this.cpus[this.#runningCpu];
    if (!cpu) throw new RangeError(`there is no CPU ${this.#runningCpu}`);
    if (this.#isBare) {
      this.executor.prepare(task, cpu, this.#systemRegisters(task, this.#runningCpu));
      this.#isBare = false;
    }
    return cpu;
  }

  #onCpu(task: Task, cpuNumber: number, run: (cpu: Cpu) => void): void {
    const cpu = this.cpus[cpuNumber];
    if (!cpu) throw new RangeError(`there is no CPU ${cpuNumber}`);
    if (this.#running) {
      throw new Error(
        `${this.#running.name} runs already: a body has to yield* call(...) or to invoke`,
      );
    }
    this.#running = task;
    this.#runningCpu = cpuNumber;
    this.#ram.set32(task.cpuWord, cpuNumber);
    try {
      run(cpu);
    } catch (error) {
      this.#tasks.kill(task);
      throw error;
    } finally {
      this.#running = undefined;
      this.#runningCpu = 0;
      this.rcu.advance();
    }
  }

  /** The same object again for the task and CPU that it was asked for last. */
  #systemRegisters(task: Task, cpuNumber: number): Registers['system'] {
    const before = this.#system;
    const sp_el0 = task.address;
    const tpidr_el1 = this.perCpu.area(cpuNumber);
    if (before.sp_el0 === sp_el0 && before.tpidr_el1 === tpidr_el1) return before;
    // where a kernel at EL2 has it
    const tpidr_el2 = tpidr_el1;
    this.#system = { ...NO_SYSTEM_REGISTERS, sp_el0, tpidr_el1, tpidr_el2 };
    return this.#system;
  }

  #staticOps(name: string): FtraceOps {
    const address = this.data.define(name, this.ftrace.profile.ops.size);
    return this.ftrace.createOps(name, address, this.symbol('ftrace_stub'));
  }

  #addNewSites(): void {
    this.ftrace.addSites(this.text.mcountLocations.splice(0));
  }

  #fixup: FaultFixup = (pc, fault, cpu) => {
    for (const fixup of this.fixups) {
      const next = fixup(pc, fault, cpu);
      if (next !== undefined) return next;
    }
    return undefined;
  };
}

/** What boots kernels one after the other: the assembler is loaded once. */
export async function kernelBooter(): Promise<(options: KernelOptions) => Kernel> {
  const assembler = await Assembler.create();
  return (options) => new Kernel(options, assembler);
}

export async function bootKernel(options: KernelOptions): Promise<Kernel> {
  const boot = await kernelBooter();
  return boot(options);
}
