/**
 * Keeps words that this lab does not know away from libunicorn.
 *
 * libunicorn calls abort() while it translates some encodings (FP16 vectors) and while it executes
 * others (MRS of a PAC key), and it executes many (floating point, ERET, authenticated branches) that
 * are no instructions here. It translates whole blocks, so asking before each instruction is too late.
 * Instead every word of executable memory that must not be translated is made an *exit*
 * (UC_CTL_UC_EXITS): the translator looks exits up before it reads a word, ends the block there, and the run
 * stops with pc at that word, however it was reached.
 *
 * This holds because before each run all executable regions have been looked at, and in between they only
 * change through `Memory`, which tells (`MemoryListener.textStored`). libunicorn's own stores
 * to writable text do not happen unseen either: see cpu.ts. Only bytes stored around `Memory` (through
 * `memory.bytes`) escape, until the next `Cpu.sync` of that range.
 *
 * Each exit costs libunicorn some 70 ns per run, and data in text (literals, ops pointers) is full of
 * words that are no instructions. Those of encoding groups that no version of it knows raise the
 * undefined exception by themselves and get no exit (`REFUSED_GROUPS`).
 */
import { decode } from '../../a64/codec.js';
import type { Fields } from '../../a64/row.js';
import { systemRegisterName } from '../../a64/system-registers.js';
import type { Memory, MemoryListener, Region } from '../memory.js';

/** Registers that libunicorn may read and write by itself; it leaves TPIDR_EL2 to cpu.ts. */
const SYSTEM_REGISTERS = new Set(['nzcv', 'daif', 'sp_el0', 'tpidr_el0', 'tpidr_el1', 'tpidr_el2']);
const READ_ONLY_REGISTERS = new Set(['currentel']);

/** MSR SPSel, by op1:op2: would change which register SP is. */
const SPSEL = 0o05;

/**
 * Arm ARM C4.1, bits 28:25 of words that libunicorn refuses whatever the rest is: 0000 (reserved and SME),
 * 0001 and 0011 (unallocated).
 */
const REFUSED_GROUPS: readonly number[] = [0b0000, 0b0001, 0b0011];

/** Name of the register that an MRS or MSR with these fields means. */
export function systemRegister({ o0 = 0, op1 = 0, CRn = 0, CRm = 0, op2 = 0 }: Fields): string {
  return systemRegisterName({ o0, op1, CRn, CRm, op2 });
}

/** Whether libunicorn executes this word as the lab's CPUs do. */
export function isExecutable(word: number): boolean {
  const decoded = decode(word);
  if (!decoded) return false;
  const { row, fields } = decoded;
  switch (row.sem.kind) {
    case 'readSystem':
    case 'writeSystem': {
      const name = systemRegister(fields);
      if (SYSTEM_REGISTERS.has(name)) return true;
      return row.sem.kind === 'readSystem' && READ_ONLY_REGISTERS.has(name);
    }
    case 'stripLink':
      // strips nothing while TCR_EL1 is 0, which stands for 64-bit addresses
      return false;
    case 'writePstate':
      return (fields['op1'] ?? 0) * 8 + (fields['op2'] ?? 0) !== SPSEL;
    default:
      return true;
  }
}

/** Answers of `needsExit`: every kernel has much the same words, and decoding one takes a while. */
const KNOWN_WORDS = new Map<number, boolean>();
const MOST_KNOWN = 1 << 16;

/** Whether libunicorn must not see this word. */
export function needsExit(word: number): boolean {
  let answer = KNOWN_WORDS.get(word);
  if (answer === undefined) {
    answer = isRefused(word);
    if (KNOWN_WORDS.size === MOST_KNOWN) KNOWN_WORDS.clear();
    KNOWN_WORDS.set(word, answer);
  }
  return answer;
}

function isRefused(word: number): boolean {
  if (REFUSED_GROUPS.includes((word >>> 25) & 15)) return false;
  // 11111111 ...: scalar FP and SIMD with bits 31:28 = 1111, unallocated (C4.1.97); high half of
  // every kernel pointer
  if (word >>> 24 === 0xff) return false;
  return !isExecutable(word);
}

/** The exits of one address space, kept up to date. */
export class TextGuard implements MemoryListener {
  readonly #memory: Memory;
  /** Exits by region (its first page), as indexes of words. */
  readonly #exits = new Map<bigint, { readonly region: Region; readonly words: Set<number> }>();
  /** Parts of executable regions to look at before the next run. */
  #dirty: { region: Region; offset: number; size: number }[] = [];
  #changed = false;

  constructor(memory: Memory) {
    this.#memory = memory;
  }

  mapped(region: Region): void {
    if (!region.permissions.includes('x')) return;
    this.#exits.set(region.pageAddress, { region, words: new Set() });
    // the whole pages: to libunicorn the slack around the region's bytes is text as well
    this.#dirty.push({ region, offset: region.pageOffset, size: region.pageBytes });
  }

  unmapped(region: Region): void {
    const gone = this.#exits.get(region.pageAddress);
    if (!gone) return;
    this.#exits.delete(region.pageAddress);
    this.#dirty = this.#dirty.filter((part) => part.region !== region);
    if (gone.words.size > 0) this.#changed = true;
  }

  textStored(region: Region, offset: number, size: number): void {
    const start = (region.offset + offset) & ~3;
    const end = (region.offset + offset + size + 3) & ~3;
    const last = this.#dirty.at(-1);
    if (last?.region === region && last.offset === start && last.size === end - start) return;
    this.#dirty.push({ region, offset: start, size: end - start });
  }

  /** Text of [start, end) may have been stored to around `Memory`. */
  suspect(start: bigint, end: bigint): void {
    for (const { region } of this.#exits.values()) {
      const from = start > region.address ? start : region.address;
      const regionEnd = region.address + BigInt(region.size);
      const to = end < regionEnd ? end : regionEnd;
      if (from < to) this.textStored(region, Number(from - region.address), Number(to - from));
    }
  }

  /**
   * Looks at what has changed. Returns all exits when they are others than last time, and hands the
   * addresses whose exit is gone to `renew`: blocks that end there must be translated again.
   */
  refresh(renew: (address: bigint) => void): BigUint64Array | undefined {
    if (this.#dirty.length > 0) {
      for (const part of this.#dirty) this.#scan(part.region, part.offset, part.size, renew);
      this.#dirty = [];
    }
    if (!this.#changed) return undefined;
    this.#changed = false;
    const addresses: bigint[] = [];
    for (const { region, words } of this.#exits.values()) {
      for (const word of words) addresses.push(region.pageAddress + BigInt(4 * word));
    }
    return BigUint64Array.from(addresses);
  }

  /** Whether `address` is one of the exits. */
  has(address: bigint): boolean {
    for (const { region, words } of this.#exits.values()) {
      const within = address - region.pageAddress;
      if (within >= 0n && within < BigInt(region.pageBytes)) return words.has(Number(within) >>> 2);
    }
    return false;
  }

  #scan(region: Region, offset: number, size: number, renew: (address: bigint) => void): void {
    const exits = this.#exits.get(region.pageAddress);
    if (exits?.region !== region) return;
    const { view } = this.#memory;
    const { words } = exits;
    // most of a pack of images is one word over and over
    let before = 0;
    let isExit = false;
    for (let at = offset; at < offset + size; at += 4) {
      const word = view.getUint32(at, true);
      if (word !== before) {
        before = word;
        isExit = word !== 0 && needsExit(word);
      }
      if (!isExit && words.size === 0) continue;
      const index = (at - region.pageOffset) >>> 2;
      if (isExit) {
        if (words.has(index)) continue;
        words.add(index);
        this.#changed = true;
      } else if (words.delete(index)) {
        this.#changed = true;
        renew(region.pageAddress + BigInt(4 * index));
      }
    }
  }
}
