/**
 * The executable text of the kernel image: where functions are placed and what they look like.
 *
 * A traceable function has the `=4,2` form of -fpatchable-function-entry (two NOPs before the symbol,
 * two behind it, 8-byte aligned); its mcount entry is the first NOP, F-8. A function whose body is
 * TypeScript gets the entry of a compiled one and a BRK where the body runs (see `function.ts`):
 *
 *   F+0  nop            patch site            [absent if notrace]
 *   F+4  nop                                  [absent if notrace]
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
import type { Assembler } from './assembler.js';
import type { KernelFunction } from './function.js';
import type { Layout } from './layout/layout.js';
import { ASM_OFFSETS } from './offsets.js';
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

/** Bytes of text the lab maps; all functions of all models fit many times over. */
const TEXT_SIZE = 0x40000;

export class KernelText {
  readonly region: Region;
  /** Entries of __mcount_loc: F-8 of each traceable function, not yet given to ftrace. */
  readonly mcountLocations: bigint[] = [];
  /** TypeScript bodies by the address of their BRK. */
  readonly bodies = new Map<bigint, KernelFunction>();
  /** Functions with a TypeScript body by entry address. */
  readonly functions = new Map<bigint, KernelFunction>();
  /** Prototypes by entry address: what BTF would say. */
  readonly prototypes = new Map<bigint, Prototype>();
  /** Names of the symbols that come from texts of `asm/`. */
  readonly assembled = new Set<string>();
  readonly #memory: Memory;
  readonly #symbols: SymbolTable;
  #used = 0;

  constructor(memory: Memory, layout: Layout, symbols: SymbolTable, guarded = false) {
    this.#memory = memory;
    this.#symbols = symbols;
    this.region = memory.map({
      name: 'kernel text',
      address: layout.stext,
      size: TEXT_SIZE,
      permissions: 'rx',
      guarded,
    });
  }

  /** Address where the next function would begin (before its alignment). */
  get end(): bigint {
    return this.region.address + BigInt(this.#used);
  }

  /** Assembles one text of `asm/` and places it. Symbols placed before are known to it. */
  addAssembly(assembler: Assembler, file: string, source: string): void {
    this.#used = alignUp(this.#used, 16);
    const constants = new Map(ASM_OFFSETS);
    for (const { name, address } of this.#symbols) constants.set(name, address);
    const text = assembler.assemble(file, source, this.end, constants);
    this.#append(text.bytes);
    for (const symbol of text.symbols) {
      this.#symbols.add(symbol.name, symbol.address, symbol.size);
      this.assembled.add(symbol.name);
      if (symbol.kind !== 'FUNCTION') continue;
      this.mcountLocations.push(symbol.address - 8n);
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
    const site = fn.notrace ? [] : [NOP, NOP];
    const code = [...site, ...prologue, BRK_BODY, ...epilogue];
    this.#used = alignUp(this.#used, 16);
    if (!fn.notrace) {
      this.mcountLocations.push(this.end);
      this.#append(words([NOP, NOP]));
    }
    const address = this.end;
    this.#append(words(code));
    this.#symbols.add(fn.name, address, 4 * code.length);
    this.bodies.set(address + BigInt(4 * (site.length + prologue.length)), fn);
    this.functions.set(address, fn);
    this.prototypes.set(address, parsePrototype(fn.prototype, fn.structs));
    return address;
  }

  /** Places raw words under a symbol. */
  addWords(name: string, code: readonly number[]): bigint {
    this.#used = alignUp(this.#used, 8);
    const address = this.end;
    this.#append(words(code));
    this.#symbols.add(name, address, 4 * code.length);
    return address;
  }

  #append(bytes: Uint8Array): void {
    if (this.#used + bytes.length > TEXT_SIZE) throw new InputError('kernel text is full');
    this.#memory.pokeBytes(this.end, bytes);
    this.#used += bytes.length;
  }
}

function words(code: readonly number[]): Uint8Array {
  const bytes = new Uint8Array(4 * code.length);
  const view = new DataView(bytes.buffer);
  code.forEach((word, i) => view.setUint32(4 * i, word, true));
  return bytes;
}
