/**
 * From xlated programs to a WebAssembly module.
 *
 * The module exports `enter(index, depth)`, which takes R1..R5 from the state, runs function `index` of
 * its table and puts R0 there. The functions of a program lie behind each other in the table.
 * Everything it needs from outside is imported: the memory, the runtime's functions and one function
 * per helper.
 */
import type { BpfHost } from '../host.js';
import type { Slot } from '../instruction.js';
import type { BpfMap } from '../maps/map.js';
import type { XlatedProgram } from '../program.js';
import { emitCopies } from './access.js';
import { emitFuelCheck } from './block.js';

import { cutChunks, emitChunk, emitDriver, RETURNED, type Chunk } from './chunked.js';
import type {
  FunctionContext,
  FunctionPlan,
  Imports,
  Locals,
  ModuleContext,
  PointerClass,
  ProgramContext,
  Site,
  SlotCopy,
} from './context.js';
import { EXTERNREF, I32, I64, ModuleWriter, OP, type ValueType } from './emitter.js';
import { emitInlined } from './inline.js';
import { ARGUMENTS } from './liveness.js';
import { emitLocate, LOCATE_LOCALS, LOCATE_PARAMETERS } from './locate.js';
import { planProgram } from './plan.js';
import {
  ALL_REGISTERS,
  emitFill,
  emitFuelLoad,
  emitFuelStore,
  emitPair,
  emitSpill,
} from './registers.js';
import { FRAME_BYTES, MAX_PARAMETERS, STATE } from './state.js';
import { emitStructured } from './structured.js';

export interface CompileOptions {
  /** Offset of the state region. */
  readonly state: number;
  /** Offset of room for `count` slots. */
  readonly allocateSlots: (count: number) => number;
  /** Number of the first site. */
  readonly firstSite: number;
  /** Loops of the main function may be left and entered again. */
  readonly isResumable: boolean;
}

export interface ProgramSource {
  readonly program: XlatedProgram;
  /** Of each function. */
  readonly slots: readonly (readonly Slot[])[];
  /** Address of function 0; undefined when the program takes no addresses of functions. */
  readonly callbackBase: bigint | undefined;
  /** Tail calls reach it. */
  readonly isTarget: boolean;
}

export interface CompiledModule {
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** Entry addresses of helpers; helper N is import `helper N`. */
  readonly helpers: readonly bigint[];
  readonly sites: readonly Site[];
  /** Those that code looks into itself. */
  readonly maps: ReadonlySet<BpfMap>;
  readonly hasCalls: boolean;
  /** Where the functions of each program begin in the table. */
  readonly entries: readonly number[];
}

/** Most classes whose slots a function keeps in locals. */
const MAX_COPIES = 10;

/** Of a BPF function: so many registers, and the depth. */
function parameterTypes(registers: number): ValueType[] {
  return [...Array.from({ length: registers }, (): ValueType => I64), I32];
}

/** The programs have passed `validate` and call only helpers that the host knows. */
export function compilePrograms(
  sources: readonly ProgramSource[],
  host: BpfHost,
  options: CompileOptions,
): CompiledModule {
  const plans = sources.map((source) => planProgram(source, host, options));
  const functions = plans.flatMap((plan) => plan.functions);
  placeSlots(functions, options);
  const module = new ModuleWriter();
  const imports: Imports = {
    miss: module.import('miss', module.type([I64, I32, I32], [I32])),
    refresh: module.import('refresh', module.type([], [])),
    stop: module.import('stop', module.type([I32, I32, I64], [])),
    refill: module.import('refill', module.type([I32, I32, I32], [I32])),
    tail: module.import('tail', module.type([I32, I32], [I32])),
    callHelper: module.import('callHelper', module.type([I64, I32], [])),
  };
  const helpers = findHelpers(functions, host);
  const helperImports = new Map(
    helpers.map((address, index) => [
      address,
      module.import(`helper ${index}`, module.type([EXTERNREF, EXTERNREF], [])),
    ]),
  );
  const sites: Site[] = [];
  const maps = new Set<BpfMap>();
  const sharedFunctions = new Map<object | string, number>();
  const bpfType = module.type(parameterTypes(MAX_PARAMETERS), [I64]);
  const locate = module.declare(module.type(LOCATE_PARAMETERS, [I32]));
  module.define(locate, LOCATE_LOCALS, emitLocate(module.writer(), options.state, imports));
  const shared: ModuleContext = {
    host,
    state: options.state,
    imports,
    locate,
    bpfType,
    chunkType: module.type([I32, I32], [I32]),
    helperArguments: [
      module.importGlobal('registers', EXTERNREF),
      module.importGlobal('host', EXTERNREF),
    ],
    helper: (address) => helperImports.get(address) ?? -1,
    inline: emitInlined,
    bodyOf: (address) => host.helperAt(address),
    site: ({ name }, insn) => options.firstSite + sites.push({ function: name, insn }) - 1,
    shared(key, { parameters, results, locals, write }) {
      const known = sharedFunctions.get(key);
      if (known !== undefined) return known;
      const index = module.declare(module.type(parameters, results));
      sharedFunctions.set(key, index);
      const code = module.writer();
      write(code);
      module.define(index, locals, code);
      return index;
    },
    uses: (map) => void maps.add(map),
  };
  const table: number[] = [];
  const entries = plans.map((plan, index) => {
    const firstEntry = table.length;
    const program: ProgramContext = {
      ...shared,
      callbackBase: sources[index]?.callbackBase,
      plans: plan.functions,
      needs: plan.needs,
      functions: plan.functions.map(({ parameters }) =>
        module.declare(module.type(parameterTypes(parameters), [I64])),
      ),
      firstEntry,
    };
    table.push(...program.functions);
    for (const each of plan.functions) {
      if (each.isChunked) defineChunked(module, program, each, table);
      else defineStructured(module, program, each);
    }
    return firstEntry;
  });
  module.table(table);
  defineEnter(module, shared);
  return {
    bytes: module.bytes(host.memory.wasm.buffer.byteLength / 65536),
    helpers,
    sites,
    maps,
    hasCalls: plans.some(({ hasCalls }) => hasCalls),
    entries,
  };
}

function placeSlots(functions: readonly FunctionPlan[], { allocateSlots }: CompileOptions): void {
  const classes = functions.flatMap(({ classes: own }) => own);
  if (classes.length === 0) return;
  const first = allocateSlots(classes.length);
  for (const [index, kind] of classes.entries()) kind.slot = first + 24 * index;
}

/** Entry addresses of the helpers that must be called. */
function findHelpers(functions: readonly FunctionPlan[], host: BpfHost): bigint[] {
  const addresses = new Set<bigint>();
  for (const { slots } of functions) {
    for (const { code, src, imm } of slots) {
      if (code === 0x85 && src !== 1) addresses.add(host.callBase + BigInt(imm));
    }
  }
  return [...addresses];
}

/** Locals of a BPF function: parameters R1..RN and depth, then the rest. */
function bpfLocals(
  parameters: number,
  copied: readonly PointerClass[],
  inlines: boolean,
): {
  readonly locals: Locals;
  readonly groups: [number, ValueType][];
} {
  // R0 and R6..R11, address, temporary, and what is no parameter of R1..R5
  const ownI64 = 9 + (MAX_PARAMETERS - parameters) + 2 * copied.length;
  const i64Count = ownI64 + (inlines ? 12 : 0);
  const firstOwn = parameters + 1;
  const first32 = firstOwn + i64Count;
  let next = firstOwn;
  const registers = Array.from({ length: 12 }, (_, register) =>
    register >= 1 && register <= parameters ? register - 1 : next++,
  );
  const address = next++;
  const temporary = next++;
  const firstCopy = next;
  const copies = new Map<PointerClass, SlotCopy>(
    copied.map((kind, index) => [
      kind,
      { lo: firstCopy + 2 * index, limit: firstCopy + 2 * index + 1, delta: first32 + 7 + index },
    ]),
  );
  return {
    locals: {
      registers,
      address,
      temporary,
      depth: parameters,
      at: first32,
      fuel: first32 + 1,
      frame: first32 + 2,
      generation: first32 + 3,
      resume: first32 + 4,
      next: first32 + 5,
      second: first32 + 6,
      copies,
      inlined: inlines
        ? {
            registers: Array.from({ length: 12 }, (_, register) => firstOwn + ownI64 + register),
            frame: first32 + 7 + copied.length,
          }
        : undefined,
    },
    groups: [
      [i64Count, I64],
      [8 + copied.length, I32],
    ],
  };
}

/** Locals of a chunk: parameters next and depth, then the rest. */
function chunkLocals(): { readonly locals: Locals; readonly groups: [number, ValueType][] } {
  return {
    locals: {
      registers: [2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13],
      address: 14,
      temporary: 15,
      depth: 1,
      next: 0,
      at: 16,
      fuel: 17,
      frame: 18,
      generation: 19,
      resume: 20,
      second: 21,
      copies: new Map(),
      inlined: { registers: Array.from({ length: 12 }, (_, register) => 22 + register), frame: 34 },
    },
    groups: [
      [14, I64],
      [6, I32],
      [12, I64],
      [1, I32],
    ],
  };
}

function defineStructured(module: ModuleWriter, program: ProgramContext, plan: FunctionPlan): void {
  const copied = plan.classes.filter(({ inLoop }) => inLoop).slice(0, MAX_COPIES);
  const { locals, groups } = bpfLocals(
    plan.parameters,
    copied,
    program.plans.some(({ isInlined }) => isInlined),
  );
  const code = module.writer();
  const context: FunctionContext = {
    program,
    plan,
    code,
    locals,
    leave() {
      emitSpill(context, program.needs.out[plan.index] as number);
      emitFuelStore(context);
      code.get(locals.registers[0] as number).op(OP.return);
    },
  };
  emitFrame(context);
  emitFill(context, program.needs.in[plan.index] as number);
  if (plan.canResume) {
    code
      .i32(0)
      .memory(OP.i32_load, program.state + STATE.resume)
      .tee(locals.resume);
    code.open(OP.if);
    emitFill(context, ALL_REGISTERS);
    code
      .i32(0)
      .i32(0)
      .memory(OP.i32_store, program.state + STATE.resume)
      .end();
  }
  emitFuelLoad(context);
  emitEntryCharge(context);
  if (locals.copies.size > 0) {
    emitCopies(context);
    code
      .i32(0)
      .memory(OP.i32_load, program.state + STATE.generation)
      .set(locals.generation);
  }
  emitStructured(context);
  module.define(program.functions[plan.index] as number, groups, code);
}

/** A called function looks whether fuel is left; one that does not count blocks takes its length off. */
function emitEntryCharge(context: FunctionContext): void {
  const { code, locals, plan, program } = context;
  if (!plan.isCalled || plan.fuel === 'callers') return;
  if (plan.fuel === 'entry') {
    const fuel = program.state + STATE.fuel;
    code.i32(0).i32(0).memory(OP.i32_load, fuel).i32(plan.length).op(OP.i32_sub).tee(locals.fuel);
    code.memory(OP.i32_store, fuel);
  }
  emitFuelCheck(context, 0, 0);
}

/** R10 and the offset of the stack frame. */
function emitFrame({ code, locals, plan, program }: FunctionContext): void {
  if (!plan.usesFrame) return;
  const frames = program.state + STATE.frames;
  code.get(locals.depth).i32(FRAME_BYTES).op(OP.i32_mul).tee(locals.at);
  code.memory(OP.i64_load, frames).set(locals.registers[10] as number);
  code
    .get(locals.at)
    .memory(OP.i32_load, frames + 8)
    .set(locals.frame);
}

function defineChunked(
  module: ModuleWriter,
  program: ProgramContext,
  plan: FunctionPlan,
  table: number[],
): void {
  const chunks = cutChunks(plan);
  const first = table.length;
  for (const chunk of chunks) {
    const index = module.declare(program.chunkType);
    table.push(index);
    defineChunk(module, program, plan, chunks, chunk, index);
  }
  const { locals, groups } = bpfLocals(plan.parameters, [], false);
  const code = module.writer();
  const context: FunctionContext = { program, plan, code, locals, leave: () => undefined };
  emitSpill(context, ARGUMENTS);
  emitFuelLoad(context);
  emitEntryCharge(context);
  emitFuelStore(context);
  emitDriver(context, first);
  emitFill(context, 1);
  code.get(locals.registers[0] as number);
  module.define(program.functions[plan.index] as number, groups, code);
}

function defineChunk(
  module: ModuleWriter,
  program: ProgramContext,
  plan: FunctionPlan,
  chunks: readonly Chunk[],
  chunk: Chunk,
  index: number,
): void {
  const { locals, groups } = chunkLocals();
  const code = module.writer();
  const context: FunctionContext = {
    program,
    plan,
    code,
    locals,
    leave() {
      emitSpill(context, ALL_REGISTERS);
      emitFuelStore(context);
      code.i32(RETURNED).op(OP.return);
    },
  };
  emitFrame(context);
  emitFill(context, ALL_REGISTERS);
  emitFuelLoad(context);
  emitChunk(context, chunks, chunk);
  module.define(index, groups, code);
}

/** enter(index, depth): R1..R5 from the state, R0 to it. */
function defineEnter(module: ModuleWriter, { state, bpfType }: ModuleContext): void {
  const code = module.writer();
  // the address that R0 is stored at
  code.i32(0);
  for (let register = 1; register <= 5; register++) {
    emitPair(code, state + STATE.registers + 8 * register);
  }
  code
    .get(1)
    .get(0)
    .callIndirect(bpfType)
    .memory(OP.i64_store, state + STATE.registers);
  const index = module.declare(module.type([I32, I32], []));
  module.define(index, [], code);
  module.export('enter', index);
}
