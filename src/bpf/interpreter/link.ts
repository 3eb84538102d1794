/**
 * Pre-decoding: an xlated program becomes one Int32Array that the interpreter's loop walks.
 *
 * The array begins with the register file (R0..R11 as (lo, hi) pairs, as helpers see it), then holds
 * one record of 8 words per instruction, all functions behind each other:
 *
 *   0 operation | dst << 16           3 jump target, or memory offset
 *   1 source operand                  4, 5 the immediate, sign-extended (lo, hi)
 *   2 size of an access, negative     6 slot number in its function
 *     when it extends the sign
 *
 * Operands are numbered in units of 64 bits from the start of the array: registers by their number, an
 * immediate by where it lies in its record, so `r1 += r2` and `r1 += 5` are the same operation. Operations are
 * numbered by the opcode byte of the register form; numbers from 0x100 are forms that share an opcode byte
 * or are worth a case of their own. What another operation does as well is written as that one:
 *
 *   r1 <<= n    r1 *= 2^n         r1 = -r1      r1 *= -1
 *   le16 r1     r1 &= 0xffff      le32 r1       w1 = w1
 */
import { InputError } from '../../common/errors.js';
import { CALLBACK_STRIDE } from '../callbacks.js';
import type { BpfHost, HelperBody, RegisterPairs } from '../host.js';
import { imm64, readSlots, type Slot } from '../instruction.js';
import { OPCODES, PSEUDO, type Opcode } from '../opcodes.js';
import type { XlatedProgram } from '../program.js';
import { validate } from '../validate.js';

/** Index of the first record: behind R0..R10 and the auxiliary R11. */
export const CODE_START = 24;
/** Words per record. */
const RECORD = 8;

/** Operations without an opcode byte of their own. */
export const OPERATION = {
  SDIV64: 0x100,
  SMOD64: 0x101,
  SDIV32: 0x102,
  SMOD32: 0x103,
  /** Division of 32 bits whose magnitudes are made by abs() of an int (`MachineOptions.magnitude`). */
  SDIV32_INT: 0x104,
  SMOD32_INT: 0x105,
  DIV64: 0x106,
  MOD64: 0x107,
  SWAP64: 0x108,
  ATOMIC: 0x109,
  LOAD_PROBE: 0x10a,
  CALL_LOCAL: 0x10b,
  CALL_HELPER: 0x10c,
  CALL_REGISTER: 0x10d,
  /** Nothing: shifts by 0, speculation barriers. */
  NOP: 0x10e,
  SWAP16: 0x10f,
  SWAP32: 0x110,
  /** Shift by a constant of 1..31 and of 32..63. */
  RSH64_LOW: 0x111,
  RSH64_HIGH: 0x112,
  /** Sign extension to 64 and to 32 bits. */
  MOVSX8: 0x113,
  MOVSX16: 0x114,
  MOVSX32: 0x115,
  MOVSX8_32: 0x116,
  MOVSX16_32: 0x117,
} as const;

/**
 * How the magnitude of a 32-bit dividend or divisor is made: as u32, or by abs() of an int, which leaves the
 * most negative number as it is, to be sign-extended (kernel/bpf/core.c before the fix of CVE-2026-31525).
 */
export type Magnitude = 'u32' | 'int';

export interface LinkedProgram {
  readonly program: XlatedProgram;
  /** Registers and records. */
  readonly words: Int32Array;
  /** The same in units of 64 bits. */
  readonly values: BigInt64Array;
  /** Bodies of the helpers it calls, indexed by immediate of CALL_HELPER records. */
  readonly helpers: readonly HelperBody[];
  /** Index of each function's first record. */
  readonly entries: readonly number[];
  /** Address of function 0 (`host.addCallbacks`); undefined when the program takes no addresses. */
  readonly callbackBase: bigint | undefined;
}

/** Runs the function whose first record is `entry`, for a helper. */
export type CallbackRunner = (
  linked: LinkedProgram,
  entry: number,
  registers: RegisterPairs,
) => void;

/**
 * Decodes a program for `host`; only raw ones may not use R11. Throws InputError with the first problem that
 * `validate` finds (unless it is `validated` already), or when a helper is not known to the host.
 */
export function linkProgram(
  program: XlatedProgram,
  host: BpfHost,
  runCallback: CallbackRunner,
  validated = false,
  magnitude: Magnitude = 'u32',
): LinkedProgram {
  const [problem] = validated
    ? []
    : validate(program.functions, { allowAuxiliary: program.type !== 'raw' });
  if (problem !== undefined) throw new InputError(`program ${program.name}: ${problem}`);
  const functions = program.functions.map(({ insns }) => readSlots(insns));
  const entries: number[] = [];
  let end = CODE_START;
  for (const slots of functions) {
    entries.push(end);
    end += RECORD * countInstructions(slots);
  }
  let linked: LinkedProgram | undefined;
  const callbackBase = functions.some(holdsFunctionAddress)
    ? host.addCallbacks(
        entries.map((entry) => (registers: RegisterPairs) => {
          if (linked) runCallback(linked, entry, registers);
        }),
      )
    : undefined;
  const linker = new Linker(program, host, new Int32Array(end), entries, callbackBase);
  linker.magnitude = magnitude;
  for (const [index, slots] of functions.entries()) linker.addFunction(index, slots);
  const { words, values, helpers } = linker;
  linked = { program, words, values, helpers, entries, callbackBase };
  return linked;
}

/** Whether a function takes the address of one. */
export function holdsFunctionAddress(slots: readonly Slot[]): boolean {
  return slots.some(({ code, src }) => code === 0x18 && src === PSEUDO.FUNC);
}

/** Function and slot of a record, for messages. */
export function locate(
  linked: LinkedProgram,
  record: number,
): { readonly function: string; readonly insn: number } {
  let index = linked.entries.findLastIndex((entry) => entry <= record);
  if (index < 0) index = 0;
  const name = linked.program.functions[index]?.name ?? linked.program.name;
  return { function: name, insn: linked.words[record + 6] as number };
}

function countInstructions(slots: readonly Slot[]): number {
  let count = 0;
  for (let index = 0; index < slots.length; index++) {
    count++;
    if (slots[index]?.code === 0x18) index++;
  }
  return count;
}

class Linker {
  readonly words: Int32Array;
  readonly values: BigInt64Array;
  magnitude: Magnitude = 'u32';
  readonly helpers: HelperBody[] = [];
  readonly #program: XlatedProgram;
  readonly #host: BpfHost;
  readonly #entries: readonly number[];
  readonly #callbackBase: bigint;
  readonly #helperIndexes = new Map<number, number>();

  constructor(
    program: XlatedProgram,
    host: BpfHost,
    words: Int32Array,
    entries: readonly number[],
    callbackBase: bigint | undefined,
  ) {
    this.#program = program;
    this.#host = host;
    this.words = words;
    this.values = new BigInt64Array(words.buffer);
    this.#entries = entries;
    this.#callbackBase = callbackBase ?? 0n;
  }

  addFunction(functionIndex: number, slots: readonly Slot[]): void {
    const entry = this.#entries[functionIndex] as number;
    const records = new Int32Array(slots.length);
    let at = entry;
    for (let index = 0; index < slots.length; index++) {
      records[index] = at;
      at += RECORD;
      if (slots[index]?.code === 0x18) index++;
    }
    for (let index = 0; index < slots.length; index++) {
      const slot = slots[index] as Slot;
      const opcode = OPCODES[slot.code] as Opcode;
      this.#addRecord(records, slots, index, slot, opcode);
      if (opcode.kind === 'ld_imm64') index++;
    }
  }

  #addRecord(
    records: Int32Array,
    slots: readonly Slot[],
    index: number,
    slot: Slot,
    opcode: Opcode,
  ): void {
    const { words } = this;
    const record = records[index] as number;
    const immediate = (record + 4) >> 1;
    let operation = slot.code;
    let source = slot.src;
    let extra = slot.off;
    words[record + 4] = slot.imm;
    words[record + 5] = slot.imm >> 31;
    words[record + 6] = index;
    switch (opcode.kind) {
      case 'alu':
        if (opcode.source === 'immediate') source = immediate;
        operation = aluOperation(slot, opcode, this.magnitude);
        // one shift of a constant amount is a product: 0x2f, 0x2c
        if (opcode.op === 'lsh' && opcode.source === 'immediate') {
          this.#putImmediate(record, 1n << BigInt(slot.imm & (opcode.width - 1)));
        }
        break;
      case 'neg':
        operation = opcode.width === 64 ? MULTIPLY64 : MULTIPLY32;
        source = immediate;
        this.#putImmediate(record, -1n);
        break;
      case 'end':
        operation = swapOperation(opcode.to, slot.imm);
        if (operation === AND64) source = immediate;
        if (operation === MOVE32) source = slot.dst;
        this.#putImmediate(record, 0xffffn);
        break;
      case 'jump':
        operation |= 0x08;
        if (opcode.source === 'immediate') source = immediate;
        extra = records[index + 1 + slot.off] as number;
        break;
      case 'goto':
        operation = 0x05;
        extra = records[index + 1 + (opcode.long ? slot.imm : slot.off)] as number;
        break;
      case 'store':
        operation |= 0x01;
        words[record + 2] = opcode.size;
        if (opcode.source === 'immediate') source = immediate;
        break;
      case 'load':
        if (opcode.probe) operation = OPERATION.LOAD_PROBE;
        words[record + 2] = opcode.signed ? -opcode.size : opcode.size;
        break;
      case 'atomic':
        operation = OPERATION.ATOMIC;
        words[record + 2] = opcode.size;
        break;
      case 'ld_imm64': {
        operation = 0xbf;
        source = immediate;
        const second = slots[index + 1] as Slot;
        const value =
          slot.src === PSEUDO.FUNC
            ? this.#callbackBase + BigInt(CALLBACK_STRIDE * second.off)
            : imm64(slot, second);
        this.#putImmediate(record, value);
        break;
      }
      case 'call':
        operation = this.#linkCall(record, slot, opcode.source === 'register');
        extra = slot.src === PSEUDO.CALL ? (this.#entries[slot.off] as number) : 0;
        break;
      case 'nospec':
        operation = OPERATION.NOP;
        break;
      case 'exit':
      case 'tail_call':
        break;
      case 'may_goto':
      case 'packet_load':
        throw new InputError(`insn ${index}: opcode 0x${slot.code.toString(16)} cannot run`);
    }
    words[record] = operation | (slot.dst << 16);
    words[record + 1] = source;
    words[record + 3] = extra;
  }

  #putImmediate(record: number, value: bigint): void {
    this.values[(record + 4) >> 1] = value;
  }

  #linkCall(record: number, slot: Slot, byRegister: boolean): number {
    if (byRegister) return OPERATION.CALL_REGISTER;
    if (slot.src === PSEUDO.CALL) return OPERATION.CALL_LOCAL;
    let helper = this.#helperIndexes.get(slot.imm);
    if (helper === undefined) {
      const body = this.#host.helperAt(this.#host.callBase + BigInt(slot.imm));
      if (!body) {
        const { function: name, insn } = locate(
          {
            program: this.#program,
            words: this.words,
            values: this.values,
            helpers: [],
            entries: this.#entries,
            callbackBase: undefined,
          },
          record,
        );
        throw new InputError(
          `program ${this.#program.name}: ${name} insn ${insn}: call of unknown helper ${slot.imm}`,
        );
      }
      helper = this.helpers.push(body) - 1;
      this.#helperIndexes.set(slot.imm, helper);
    }
    this.words[record + 4] = helper;
    return OPERATION.CALL_HELPER;
  }
}

/** Case labels of the loop that other instructions use too. */
const MULTIPLY64 = 0x2f;
const MULTIPLY32 = 0x2c;
const AND64 = 0x5f;
const MOVE32 = 0xbc;

function swapOperation(to: 'le' | 'be' | 'swap', bits: number): number {
  if (to !== 'le') {
    if (bits === 64) return OPERATION.SWAP64;
    return bits === 32 ? OPERATION.SWAP32 : OPERATION.SWAP16;
  }
  if (bits === 64) return OPERATION.NOP;
  return bits === 32 ? MOVE32 : AND64;
}

/** Moves with sign extension, by width and bits. */
const EXTENSIONS: Readonly<Record<64 | 32, Readonly<Record<number, number | undefined>>>> = {
  64: { 8: OPERATION.MOVSX8, 16: OPERATION.MOVSX16, 32: OPERATION.MOVSX32 },
  32: { 8: OPERATION.MOVSX8_32, 16: OPERATION.MOVSX16_32 },
};

function aluOperation(
  slot: Slot,
  opcode: Opcode & { readonly kind: 'alu' },
  magnitude: Magnitude,
): number {
  const { op, width, source } = opcode;
  if (op === 'div') {
    if (slot.off === 1) {
      if (width === 64) return OPERATION.SDIV64;
      return magnitude === 'int' ? OPERATION.SDIV32_INT : OPERATION.SDIV32;
    }
    if (width === 64) return OPERATION.DIV64;
  }
  if (op === 'mod') {
    if (slot.off === 1) {
      if (width === 64) return OPERATION.SMOD64;
      return magnitude === 'int' ? OPERATION.SMOD32_INT : OPERATION.SMOD32;
    }
    if (width === 64) return OPERATION.MOD64;
  }
  if (op === 'mov' && slot.off !== 0) return EXTENSIONS[width][slot.off] ?? slot.code | 0x08;
  if (source === 'immediate' && op === 'lsh') return width === 64 ? MULTIPLY64 : MULTIPLY32;
  if (source === 'immediate' && op === 'rsh' && width === 64) {
    const amount = slot.imm & 63;
    if (amount === 0) return OPERATION.NOP;
    return amount < 32 ? OPERATION.RSH64_LOW : OPERATION.RSH64_HIGH;
  }
  return slot.code | 0x08;
}
