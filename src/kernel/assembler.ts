/**
 * Assembles the texts of `asm/` with Keystone.
 *
 * A text consists of A64 instructions in GNU syntax and of three directives at line starts:
 *   FUNCTION int name(int a)   a traceable function, compiled with the kernel's -fpatchable-function-entry;
 *                              in a BTI kernel it begins with `bti c`, unless it is `static`
 *   CODE name                  a function without patch site, aligned as others are
 *   LABEL name                 a symbol inside the function above
 * Struct offsets and addresses of other symbols come in as constants, so no number of a kernel
 * configuration stands in a text.
 *
 * Keystone gives no symbol table, so a table of label addresses is assembled behind the text and read
 * back; it silently wraps branches that are out of range and says no line on errors, so both are
 * checked here. Mnemonics it lacks (BTI, PAC, LSE) are written as `hint #N` or `.long`.
 *
 * Kernels that are booted one after the other have mostly the same texts at the same addresses: what Keystone
 * made of a text is kept.
 */
import loadKeystone from '@alexaltea/keystone-js';
import { InputError } from '../common/errors.js';
import { viewOf } from '../common/bytes.js';
import { reachable } from '../a64/immediates.js';

type Keystone = Awaited<ReturnType<typeof loadKeystone>>;

interface Directive {
  readonly kind: 'FUNCTION' | 'CODE' | 'LABEL';
  readonly name: string;
  /** C prototype of a FUNCTION. */
  readonly prototype?: string;
  /** A FUNCTION whose address nobody takes. */
  readonly isStatic?: boolean;
}

/** What the compiler puts around a function's first instruction. */
export interface FunctionEntry {
  /** NOPs before the symbol. */
  readonly before: number;
  readonly alignLog2: number;
  /** `bti c` at the symbol. */
  readonly bti: boolean;
}

export interface AssembledSymbol extends Directive {
  readonly address: bigint;
  /** Bytes up to the next symbol of the text (alignment padding included). */
  readonly size: number;
}

export interface AssembledText {
  readonly bytes: Uint8Array;
  readonly symbols: readonly AssembledSymbol[];
}

function parseDirective(line: string): Directive | undefined {
  const text = line.replace(/\/\/.*$/, '').trimEnd();
  const traceable = /^FUNCTION\s+(static\s+)?(.*?(\w+)\(.*\))$/.exec(text);
  if (traceable) {
    const [, isStatic, prototype, name] = traceable as unknown as string[];
    return {
      kind: 'FUNCTION',
      name: name as string,
      prototype: prototype as string,
      isStatic: isStatic !== undefined,
    };
  }
  const plain = /^(CODE|LABEL)\s+(\w+)$/.exec(text);
  return plain ? { kind: plain[1] as 'CODE' | 'LABEL', name: plain[2] as string } : undefined;
}

/** Names that the text branches to and does not define: symbols of other texts. */
export function externalBranches(source: string): ReadonlySet<string> {
  const lines = source.split('\n');
  const own = new Set(
    lines.flatMap((line) => parseDirective(line)?.name ?? /^(\w+):/.exec(line)?.[1] ?? []),
  );
  const targets = lines.flatMap((line) => /^\s*bl?\s+([A-Za-z_]\w*)/.exec(line)?.[1] ?? []);
  return new Set(targets.filter((name) => !own.has(name)));
}

function expandLine(line: string, { before, alignLog2, bti }: FunctionEntry): string {
  const directive = parseDirective(line);
  switch (directive?.kind) {
    case 'FUNCTION': {
      const pad = bti && !directive.isStatic ? 'hint #34\n' : '';
      return `.align ${alignLog2}\n${'nop\n'.repeat(before)}${directive.name}:\n${pad}nop\nnop`;
    }
    case 'CODE':
      return `.align ${alignLog2}\n${directive.name}:`;
    case 'LABEL':
      return `${directive.name}:`;
    case undefined:
      return line;
  }
}

/** Words of functions, patch site not counted, in place of what a text says. */
export type FunctionBodies = ReadonlyMap<string, readonly number[]>;

/** The text with other bodies for some of its FUNCTIONs: those of another compiler. */
export function withBodies(source: string, bodies: FunctionBodies): string {
  let skips = false;
  return source
    .split('\n')
    .flatMap((line) => {
      const directive = parseDirective(line);
      if (!directive) return skips ? [] : [line];
      const words = directive.kind === 'FUNCTION' ? bodies.get(directive.name) : undefined;
      skips = words !== undefined;
      return [line, ...(words ?? []).map((word) => `.long 0x${word.toString(16)}`)];
    })
    .join('\n');
}

/** Assembled texts that are kept, those of some tens of kernels that differ. */
const MOST_KEPT = 256;

export class Assembler {
  static #loaded: Promise<Assembler> | undefined;
  readonly #keystone: Keystone;
  /** What Keystone made of a text at an address, in the order of use. */
  readonly #kept = new Map<string, Uint8Array>();

  private constructor(keystone: Keystone) {
    this.#keystone = keystone;
  }

  /** The one of this process: Keystone is loaded once, and texts have no influence on each other. */
  static create(): Promise<Assembler> {
    Assembler.#loaded ??= loadKeystone().then((keystone) => new Assembler(keystone));
    return Assembler.#loaded;
  }

  /**
   * @param file name for error messages
   * @param address where the text will be placed, 8-byte aligned
   * @param constants offsets and addresses the text may name
   * @param entry how a FUNCTION begins
   */
  assemble(
    file: string,
    source: string,
    address: bigint,
    constants: ReadonlyMap<string, bigint>,
    entry: FunctionEntry,
  ): AssembledText {
    const lines = source.split('\n');
    const marks = lines.flatMap((line) => parseDirective(line) ?? []);
    if (marks.length === 0) throw new InputError(`${file}: no FUNCTION or CODE in it`);
    const prelude: string[] = [];
    for (const name of new Set(source.match(/\b[A-Za-z_]\w*/g))) {
      const value = constants.get(name);
      if (value !== undefined) prelude.push(`.equ ${name}, 0x${value.toString(16)}`);
    }
    const body = lines.map((line) => expandLine(line, entry));
    const table = ['end_of_text:', '.align 3'];
    for (const { name } of marks) table.push(`.quad ${name}`);
    table.push('.quad end_of_text');
    const whole = [...prelude, ...body, ...table].join('\n');
    const assembled = this.#assembled(whole, address);
    if (!assembled) throw new InputError(this.#locateError(file, lines, prelude, address));

    const view = viewOf(assembled);
    const tableStart = assembled.length - 8 * (marks.length + 1);
    const labels = marks.map((_, i) => view.getBigUint64(tableStart + 8 * i, true));
    labels.push(view.getBigUint64(tableStart + 8 * marks.length, true));
    const bytes = assembled.slice(0, tableStart);
    checkBranches(file, source, address, bytes.length, constants);
    const symbols = marks.map((mark, i) => {
      const start = labels[i] as bigint;
      // the NOPs in front of a FUNCTION belong to it, not to its predecessor
      const gap = marks[i + 1]?.kind === 'FUNCTION' ? BigInt(4 * entry.before) : 0n;
      return { ...mark, address: start, size: Number((labels[i + 1] as bigint) - gap - start) };
    });
    return { bytes, symbols };
  }

  #assembled(source: string, address: bigint): Uint8Array | undefined {
    const key = `${address}\n${source}`;
    const bytes = this.#kept.get(key) ?? this.#run(source, address);
    if (!bytes) return undefined;
    this.#kept.delete(key);
    this.#kept.set(key, bytes);
    for (const oldest of this.#kept.keys()) {
      if (this.#kept.size <= MOST_KEPT) break;
      this.#kept.delete(oldest);
    }
    return bytes;
  }

  #run(source: string, address: bigint): Uint8Array | undefined {
    const keystone = this.#keystone;
    const engine = new keystone.Keystone(keystone.ARCH_ARM64, keystone.MODE_LITTLE_ENDIAN);
    try {
      const result = engine.asm(source, address);
      return result.failed || result.count === 0 ? undefined : result.mc.slice();
    } catch {
      return undefined; // Keystone throws on directives it does not know; located by the caller
    } finally {
      engine.close();
    }
  }

  /** Finds the first line that Keystone refuses by assembling each alone. */
  #locateError(
    file: string,
    lines: readonly string[],
    prelude: readonly string[],
    address: bigint,
  ): string {
    for (const [index, line] of lines.entries()) {
      const text = line.replace(/\/\/.*$/, '').trim();
      if (text === '' || parseDirective(text) || text.endsWith(':')) continue;
      const words = text.split(/[\s,[\]#()!+*-]+/).filter((word) => /^[a-z_]\w{3,}$/i.test(word));
      const labels = words.map((word) => `.equ ${word}, 0x${address.toString(16)}`);
      const alone = [...prelude, text].join('\n');
      const withLabels = [...prelude, ...labels, text].join('\n');
      if (!this.#run(alone, address) && !this.#run(withLabels, address)) {
        return `${file}:${index + 1}: cannot assemble '${text}'`;
      }
    }
    return `${file}: cannot assemble (undefined label?)`;
  }
}

/** Keystone wraps out-of-range B and BL: refuse constants that a branch in the text cannot reach. */
function checkBranches(
  file: string,
  source: string,
  address: bigint,
  size: number,
  constants: ReadonlyMap<string, bigint>,
): void {
  for (const [, target] of source.matchAll(/^\s*bl?\s+(\w+)/gm)) {
    const value = constants.get(target as string);
    if (value === undefined) continue;
    const end = address + BigInt(size) - 4n;
    if (!reachable(address, value) || !reachable(end, value)) {
      throw new InputError(`${file}: branch to ${target} is out of range of BL`);
    }
  }
}
