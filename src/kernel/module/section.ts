/**
 * Executable memory of a module: `.text` or `.init.text` with its PLTs, in one allocation.
 *
 *   text      the assembler's, its calls of other text bound to it or to a PLT entry
 *   .plt      entries for what these calls do not reach, 64-byte aligned
 *   .text.ftrace_trampoline   entries for the sites' BL: ftrace_caller, ftrace_regs_caller
 *
 * Reference: kernel/module/main.c: layout_sections, move_module; arch/arm64/kernel/module.c:
 * apply_relocate_add (R_AARCH64_CALL26), module_init_ftrace_plt. Here all calls of one section to one target
 * go the same way. Left out: data sections, relocations other than of calls.
 */
import { reachable } from '../../a64/immediates.js';
import { alignUp, viewOf } from '../../common/bytes.js';
import { InputError } from '../../common/errors.js';
import {
  externalBranches,
  type AssembledSymbol,
  type Assembler,
  type FunctionEntry,
} from '../assembler.js';
import type { FtraceEntry, FtracePlts } from '../ftrace/reach.js';
import type { SymbolTable } from '../symbols.js';
import { PLT_ENTRY_SIZE, PltSection, pltEntry, pltSlots } from './plt.js';

const L1_CACHE_BYTES = 64;

export interface SectionSource {
  /** For messages. */
  readonly file: string;
  readonly text: string;
  /** Has ftrace PLT entries for these. */
  readonly ftracePlts: readonly FtraceEntry[];
  /** Bytes of address space it takes at least; what is behind its text is not mapped. Default 0. */
  readonly size?: number;
}

/** What the text may name and how its functions begin: as in the kernel's own text. */
export interface SectionDialect {
  readonly constants: ReadonlyMap<string, bigint>;
  readonly entry: FunctionEntry;
}

export interface SectionPlan {
  readonly source: SectionSource;
  readonly dialect: SectionDialect;
  /** Symbols of other sections that it branches to. */
  readonly externals: ReadonlyMap<string, bigint>;
  /** Bytes of the text alone. */
  readonly textBytes: number;
  /** Bytes that are mapped. */
  readonly bytes: number;
}

export interface PlacedSection {
  readonly address: bigint;
  readonly code: Uint8Array;
  readonly symbols: readonly AssembledSymbol[];
  readonly plt: PltSection;
  readonly ftracePlts: FtracePlts;
}

/** Assembles it anywhere to learn its size. */
export function planSection(
  assembler: Assembler,
  source: SectionSource,
  dialect: SectionDialect,
  symbols: SymbolTable,
  anywhere: bigint,
): SectionPlan {
  const externals = new Map(
    [...externalBranches(source.text)].map((name) => [name, symbols.get(name).address] as const),
  );
  const stand = new Map([...externals.keys()].map((name) => [name, anywhere]));
  const { bytes } = assembler.assemble(
    source.file,
    source.text,
    anywhere,
    new Map([...dialect.constants, ...stand]),
    dialect.entry,
  );
  const plts = pltSlots(externals.size) + source.ftracePlts.length;
  return {
    source,
    dialect,
    externals,
    textBytes: bytes.length,
    bytes: alignUp(bytes.length, L1_CACHE_BYTES) + PLT_ENTRY_SIZE * plts,
  };
}

/** Assembles it where it is going to be. */
export function placeSection(
  assembler: Assembler,
  plan: SectionPlan,
  address: bigint,
  entries: FtracePlts,
): PlacedSection {
  const { source, dialect, externals, textBytes, bytes } = plan;
  const pltAt = alignUp(textBytes, L1_CACHE_BYTES);
  const plt = new PltSection(address + BigInt(pltAt));
  const last = address + BigInt(textBytes - 4);
  const bound = new Map(
    [...externals].map(([name, target]) => {
      const near = reachable(address, target) && reachable(last, target);
      return [name, near ? target : plt.entryFor(target)] as const;
    }),
  );
  const text = assembler.assemble(
    source.file,
    source.text,
    address,
    new Map([...dialect.constants, ...bound]),
    dialect.entry,
  );
  if (text.bytes.length !== textBytes) {
    throw new InputError(`${source.file}: its size depends on where it is`);
  }
  const code = new Uint8Array(bytes);
  code.set(text.bytes);
  putWords(code, pltAt, plt.words);
  const ftracePlts: Partial<Record<FtraceEntry, bigint>> = {};
  const ftraceAt = bytes - PLT_ENTRY_SIZE * source.ftracePlts.length;
  for (const [i, entry] of source.ftracePlts.entries()) {
    const target = entries[entry];
    if (target === undefined) throw new InputError(`this kernel has no ${entry} for module PLTs`);
    const at = ftraceAt + PLT_ENTRY_SIZE * i;
    putWords(code, at, pltEntry(address + BigInt(at), target));
    ftracePlts[entry] = address + BigInt(at);
  }
  return { address, code, symbols: text.symbols, plt, ftracePlts };
}

function putWords(code: Uint8Array, at: number, words: readonly number[]): void {
  const view = viewOf(code);
  words.forEach((word, i) => view.setUint32(at + 4 * i, word, true));
}
