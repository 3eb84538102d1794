/**
 * The interpreter's loop: one switch over pre-decoded records.
 *
 * Case labels are the opcode bytes of the register forms (0x0f is `dst += src`); from 0x100 they are
 * `OPERATION` numbers of link.ts, written as numbers because V8 makes a jump table of literals only.
 * 64-bit values are (lo, hi) pairs of Int32 at [d] and [d + 1]. A case that ends in `break` is a
 * taken jump; all others go on with the next record. The budget is looked at on taken jumps, so a run
 * may exceed it by one straight stretch of code.
 */
import { divide64, moveSigned, mulHigh, rareOperation } from './arithmetic.js';
import { atomic } from './atomic.js';
import { callRegister, probeLoad, tailCall } from './calls.js';
import { OUTCOME, type Machine } from './machine.js';

/**
 * Words of records until the loop is left and entered again: an engine that has compiled the function by then
 * runs that, while code that is exchanged under a running loop knows nothing of the values in it.
 */
const SLICE = 0x80_0000;
/** The slice is over. */
const YIELD = -1;

/**
 * Runs from record `entry` until the program returns or stops; gives an `OUTCOME`. R0 is in the words
 * of `machine.linked`, the number of executed instructions in `machine.executed`.
 */
export function execute(machine: Machine, entry: number, budget: number): number {
  machine.executed = 0;
  machine.record = entry;
  let outcome: number;
  do {
    outcome = executeSlice(machine, machine.record, budget);
  } while (outcome === YIELD);
  return outcome;
}

function executeSlice(machine: Machine, entry: number, budget: number): number {
  const { host } = machine;
  const { memory } = host;
  const { view } = memory;
  let pc = entry | 0;
  // count + pc is 8 times the number of instructions executed since machine.executed was summed up
  let count = -pc | 0;
  const limit = Math.min((budget - machine.executed) * 8, SLICE) | 0;
  // a round for each program that runs: its words are a constant of the loop within
  program: for (;;) {
    const { words: m, helpers } = machine.linked;
    for (;;) {
      const head = m[pc];
      const d = head >>> 16;
      const s = m[pc + 1];
      switch (head & 0xffff) {
        // --- 64-bit arithmetic
        case 0x0f: {
          // r1 += r2
          const a = m[d];
          const lo = (a + m[s]) | 0;
          m[d + 1] = m[d + 1] + m[s + 1] + (lo >>> 0 < a >>> 0 ? 1 : 0);
          m[d] = lo;
          pc = (pc + 8) | 0;
          continue;
        }
        case 0x1f: {
          // r1 -= r2
          const a = m[d];
          const b = m[s];
          m[d + 1] = m[d + 1] - m[s + 1] - (a >>> 0 < b >>> 0 ? 1 : 0);
          m[d] = a - b;
          pc = (pc + 8) | 0;
          continue;
        }
        case 0x2f: {
          // r1 *= r2
          const a = m[d];
          const b = m[s];
          const cross = (Math.imul(m[d + 1], b) + Math.imul(a, m[s + 1])) | 0;
          m[d + 1] = mulHigh(a, b) + cross;
          m[d] = Math.imul(a, b);
          pc = (pc + 8) | 0;
          continue;
        }
        case 0x3f: // r1 /= r2
          divide64(m, d, s, false);
          pc = (pc + 8) | 0;
          continue;
        case 0x9f: // r1 %= r2
          divide64(m, d, s, true);
          pc = (pc + 8) | 0;
          continue;
        case 0x4f: {
          // r1 |= r2
          const hi = m[d + 1] | m[s + 1];
          m[d] |= m[s];
          m[d + 1] = hi;
          pc = (pc + 8) | 0;
          continue;
        }
        case 0x5f: {
          // r1 &= r2
          const hi = m[d + 1] & m[s + 1];
          m[d] &= m[s];
          m[d + 1] = hi;
          pc = (pc + 8) | 0;
          continue;
        }
        case 0xaf: {
          // r1 ^= r2
          const hi = m[d + 1] ^ m[s + 1];
          m[d] ^= m[s];
          m[d + 1] = hi;
          pc = (pc + 8) | 0;
          continue;
        }
        case 0xbf: {
          // r1 = r2, r1 = imm64
          const hi = m[s + 1];
          m[d] = m[s];
          m[d + 1] = hi;
          pc = (pc + 8) | 0;
          continue;
        }
        case 0x6f: {
          // r1 <<= r2
          const n = m[s] & 63;
          const lo = m[d];
          if (n >= 32) {
            m[d + 1] = lo << (n - 32);
            m[d] = 0;
          } else if (n !== 0) {
            m[d + 1] = (m[d + 1] << n) | (lo >>> (32 - n));
            m[d] = lo << n;
          }
          pc = (pc + 8) | 0;
          continue;
        }
        case 0x7f: {
          // r1 >>= r2
          const n = m[s] & 63;
          const hi = m[d + 1];
          if (n >= 32) {
            m[d] = hi >>> (n - 32);
            m[d + 1] = 0;
          } else if (n !== 0) {
            m[d] = (m[d] >>> n) | (hi << (32 - n));
            m[d + 1] = hi >>> n;
          }
          pc = (pc + 8) | 0;
          continue;
        }
        case 0xcf: {
          // r1 s>>= r2
          const n = m[s] & 63;
          const hi = m[d + 1];
          if (n >= 32) {
            m[d] = hi >> (n - 32);
            m[d + 1] = hi >> 31;
          } else if (n !== 0) {
            m[d] = (m[d] >>> n) | (hi << (32 - n));
            m[d + 1] = hi >> n;
          }
          pc = (pc + 8) | 0;
          continue;
        }
        case 0x10a: {
          // r1 <<= 1..31
          const n = m[s];
          const lo = m[d];
          m[d + 1] = (m[d + 1] << n) | (lo >>> -n);
          m[d] = lo << n;
          pc = (pc + 8) | 0;
          continue;
        }
        case 0x10b: // r1 <<= 32..63
          m[d + 1] = m[d] << m[s];
          m[d] = 0;
          pc = (pc + 8) | 0;
          continue;
        case 0x10c: {
          // r1 >>= 1..31
          const n = m[s];
          const hi = m[d + 1];
          m[d] = (m[d] >>> n) | (hi << -n);
          m[d + 1] = hi >>> n;
          pc = (pc + 8) | 0;
          continue;
        }
        case 0x10d: // r1 >>= 32..63
          m[d] = m[d + 1] >>> m[s];
          m[d + 1] = 0;
          pc = (pc + 8) | 0;
          continue;

        // --- 32-bit arithmetic: clears the upper half
        case 0x0c: // w1 += w2
          m[d] += m[s];
          m[d + 1] = 0;
          pc = (pc + 8) | 0;
          continue;
        case 0x1c: // w1 -= w2
          m[d] -= m[s];
          m[d + 1] = 0;
          pc = (pc + 8) | 0;
          continue;
        case 0x2c: // w1 *= w2
          m[d] = Math.imul(m[d], m[s]);
          m[d + 1] = 0;
          pc = (pc + 8) | 0;
          continue;
        case 0x3c: {
          // w1 /= w2
          const b = m[s];
          m[d] = b === 0 ? 0 : ((m[d] >>> 0) / (b >>> 0)) | 0;
          m[d + 1] = 0;
          pc = (pc + 8) | 0;
          continue;
        }
        case 0x9c: {
          // w1 %= w2
          const b = m[s];
          if (b !== 0) m[d] = (m[d] >>> 0) % (b >>> 0);
          m[d + 1] = 0;
          pc = (pc + 8) | 0;
          continue;
        }
        case 0x4c: // w1 |= w2
          m[d] |= m[s];
          m[d + 1] = 0;
          pc = (pc + 8) | 0;
          continue;
        case 0x5c: // w1 &= w2
          m[d] &= m[s];
          m[d + 1] = 0;
          pc = (pc + 8) | 0;
          continue;
        case 0xac: // w1 ^= w2
          m[d] ^= m[s];
          m[d + 1] = 0;
          pc = (pc + 8) | 0;
          continue;
        case 0xbc: // w1 = w2
          m[d] = m[s];
          m[d + 1] = 0;
          pc = (pc + 8) | 0;
          continue;
        case 0x6c: // w1 <<= w2
          m[d] <<= m[s];
          m[d + 1] = 0;
          pc = (pc + 8) | 0;
          continue;
        case 0x7c: // w1 >>= w2
          m[d] >>>= m[s];
          m[d + 1] = 0;
          pc = (pc + 8) | 0;
          continue;
        case 0xcc: // w1 s>>= w2
          m[d] >>= m[s];
          m[d + 1] = 0;
          pc = (pc + 8) | 0;
          continue;

        // --- memory
        case 0x71: {
          // r1 = *(u8 *)(r2 + off)
          const off = m[pc + 3];
          const lo = (m[s] + off) | 0;
          const hi = (m[s + 1] + (off >> 31) + (lo >>> 0 < off >>> 0 ? 1 : 0)) | 0;
          const at = memory.offsetRead(hi, lo, 1);
          if (at < 0) return machine.fault(count, pc, hi, lo, 1, 'read');
          m[d] = view.getUint8(at);
          m[d + 1] = 0;
          pc = (pc + 8) | 0;
          continue;
        }
        case 0x69: {
          // r1 = *(u16 *)(r2 + off)
          const off = m[pc + 3];
          const lo = (m[s] + off) | 0;
          const hi = (m[s + 1] + (off >> 31) + (lo >>> 0 < off >>> 0 ? 1 : 0)) | 0;
          const at = memory.offsetRead(hi, lo, 2);
          if (at < 0) return machine.fault(count, pc, hi, lo, 2, 'read');
          m[d] = view.getUint16(at, true);
          m[d + 1] = 0;
          pc = (pc + 8) | 0;
          continue;
        }
        case 0x61: {
          // r1 = *(u32 *)(r2 + off)
          const off = m[pc + 3];
          const lo = (m[s] + off) | 0;
          const hi = (m[s + 1] + (off >> 31) + (lo >>> 0 < off >>> 0 ? 1 : 0)) | 0;
          const at = memory.offsetRead(hi, lo, 4);
          if (at < 0) return machine.fault(count, pc, hi, lo, 4, 'read');
          m[d] = view.getInt32(at, true);
          m[d + 1] = 0;
          pc = (pc + 8) | 0;
          continue;
        }
        case 0x79: {
          // r1 = *(u64 *)(r2 + off)
          const off = m[pc + 3];
          const lo = (m[s] + off) | 0;
          const hi = (m[s + 1] + (off >> 31) + (lo >>> 0 < off >>> 0 ? 1 : 0)) | 0;
          const at = memory.offsetRead(hi, lo, 8);
          if (at < 0) return machine.fault(count, pc, hi, lo, 8, 'read');
          m[d] = view.getInt32(at, true);
          m[d + 1] = view.getInt32(at + 4, true);
          pc = (pc + 8) | 0;
          continue;
        }
        case 0x91: // r1 = *(s8 *)(r2 + off)
        case 0x89: // r1 = *(s16 *)(r2 + off)
        case 0x81: {
          // r1 = *(s32 *)(r2 + off)
          const size = (head & 0x18) === 0 ? 4 : (head & 0x18) === 8 ? 2 : 1;
          const off = m[pc + 3];
          const lo = (m[s] + off) | 0;
          const hi = (m[s + 1] + (off >> 31) + (lo >>> 0 < off >>> 0 ? 1 : 0)) | 0;
          const at = memory.offsetRead(hi, lo, size);
          if (at < 0) return machine.fault(count, pc, hi, lo, size, 'read');
          const value =
            size === 4
              ? view.getInt32(at, true)
              : size === 2
                ? view.getInt16(at, true)
                : view.getInt8(at);
          m[d] = value;
          m[d + 1] = value >> 31;
          pc = (pc + 8) | 0;
          continue;
        }
        case 0x73: {
          // *(u8 *)(r1 + off) = r2
          const off = m[pc + 3];
          const lo = (m[d] + off) | 0;
          const hi = (m[d + 1] + (off >> 31) + (lo >>> 0 < off >>> 0 ? 1 : 0)) | 0;
          const at = memory.offsetWrite(hi, lo, 1);
          if (at < 0) return machine.fault(count, pc, hi, lo, 1, 'write');
          view.setInt8(at, m[s]);
          pc = (pc + 8) | 0;
          continue;
        }
        case 0x6b: {
          // *(u16 *)(r1 + off) = r2
          const off = m[pc + 3];
          const lo = (m[d] + off) | 0;
          const hi = (m[d + 1] + (off >> 31) + (lo >>> 0 < off >>> 0 ? 1 : 0)) | 0;
          const at = memory.offsetWrite(hi, lo, 2);
          if (at < 0) return machine.fault(count, pc, hi, lo, 2, 'write');
          view.setInt16(at, m[s], true);
          pc = (pc + 8) | 0;
          continue;
        }
        case 0x63: {
          // *(u32 *)(r1 + off) = r2
          const off = m[pc + 3];
          const lo = (m[d] + off) | 0;
          const hi = (m[d + 1] + (off >> 31) + (lo >>> 0 < off >>> 0 ? 1 : 0)) | 0;
          const at = memory.offsetWrite(hi, lo, 4);
          if (at < 0) return machine.fault(count, pc, hi, lo, 4, 'write');
          view.setInt32(at, m[s], true);
          pc = (pc + 8) | 0;
          continue;
        }
        case 0x7b: {
          // *(u64 *)(r1 + off) = r2
          const off = m[pc + 3];
          const lo = (m[d] + off) | 0;
          const hi = (m[d + 1] + (off >> 31) + (lo >>> 0 < off >>> 0 ? 1 : 0)) | 0;
          const at = memory.offsetWrite(hi, lo, 8);
          if (at < 0) return machine.fault(count, pc, hi, lo, 8, 'write');
          view.setInt32(at, m[s], true);
          view.setInt32(at + 4, m[s + 1], true);
          pc = (pc + 8) | 0;
          continue;
        }

        // --- jumps
        case 0x05: // goto, gotol
          break;
        case 0x1d: // if r1 == r2
          if (m[d] === m[s] && m[d + 1] === m[s + 1]) break;
          pc = (pc + 8) | 0;
          continue;
        case 0x5d: // if r1 != r2
          if (m[d] !== m[s] || m[d + 1] !== m[s + 1]) break;
          pc = (pc + 8) | 0;
          continue;
        case 0x4d: // if r1 & r2
          if (((m[d] & m[s]) | (m[d + 1] & m[s + 1])) !== 0) break;
          pc = (pc + 8) | 0;
          continue;
        case 0x2d: {
          // if r1 > r2
          const a = m[d + 1];
          const b = m[s + 1];
          if (a === b ? m[d] >>> 0 > m[s] >>> 0 : a >>> 0 > b >>> 0) break;
          pc = (pc + 8) | 0;
          continue;
        }
        case 0x3d: {
          // if r1 >= r2
          const a = m[d + 1];
          const b = m[s + 1];
          if (a === b ? m[d] >>> 0 >= m[s] >>> 0 : a >>> 0 > b >>> 0) break;
          pc = (pc + 8) | 0;
          continue;
        }
        case 0xad: {
          // if r1 < r2
          const a = m[d + 1];
          const b = m[s + 1];
          if (a === b ? m[d] >>> 0 < m[s] >>> 0 : a >>> 0 < b >>> 0) break;
          pc = (pc + 8) | 0;
          continue;
        }
        case 0xbd: {
          // if r1 <= r2
          const a = m[d + 1];
          const b = m[s + 1];
          if (a === b ? m[d] >>> 0 <= m[s] >>> 0 : a >>> 0 < b >>> 0) break;
          pc = (pc + 8) | 0;
          continue;
        }
        case 0x6d: {
          // if r1 s> r2
          const a = m[d + 1];
          const b = m[s + 1];
          if (a === b ? m[d] >>> 0 > m[s] >>> 0 : a > b) break;
          pc = (pc + 8) | 0;
          continue;
        }
        case 0x7d: {
          // if r1 s>= r2
          const a = m[d + 1];
          const b = m[s + 1];
          if (a === b ? m[d] >>> 0 >= m[s] >>> 0 : a > b) break;
          pc = (pc + 8) | 0;
          continue;
        }
        case 0xcd: {
          // if r1 s< r2
          const a = m[d + 1];
          const b = m[s + 1];
          if (a === b ? m[d] >>> 0 < m[s] >>> 0 : a < b) break;
          pc = (pc + 8) | 0;
          continue;
        }
        case 0xdd: {
          // if r1 s<= r2
          const a = m[d + 1];
          const b = m[s + 1];
          if (a === b ? m[d] >>> 0 <= m[s] >>> 0 : a < b) break;
          pc = (pc + 8) | 0;
          continue;
        }
        case 0x1e: // if w1 == w2
          if (m[d] === m[s]) break;
          pc = (pc + 8) | 0;
          continue;
        case 0x5e: // if w1 != w2
          if (m[d] !== m[s]) break;
          pc = (pc + 8) | 0;
          continue;
        case 0x4e: // if w1 & w2
          if ((m[d] & m[s]) !== 0) break;
          pc = (pc + 8) | 0;
          continue;
        case 0x2e: // if w1 > w2
          if (m[d] >>> 0 > m[s] >>> 0) break;
          pc = (pc + 8) | 0;
          continue;
        case 0x3e: // if w1 >= w2
          if (m[d] >>> 0 >= m[s] >>> 0) break;
          pc = (pc + 8) | 0;
          continue;
        case 0xae: // if w1 < w2
          if (m[d] >>> 0 < m[s] >>> 0) break;
          pc = (pc + 8) | 0;
          continue;
        case 0xbe: // if w1 <= w2
          if (m[d] >>> 0 <= m[s] >>> 0) break;
          pc = (pc + 8) | 0;
          continue;
        case 0x6e: // if w1 s> w2
          if (m[d] > m[s]) break;
          pc = (pc + 8) | 0;
          continue;
        case 0x7e: // if w1 s>= w2
          if (m[d] >= m[s]) break;
          pc = (pc + 8) | 0;
          continue;
        case 0xce: // if w1 s< w2
          if (m[d] < m[s]) break;
          pc = (pc + 8) | 0;
          continue;
        case 0xde: // if w1 s<= w2
          if (m[d] <= m[s]) break;
          pc = (pc + 8) | 0;
          continue;

        // --- calls
        case 0x110: // call helper
          machine.record = pc;
          helpers[m[pc + 4]](m, host);
          pc = (pc + m[pc + 3]) | 0;
          continue;
        case 0x10f: // call pc+n
          if (!machine.push(m, pc + 8)) return machine.stopAt(count, pc, OUTCOME.CALL_DEPTH);
          break;
        case 0x95: {
          // exit
          if (machine.depth === machine.baseDepth) {
            return machine.stopAt(count + 8, pc, OUTCOME.RETURN);
          }
          const target = machine.pop() | 0;
          count = (count + pc + 8 - target) | 0;
          pc = target;
          if (machine.linked.words !== m) continue program;
          continue;
        }
        case 0x111: {
          // callx r1
          const target = callRegister(machine, m, d, pc) | 0;
          if (target < 0) return machine.stopAt(count, pc, -target);
          count = (count + pc + 8 - target) | 0;
          pc = target;
          continue;
        }
        case 0xf5: {
          // tail call
          const target = tailCall(machine, m, pc) | 0;
          count = (count + pc + 8 - target) | 0;
          pc = target;
          continue program;
        }

        // --- the rest
        case 0x104: // r1 = (s8)r2
          moveSigned(m, d, s, m[pc + 3], m[pc + 2] === 64);
          pc = (pc + 8) | 0;
          continue;
        case 0x10e: {
          // lock ...
          const base = m[pc + 4] === 0x100 ? s : d;
          const off = m[pc + 3];
          const lo = (m[base] + off) | 0;
          const hi = (m[base + 1] + (off >> 31) + (lo >>> 0 < off >>> 0 ? 1 : 0)) | 0;
          if (!atomic(memory, m, m[pc + 4], m[pc + 2], d, s, hi, lo)) {
            return machine.fault(
              count,
              pc,
              hi,
              lo,
              m[pc + 2],
              m[pc + 4] === 0x100 ? 'read' : 'write',
            );
          }
          pc = (pc + 8) | 0;
          continue;
        }
        case 0x113: // r1 = probe ...
          probeLoad(memory, m, pc, d, s);
          pc = (pc + 8) | 0;
          continue;
        case 0x112:
          pc = (pc + 8) | 0;
          continue;
        default:
          rareOperation(m, head & 0xffff, d, s);
          pc = (pc + 8) | 0;
          continue;
      }
      // a jump or a local call is taken
      const target = m[pc + 3];
      count = (count + pc + 8 - target) | 0;
      pc = target;
      if (((count + pc) | 0) > limit) {
        const isSpent = machine.executed + (count + pc) / 8 >= budget;
        return machine.stopAt(count, pc, isSpent ? OUTCOME.BUDGET : YIELD);
      }
    }
  }
}
