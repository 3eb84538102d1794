/**
 * Checks that a program can be executed at all: the structural part of what the kernel's verifier
 * asks (kernel/bpf/verifier.c check_subprogs, resolve_pseudo_ldimm64, bpf_check's reserved fields),
 * without any reasoning about values.
 *
 * Each finding is one line that names the instruction: `insn 5: jump to 17, function main has 12
 * instructions`. Left out: types, bounds, termination, uninitialised registers.
 *
 * Usage:
 *   const [problem] = validate(program.functions);
 */
import { slotsWithCalls } from './inlined-calls.js';
import type { Slot } from './instruction.js';
import { atomicOperation, OPCODES, PSEUDO, type Opcode } from './opcodes.js';
import type { XlatedFunction } from './program.js';

export interface ValidateOptions {
  /**
   * Report an unconditional jump to itself. Default: false, because the verifier puts such jumps in
   * the place of dead code.
   */
  readonly refuseSelfJump?: boolean;
  /**
   * Accept R11 (BPF_REG_AX), which only the verifier's own rewrites use. Default: false.
   */
  readonly allowAuxiliary?: boolean;
  /** Accept may_goto, which the loader rewrites. Default: false. */
  readonly allowMayGoto?: boolean;
}

const FRAME_POINTER = 10;
/** BPF_REG_AX */
const AUXILIARY = 11;

/** All problems, in order; none means that every engine can decode the program. */
export function validate(
  functions: readonly XlatedFunction[],
  options: ValidateOptions = {},
): string[] {
  return functions.flatMap((each) =>
    checkFunction(each, functions.length, options).map((problem) =>
      functions.length === 1 ? problem : `${each.name}: ${problem}`,
    ),
  );
}

function checkFunction(
  fn: XlatedFunction,
  functionCount: number,
  options: ValidateOptions,
): string[] {
  const problems: string[] = [];
  const { name, insns } = fn;
  // what the verifier itself put in is not looked at
  const slots = slotsWithCalls(fn);
  if (insns.length % 8 !== 0) problems.push(`${insns.length} bytes are no multiple of 8`);
  if (slots.length === 0) return [...problems, 'no instructions'];
  const seconds = secondSlots(slots);
  const whole = functionCount === 1 ? 'program' : name;
  let last = 0;
  for (let index = 0; index < slots.length; index++) {
    if (seconds.has(index)) continue;
    last = index;
    const slot = slots[index] as Slot;
    const report = (text: string): number => problems.push(`insn ${index}: ${text}`);
    const opcode = OPCODES[slot.code];
    if (!opcode) {
      report(`unknown opcode 0x${slot.code.toString(16).padStart(2, '0')}`);
      continue;
    }
    const problem =
      checkRegisters(slot, opcode, options) ?? checkFields(slot, opcode, functionCount, options);
    if (problem) report(problem);
    if (opcode.kind === 'ld_imm64') {
      const wrong = checkSecondSlot(slot, slots[index + 1], functionCount);
      if (wrong) report(wrong);
    }
    const distance = jumpDistance(slot, opcode);
    if (distance === undefined) continue;
    const target = index + 1 + distance;
    if (target < 0 || target >= slots.length) {
      report(`jump to ${target}, ${whole} has ${slots.length} instructions`);
    } else if (seconds.has(target)) {
      report(`jump to ${target}, the middle of ld_imm64`);
    } else if (options.refuseSelfJump && target === index && opcode.kind === 'goto') {
      report('jump to itself never ends');
    }
  }
  const end = OPCODES[(slots[last] as Slot).code]?.kind;
  if (end !== undefined && end !== 'exit' && end !== 'goto' && reaches(slots, last)) {
    problems.push(`insn ${last}: missing exit, ${whole} falls off its end`);
  }
  return problems;
}

/** Whether some path from the first slot leads to `wanted`, whatever the conditions are. */
function reaches(slots: readonly Slot[], wanted: number): boolean {
  const seen = new Set<number>();
  const left = [0];
  for (let index = left.pop(); index !== undefined; index = left.pop()) {
    const slot = slots[index];
    const opcode = OPCODES[slot?.code ?? 0];
    if (!slot || !opcode || seen.has(index)) continue;
    if (index === wanted) return true;
    seen.add(index);
    const distance = jumpDistance(slot, opcode);
    if (distance !== undefined) left.push(index + 1 + distance);
    if (opcode.kind === 'goto' || opcode.kind === 'exit') continue;
    left.push(index + (opcode.kind === 'ld_imm64' ? 2 : 1));
  }
  return false;
}

/** Indexes of the second halves of ld_imm64. */
function secondSlots(slots: readonly Slot[]): Set<number> {
  const seconds = new Set<number>();
  for (let index = 0; index < slots.length; index++) {
    if (OPCODES[(slots[index] as Slot).code]?.kind === 'ld_imm64') seconds.add(++index);
  }
  return seconds;
}

/** How far a jump goes, counted from the next slot; undefined for what is no jump. */
export function jumpDistance(slot: Slot, opcode: Opcode): number | undefined {
  switch (opcode.kind) {
    case 'goto':
      return opcode.long ? slot.imm : slot.off;
    case 'jump':
    case 'may_goto':
      return slot.off;
    default:
      return undefined;
  }
}

/** Whether the instruction writes its dst register. */
function writesDst(slot: Slot, opcode: Opcode): boolean {
  switch (opcode.kind) {
    case 'alu':
    case 'neg':
    case 'end':
    case 'load':
    case 'ld_imm64':
      return true;
    case 'atomic':
      return slot.imm === 0x100;
    default:
      return false;
  }
}

function checkRegisters(slot: Slot, opcode: Opcode, options: ValidateOptions): string | undefined {
  const highest = options.allowAuxiliary ? AUXILIARY : FRAME_POINTER;
  if (slot.dst > highest) return `register r${slot.dst} does not exist`;
  if (slot.src > highest) return `register r${slot.src} does not exist`;
  if (writesDst(slot, opcode) && slot.dst === FRAME_POINTER) return 'write to r10';
  const fetches = opcode.kind === 'atomic' && (slot.imm & 1) === 1 && slot.imm !== 0xf1;
  if (fetches && slot.src === FRAME_POINTER) return 'write to r10';
  return undefined;
}

function checkFields(
  slot: Slot,
  opcode: Opcode,
  functionCount: number,
  { allowMayGoto }: ValidateOptions,
): string | undefined {
  switch (opcode.kind) {
    case 'alu': {
      if (opcode.op === 'div' || opcode.op === 'mod') {
        return slot.off === 0 || slot.off === 1 ? undefined : `offset ${slot.off} in a division`;
      }
      if (opcode.op !== 'mov' || slot.off === 0) return undefined;
      const widths = opcode.width === 64 ? [8, 16, 32] : [8, 16];
      if (opcode.source === 'register' && widths.includes(slot.off)) return undefined;
      return `offset ${slot.off} in a move`;
    }
    case 'end':
      return [16, 32, 64].includes(slot.imm) ? undefined : `byte swap of ${slot.imm} bits`;
    case 'atomic':
      return atomicOperation(slot.imm, opcode.size)
        ? undefined
        : `unknown atomic operation 0x${(slot.imm >>> 0).toString(16)} on ${opcode.size} bytes`;
    case 'call':
      if (opcode.source === 'register' || slot.src !== PSEUDO.CALL) return undefined;
      return slot.off >= 0 && slot.off < functionCount
        ? undefined
        : `call of function ${slot.off}, program has ${functionCount}`;
    case 'packet_load':
      return `legacy packet load (0x${slot.code.toString(16)}) needs a socket buffer: not supported`;
    case 'may_goto':
      return allowMayGoto
        ? undefined
        : 'may_goto must be rewritten by the loader before it can run';
    default:
      return undefined;
  }
}

function checkSecondSlot(
  first: Slot,
  second: Slot | undefined,
  functionCount: number,
): string | undefined {
  if (!second || second.code !== 0) return 'ld_imm64 without its second slot';
  if (first.src !== 0 && first.src !== PSEUDO.FUNC) {
    return `ld_imm64 with source ${first.src}: the reference is not resolved`;
  }
  const isFunction = first.src === PSEUDO.FUNC;
  if (second.dst !== 0 || second.src !== 0 || (second.off !== 0 && !isFunction)) {
    return 'second slot of ld_imm64 has fields that must be zero';
  }
  if (isFunction && (second.off < 0 || second.off >= functionCount)) {
    return `reference to function ${second.off}, program has ${functionCount}`;
  }
  return undefined;
}
