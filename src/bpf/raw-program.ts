/**
 * A program given as bare slots: instructions in one row, helpers called by number, subprograms by
 * relative calls. Splits it into functions and gives it the xlated form that engines run.
 *
 * A function begins at slot 0 and wherever a call with src_reg 1 or a function reference (ld_imm64
 * with src_reg 4) points; `pc+imm` counts from the slot after. Reference: kernel/bpf/verifier.c
 * add_subprog and jit_subprogs. Left out: maps, BTF, kfuncs (an object loader resolves those).
 *
 * Usage:
 *   const program = rawProgram('test', hexToBytes('b700000001000000 9500000000000000'));
 */
import { hexToBytes } from '../common/bytes.js';
import { InputError } from '../common/errors.js';
import { encodeSlots, readSlots, slotCount, SLOT_SIZE, type Slot } from './instruction.js';
import { OPCODES, PSEUDO } from './opcodes.js';
import type { ProgramType, XlatedFunction, XlatedProgram } from './program.js';

export interface RawProgramOptions {
  /** Default: `raw`. */
  readonly type?: ProgramType;
  /** Bytes of stack each function may use. Default: 512 (MAX_BPF_STACK). */
  readonly stackDepth?: number;
  /**
   * Immediate of a call of helper `id`: its entry address less the host's `callBase`. Default: the id
   * itself, for hosts whose helper N is N bytes behind `callBase`.
   */
  readonly helperImmediate?: (id: number) => number;
}

/** Most slots of a program (BPF_COMPLEXITY_LIMIT_INSNS). */
const MAX_SLOTS = 1_000_000;

/** Throws InputError when `insns` is no sequence of slots or a call leaves the program. */
export function rawProgram(
  name: string,
  insns: Uint8Array,
  options: RawProgramOptions = {},
): XlatedProgram {
  if (insns.length % SLOT_SIZE !== 0) {
    throw new InputError(`program ${name}: ${insns.length} bytes are no multiple of ${SLOT_SIZE}`);
  }
  const count = slotCount(insns);
  if (count === 0) throw new InputError(`program ${name} has no instructions`);
  if (count > MAX_SLOTS)
    throw new InputError(`program ${name}: ${count} instructions are too many`);
  const slots = readSlots(insns);
  const starts = functionStarts(slots);
  const stackDepth = options.stackDepth ?? 512;
  const type = options.type ?? 'raw';
  if (starts.length === 1 && !options.helperImmediate) {
    return { name, type, functions: [{ name, insns, stackDepth }] };
  }
  const functions = starts.map((start, index): XlatedFunction => {
    const body = slots.slice(start, starts[index + 1] ?? count);
    return {
      name: index === 0 ? name : `${name}_sub_${index}`,
      insns: encodeSlots(linkBody(body, start, starts, options)),
      stackDepth,
    };
  });
  const [main, ...rest] = functions as [XlatedFunction, ...XlatedFunction[]];
  return { name, type, functions: [main, ...rest] };
}

/** As `rawProgram`, from hex text. */
export function rawProgramFromHex(
  name: string,
  hex: string,
  options: RawProgramOptions = {},
): XlatedProgram {
  return rawProgram(name, hexToBytes(hex), options);
}

function isLocalCall(slot: Slot): boolean {
  return slot.code === 0x85 && slot.src === PSEUDO.CALL;
}

function isFunctionReference(slot: Slot): boolean {
  return slot.code === 0x18 && slot.src === PSEUDO.FUNC;
}

/** Slot indexes at which functions begin, ascending. */
function functionStarts(slots: readonly Slot[]): number[] {
  const starts = new Set([0]);
  for (let index = 0; index < slots.length; index++) {
    const slot = slots[index] as Slot;
    if (isLocalCall(slot) || isFunctionReference(slot)) {
      const target = index + 1 + slot.imm;
      if (target < 0 || target >= slots.length) {
        throw new InputError(
          `insn ${index}: call to ${target}, program has ${slots.length} instructions`,
        );
      }
      starts.add(target);
    }
    if (OPCODES[slot.code]?.kind === 'ld_imm64') index++;
  }
  return [...starts].sort((a, b) => a - b);
}

function linkBody(
  body: readonly Slot[],
  start: number,
  starts: readonly number[],
  options: RawProgramOptions,
): Slot[] {
  const linked: Slot[] = [];
  for (let index = 0; index < body.length; index++) {
    const slot = body[index] as Slot;
    const callee = starts.indexOf(start + index + 1 + slot.imm);
    if (isLocalCall(slot)) {
      linked.push({ ...slot, off: callee, imm: 1 });
    } else if (slot.code === 0x85 && slot.src === 0) {
      linked.push({ ...slot, imm: options.helperImmediate?.(slot.imm) ?? slot.imm });
    } else {
      linked.push(slot);
      if (slot.code !== 0x18) continue;
      index++;
      const second = body[index];
      if (second) linked.push(isFunctionReference(slot) ? { ...second, off: callee } : second);
    }
  }
  return linked;
}
