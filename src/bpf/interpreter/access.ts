/**
 * Loads, stores and atomics that the loop leaves to others: where no window is open, memory that somebody
 * listens to, addresses that are no multiple of their size, signed loads, loads that may fault.
 *
 * `words` is the interpreter's array, `pc` the record; word 2 of it is the size, negative for loads that extend
 * the sign, word 3 the distance from the base. Reference: RFC 9669 section 5.
 */
import { atomic, store } from './atomic.js';
import { OPERATION } from './link.js';
import type { Machine } from './machine.js';

/** BPF_LOAD_ACQ */
const LOAD_ACQUIRE = 0x100;

/** Whether `access` does an operation. */
export function isAccess(operation: number): boolean {
  // BPF_LDX and BPF_STX are classes 1 and 3
  if (operation < 0x100) return (operation & 5) === 1;
  return operation === OPERATION.ATOMIC || operation === OPERATION.LOAD_PROBE;
}

/** Does what a record says; false, with the fault in `machine`, when memory refuses. */
export function access(machine: Machine, words: Int32Array, pc: number): boolean {
  const { memory } = machine.host;
  const head = words[pc];
  const operation = head & 0xffff;
  const d = (head >>> 16) << 1;
  const s = words[pc + 1] << 1;
  const size = Math.abs(words[pc + 2]);
  const isAtomic = operation === OPERATION.ATOMIC;
  const isProbe = operation === OPERATION.LOAD_PROBE;
  const isLoad = isAtomic ? words[pc + 4] === LOAD_ACQUIRE : isProbe || (operation & 7) === 1;
  const base = isLoad ? s : d;
  const off = words[pc + 3];
  const lo = (words[base] + off) | 0;
  const carry = lo >>> 0 < off >>> 0 ? 1 : 0;
  const hi = (words[base + 1] + (off >> 31) + carry) | 0;
  const at = isLoad ? memory.offsetRead(hi, lo, size) : memory.offsetWrite(hi, lo, size);
  if (at < 0 && isProbe) words[d] = words[d + 1] = 0;
  else if (at < 0) {
    machine.refuse(hi, lo, size, isLoad ? 'read' : 'write');
    return false;
  } else if (isAtomic && !isLoad) atomic(memory.view, words, words[pc + 4], size, s, at);
  else if (isLoad) load(memory.view, at, words[pc + 2], words, d);
  else store(memory.view, at, size, words[s], words[s + 1]);
  return true;
}

/** dst = what lies at `at`; a negative `size` extends the sign. */
function load(view: DataView, at: number, size: number, words: Int32Array, d: number): void {
  if (size === 8) words[d + 1] = view.getInt32(at + 4, true);
  words[d] = loadLow(view, at, size);
  if (size !== 8) words[d + 1] = size < 0 ? words[d] >> 31 : 0;
}

function loadLow(view: DataView, at: number, size: number): number {
  switch (size) {
    case 1:
      return view.getUint8(at);
    case 2:
      return view.getUint16(at, true);
    case -1:
      return view.getInt8(at);
    case -2:
      return view.getInt16(at, true);
    default:
      return view.getInt32(at, true);
  }
}
