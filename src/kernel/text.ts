/**
 * The executable text of the kernel image: where functions are placed and what they look like.
 *
 * A traceable function is compiled with the -fpatchable-function-entry of the ftrace profile
 * (`ftrace/site-form.ts`). One whose body is TypeScript gets the entry of a compiled one and a BRK where the
 * body runs (see `function.ts`):
 *
 *        bti c                                [only in a BTI kernel]
 *        nop                   patch site     [absent if notrace]
 *        nop                                  [absent if notrace]
 *        stp x29, x30, [sp, #-16]!            [only if the body calls others]
 *        mov x29, sp                          [only if the body calls others]
 *        brk #KERNEL_BODY_BRK
 *        ldp x29, x30, [sp], #16              [only if the body calls others]
 *        ret
 *
 * Left out: init text, alternatives, PAC in the lab's own bodies.
 */
import { encode } from '../a64/codec.js';
import { alignUp } from '../common/bytes.js';
import { InputError } from '../common/errors.js';
import type { Memory, Region } from '../cpu/memory.js';
import { bti } from '../jit/emit.js';
import type { Assembler, FunctionEntry } from './assembler.js';
import { BodyTable } from './body-table.js';
import type { FtraceProfile } from './ftrace/profile.js';
import { SITE_SHAPES, mcountLocation } from './ftrace/site-form.js';
import type { KernelFunction } from './function.js';
import { asmOffsets } from './offsets.js';
import { parsePrototype, type Prototype } from './prototype.js';
import type { SymbolTable } from './symbols.js';
import { TEST_STRUCT_SIZES } from './test-types.js';

/** Immediate of the BRK behind which a TypeScript body stands; Linux uses none near it. */
export const KERNEL_BODY_BRK = 0xb0d1;

export const NOP = encode('NOP', {});
const BRK_BODY = encode('BRK', { imm16: KERNEL_BODY_BRK });
const RET = encode('RET', { Rn: 30 });
const PUSH_FRAME = encode('STP_pre', { sf: 1, imm7: -2, Rt2: 30, Rn: 31, Rt: 29 });
const SET_FRAME = encode('ADD_immediate', { sf: 1, sh: 0, imm12: 0, Rn: 31, Rd: 29 });
const POP_FRAME = encode('LDP_post', { sf: 1, imm7: 2, Rt2: 30, Rn: 31, Rt: 29 });

/** Bytes of text that are mapped by default; all functions of all models fit many times over. */
export const TEXT_SIZE = 0x40000;

export interface TextOptions {
  /** Where the region begins. */
  readonly address: bigint;
  readonly profile: FtraceProfile;
  /** Functions begin with `bti c` (CONFIG_ARM64_BTI_KERNEL). */
  readonly bti: boolean;
  /** Pages are guarded. */
  readonly guarded: boolean;
  /** Bytes. */
  readonly size: number;
}

/** A compiled function as words, without its entry. */
export interface WordFunction {
  readonly name: string;
  readonly words: readonly number[];
  /** Nobody takes its address: no BTI. Default false. */
  readonly isStatic?: boolean;
}

export class KernelText {
  readonly region: Region;
  /** Entries of __mcount_loc, not yet given to ftrace. */
  readonly mcountLocations: bigint[] = [];
  /** Distance of the patch site from the first word of a function with a TypeScript body. */
  readonly siteOffset: 4 | 8;
  /** TypeScript bodies by the address of their BRK. */
  readonly bodies = new BodyTable();
  /** Functions with a TypeScript body by entry address. */
  readonly functions = new Map<bigint, KernelFunction>();
  /** Prototypes by entry address: what BTF would say. */
  readonly prototypes = new Map<bigint, Prototype>();
  /** Names of the symbols that come from texts of `asm/`. */
  readonly assembled = new Set<string>();
  readonly #memory: Memory;
  readonly #symbols: SymbolTable;
  readonly #profile: FtraceProfile;
  /** How functions with a patch site begin. */
  readonly entry: FunctionEntry;
  #used = 0;

  constructor(memory: Memory, symbols: SymbolTable, options: TextOptions) {
    const { address, profile, guarded, size } = options;
    this.#memory = memory;
    this.#symbols = symbols;
    this.#profile = profile;
    this.entry = { ...SITE_SHAPES[profile.site], bti: options.bti };
    this.siteOffset = options.bti ? 8 : 4;
    this.region = memory.map({ name: 'kernel text', address, size, permissions: 'rx', guarded });
  }

  /** Address where the next function would begin (before its alignment). */
  get end(): bigint {
    return this.region.address + BigInt(this.#used);
  }

  /** Assembles one text of `asm/` and places it. Symbols placed before are known to it. */
  addAssembly(assembler: Assembler, file: string, source: string): void {
    this.#used = alignUp(this.#used, 16);
    const constants = new Map(asmOffsets(this.#profile));
    for (const { name, address } of this.#symbols) constants.set(name, address);
    // Keystone has no :lo12:
    const traceOp = constants.get('function_trace_op');
    if (traceOp !== undefined) {
      constants.set('FUNCTION_TRACE_OP_PAGE', traceOp & ~0xfffn);
      constants.set('FUNCTION_TRACE_OP_LO12', traceOp & 0xfffn);
    }
    const text = assembler.assemble(file, source, this.end, constants, this.entry);
    this.#append(text.bytes);
    for (const symbol of text.symbols) {
      this.#symbols.add(symbol.name, symbol.address, symbol.size);
      this.assembled.add(symbol.name);
      if (symbol.kind !== 'FUNCTION') continue;
      this.#addMcount(symbol.address, symbol.isStatic ?? false);
      if (!symbol.prototype) continue;
      const prototype = parsePrototype(symbol.prototype, TEST_STRUCT_SIZES);
      this.prototypes.set(symbol.address, prototype);
    }
  }

  /** Places the entry of a function whose body is TypeScript; returns its address. */
  addFunction(fn: KernelFunction): bigint {
    if (fn.parameters < 0 || fn.parameters > 8) {
      throw new InputError(`${fn.name}: ${fn.parameters} parameters do not fit x0..x7`);
    }
    const calls = fn.entry?.calls ?? fn.body.constructor.name === 'GeneratorFunction';
    const prologue = calls ? [PUSH_FRAME, SET_FRAME] : [];
    const epilogue = calls ? [POP_FRAME, RET] : [RET];
    const pad = this.entry.bti ? [bti('c')] : [];
    const site = fn.notrace ? pad : [...pad, NOP, NOP];
    const code = [...site, ...prologue, BRK_BODY, ...epilogue];
    this.#used = alignUp(this.#used, 16);
    if (!fn.notrace) this.#append(words(this.#before()));
    const address = this.end;
    this.#append(words(code));
    if (!fn.notrace) this.#addMcount(address, false);
    this.#symbols.add(fn.name, address, 4 * code.length);
    this.bodies.set(address + BigInt(4 * (site.length + prologue.length)), fn);
    this.functions.set(address, fn);
    this.prototypes.set(address, parsePrototype(fn.prototype, fn.structs));
    return address;
  }

  /** Places traceable functions that consist of words only. */
  addWordFunctions(functions: Iterable<WordFunction>): void {
    const align = 1 << this.entry.alignLog2;
    for (const { name, words: body, isStatic = false } of functions) {
      this.#used = alignUp(this.#used, align);
      this.#append(words(this.#before()));
      const address = this.end;
      const pad = this.entry.bti && !isStatic ? [bti('c')] : [];
      const code = [...pad, NOP, NOP, ...body];
      this.#append(words(code));
      this.#symbols.add(name, address, 4 * code.length);
      this.#addMcount(address, isStatic);
    }
  }

  /** Places raw words under a symbol. */
  addWords(name: string, code: readonly number[]): bigint {
    this.#used = alignUp(this.#used, 8);
    const address = this.end;
    this.#append(words(code));
    this.#symbols.add(name, address, 4 * code.length);
    return address;
  }

  /** The NOPs before a symbol. */
  #before(): number[] {
    const { before } = this.entry;
    return Array.from({ length: before }, () => NOP);
  }

  #addMcount(address: bigint, isStatic: boolean): void {
    this.mcountLocations.push(this.mcountLocation(address, isStatic));
  }

  /** Entry of __mcount_loc for a function. */
  mcountLocation(address: bigint, isStatic: boolean): bigint {
    return mcountLocation(this.#profile.site, address, this.entry.bti && !isStatic);
  }

  #append(bytes: Uint8Array): void {
    if (this.#used + bytes.length > this.region.size) throw new InputError('kernel text is full');
    this.#memory.pokeBytes(this.end, bytes);
    this.#used += bytes.length;
  }
}

function words(code: readonly number[]): Uint8Array {
  const bytes = new Uint8Array(4 * code.length);
  // not through a view: it would move the bytes of each function out of the JavaScript heap
  let at = 0;
  for (const word of code) {
    for (let shift = 0; shift < 32; shift += 8) bytes[at++] = word >>> shift;
  }
  return bytes;
}
