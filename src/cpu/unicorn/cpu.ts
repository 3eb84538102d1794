/**
 * A CPU of libunicorn on the lab's memory.
 *
 * Regions are mapped into it by pointer, so nothing is copied; only page granularity differs from the
 * embedded engine: a region's slack within its pages is accessible, and so is a span over two regions that
 * touch. A refused store that crosses a page end has written the bytes before it. What libunicorn needs around it:
 *
 * - Always a count: it makes pc precise and tells how many instructions ran. Mixing counted and uncounted
 *   runs costs milliseconds each time.
 * - Stop addresses and breakpoints are code hooks (stop-addresses.ts).
 * - Words unknown to this lab never reach it (guard.ts).
 * - Writable text ('rwx') is mapped without write permission: a store to it fails, is executed
 *   alone with permission, and the text is looked at again.
 * - WFI ends a run, which then goes on here. What libunicorn has no notion of (TPIDR_EL2 at EL1) or another
 *   one (CTR_EL0, XPACLRI) is executed by the embedded engine, one instruction at a time.
 * - Between a store to text and `sync`, which of the two words a fetch sees is not defined, as
 *   on hardware; the embedded engine is exact there.
 *
 * Left out: clearing the exclusive monitor in `loadRegisters`, for which libunicorn has no call; execute CLREX.
 */
import { hex64, high32, join64, low32, u64 } from '../../common/bytes.js';
import { decode } from '../../a64/codec.js';
import { accessesOf, type DataAccess } from '../access.js';
import {
  PC,
  SP,
  type Cpu,
  type Registers,
  type RunOptions,
  type Stop,
  type SystemRegister,
  type TraceEntry,
} from '../cpu.js';
import { EmbeddedCpu } from '../embedded/cpu.js';
import type { AccessFault } from '../fault.js';
import type { Memory, MemoryListener, Region } from '../memory.js';
import { EXCP, UC_HOOK, UC_PROT } from './constants.js';
import { accessOfEvent, type Events, type Refused } from './events.js';
import { systemRegister, TextGuard } from './guard.js';
import type { Pointer, UnicornLibrary } from './library.js';
import { NZCV_SLOT, PC_SLOT, UnicornRegisters } from './registers.js';
import { StopAddresses } from './stop-addresses.js';
import { TraceLog } from './trace.js';

/** `on`: go on at pc; `executed`: the instruction before pc was executed here. */
type Outcome = Stop | 'on' | 'executed' | 'text store';

export class UnicornCpu implements Cpu, MemoryListener {
  readonly engine = 'unicorn';
  readonly sharesMemory = true;
  readonly memory: Memory;

  readonly #unicorn: UnicornLibrary;
  readonly #handle: Pointer;
  readonly #registers: UnicornRegisters;
  #executed = 0;
  #closed = false;

  readonly #guard: TextGuard;
  readonly #callbacks: Pointer[] = [];
  readonly #stops: StopAddresses;
  readonly #traceCallback: Pointer;
  #usesExits = false;
  /** Where a run has not gone on, once. */
  #stalled: bigint | undefined;
  #events: Events = { refused: undefined, interrupt: undefined, stopped: false };
  #log: TraceLog | undefined;
  #traceHook: number | undefined;
  #fallback: EmbeddedCpu | undefined;

  constructor(unicorn: UnicornLibrary, memory: Memory) {
    this.#unicorn = unicorn;
    this.memory = memory;
    this.#handle = unicorn.open();
    this.#registers = new UnicornRegisters(unicorn, this.#handle);
    this.#guard = new TextGuard(memory);

    const keep = (callback: Pointer): Pointer => {
      this.#callbacks.push(callback);
      return callback;
    };
    const stop = keep(unicorn.codeCallback(this.#guarded((address) => this.#atStop(address))));
    this.#stops = new StopAddresses(unicorn, this.#handle, memory, stop);
    this.#traceCallback = keep(unicorn.codeCallback(this.#guarded(() => this.#atTrace())));
    const interrupt = keep(
      unicorn.interruptCallback(
        this.#guarded((number) => {
          this.#events.interrupt = number;
          unicorn.stop(this.#handle);
        }),
      ),
    );
    const refused = keep(
      unicorn.memoryCallback((type, address, size) => {
        // a store across a page end comes byte by byte: the first is told
        this.#events.refused ??= { type, address, size };
      }),
    );
    unicorn.addHook(this.#handle, UC_HOOK.INTR, interrupt, 1n, 0n);
    unicorn.addHook(this.#handle, UC_HOOK.MEM_INVALID, refused, 1n, 0n);
    memory.listen(this);
  }

  // -- registers ------------------------------------------------------------------------------------

  getX(register: number): bigint {
    return this.#registers.getX(register);
  }

  setX(register: number, value: bigint): void {
    this.#registers.setX(register, value);
  }

  low(register: number): number {
    return low32(this.#value(register));
  }

  high(register: number): number {
    return high32(this.#value(register));
  }

  setHalves(register: number, lo: number, hi: number): void {
    const value = join64(lo, hi);
    if (register === PC) this.pc = value;
    else if (register === SP) this.sp = value;
    else this.setX(register, value);
  }

  #value(register: number): bigint {
    if (register === PC) return this.pc;
    return register === SP ? this.sp : this.getX(register);
  }

  get sp(): bigint {
    return this.#registers.sp;
  }

  set sp(value: bigint) {
    this.#registers.sp = value;
  }

  get pc(): bigint {
    return this.#registers.pc;
  }

  set pc(value: bigint) {
    this.#registers.pc = value;
  }

  get nzcv(): number {
    return this.#registers.nzcv;
  }

  set nzcv(value: number) {
    this.#registers.nzcv = value;
  }

  getSystem(register: SystemRegister): bigint {
    this.#mustBeOpen();
    return this.#registers.getSystem(register);
  }

  setSystem(register: SystemRegister, value: bigint): void {
    this.#mustBeOpen();
    this.#registers.setSystem(register, value);
  }

  saveRegisters(): Registers {
    this.#mustBeOpen();
    return this.#registers.save();
  }

  loadRegisters(registers: Registers): void {
    this.#mustBeOpen();
    this.#registers.load(registers);
  }

  get executed(): number {
    return this.#executed;
  }

  // -- running --------------------------------------------------------------------------------------

  run(options: RunOptions = {}): Stop {
    this.#mustBeOpen();
    this.#stops.beginRun(options.until === undefined ? undefined : u64(options.until));
    return this.#go(options.budget ?? 1e9);
  }

  step(): Stop {
    this.#mustBeOpen();
    this.#stops.beginStep(this.pc);
    const before = this.#executed;
    while (this.#executed === before) {
      const stop = this.#start(1);
      if (stop) return stop;
    }
    return { kind: 'budget' };
  }

  addBreakpoint(address: bigint): void {
    this.#mustBeOpen();
    this.#stops.addBreakpoint(u64(address));
  }

  removeBreakpoint(address: bigint): void {
    this.#mustBeOpen();
    this.#stops.removeBreakpoint(u64(address));
  }

  sync(start: bigint, end: bigint): void {
    this.#mustBeOpen();
    const from = u64(start);
    const to = u64(end);
    this.#guard.suspect(from, to);
    for (const region of this.memory.regions) {
      if (!region.permissions.includes('x')) continue;
      const regionEnd = region.pageAddress + BigInt(region.pageBytes);
      const low = from > region.pageAddress ? from : region.pageAddress;
      const high = to < regionEnd ? to : regionEnd;
      if (low < high) this.#unicorn.removeCache(this.#handle, low, high);
    }
  }

  startTrace(): void {
    this.#mustBeOpen();
    this.#log = new TraceLog();
    if (this.#traceHook !== undefined) return;
    this.#traceHook = this.#unicorn.addHook(
      this.#handle,
      UC_HOOK.CODE,
      this.#traceCallback,
      1n,
      0n,
    );
    this.#renewAll();
  }

  stopTrace(): TraceEntry[] {
    this.#mustBeOpen();
    const entries = this.#log?.entries() ?? [];
    this.#log = undefined;
    if (this.#traceHook !== undefined) {
      this.#unicorn.removeHook(this.#handle, this.#traceHook);
      this.#traceHook = undefined;
      this.#renewAll();
    }
    return entries;
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.memory.unlisten(this);
    this.#fallback?.close();
    this.#unicorn.close(this.#handle);
    for (const callback of this.#callbacks) this.#unicorn.freeCallback(callback);
  }

  // -- memory ---------------------------------------------------------------------------------------

  mapped(region: Region): void {
    let permissions: number = UC_PROT.READ;
    if (region.permissions.includes('x')) permissions |= UC_PROT.EXEC;
    else if (region.permissions.includes('w')) permissions |= UC_PROT.WRITE;
    const { pageOffset, pageBytes } = region;
    const bytes = this.memory.bytes.subarray(pageOffset, pageOffset + pageBytes);
    this.#unicorn.map(this.#handle, region.pageAddress, permissions, bytes);
    this.#guard.mapped(region);
    this.#stops.mapped(region);
  }

  unmapped(region: Region): void {
    const end = region.pageAddress + BigInt(region.pageBytes);
    if (region.permissions.includes('x')) {
      this.#unicorn.removeCache(this.#handle, region.pageAddress, end);
    }
    this.#unicorn.unmap(this.#handle, region.pageAddress, region.pageBytes);
    this.#guard.unmapped(region);
  }

  textStored(region: Region, offset: number, size: number): void {
    this.#guard.textStored(region, offset, size);
  }

  /** Behind a closed handle is nothing: using it would end the process. */
  #mustBeOpen(): void {
    if (this.#closed) throw new Error('this CPU has been closed');
  }

  // -- how a run goes -------------------------------------------------------------------------------

  #go(budget: number): Stop {
    let left = budget;
    for (;;) {
      const { pc } = this.#registers;
      const reached = this.#stops.at(pc);
      if (reached === 'until') return { kind: 'until' };
      if (reached === 'breakpoint') return { kind: 'breakpoint', address: pc };
      if (left <= 0) return { kind: 'budget' };
      const before = this.#executed;
      const stop = this.#start(left);
      left -= this.#executed - before;
      if (stop) return stop;
    }
  }

  /** One call of `uc_emu_start`. Returns nothing when the run may go on. */
  #start(count: number): Stop | undefined {
    const unicorn = this.#unicorn;
    const handle = this.#handle;
    this.#applyExits();
    const registers = this.#registers;
    registers.write();
    const started = registers.pc;
    this.#log?.beginRun(registers.halves, registers.nzcv);
    const logged = this.#log?.count ?? 0;
    const events: Events = { refused: undefined, interrupt: undefined, stopped: false };
    this.#events = events;
    const result = unicorn.start(handle, started, count);
    registers.read();
    if (events.error) throw events.error;

    // The counter holds instructions begun. One that was stopped or refused is among them; a fetch that fails
    // has begun nothing, and neither has an exit.
    const begun = unicorn.counted(handle);
    const [kind] = events.refused ? accessOfEvent(events.refused.type) : [];
    const unfinished =
      events.stopped || events.interrupt !== undefined || kind === 'read' || kind === 'write';
    let executed = Math.min(unfinished ? begun - 1 : begun, count);
    this.#executed += executed;
    let outcome: Outcome = 'on';
    if (events.refused) {
      outcome = this.#refused(events.refused);
    } else if (events.interrupt !== undefined) {
      outcome = this.#interrupted(events.interrupt);
    } else if (result !== 0) {
      throw new Error(`libunicorn stopped with error ${result} at ${hex64(this.pc)}`);
    } else if (executed < count && !events.stopped) {
      outcome = this.#halted(started, executed);
    }
    if (outcome === 'executed') {
      executed += 1;
      this.#executed += 1;
    }
    this.#log?.endRun(logged + executed, registers.halves, registers.nzcv);
    if (outcome === 'on' || outcome === 'executed') return undefined;
    return outcome === 'text store' ? this.#storeToText() : outcome;
  }

  /** The run ended of itself: at an exit, after WFI, or at the end of a block that once had an exit. */
  #halted(started: bigint, executed: number): Outcome {
    const { pc } = this;
    if (this.#stops.at(pc) === 'until') return 'on';
    if (this.#guard.has(pc)) return this.#assist();
    if (executed === 0 && pc === started) {
      if (this.#stalled === pc) throw new Error(`libunicorn does not go on at ${hex64(pc)}`);
      this.#stalled = pc;
      this.#unicorn.removeCache(this.#handle, pc, pc + 4n);
    } else {
      this.#stalled = undefined;
    }
    return 'on';
  }

  #refused({ type, address, size }: Refused): Outcome {
    const [access, reason] = accessOfEvent(type);
    if (access === 'fetch') {
      if (this.#stops.at(this.pc) === 'until') return 'on';
      return this.#fault({ access, address: this.pc, size: 4, reason });
    }
    if (reason === 'permission' && access === 'write') {
      if (this.memory.regionAt(address)?.permissions === 'rwx') return 'text store';
    }
    // the alignment an instruction asks for comes before the translation of its address
    const unaligned = this.#unaligned();
    if (unaligned) return unaligned;
    // libunicorn tells the part of the access that lies in the refused page
    const whole = this.#accesses().find(
      (part) => part.access === access && u64(address - part.address) < BigInt(part.size),
    );
    const start = whole?.address ?? address;
    const bytes = whole?.size ?? size;
    const refusal = this.memory.faultAt(start, bytes, access);
    return this.#fault({
      access,
      address: start,
      size: bytes,
      reason: refusal?.reason ?? reason,
    });
  }

  #fault(fault: AccessFault): Stop {
    return { kind: 'fault', fault };
  }

  /** The alignment fault of the instruction at pc. */
  #unaligned(): Stop | undefined {
    const found = this.#accesses().find(
      ({ aligned, address, size }) => aligned && address % BigInt(size) !== 0n,
    );
    if (!found) return undefined;
    const { access, address, size } = found;
    return this.#fault({ access, address, size, reason: 'alignment' });
  }

  /** What the instruction at pc accesses. */
  #accesses(): readonly DataAccess[] {
    const decoded = decode(this.memory.read32(this.pc));
    if (!decoded) return [];
    const { values } = this.#registers;
    return accessesOf(decoded, this.pc, (register) => values[register] as bigint);
  }

  #interrupted(number: number): Outcome {
    switch (number) {
      case EXCP.BKPT:
        return this.#trap('brk');
      case EXCP.SWI:
      case EXCP.SMC:
        this.pc -= 4n;
        return this.#trap(number === EXCP.SWI ? 'svc' : 'smc');
      case EXCP.DATA_ABORT: {
        const unaligned = this.#unaligned();
        if (unaligned) return unaligned;
        throw new Error(`libunicorn: data abort without cause at ${hex64(this.pc)}`);
      }
      case EXCP.UDEF:
        return this.#undefinedInstruction();
      default:
        throw new Error(`libunicorn: exception ${number} at ${hex64(this.pc)}`);
    }
  }

  #trap(instruction: (Stop & { kind: 'trap' })['instruction']): Stop {
    const immediate = (this.memory.read32(this.pc) >>> 5) & 0xffff;
    return { kind: 'trap', instruction, immediate };
  }

  #undefinedInstruction(): Outcome {
    const { pc } = this;
    if ((pc & 3n) !== 0n) {
      return this.#fault({ access: 'fetch', address: pc, size: 4, reason: 'alignment' });
    }
    const sem = decode(this.memory.read32(pc))?.row.sem;
    return sem?.kind === 'trap' ? this.#trap(sem.instruction) : this.#assist();
  }

  /** Has the embedded engine execute the instruction at pc, which libunicorn does not know or must not see. */
  #assist(): Outcome {
    const { pc, memory } = this;
    this.#fallback ??= new EmbeddedCpu(memory);
    const fallback = this.#fallback;
    fallback.sync(pc, pc + 4n);
    fallback.loadRegisters(this.saveRegisters());
    const stop = fallback.step();
    if (stop.kind !== 'budget') return stop;
    this.loadRegisters(fallback.saveRegisters());
    const { row, fields } = decode(memory.read32(pc)) ?? {};
    if (row?.sem.kind === 'readSystem' && fields && systemRegister(fields) === 'cntvct_el0') {
      // the counter is the number of instructions that this CPU has executed
      if (fields['Rt'] !== 31) this.setX(fields['Rt'] ?? 0, BigInt(this.#executed));
    }
    return 'executed';
  }

  /** Executes the instruction at pc alone, with writable text writable. */
  #storeToText(): Stop | undefined {
    const written = this.#accesses().filter((part) => part.access === 'write');
    const regions = new Set<Region>();
    for (const { address, size } of written) {
      for (const at of [address, address + BigInt(size - 1)]) {
        const region = this.memory.regionAt(at);
        if (region?.permissions === 'rwx') regions.add(region);
      }
    }
    this.#protect(regions, UC_PROT.READ | UC_PROT.WRITE | UC_PROT.EXEC);
    try {
      return this.#start(1);
    } finally {
      this.#protect(regions, UC_PROT.READ | UC_PROT.EXEC);
      // has memory tell every CPU that this text was stored to
      for (const { address, size } of written) {
        this.memory.offsetWrite(high32(address), low32(address), size);
      }
    }
  }

  #protect(regions: Iterable<Region>, permissions: number): void {
    for (const { pageAddress, pageBytes } of regions) {
      this.#unicorn.protect(this.#handle, pageAddress, pageBytes, permissions);
    }
  }

  #applyExits(): void {
    const exits = this.#guard.refresh((address) => {
      // the block before ends here, too
      this.#unicorn.removeCache(this.#handle, address - 4n, address + 4n);
    });
    if (!exits) return;
    if (exits.length > 0 !== this.#usesExits) {
      this.#usesExits = exits.length > 0;
      this.#unicorn.useExits(this.#handle, this.#usesExits);
    }
    if (this.#usesExits) this.#unicorn.setExits(this.#handle, exits);
  }

  // -- hooks ----------------------------------------------------------------------------------------

  #atStop(address: bigint): void {
    if (!this.#stops.stops(address)) return;
    this.#events.stopped = true;
    this.#unicorn.stop(this.#handle);
  }

  #atTrace(): void {
    if (!this.#log) return;
    const { live, liveHalves } = this.#registers;
    this.#unicorn.readRegisters(this.#handle, live);
    const pcLo = liveHalves[2 * PC_SLOT] as number;
    const pcHi = liveHalves[2 * PC_SLOT + 1] as number;
    const word = this.memory.view.getInt32(this.memory.offsetFetch(pcHi, pcLo), true);
    const nzcv = (liveHalves[2 * NZCV_SLOT] as number) >>> 28;
    this.#log.instruction(pcLo, pcHi, word, liveHalves, nzcv);
  }

  /** An error in a callback cannot pass through libunicorn: it is kept, and thrown after the run. */
  #guarded<A extends unknown[]>(call: (...args: A) => void): (...args: A) => void {
    return (...args) => {
      try {
        call(...args);
      } catch (error) {
        this.#events.error ??= error instanceof Error ? error : new Error(String(error));
        this.#unicorn.stop(this.#handle);
      }
    };
  }

  /** Hooks that come or go do not reach translated blocks. */
  #renewAll(): void {
    for (const { permissions, pageAddress, pageBytes } of this.memory.regions) {
      if (!permissions.includes('x')) continue;
      this.#unicorn.removeCache(this.#handle, pageAddress, pageAddress + BigInt(pageBytes));
    }
  }
}
