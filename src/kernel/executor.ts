/**
 * Runs tasks: A64 text on the CPU engine, TypeScript bodies where the text hits their BRK.
 *
 * A body that calls another kernel function is suspended (it is a generator), the callee runs on the
 * CPU with x30 at the body's BRK, and when it returns there the body goes on with x0. So traced
 * functions, trampolines and unwinders see an ordinary caller. A callee that has a TypeScript body and
 * nothing attached is entered directly, without its text, unless `everyInstruction` asks for the text.
 * An atomic body that calls others stays on the JavaScript stack meanwhile (`invoke`): what it called may
 * not sleep.
 *
 * Reference for the shape: cpu_switch_to and ret_from_fork of arm64. Left out: interrupts, preemption
 * by time, EL0.
 */
import { hex64, high32, join64, low32 } from '../common/bytes.js';
import { InputError } from '../common/errors.js';
import { PC, SP, type Cpu, type Registers, type Stop } from '../cpu/cpu.js';
import { MemoryAccessError, type AccessFault } from '../cpu/fault.js';
import { captureOops, type Oops, type OopsStop } from '../cpu/oops.js';
import type { BodyGenerator, Effect, KernelContext, KernelFunction } from './function.js';
import type { SymbolTable } from './symbols.js';
import type { InvokeFrame, Task, TextPlace } from './task.js';
import { KERNEL_BODY_BRK, type KernelText } from './text.js';

/** Most instructions one run of a task may take: beyond it the lab says soft lockup. */
const DEFAULT_BUDGET = 1_000_000_000;

/** Arguments in x0..x7. */
const IN_REGISTERS = 8;

/** X0..X30 of a fresh task. */
const ZEROS: readonly bigint[] = Array.from({ length: 31 }, () => 0n);

/** Emulated code did what would be an oops or a lockup. The message is one line. */
export class KernelOops extends Error {
  /** Registers, call trace and code; absent for a lockup. */
  readonly oops: Oops | undefined;

  constructor(message: string, oops?: Oops) {
    super(message);
    this.name = 'KernelOops';
    this.oops = oops;
  }
}

/** Gives a fault at `pc` a new pc (exception table) or undefined for an oops. */
export type FaultFixup = (pc: bigint, fault: AccessFault, cpu: Cpu) => bigint | undefined;

export interface ExecutorParts {
  readonly text: KernelText;
  readonly symbols: SymbolTable;
  readonly context: KernelContext;
  readonly fixup: FaultFixup;
  /** True when nothing is attached to the function, so that its text may be skipped. */
  readonly siteIsOff: (address: bigint) => boolean;
}

export class Executor {
  /** Enter every function through its text, traced or not. */
  everyInstruction = false;
  /** Most instructions of one run. */
  budget = DEFAULT_BUDGET;
  /** X0..X30 of a fresh task, arguments and return address apart. */
  freshRegisters: readonly bigint[] = ZEROS;
  /** Handlers of other BRKs by immediate: true when the BRK was theirs and pc is where to go on. */
  readonly breaks = new Map<number, (cpu: Cpu) => boolean>();
  /** Called when a CPU reaches an address, before it executes it. */
  readonly #watches = new Map<bigint, (cpu: Cpu) => void>();
  readonly #parts: ExecutorParts;
  /** What `prepare` gave a CPU last. */
  #prepared: Registers | undefined;
  /** A frame of `invokeHalves` that is not in use. */
  #spare: InvokeFrame | undefined;
  readonly #run = { budget: 0 };
  /** Address of the BRK that a task's first function returns to. */
  readonly #returnAddress: bigint;

  constructor(parts: ExecutorParts, returnAddress: bigint) {
    this.#parts = parts;
    this.#returnAddress = returnAddress;
  }

  /**
   * Runs `target(args)` on a fresh task until it returns or sleeps. A TypeScript body begins without
   * its text if nothing would be seen of the text.
   */
  start(task: Task, cpu: Cpu, system: Registers['system'], target: bigint, args: bigint[]): void {
    this.prepare(task, cpu, system);
    cpu.sp = this.#pushArguments(task.stackTop, args.slice(IN_REGISTERS));
    task.state = 'running';
    const direct = this.#tryDirect(target, args);
    if (!direct) {
      this.#setCall(cpu, target, args.slice(0, IN_REGISTERS), this.#returnAddress);
      this.#loop(task, cpu);
    } else if (isGenerator(direct.result)) {
      task.frames.push({ kind: 'generator', generator: direct.result });
      if (!this.#resumeBodies(task, cpu, 0n)) this.#loop(task, cpu);
    } else {
      task.result = direct.result ?? 0n;
      task.state = 'done';
    }
  }

  /** Gives the CPU the registers of a task that has not run yet. */
  prepare(task: Task, cpu: Cpu, system: Registers['system']): void {
    const before = this.#prepared;
    const x = this.freshRegisters;
    const sp = task.stackTop;
    const isSame = before?.system === system && before.x === x && before.sp === sp;
    const registers = isSame ? before : { x, sp, pc: this.#returnAddress, nzcv: 0, system };
    this.#prepared = registers;
    cpu.loadRegisters(registers);
  }

  /** Calls a function for an atomic body of the task that runs, and waits for its return: x0. */
  invoke(task: Task, cpu: Cpu, target: bigint, args: readonly bigint[]): bigint {
    const address = this.#callerOf(task)?.address ?? this.#returnAddress;
    const frame: InvokeFrame = { kind: 'invoke', at: placeAt(address, cpu), lo: 0, hi: 0 };
    task.frames.push(frame);
    const direct = this.#tryDirect(target, args);
    if (!direct) {
      this.#setCall(cpu, target, args, address);
      this.#loop(task, cpu);
    } else if (isGenerator(direct.result)) {
      task.frames.push({ kind: 'generator', generator: direct.result });
      if (!this.#resumeBodies(task, cpu, 0n)) this.#loop(task, cpu);
    } else {
      setFrameResult(frame, direct.result ?? 0n);
    }
    task.frames.pop();
    return join64(frame.lo, frame.hi);
  }

  /**
   * As `invoke` for text that has no TypeScript body, with one argument in halves: the low half of x0. A
   * place on the stack that comes again is kept, so that calls in a row make nothing.
   */
  invokeHalves(task: Task, cpu: Cpu, target: bigint, lo: number, hi: number): number {
    const address = this.#callerOf(task)?.address ?? this.#returnAddress;
    const frame = this.#spare ?? { kind: 'invoke', at: placeAt(address, cpu), lo: 0, hi: 0 };
    this.#spare = undefined;
    const { at } = frame;
    if (at.address !== address || at.spLo !== cpu.low(SP) || at.spHi !== cpu.high(SP)) {
      frame.at = placeAt(address, cpu);
    }
    task.frames.push(frame);
    cpu.setHalves(0, lo, hi);
    cpu.setX(30, address);
    cpu.pc = target;
    this.#loop(task, cpu);
    task.frames.pop();
    this.#spare = frame;
    return frame.lo;
  }

  /** What an error that a body throws is to the kernel: an access that memory refuses is an oops. */
  asOops(task: Task, cpu: Cpu, error: unknown): unknown {
    if (!(error instanceof MemoryAccessError)) return error;
    return this.#oops(task, cpu, { kind: 'fault', fault: error.fault });
  }

  /** Goes on with a task that slept. */
  resume(task: Task, cpu: Cpu): void {
    if (!task.registers) throw new InputError(`task ${task.name} does not sleep`);
    cpu.loadRegisters(task.registers);
    task.registers = undefined;
    task.state = 'running';
    if (!this.#resumeBodies(task, cpu, 0n)) this.#loop(task, cpu);
  }

  /** Calls `watcher` whenever a CPU of `cpus` is about to execute `address`; returns the way to end it. */
  watch(cpus: readonly Cpu[], address: bigint, watcher: (cpu: Cpu) => void): () => void {
    this.#watches.set(address, watcher);
    for (const cpu of cpus) cpu.addBreakpoint(address);
    return () => {
      this.#watches.delete(address);
      for (const cpu of cpus) cpu.removeBreakpoint(address);
    };
  }

  #loop(task: Task, cpu: Cpu): void {
    let left = this.budget;
    for (;;) {
      const before = cpu.executed;
      this.#run.budget = left;
      let stop = cpu.run(this.#run);
      const watcher = stop.kind === 'breakpoint' && this.#watches.get(stop.address);
      if (watcher) {
        watcher(cpu);
        stop = cpu.step();
      }
      left -= cpu.executed - before;
      if (this.#handle(task, cpu, stop, left)) return;
    }
  }

  /** True when the task is done or sleeps, or the innermost `invoke` has its result. */
  #handle(task: Task, cpu: Cpu, stop: Stop, left: number): boolean {
    switch (stop.kind) {
      case 'trap':
        if (stop.instruction === 'brk' && stop.immediate === KERNEL_BODY_BRK) {
          return this.#bodyTrap(task, cpu);
        }
        if (stop.instruction === 'brk' && this.breaks.get(stop.immediate)?.(cpu)) return false;
        throw this.#oops(task, cpu, stop);
      case 'fault': {
        const pc = this.#parts.fixup(cpu.pc, stop.fault, cpu);
        if (pc === undefined) throw this.#oops(task, cpu, stop);
        cpu.pc = pc;
        return false;
      }
      case 'budget':
        if (left > 0) return false;
        throw new KernelOops(
          `soft lockup: ${this.budget} instructions without return, pc ${this.#parts.symbols.format(cpu.pc)}`,
        );
      case 'undefined':
        throw this.#oops(task, cpu, stop);
      case 'until':
      case 'breakpoint':
        throw new InputError(`nobody waits for the ${stop.kind} stop at ${hex64(cpu.pc)}`);
    }
  }

  /** At a body's BRK: a callee came back to a waiting body, or a body begins. */
  #bodyTrap(task: Task, cpu: Cpu): boolean {
    leaveUnwound(task, cpu.low(SP), cpu.high(SP));
    const innermost = task.frames.at(-1);
    if (innermost?.kind === 'invoke' && isAt(innermost.at, cpu)) {
      innermost.lo = cpu.low(0);
      innermost.hi = cpu.high(0);
      return true;
    }
    const fn = this.#parts.text.bodies.at(cpu.high(PC), cpu.low(PC));
    const waiting = this.#callerOf(task);
    const isReturn = waiting !== undefined && isAt(waiting, cpu);
    if (fn?.leaf && !isReturn) {
      this.#runLeaf(task, cpu, fn.leaf);
      return false;
    }
    const pc = cpu.pc;
    if (pc === this.#returnAddress) {
      if (task.frames.length > 0) return this.#resumeBodies(task, cpu, cpu.getX(0));
      task.result = cpu.getX(0);
      task.state = 'done';
      return true;
    }
    if (isReturn) return this.#resumeBodies(task, cpu, cpu.getX(0));
    if (!fn) throw new InputError(`no body belongs to the BRK at ${hex64(pc)}`);
    const args: bigint[] = [];
    for (let i = 0; i < fn.parameters; i++) args.push(cpu.getX(i));
    if (fn.entry?.calls) task.frames.push({ kind: 'atomic', at: placeAt(pc, cpu) });
    const result = this.#begin(task, cpu, fn, args);
    if (isGenerator(result)) {
      const at = placeAt(pc, cpu);
      task.frames.push({ kind: 'generator', generator: result, at });
      return this.#resumeBodies(task, cpu, 0n);
    }
    if (fn.entry?.calls) task.frames.pop();
    if (result !== undefined) cpu.setX(0, result);
    cpu.pc = pc + 4n;
    return false;
  }

  /**
   * Goes on with the innermost body until text has to run (false), or the task sleeps or is done or the
   * innermost `invoke` has its result (true).
   */
  #resumeBodies(task: Task, cpu: Cpu, value: bigint): boolean {
    let input = value;
    for (;;) {
      const frame = task.frames.at(-1);
      if (!frame) {
        // a body entered without text was the task's first function
        task.result = input;
        task.state = 'done';
        return true;
      }
      if (frame.kind === 'invoke') {
        setFrameResult(frame, input);
        return true;
      }
      if (frame.kind === 'atomic') throw new InputError('an atomic body is not resumed');
      const next = this.#continue(task, cpu, frame.generator, input);
      if (next.done) {
        task.frames.pop();
        if (frame.at) {
          if (next.value !== undefined) cpu.setX(0, next.value);
          cpu.pc = frame.at.address + 4n;
          return false;
        }
        input = next.value ?? 0n;
        continue;
      }
      const effect = next.value;
      switch (effect.kind) {
        case 'step':
          input = 0n;
          break;
        case 'sleep':
          if (task.frames.some(({ kind }) => kind === 'invoke')) {
            throw new KernelOops(`BUG: scheduling while atomic: ${task.name}/${task.pid}`);
          }
          task.channel = effect.channel;
          task.state = 'sleeping';
          task.registers = cpu.saveRegisters();
          return true;
        case 'call': {
          const target =
            typeof effect.target === 'string'
              ? this.#parts.symbols.get(effect.target).address
              : effect.target;
          const direct = this.#tryDirect(target, effect.args);
          if (direct === undefined) {
            const returnTo = this.#callerOf(task)?.address ?? this.#returnAddress;
            this.#setCall(cpu, target, effect.args, returnTo);
            return false;
          }
          if (isGenerator(direct.result)) {
            task.frames.push({ kind: 'generator', generator: direct.result });
            input = 0n;
          } else {
            input = direct.result ?? 0n;
          }
          break;
        }
      }
    }
  }

  /** The innermost text on the task's stack: what a body calls returns to it. */
  #callerOf(task: Task): TextPlace | undefined {
    const { frames } = task;
    for (let i = frames.length - 1; i >= 0; i--) {
      const at = frames[i]?.at;
      if (at) return at;
    }
    return undefined;
  }

  #runLeaf(task: Task, cpu: Cpu, leaf: (cpu: Cpu) => void): void {
    const lo = cpu.low(PC);
    const hi = cpu.high(PC);
    try {
      leaf(cpu);
    } catch (error) {
      throw this.asOops(task, cpu, error);
    }
    // a function does not cross a 4 GiB boundary
    cpu.setHalves(PC, (lo + 4) | 0, hi);
  }

  /** Begins a TypeScript body without its text, if nothing would be seen of the text. */
  #tryDirect(
    target: bigint,
    args: readonly bigint[],
  ): { result: bigint | void | BodyGenerator<bigint | void> } | undefined {
    if (this.everyInstruction) return undefined;
    const fn = this.#parts.text.functions.get(target);
    if (!fn || !(fn.notrace || this.#parts.siteIsOff(target))) return undefined;
    return { result: fn.body(this.#parts.context, ...args.slice(0, fn.parameters)) };
  }

  /** Begins a body; an access that memory refuses is an oops of the function. */
  #begin(
    task: Task,
    cpu: Cpu,
    fn: KernelFunction,
    args: bigint[],
  ): ReturnType<KernelFunction['body']> {
    try {
      return fn.body(this.#parts.context, ...args);
    } catch (error) {
      throw this.asOops(task, cpu, error);
    }
  }

  #continue(
    task: Task,
    cpu: Cpu,
    generator: BodyGenerator<bigint | void>,
    input: bigint,
  ): IteratorResult<Effect, bigint | void> {
    try {
      return generator.next(input);
    } catch (error) {
      throw this.asOops(task, cpu, error);
    }
  }

  /** Arguments beyond x7, from sp on; the new sp. */
  #pushArguments(top: bigint, args: readonly bigint[]): bigint {
    const sp = top - BigInt(16 * Math.ceil(args.length / 2));
    const { memory } = this.#parts.context;
    args.forEach((value, i) => memory.write64(sp + BigInt(8 * i), BigInt.asUintN(64, value)));
    return sp;
  }

  #setCall(cpu: Cpu, target: bigint, args: readonly bigint[], returnTo: bigint): void {
    if (args.length > IN_REGISTERS) {
      throw new InputError(`${args.length} arguments do not fit x0..x7`);
    }
    args.forEach((value, i) => cpu.setX(i, value));
    cpu.setX(30, returnTo);
    cpu.pc = target;
  }

  #oops(task: Task, cpu: Cpu, stop: OopsStop): KernelOops {
    const { symbols } = this.#parts;
    const oops = captureOops(cpu, stop, { symbols, task: task.name });
    const detail = oops.detail === undefined ? '' : `, ${oops.detail}`;
    return new KernelOops(`${oops.title}${detail}, pc ${oops.pcSymbol}`, oops);
  }
}

function isAt(place: TextPlace, cpu: Cpu): boolean {
  return (
    low32(place.address) === cpu.low(PC) &&
    high32(place.address) === cpu.high(PC) &&
    place.spLo === cpu.low(SP) &&
    place.spHi === cpu.high(SP)
  );
}

function placeAt(address: bigint, cpu: Cpu): TextPlace {
  return { address, spLo: cpu.low(SP), spHi: cpu.high(SP) };
}

function setFrameResult(frame: InvokeFrame, value: bigint): void {
  frame.lo = low32(value);
  frame.hi = high32(value);
}

/** Bodies whose stack somebody has unwound (bpf_throw) do not go on. */
function leaveUnwound(task: Task, spLo: number, spHi: number): void {
  const { frames } = task;
  for (let i = 0; i < frames.length; i++) {
    const at = frames[i]?.at;
    if (!at) continue;
    const isBelow = at.spHi === spHi ? at.spLo >>> 0 < spLo >>> 0 : at.spHi >>> 0 < spHi >>> 0;
    if (!isBelow) continue;
    task.leaveFrames(i);
    return;
  }
}

function isGenerator(
  result: bigint | void | BodyGenerator<bigint | void>,
): result is BodyGenerator<bigint | void> {
  return typeof result === 'object';
}
