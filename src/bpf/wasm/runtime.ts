/**
 * What wasm programs hold besides their code: the state region, stack frames, the table of regions,
 * the programs that tail calls reach, the reason of a stop; how helpers call functions of them.
 *
 * Several programs may share one, because one runs at a time. It listens to the memory: when a region
 * comes or goes, all cached regions are forgotten, also in the middle of a run (a helper may have done
 * it). Code is compiled for one runtime: the addresses of its state are constants in it.
 */
import { high32, join64, low32 } from '../../common/bytes.js';
import { InputError } from '../../common/errors.js';
import type { AccessFault, AccessKind } from '../../cpu/fault.js';
import type { Memory, MemoryListener, Region } from '../../cpu/memory.js';
import { ProgramExit, type BpfHost, type Callback, type RegisterPairs } from '../host.js';
import { MAX_TAIL_CALLS, tailCallTarget } from '../interpreter/calls.js';
import { holdsFunctionAddress } from '../interpreter/link.js';
import type { BpfMap } from '../maps/map.js';
import type { XlatedFunction, XlatedProgram } from '../program.js';
import { validate } from '../validate.js';
import { slotsWithCalls } from '../inlined-calls.js';
import type { Slot } from '../instruction.js';
import { PSEUDO } from '../opcodes.js';
import { compilePrograms, type CompiledModule } from './compile.js';
import type { Site } from './context.js';
import {
  ACCESS,
  ENTRY,
  ENTRY_READ,
  ENTRY_WRITE,
  FRAME_BYTES,
  MAX_CALL_FRAMES,
  REGISTER_COUNT,
  SLOT,
  STACK_SIZE,
  STATE,
  STOP,
} from './state.js';

/**
 * Instructions until a loop of the first function is left and entered again: engines that have
 * optimised code by then run that, but exchange no code under a running loop.
 */
const FIRST_SLICE = 1 << 20;
const LONGEST_SLICE = 1 << 28;

/** Thrown through wasm frames: the run is over, and `Runtime.reason` says why. */
export class StopSignal extends Error {
  constructor() {
    super('the program was stopped');
    this.name = 'StopSignal';
  }
}

/** Why a run was stopped; `site` is where. */
export type StopReason =
  | { readonly kind: 'fault'; readonly site: number; readonly fault: AccessFault }
  | { readonly kind: 'budget'; readonly site: number }
  | { readonly kind: 'call_depth'; readonly site: number }
  | { readonly kind: 'call_target'; readonly site: number; readonly target: bigint };

/** Runs a function; R1..R5 and R0 are in the state. */
type EnterFunction = (index: number, depth: number) => void;

/** A compiled program: how to run its functions, the first of which is number `first`. */
export interface Entry {
  readonly enter: EnterFunction;
  readonly first: number;
}

/** Budget of a callback that no run calls. */
const TIMER_BUDGET = 1e9;
/** First and last word of R1..R5 and of R6..R9. */
const ARGUMENTS = [2, 12] as const;
const SAVED = [12, 20] as const;

export interface RuntimeOptions {
  /** Instructions until loops are first left and entered again. Default: 2^20; Infinity: never. */
  readonly slice?: number;
  /** Programs need not be checked. Default false. */
  readonly validated?: boolean;
}

export class Runtime implements MemoryListener {
  readonly host: BpfHost;
  readonly memory: Memory;
  /** R0..R11 in the state region. */
  readonly words: Int32Array;
  reason: StopReason | undefined;
  /** Functions and slots of all sites. */
  readonly sites: Site[] = [];

  readonly #view: DataView;
  readonly #state: Region;
  readonly #at: number;
  readonly #regions: Region[] = [];
  readonly #frames: Region[] = [];
  /** Offset and number of slots of each program. */
  readonly #slots: { readonly first: number; readonly count: number }[] = [];
  /** Maps that code looks into itself. */
  readonly #maps = new Set<BpfMap>();
  readonly #targets = new Map<XlatedProgram, Entry>();
  /** What `host.addCallbacks` gave. */
  readonly #callbackBases: bigint[] = [];
  readonly #signal = new StopSignal();
  #table: Region;
  #isDirty = true;
  #isRunning = false;
  #remaining = 0;
  #slice = 0;
  readonly #firstSlice: number;
  readonly #validated: boolean;
  #nextSlice = 0;
  #tailCalls = 0;
  #users = 0;

  constructor(host: BpfHost, frameCount: number, options: RuntimeOptions) {
    this.host = host;
    this.#firstSlice = options.slice ?? FIRST_SLICE;
    this.#validated = options.validated ?? false;
    this.memory = host.memory;
    this.#view = this.memory.view;
    this.#mapFrames(frameCount);
    this.#state = this.#allocate('bpf_wasm_state', STATE.size);
    this.#at = this.#state.offset;
    this.#table = this.#allocate('bpf_wasm_regions', 4080);
    this.words = new Int32Array(this.memory.wasm.buffer, this.#at, 2 * REGISTER_COUNT);
    this.#putFrames();
    this.memory.listen(this);
  }

  /**
   * Decodes, compiles and links programs, and the targets of their tail calls, as one module. Throws
   * InputError when one cannot run.
   */
  load(programs: readonly XlatedProgram[], targets: readonly XlatedProgram[] = []): Entry[] {
    const entries = this.#loadAll([...programs, ...targets], programs.length);
    for (const [index, target] of targets.entries()) {
      this.#targets.set(target, entries[programs.length + index] as Entry);
    }
    return entries.slice(0, programs.length);
  }

  /** Those from number `firstTarget` on are reached by tail calls. */
  #loadAll(programs: readonly XlatedProgram[], firstTarget: number): Entry[] {
    const decoded = programs.map(({ functions }) => functions.map(slotsWithCalls));
    if (!this.#validated) {
      for (const [index, program] of programs.entries()) {
        checkProgram(program, decoded[index] ?? [], this.host);
      }
    }
    const entries: Entry[] = [];
    const compiled = compilePrograms(
      programs.map((program, index) => ({
        program,
        slots: decoded[index] ?? [],
        callbackBase: this.#addCallbacks(program, decoded[index] ?? [], () => entries[index]),
        isTarget: index >= firstTarget,
      })),
      this.host,
      {
        state: this.#at,
        allocateSlots: (count) => this.#allocateSlots(count),
        firstSite: this.sites.length,
        isResumable: this.#firstSlice <= LONGEST_SLICE,
      },
    );
    for (const site of compiled.sites) this.sites.push(site);
    for (const map of compiled.maps) this.#maps.add(map);
    if (compiled.hasCalls && this.#frames.length < MAX_CALL_FRAMES) {
      this.#mapFrames(MAX_CALL_FRAMES);
      this.#putFrames();
    }
    const enter = this.#instantiate(compiled);
    for (const first of compiled.entries) entries.push({ enter, first });
    return entries;
  }

  #instantiate({ bytes, helpers }: CompiledModule): EnterFunction {
    const env: Record<string, WebAssembly.ImportValue> = {
      memory: this.memory.wasm,
      miss: this.#miss,
      refresh: this.#refresh,
      stop: this.#stop,
      refill: this.#refill,
      tail: this.#tail,
      callHelper: this.#callHelper,
      registers: new WebAssembly.Global({ value: 'externref', mutable: false }, this.words),
      host: new WebAssembly.Global({ value: 'externref', mutable: false }, this.host),
    };
    for (const [index, address] of helpers.entries()) {
      const body = this.host.helperAt(address);
      if (body) env[`helper ${index}`] = body;
    }
    const { enter } = new WebAssembly.Instance(new WebAssembly.Module(bytes), { env }).exports;
    if (typeof enter !== 'function') throw new RangeError('a module without enter');
    return enter as EnterFunction;
  }

  /** Runs from a clean start. Throws StopSignal, and what helpers throw. */
  run(entry: Entry, r1Hi: number, r1Lo: number, r2Hi: number, r2Lo: number, budget: number): void {
    const { words } = this;
    // store by store: `fill` is a call out of JavaScript
    words[0] = 0;
    words[1] = 0;
    words[2] = r1Lo;
    words[3] = r1Hi;
    words[4] = r2Lo;
    words[5] = r2Hi;
    for (let i = 6; i < 2 * REGISTER_COUNT; i++) words[i] = 0;
    this.#start(entry, 0, budget);
  }

  #start({ enter, first }: Entry, index: number, budget: number): void {
    if (this.#isRunning) throw new RangeError('a program runs already');
    const view = this.#view;
    const at = this.#at;
    this.reason = undefined;
    this.#tailCalls = 0;
    this.#remaining = budget;
    this.#nextSlice = this.#firstSlice;
    this.#slice = Math.min(budget, this.#firstSlice, LONGEST_SLICE);
    view.setInt32(at + STATE.fuel, this.#slice, true);
    view.setInt32(at + STATE.resume, 0, true);
    view.setInt32(at + STATE.cpu, this.host.currentCpu(), true);
    if (this.#isDirty) this.#forget();
    this.#isRunning = true;
    try {
      do {
        view.setInt32(at + STATE.yielded, 0, true);
        enter(first + index, 0);
      } while (view.getInt32(at + STATE.yielded, true) !== 0);
    } finally {
      this.#isRunning = false;
    }
  }

  /** Site of the helper that runs, or ran last. */
  get helperSite(): number {
    return this.#view.getInt32(this.#at + STATE.site, true);
  }

  /** Counts those who will each `close` it. */
  share(users: number): void {
    this.#users += users;
  }

  /** Gives everything back when the last user is gone. */
  close(): void {
    if (--this.#users > 0) return;
    this.memory.unlisten(this);
    for (const base of this.#callbackBases.splice(0)) this.host.removeCallbacks(base);
    for (const region of this.#regions.splice(0)) this.host.release(region);
  }

  mapped(): void {
    this.#changed();
  }

  unmapped(): void {
    this.#changed();
    // a freed map is no longer known, then its regions go
    for (const map of this.#maps) {
      if (this.host.mapAt(map.address) === map) continue;
      this.#view.setInt32(this.#at + STATE.mapsFreed, 1, true);
    }
  }

  #changed(): void {
    this.#isDirty = true;
    if (this.#isRunning) this.#forget();
  }

  /** Entries for the functions of a program that takes addresses of them; undefined for others. */
  #addCallbacks(
    { functions }: XlatedProgram,
    decoded: readonly (readonly Slot[])[],
    entryOf: () => Entry | undefined,
  ): bigint | undefined {
    if (!decoded.some(holdsFunctionAddress)) return undefined;
    const base = this.host.addCallbacks(
      functions.map(({ name }, index): Callback => (registers) => {
        const entry = entryOf();
        if (!entry) throw new RangeError(`${name} is called before it is compiled`);
        if (this.#isRunning) this.#callNested(entry, index, registers);
        else this.#callAlone(entry, index, registers);
      }),
    );
    this.#callbackBases.push(base);
    return base;
  }

  /** Calls a function for the helper that runs: on the next frame, with the fuel of the run. */
  #callNested({ enter, first }: Entry, index: number, registers: RegisterPairs): void {
    const { words, helperSite: site } = this;
    const view = this.#view;
    const depth = view.getInt32(this.#at + STATE.depth, true);
    if (depth + 1 >= MAX_CALL_FRAMES) this.#end({ kind: 'call_depth', site });
    const saved = words.slice(...SAVED);
    if (registers !== words) words.set(registers.subarray(...ARGUMENTS), ARGUMENTS[0]);
    enter(first + index, depth + 1);
    words.set(saved, SAVED[0]);
    view.setInt32(this.#at + STATE.site, site, true);
    view.setInt32(this.#at + STATE.depth, depth, true);
    registers[0] = words[0] as number;
    registers[1] = words[1] as number;
  }

  /** Calls a function when nothing runs, as timers do. */
  #callAlone(entry: Entry, index: number, registers: RegisterPairs): void {
    const { words } = this;
    words.fill(0);
    words.set(registers.subarray(...ARGUMENTS), ARGUMENTS[0]);
    this.#start(entry, index, TIMER_BUDGET);
    registers[0] = words[0] as number;
    registers[1] = words[1] as number;
  }

  /** The result of a program that a helper ended: an exception goes to the program's callback. */
  ended({ functions }: XlatedProgram, entry: Entry, { r0, isException }: ProgramExit): bigint {
    const callback = functions.findIndex((fn) => fn.exceptionCallback);
    if (!isException || callback < 0) return r0;
    const registers = new Int32Array(2 * REGISTER_COUNT);
    registers[2] = low32(r0);
    registers[3] = high32(r0);
    if (this.#isRunning) this.#callNested(entry, callback, registers);
    else this.#callAlone(entry, callback, registers);
    return join64(registers[0] ?? 0, registers[1] ?? 0);
  }

  #allocate(name: string, size: number): Region {
    const region = this.host.allocate(name, size);
    this.#regions.push(region);
    return region;
  }

  #mapFrames(count: number): void {
    while (this.#frames.length < count) {
      this.#frames.push(this.#allocate(`bpf_stack_${this.#frames.length}`, STACK_SIZE));
    }
  }

  #putFrames(): void {
    for (const [depth, { address, offset }] of this.#frames.entries()) {
      const at = this.#at + STATE.frames + depth * FRAME_BYTES;
      this.#view.setBigUint64(at, address + BigInt(STACK_SIZE), true);
      this.#view.setInt32(at + 8, offset, true);
    }
  }

  #allocateSlots(count: number): number {
    const first = this.#allocate('bpf_wasm_slots', count * SLOT.size).offset;
    this.#slots.push({ first, count });
    this.#changed();
    return first;
  }

  /** Every slot holds the first stack frame; the region table is out of date. */
  #forget(): void {
    const view = this.#view;
    const [frame] = this.#frames;
    if (!frame) throw new RangeError('no stack frame');
    for (const { first, count } of this.#slots) {
      for (let at = first; at < first + count * SLOT.size; at += SLOT.size) {
        view.setBigUint64(at + SLOT.lo, frame.address, true);
        view.setBigUint64(at + SLOT.limit, BigInt(STACK_SIZE - 8), true);
        view.setInt32(at + SLOT.delta, frame.offset - low32(frame.address), true);
      }
    }
    const generation = this.#at + STATE.generation;
    view.setInt32(generation, view.getInt32(generation, true) + 1, true);
    view.setInt32(this.#at + STATE.stale, 1, true);
    this.#isDirty = false;
  }

  readonly #refresh = (): void => {
    const { regions } = this.memory;
    if (regions.length * ENTRY.bytes > this.#table.size) {
      // the new table is a region too, hence one more than there are
      this.#table = this.#allocate('bpf_wasm_regions', 2 * (regions.length + 1) * ENTRY.bytes);
    }
    const view = this.#view;
    let at = this.#table.offset;
    for (const { address, size, offset, permissions } of regions) {
      const isText = permissions.includes('x');
      const isWritable = permissions.includes('w') && !isText;
      view.setBigUint64(at + ENTRY.lo, address, true);
      view.setBigUint64(at + ENTRY.size, BigInt(size), true);
      view.setInt32(at + ENTRY.delta, offset - low32(address), true);
      view.setInt32(at + ENTRY.flags, ENTRY_READ | (isWritable ? ENTRY_WRITE : 0), true);
      at += ENTRY.bytes;
    }
    view.setInt32(this.#at + STATE.table, this.#table.offset, true);
    view.setInt32(this.#at + STATE.tableCount, regions.length, true);
    view.setInt32(this.#at + STATE.stale, 0, true);
  };

  /** An access that the table does not allow: text that is stored to, or a fault. */
  readonly #miss = (address: bigint, site: number, bits: number): number => {
    const size = bits >>> ACCESS.sizeShift;
    const access: AccessKind = (bits & ACCESS.write) !== 0 ? 'write' : 'read';
    const hi = high32(address);
    const lo = low32(address);
    const { memory } = this;
    const at =
      access === 'write' ? memory.offsetWrite(hi, lo, size) : memory.offsetRead(hi, lo, size);
    if (at >= 0) return at;
    if ((bits & ACCESS.probe) !== 0) return -1;
    const start = join64(lo, hi);
    const fault = memory.faultAt(start, size, access);
    return this.#end({
      kind: 'fault',
      site,
      fault: fault ?? { access, address: start, size, reason: 'unmapped' },
    });
  };

  readonly #stop = (kind: number, site: number, value: bigint): void => {
    if (kind === STOP.callDepth) this.#end({ kind: 'call_depth', site });
    this.#end({ kind: 'call_target', site, target: BigInt.asUintN(64, value) });
  };

  /** The fuel of a slice is used up: 1 when the caller should leave and be resumed. */
  readonly #refill = (site: number, depth: number, canResume: number): number => {
    const left = this.#view.getInt32(this.#at + STATE.fuel, true);
    this.#remaining -= this.#slice - left;
    if (this.#remaining < 0) this.#end({ kind: 'budget', site });
    this.#slice = Math.min(this.#remaining, this.#nextSlice);
    this.#nextSlice = Math.min(LONGEST_SLICE, this.#nextSlice + (this.#nextSlice >> 2));
    this.#view.setInt32(this.#at + STATE.fuel, this.#slice, true);
    return depth === 0 ? canResume : 0;
  };

  /** 1 when the program of the slot has run, its R0 is in the state; 0 when there is none. */
  readonly #tail = (depth: number): number => {
    const program = tailCallTarget(this.host, this.words);
    if (!program || this.#tailCalls >= MAX_TAIL_CALLS) return 0;
    this.#tailCalls++;
    let entry = this.#targets.get(program);
    if (!entry) {
      this.load([], [program]);
      entry = this.#targets.get(program);
      if (!entry) throw new RangeError(`no entry for ${program.name}`);
    }
    try {
      entry.enter(entry.first, depth);
    } catch (error) {
      if (!(error instanceof ProgramExit && error.isException)) throw error;
      // to its caller it is a program that returned
      this.#view.setInt32(this.#at + STATE.depth, depth, true);
      const r0 = this.ended(program, entry, error);
      this.words[0] = low32(r0);
      this.words[1] = high32(r0);
    }
    return 1;
  };

  readonly #callHelper = (address: bigint, site: number): void => {
    const body = this.host.helperAt(BigInt.asUintN(64, address));
    if (!body) {
      return this.#end({ kind: 'call_target', site, target: BigInt.asUintN(64, address) });
    }
    this.#view.setInt32(this.#at + STATE.site, site, true);
    body(this.words, this.host);
  };

  #end(reason: StopReason): never {
    this.reason = reason;
    throw this.#signal;
  }
}

/** Throws InputError with the first problem, as linking for the interpreter does. */
function checkProgram(
  program: XlatedProgram,
  decoded: readonly (readonly Slot[])[],
  host: BpfHost,
): void {
  const [problem] = validate(program.functions, { allowAuxiliary: program.type !== 'raw' });
  if (problem !== undefined) throw new InputError(`program ${program.name}: ${problem}`);
  for (const [index, slots] of decoded.entries()) {
    const { name } = program.functions[index] as XlatedFunction;
    for (let insn = 0; insn < slots.length; insn++) {
      const { code, src, imm } = slots[insn] as Slot;
      if (code !== 0x85 || src === PSEUDO.CALL) continue;
      if (host.helperAt(host.callBase + BigInt(imm))) continue;
      throw new InputError(
        `program ${program.name}: ${name} insn ${insn}: call of unknown helper ${imm}`,
      );
    }
  }
}
