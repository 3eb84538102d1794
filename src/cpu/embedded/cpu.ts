/**
 * The embedded engine: an A64 interpreter in TypeScript behind the `Cpu` interface.
 *
 * Instructions are decoded once into records (core.ts) through the instruction table, and executed
 * by a hot switch (hot.ts) with the rest behind it. Exact per-instruction traces, any number of
 * CPUs on one memory, each with its own view of text. A view is per CPU and lasts until `sync`, or
 * until the region is unmapped or its permissions change. `run` looks at the stop address and
 * breakpoints before every instruction, the first included.
 *
 * Left out, beside what cpu.ts says: the SP alignment check, interrupts, timers.
 *
 * Usage:
 *   const cpu = new EmbeddedCpu(memory);
 *   cpu.pc = text.address;
 *   const stop = cpu.run({ until: returnAddress, budget: 1_000_000 });
 *   cpu.close();
 */
import { high32, low32, u64 } from '../../common/bytes.js';
import {
  PC,
  type Cpu,
  type Registers,
  type RunOptions,
  type Stop,
  type SystemRegister,
  type TraceEntry,
} from '../cpu.js';
import type { Memory, MemoryListener, Region } from '../memory.js';
import { Core, EXIT, NZCV_SLOT, SP_SLOT, type Code } from './core.js';
import { execute } from './hot.js';
import { missesLanding } from './landing.js';
import { TraceLog } from './trace.js';

const DEFAULT_BUDGET = 1e9;
const NO_RECORDS = new Int32Array(0);

export class EmbeddedCpu implements Cpu {
  readonly engine = 'embedded';
  readonly sharesMemory = true;
  readonly memory: Memory;

  readonly #core: Core;
  readonly #codes: Code[] = [];
  readonly #breakpoints = new Set<bigint>();
  readonly #listener: MemoryListener;
  /** Kept between traces for its chunks. */
  readonly #log = new TraceLog();

  constructor(memory: Memory) {
    this.memory = memory;
    this.#core = new Core(memory);
    this.#listener = {
      mapped: (region) => {
        if (region.permissions.includes('x')) this.#addCode(region);
      },
      unmapped: (region) => {
        const index = this.#codes.findIndex((code) => code.region === region);
        if (index >= 0) this.#codes.splice(index, 1);
      },
    };
    memory.listen(this.#listener);
  }

  getX(register: number): bigint {
    return this.#core.x(checkRegister(register));
  }

  setX(register: number, value: bigint): void {
    this.#core.setX(checkRegister(register), value);
  }

  get sp(): bigint {
    return this.#core.x(SP_SLOT);
  }

  set sp(value: bigint) {
    this.#core.setX(SP_SLOT, value);
  }

  get pc(): bigint {
    return this.#core.pc;
  }

  set pc(value: bigint) {
    this.#core.pc = value;
  }

  low(register: number): number {
    return register === PC ? this.#core.pcLo : (this.#core.lo[checkSlot(register)] as number);
  }

  high(register: number): number {
    return register === PC ? this.#core.pcHi : (this.#core.hi[checkSlot(register)] as number);
  }

  setHalves(register: number, lo: number, hi: number): void {
    const core = this.#core;
    if (register === PC) {
      core.pcLo = lo;
      core.pcHi = hi;
      return;
    }
    const slot = checkSlot(register);
    core.lo[slot] = lo;
    core.hi[slot] = hi;
  }

  get nzcv(): number {
    return this.#core.lo[NZCV_SLOT] as number;
  }

  set nzcv(value: number) {
    this.#core.lo[NZCV_SLOT] = value & 15;
  }

  getSystem(register: SystemRegister): bigint {
    return this.#core.system[register];
  }

  setSystem(register: SystemRegister, value: bigint): void {
    this.#core.system[register] = u64(value);
  }

  saveRegisters(): Registers {
    const core = this.#core;
    return {
      x: Array.from({ length: 31 }, (_, register) => core.x(register)),
      sp: this.sp,
      pc: core.pc,
      nzcv: this.nzcv,
      system: { ...core.system },
    };
  }

  /** The exclusive monitor is cleared, as an exception return does. */
  loadRegisters(registers: Registers): void {
    const core = this.#core;
    const { x } = registers;
    for (let register = 0; register < x.length; register++) this.setX(register, x[register] ?? 0n);
    this.sp = registers.sp;
    core.pc = registers.pc;
    this.nzcv = registers.nzcv;
    Object.assign(core.system, registers.system);
    core.monitor = -1n;
  }

  get executed(): number {
    return this.#core.executed;
  }

  run(options: RunOptions = {}): Stop {
    return this.#run(options.budget ?? DEFAULT_BUDGET, options.until, true);
  }

  step(): Stop {
    return this.#run(1, undefined, false);
  }

  addBreakpoint(address: bigint): void {
    const at = u64(address);
    if (this.#breakpoints.has(at)) return;
    this.#breakpoints.add(at);
    for (const code of this.#codes) mark(code, at, 1);
  }

  removeBreakpoint(address: bigint): void {
    const at = u64(address);
    if (!this.#breakpoints.delete(at)) return;
    for (const code of this.#codes) mark(code, at, 0);
  }

  sync(start: bigint, end: bigint): void {
    for (const code of this.#codes) {
      if (code.records === NO_RECORDS) continue;
      const base = u64((BigInt(code.hi) << 32n) | BigInt(code.lo >>> 0));
      // a distance to another region does not fit 32 bits: bounded before it is a number
      const size = BigInt(code.size);
      const from = Number(minimum(maximum(u64(start) - base, 0n), size)) & -4;
      const to = Number(minimum(u64(end) - base, size));
      for (let at = from; at < to; at += 4) code.records[at] = 0;
    }
  }

  startTrace(): void {
    this.#log.clear();
    this.#core.log = this.#log;
  }

  stopTrace(): TraceEntry[] {
    const { log } = this.#core;
    this.#core.log = undefined;
    return log ? log.entries(this.#core.words) : [];
  }

  /** Stops following the memory's layout; the CPU cannot run afterwards. */
  close(): void {
    this.memory.unlisten(this.#listener);
    this.#codes.length = 0;
  }

  #addCode(region: Region): void {
    // instructions are words at multiples of four, whatever the region's first byte
    const skip = Number(-region.address & 3n);
    const size = Math.max(0, region.size - skip) & -4;
    if (size === 0) return;
    const code: Code = {
      region,
      lo: (low32(region.address) + skip) | 0,
      hi: high32(region.address),
      offset: region.offset + skip,
      size,
      records: NO_RECORDS,
      marks: new Uint8Array(size / 4),
      breakpoints: 0,
    };
    this.#codes.push(code);
    for (const address of this.#breakpoints) mark(code, address, 1);
  }

  #codeAt(hi: number, lo: number): Code | undefined {
    for (const code of this.#codes) {
      if (code.hi === hi && (lo - code.lo) >>> 0 < code.size) return code;
    }
    return undefined;
  }

  #run(budget: number, until: bigint | undefined, stops: boolean): Stop {
    const core = this.#core;
    core.branchType = 0;
    core.log?.follow(core);
    const untilHi = until === undefined ? 0 : high32(until);
    const untilLo = until === undefined ? 0 : low32(until);
    let left = Math.min(Math.max(0, Math.floor(budget)), Number.MAX_SAFE_INTEGER);
    for (;;) {
      const code = (core.pcLo & 3) === 0 ? this.#codeAt(core.pcHi, core.pcLo) : undefined;
      if (!code) return this.#outside(left, until, stops);
      if (core.branchType !== 0 && missesLanding(core, code)) return core.stop;
      if (code.records === NO_RECORDS) code.records = new Int32Array(code.size);
      const inside = until !== undefined && code.hi === untilHi;
      const untilAt = inside ? (untilLo - code.lo) | 0 : -1;
      left = execute(core, code, left, untilAt, stops && code.breakpoints > 0);
      switch (core.exit) {
        case EXIT.LEFT:
          continue;
        case EXIT.BUDGET:
          return { kind: 'budget' };
        case EXIT.UNTIL:
          return { kind: 'until' };
        case EXIT.BREAKPOINT:
          return { kind: 'breakpoint', address: core.pc };
        default:
          return core.stop;
      }
    }
  }

  /**
   * pc is where nothing can be fetched. Stop addresses and breakpoints may be there all the same.
   */
  #outside(left: number, until: bigint | undefined, stops: boolean): Stop {
    const { pc } = this.#core;
    if (stops && until !== undefined && u64(until) === pc) return { kind: 'until' };
    if (stops && this.#breakpoints.has(pc)) return { kind: 'breakpoint', address: pc };
    if (left === 0) return { kind: 'budget' };
    const fault = this.memory.faultAt(pc, 4, 'fetch');
    return {
      kind: 'fault',
      fault: fault ?? { access: 'fetch', address: pc, size: 4, reason: 'unmapped' },
    };
  }
}

function mark(code: Code, address: bigint, value: 0 | 1): void {
  const at = (low32(address) - code.lo) >>> 0;
  if (high32(address) !== code.hi || at >= code.size || (at & 3) !== 0) return;
  code.marks[at >> 2] = value;
  code.breakpoints += value === 1 ? 1 : -1;
}

function checkRegister(register: number): number {
  if (Number.isInteger(register) && register >= 0 && register <= 30) return register;
  throw new RangeError(`no register X${register}`);
}

/** Of X0..X30 and SP. */
function checkSlot(register: number): number {
  return register === SP_SLOT ? register : checkRegister(register);
}

function minimum(a: bigint, b: bigint): bigint {
  return a < b ? a : b;
}

function maximum(a: bigint, b: bigint): bigint {
  return a > b ? a : b;
}
