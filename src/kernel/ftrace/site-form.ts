/**
 * What -fpatchable-function-entry leaves around a function's first instruction, and how ftrace finds its
 * site from it.
 *
 * | form | words before F | words from F on        | mcount_loc entry      | site (rec->ip)     |
 * | ---- | -------------- | ---------------------- | --------------------- | ------------------ |
 * | 2    | -              | [bti c] nop nop body   | first NOP: F, F+4     | F+4, behind BTI +8 |
 * | 4,2  | nop nop        | [bti c] nop nop body   | first NOP: F-8        | F+4, behind BTI +8 |
 * | 7,5  | nop x 5        | [bti c] nop nop body   | first NOP: F-20       | F+4, behind BTI +8 |
 *
 * The two NOPs before F of `4,2` are an 8-byte literal; F is 8-byte aligned there. Of the five of `7,5` four are
 * a literal and `ldr x16, literal; br x16`; the fifth makes the literal 8-byte aligned: it comes first
 * where F is a multiple of 8, last elsewhere (the patch itself was not at hand: which of the five stays unused is
 * ours). Whether there is a `bti c` is each function's own affair: one that is never called indirectly has none.
 *
 * Reference: arch/arm64/kernel/ftrace.c: ftrace_call_adjust.
 */
import { bti as btiWord, nop } from '../../jit/emit.js';
import type { SiteForm } from './profile.js';

export interface SiteShape {
  /** NOPs before the symbol. */
  readonly before: number;
  /** Alignment of the symbol as a power of two (FUNCTION_ALIGNMENT). */
  readonly alignLog2: 2 | 3;
}

export const SITE_SHAPES: Readonly<Record<SiteForm, SiteShape>> = {
  '2': { before: 0, alignLog2: 2 },
  '4,2': { before: 2, alignLog2: 3 },
  '7,5': { before: 5, alignLog2: 2 },
};

/** Entry of __patchable_function_entries for the function at `address`. */
export function mcountLocation(form: SiteForm, address: bigint, hasBti: boolean): bigint {
  const { before } = SITE_SHAPES[form];
  if (before > 0) return address - BigInt(4 * before);
  return hasBti ? address + 4n : address;
}

const NOP = nop();
const BTI_WORDS: readonly number[] = [btiWord('c'), btiWord('j'), btiWord('jc')];

export interface AdjustParts {
  readonly form: SiteForm;
  /** CONFIG_ARM64_BTI_KERNEL. */
  readonly btiKernel: boolean;
  readonly read32: (address: bigint) => number;
  readonly warn: (line: string) => void;
}

/** The site that belongs to an mcount entry, or 0n for one that ftrace has to skip. */
export function adjustMcount(location: bigint, parts: AdjustParts): bigint {
  const { form, btiKernel, read32, warn } = parts;
  if (form === '2' || location === 0n) return location === 0n ? 0n : location + 4n;
  if (form === '4,2' && (location & 7n) !== 0n) {
    warn(`Misaligned patch-site 0x${location.toString(16)}`);
    return 0n;
  }
  let at = location + BigInt(4 * SITE_SHAPES[form].before);
  if (btiKernel) {
    const word = read32(at);
    if (BTI_WORDS.includes(word)) at += 4n;
    else if (word !== NOP) warn(`unexpected insn in patch-site 0x${at.toString(16)}`);
  }
  return at + 4n;
}

/** ALIGN_DOWN(ip - 12, 8): with F 8-byte aligned that is F-8, behind a BTI or not. */
export function opsLiteral(ip: number): number {
  return ip - 12 - ((ip - 12) & 7);
}

/** The literal, the LDR and the BR before a `7,5` function, as distances from its first word. */
export function literalCall(functionIsAligned: boolean): { literal: number; call: number } {
  return functionIsAligned ? { literal: -16, call: -8 } : { literal: -20, call: -12 };
}
