/**
 * Calls that are not known before they run.
 */
import { join64 } from '../../common/bytes.js';
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
  const address = join64(words[2 * d], words[2 * d + 1]);
  const { callbackBase, entries } = machine.linked;
  if (callbackBase !== undefined) {
    const distance = Number(address - callbackBase) / CALLBACK_STRIDE;
    const entry = Number.isInteger(distance) ? entries[distance] : undefined;
    if (entry !== undefined) {
      return machine.push(pc + 8) ? entry : -OUTCOME.CALL_DEPTH;
    }
  }
  const body = machine.host.helperAt(address);
  if (!body) {
    machine.addressHi = words[2 * d + 1];
    machine.addressLo = words[2 * d];
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
  machine.enterByTailCall();
  return firstEntry(next);
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
