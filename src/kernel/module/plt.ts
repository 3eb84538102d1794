/**
 * PLT entries of modules: three instructions that get anywhere within 4 GiB, where BL gets 128 MiB.
 *
 *   adrp x16, target            +-4 GiB, in pages
 *   add  x16, x16, #lo12
 *   br   x16                    BTI: `bti c` takes a BR from x16 or x17
 *
 * Reference: arch/arm64/kernel/module-plts.c: get_plt_entry, module_emit_plt_entry, module_frob_arch_sections;
 * is_forbidden_offset_for_adrp (erratum 843419: no ADRP in the last two words of a page). The entries for
 * ftrace_caller are placed without regard to the erratum, as there. Left out: veneers for ADRP.
 */
import { encode } from '../../a64/codec.js';
import { AARCH64_BREAK_FAULT } from '../../a64/immediates.js';
import { s64 } from '../../common/bytes.js';

/** sizeof(struct plt_entry). */
export const PLT_ENTRY_SIZE = 12;

const IP0 = 16;
const BR_X16 = encode('BR', { Rn: IP0 });
const PAGE_MASK = ~0xfffn;

/** The entry at `at` that goes to `target`; BRK in place of an ADRP that does not reach, as the kernel's. */
export function pltEntry(at: bigint, target: bigint): readonly number[] {
  const pages = s64((target & PAGE_MASK) - (at & PAGE_MASK)) >> 12n;
  const inRange = pages >= -(1n << 20n) && pages < 1n << 20n;
  const adrp = encode('ADRP', {
    immlo: Number(pages & 3n),
    immhi: Number(BigInt.asIntN(19, pages >> 2n)),
    Rd: IP0,
  });
  const low = Number(target & 0xfffn);
  const add = encode('ADD_immediate', { sf: 1, sh: 0, imm12: low, Rn: IP0, Rd: IP0 });
  return [inRange ? adrp : AARCH64_BREAK_FAULT, add, BR_X16];
}

/** Erratum 843419: may no ADRP stand there? */
export function isForbiddenForAdrp(at: bigint): boolean {
  return (at & 0xfffn) >= 0xff8n;
}

/** Slots for `count` entries, one in each page of them more for what the erratum skips. */
export function pltSlots(count: number): number {
  return count + Math.ceil(count / Math.floor(4096 / PLT_ENTRY_SIZE));
}

/** `.plt` or `.init.plt`: one entry for each target. */
export class PltSection {
  readonly #address: bigint;
  readonly #byTarget = new Map<bigint, bigint>();
  readonly #words: number[] = [];

  constructor(address: bigint) {
    this.#address = address;
  }

  /** Address of the entry for `target`. */
  entryFor(target: bigint): bigint {
    const known = this.#byTarget.get(target);
    if (known !== undefined) return known;
    if (isForbiddenForAdrp(this.#end)) this.#words.push(0, 0, 0);
    const at = this.#end;
    this.#words.push(...pltEntry(at, target));
    this.#byTarget.set(target, at);
    return at;
  }

  get words(): readonly number[] {
    return this.#words;
  }

  /** Targets and the addresses of their entries. */
  get entries(): ReadonlyMap<bigint, bigint> {
    return this.#byTarget;
  }

  get #end(): bigint {
    return this.#address + BigInt(4 * this.#words.length);
  }
}
