/**
 * Calls that are not known before they run, and loads that may fault: what the loop leaves to others.
 */
import { join64 } from '../../common/bytes.js';
import type { Memory } from '../../cpu/memory.js';
import type { BpfHost, RegisterPairs } from '../host.js';
import { CALLBACK_STRIDE } from '../callbacks.js';
import { isProgArray } from '../maps/map.js';
import type { XlatedProgram } from '../program.js';
import { linkProgram, type LinkedProgram } from './link.js';
import { OUTCOME, type Machine } from './machine.js';

/** MAX_TAIL_CALL_CNT */
export const MAX_TAIL_CALLS = 33;

/**
 * callx: enters the function or helper whose address is in register `d`. Gives the record to go on
 * at, or a negative `OUTCOME`.
 */
export function callRegister(machine: Machine, words: Int32Array, d: number, pc: number): number {
  const address = join64(words[d], words[d + 1]);
  const { callbackBase, entries } = machine.linked;
  if (callbackBase !== undefined) {
    const distance = Number(address - callbackBase) / CALLBACK_STRIDE;
    const entry = Number.isInteger(distance) ? entries[distance] : undefined;
    if (entry !== undefined) {
      return machine.push(words, pc + 8) ? entry : -OUTCOME.CALL_DEPTH;
    }
  }
  const body = machine.host.helperAt(address);
  if (!body) {
    machine.addressHi = words[d + 1];
    machine.addressLo = words[d];
    return -OUTCOME.CALL_TARGET;
  }
  machine.record = pc;
  body(words, machine.host);
  return pc + 8;
}

/**
 * bpf_tail_call(ctx, prog array in R2, index in R3): the entry of the other program, or the next
 * record when the index is out of range, the slot is empty or 33 tail calls are done.
 */
export function tailCall(machine: Machine, words: Int32Array, pc: number): number {
  const program = tailCallTarget(machine.host, words);
  if (!program || machine.tailCalls >= MAX_TAIL_CALLS) return pc + 8;
  machine.tailCalls++;
  let next = machine.targets.get(program);
  if (!next) {
    const { host, runCallback, validated, magnitude } = machine;
    next = linkProgram(program, host, runCallback, validated, magnitude);
    machine.targets.set(program, next);
  }
  if (next !== machine.linked) machine.switchTo(next);
  return firstEntry(next);
}

/** A load that gives 0 where nothing is mapped (PROBE_MEM, PROBE_MEMSX). */
export function probeLoad(
  memory: Memory,
  words: Int32Array,
  pc: number,
  d: number,
  s: number,
): void {
  const size = Math.abs(words[pc + 2]);
  const isSigned = words[pc + 2] < 0;
  const off = words[pc + 3];
  const lo = (words[s] + off) | 0;
  const carry = lo >>> 0 < off >>> 0 ? 1 : 0;
  const at = memory.offsetRead((words[s + 1] + (off >> 31) + carry) | 0, lo, size);
  if (at < 0) {
    words[d] = words[d + 1] = 0;
    return;
  }
  let value = size >= 4 ? memory.view.getInt32(at, true) : memory.view.getUint8(at);
  if (size === 2) value = memory.view.getUint16(at, true);
  if (isSigned && size < 4) value = (value << (32 - 8 * size)) >> (32 - 8 * size);
  words[d] = value;
  if (size === 8) words[d + 1] = memory.view.getInt32(at + 4, true);
  else words[d + 1] = isSigned ? value >> 31 : 0;
}

/** The program in slot R3 of the prog array R2, if there is one. */
export function tailCallTarget(host: BpfHost, words: RegisterPairs): XlatedProgram | undefined {
  const map = host.mapAt(join64(words[4], words[5]));
  return isProgArray(map) ? map.programAt(words[6] >>> 0) : undefined;
}

function firstEntry(linked: LinkedProgram): number {
  const [entry] = linked.entries;
  if (entry === undefined) throw new RangeError(`program ${linked.program.name} has no functions`);
  return entry;
}
