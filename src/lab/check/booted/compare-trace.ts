/**
 * Executed instructions of a booted kernel and of the lab, row by row.
 *
 * Compared are the rows of the patch site and the function, of ftrace's entry code, trampolines and
 * programs: place (symbol+offset), word, X0..X9 and X30 without PAC bits, and the distance of SP from where
 * the call began. What a compiler made (rows of other kernel functions) is left out on both sides; what
 * such a function leaves in X0..X18 is not compared until an instruction that is compared writes it.
 * Where a word holds an address, that is compared by what it means: the target of a branch, and of a
 * sequence of MOVZ, MOVN, MOVK the value that it ends with.
 */
import { decode, type Decoded } from '../../../a64/codec.js';
import { hex32 } from '../../../common/bytes.js';
import { SP, type TraceEntry } from '../../../cpu/cpu.js';
import { print } from '../../../a64/print.js';
import type { TraceRow } from './trace-file.js';
import type { TracePlaces } from './trace-places.js';
import { UnknownSlots } from './unknown-slots.js';

/** X0..X30, SP. */
export type RegisterValues = bigint[];

const COMPARED = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 30] as const;
/** Registers that a called function need not keep. */
const CALLER_SAVED = 18;
/** Of a fresh call only the arguments X0..X7 and X30 mean something. */
const ARGUMENTS = 8;

const TARGET_FIELDS: Readonly<Record<string, string>> = {
  B: 'imm26',
  BL: 'imm26',
  B_cond: 'imm19',
  CBZ: 'imm19',
  CBNZ: 'imm19',
  TBZ: 'imm14',
  TBNZ: 'imm14',
  LDR_literal: 'imm19',
};
const MOVES: readonly string[] = ['MOVZ', 'MOVN', 'MOVK'];

/** An address in X30 may carry a code in its upper bits; bit 55 says which half it belongs to. */
export function withoutPac(value: bigint): bigint {
  return (value >> 55n) & 1n ? value | (0xffffn << 48n) : value;
}

export function registerName(register: number): string {
  return register === SP ? 'sp' : `x${register}`;
}

export class TraceComparison {
  readonly #places: TracePlaces;
  readonly #theirs: RegisterValues;
  readonly #ours: RegisterValues;
  readonly #start: { readonly theirs: bigint; readonly ours: bigint };
  readonly #unknown = new Set<number>();
  readonly #slots = new UnknownSlots();
  /** Registers that a sequence of moves is building an address in. */
  readonly #building = new Set<number>();

  /** Takes both sets of registers as they are before the first instruction. */
  constructor(places: TracePlaces, theirs: RegisterValues, ours: RegisterValues) {
    this.#places = places;
    this.#theirs = theirs;
    this.#ours = ours;
    this.#start = { theirs: theirs[SP] ?? 0n, ours: ours[SP] ?? 0n };
    for (let register = ARGUMENTS; register <= CALLER_SAVED; register++) {
      this.#unknown.add(register);
    }
  }

  /** A compiled function has run on either side since the last row. */
  functionCalled(): void {
    for (let register = 0; register <= CALLER_SAVED; register++) this.#unknown.add(register);
  }

  /** Takes in what an instruction here has changed that is not compared. */
  ours({ changes }: TraceEntry): void {
    for (const { register, value } of changes) if (register <= SP) this.#ours[register] = value;
  }

  /** Compares a row before and after its instruction; the difference in one line. Registers are as afterwards. */
  compare(theirs: TraceRow, ours: TraceEntry): string | undefined {
    const place = this.#places.theirName(theirs.pc);
    const ourPlace = this.#places.ourName(ours.pc);
    const head = `line ${theirs.line}: ${place} ${hex32(theirs.word)} ${print(theirs.word, theirs.pc)}`;
    if (place !== ourPlace) return `${head}: ours is at ${ourPlace}`;
    const theirCode = decode(theirs.word);
    const ourCode = decode(ours.word);
    const built = this.#finishBuilding(theirCode);
    if (built !== undefined) return `${head}: ${built}`;
    if (!this.#sameWord(theirs, theirCode, ours, ourCode)) {
      return `${head}: ours is ${hex32(ours.word)} ${print(ours.word, ours.pc)}`;
    }
    const loaded = this.#slots.follow(
      theirCode,
      (register) => this.#theirs[register] ?? 0n,
      (register) => this.#unknown.has(register),
    );
    const written = new Set<number>();
    for (const { register } of ours.changes) written.add(register);
    this.ours(ours);
    for (const [name, value] of theirs.changes) {
      const register = name === 'sp' ? SP : Number(name.slice(1));
      written.add(register);
      this.#theirs[register] = value;
    }
    for (const register of written) this.#unknown.delete(register);
    for (const register of loaded) this.#unknown.add(register);
    const difference = this.#differentRegister();
    return difference === undefined ? undefined : `${head}: ${difference}`;
  }

  /** A sequence of moves ends with the first instruction that is no MOVK of its register. */
  #finishBuilding(code: Decoded | undefined): string | undefined {
    for (const register of this.#building) {
      if (code?.row.name === 'MOVK' && code.fields['Rd'] === register) continue;
      this.#building.delete(register);
      const difference = this.#compareRegister(register);
      if (difference !== undefined) return difference;
    }
    return undefined;
  }

  #sameWord(
    theirs: TraceRow,
    theirCode: Decoded | undefined,
    ours: TraceEntry,
    ourCode: Decoded | undefined,
  ): boolean {
    if (theirs.word === ours.word) return true;
    if (!theirCode || !ourCode || theirCode.row !== ourCode.row) return false;
    const { name } = theirCode.row;
    if (MOVES.includes(name)) {
      const same = ['sf', 'hw', 'Rd'].every(
        (field) => theirCode.fields[field] === ourCode.fields[field],
      );
      if (same) this.#building.add(theirCode.fields['Rd'] ?? 0);
      return same;
    }
    const field = TARGET_FIELDS[name];
    if (field === undefined) return false;
    const others = Object.keys(theirCode.fields).filter((each) => each !== field);
    if (others.some((each) => theirCode.fields[each] !== ourCode.fields[each])) return false;
    const target = (pc: bigint, { fields }: Decoded): bigint =>
      pc + BigInt(4 * (fields[field] ?? 0));
    return this.#places.agree(target(theirs.pc, theirCode), target(ours.pc, ourCode));
  }

  #differentRegister(): string | undefined {
    for (const register of COMPARED) {
      if (this.#unknown.has(register) || this.#building.has(register)) continue;
      const difference = this.#compareRegister(register);
      if (difference !== undefined) return difference;
    }
    const theirs = (this.#theirs[SP] ?? 0n) - this.#start.theirs;
    const ours = (this.#ours[SP] ?? 0n) - this.#start.ours;
    return theirs === ours ? undefined : `sp has moved by ${theirs}, ours by ${ours}`;
  }

  #compareRegister(register: number): string | undefined {
    const raw = this.#theirs[register] ?? 0n;
    const theirs = register === 30 ? withoutPac(raw) : raw;
    const ours = this.#ours[register] ?? 0n;
    if (this.#places.agree(theirs, ours)) return undefined;
    const theirName = this.#places.theirName(theirs);
    return `${registerName(register)} is ${theirName}, ours ${this.#places.ourName(ours)}`;
  }
}
