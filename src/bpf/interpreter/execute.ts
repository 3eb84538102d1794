/**
 * The interpreter's loop: one switch over pre-decoded records.
 *
 * Case labels are the opcode bytes of the register forms (0x0f is `dst += src`); from 0x100 they are
 * `OPERATION` numbers of link.ts, written as numbers because V8 makes a jump table of literals only.
 * A case that ends in `break` is a taken jump; all others go on with the next record. The budget is looked at
 * on taken jumps, so a run may exceed it by one straight stretch of code.
 *
 * The array of registers and records is seen in words of 64 bits (`x`) and of 32 (`m`, lower half first, as on every
 * host that Node.js runs on): register d is `x[d]`, its lower half `m[2 * d]`. No bigint is made for that: when
 * operands come from a BigInt64Array and the result goes there, V8 computes + - * & | ^, shifts by
 * constants, comparisons, asIntN, asUintN and BigInt() of an int32 in machine words. It does not so with
 * other shifts, unsigned comparisons, Number(), and comparisons that have seen -2^63: those are done in halves
 * here. Registers are always written in one piece, as a load of 64 bits would wait for two stores of 32.
 */
import { access, isAccess } from './access.js';
import { rareOperation } from './arithmetic.js';
import { callRegister, tailCall } from './calls.js';
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
  const { view, bytes, halfwords, words, readWindows, writeWindows } = memory;
  let pc = entry | 0;
  // count + pc is 8 times the number of instructions executed since machine.executed was summed up
  let count = -pc | 0;
  const limit = Math.min((budget - machine.executed) * 8, SLICE) | 0;
  // a round for each program that runs: its arrays are constants of the loops within
  program: for (;;) {
    const { words: m, values: x, helpers } = machine.linked;
    for (;;) {
      const head = m[pc];
      const d = head >>> 16;
      const s = m[pc | 1];
      switch (head & 0xffff) {
        // --- 64-bit arithmetic
        case 0x0f: // r1 += r2
          x[d] = x[d] + x[s];
          pc = (pc + 8) | 0;
          continue;
        case 0x1f: // r1 -= r2
          x[d] = x[d] - x[s];
          pc = (pc + 8) | 0;
          continue;
        case 0x2f: // r1 *= r2, r1 <<= imm
          x[d] = x[d] * x[s];
          pc = (pc + 8) | 0;
          continue;
        case 0x4f: // r1 |= r2
          x[d] = x[d] | x[s];
          pc = (pc + 8) | 0;
          continue;
        case 0x5f: // r1 &= r2
          x[d] = x[d] & x[s];
          pc = (pc + 8) | 0;
          continue;
        case 0xaf: // r1 ^= r2
          x[d] = x[d] ^ x[s];
          pc = (pc + 8) | 0;
          continue;
        case 0xbf: // r1 = r2, r1 = imm64
          x[d] = x[s];
          pc = (pc + 8) | 0;
          continue;
        case 0x6f: {
          // r1 <<= r2
          const n = m[s << 1] & 63;
          const lo = m[d << 1];
          if (n >= 32) x[d] = BigInt(lo << (n - 32)) << 32n;
          else if (n !== 0) {
            const hi = (m[(d << 1) | 1] << n) | (lo >>> (32 - n));
            x[d] = (BigInt(hi) << 32n) | BigInt((lo << n) >>> 0);
          }
          pc = (pc + 8) | 0;
          continue;
        }
        case 0x7f: {
          // r1 >>= r2
          const n = m[s << 1] & 63;
          const hi = m[(d << 1) | 1];
          if (n >= 32) x[d] = BigInt(hi >>> (n - 32));
          else if (n !== 0) {
            const lo = (m[d << 1] >>> n) | (hi << (32 - n));
            x[d] = (BigInt(hi >>> n) << 32n) | BigInt(lo >>> 0);
          }
          pc = (pc + 8) | 0;
          continue;
        }
        case 0xcf: {
          // r1 s>>= r2
          const n = m[s << 1] & 63;
          const hi = m[(d << 1) | 1];
          if (n >= 32) x[d] = BigInt(hi >> (n - 32));
          else if (n !== 0) {
            const lo = (m[d << 1] >>> n) | (hi << (32 - n));
            x[d] = (BigInt(hi >> n) << 32n) | BigInt(lo >>> 0);
          }
          pc = (pc + 8) | 0;
          continue;
        }
        case 0x111: {
          // r1 >>= 1..31
          const n = m[s << 1];
          const hi = m[(d << 1) | 1];
          const lo = (m[d << 1] >>> n) | (hi << -n);
          x[d] = (BigInt(hi >>> n) << 32n) | BigInt(lo >>> 0);
          pc = (pc + 8) | 0;
          continue;
        }
        case 0x112: // r1 >>= 32..63
          x[d] = BigInt(m[(d << 1) | 1] >>> m[s << 1]);
          pc = (pc + 8) | 0;
          continue;

        // --- 32-bit arithmetic: clears the upper half
        case 0x0c: // w1 += w2
          x[d] = BigInt.asUintN(32, x[d] + x[s]);
          pc = (pc + 8) | 0;
          continue;
        case 0x1c: // w1 -= w2
          x[d] = BigInt.asUintN(32, x[d] - x[s]);
          pc = (pc + 8) | 0;
          continue;
        case 0x2c: // w1 *= w2, w1 <<= imm
          x[d] = BigInt.asUintN(32, x[d] * x[s]);
          pc = (pc + 8) | 0;
          continue;
        case 0x3c: {
          // w1 /= w2
          const b = m[s << 1];
          x[d] = b === 0 ? 0n : BigInt(((m[d << 1] >>> 0) / (b >>> 0)) >>> 0);
          pc = (pc + 8) | 0;
          continue;
        }
        case 0x9c: {
          // w1 %= w2
          const b = m[s << 1];
          const a = m[d << 1] >>> 0;
          x[d] = BigInt((b === 0 ? a : a % (b >>> 0)) >>> 0);
          pc = (pc + 8) | 0;
          continue;
        }
        case 0x4c: // w1 |= w2
          x[d] = BigInt.asUintN(32, x[d] | x[s]);
          pc = (pc + 8) | 0;
          continue;
        case 0x5c: // w1 &= w2
          x[d] = BigInt.asUintN(32, x[d] & x[s]);
          pc = (pc + 8) | 0;
          continue;
        case 0xac: // w1 ^= w2
          x[d] = BigInt.asUintN(32, x[d] ^ x[s]);
          pc = (pc + 8) | 0;
          continue;
        case 0xbc: // w1 = w2
          x[d] = BigInt.asUintN(32, x[s]);
          pc = (pc + 8) | 0;
          continue;
        case 0x6c: // w1 <<= w2
          x[d] = BigInt((m[d << 1] << m[s << 1]) >>> 0);
          pc = (pc + 8) | 0;
          continue;
        case 0x7c: // w1 >>= w2
          x[d] = BigInt(m[d << 1] >>> m[s << 1]);
          pc = (pc + 8) | 0;
          continue;
        case 0xcc: // w1 s>>= w2
          x[d] = BigInt((m[d << 1] >> m[s << 1]) >>> 0);
          pc = (pc + 8) | 0;
          continue;

        // --- memory, where it lies in a region that was accessed before
        case 0x71: // r1 = *(u8 *)(r2 + off)
        case 0x69: // r1 = *(u16 *)(r2 + off)
        case 0x61: // r1 = *(u32 *)(r2 + off)
        case 0x79: {
          // r1 = *(u64 *)(r2 + off)
          const off = m[pc | 3];
          const size = m[pc | 2];
          const lo = (m[s << 1] + off) | 0;
          const hi = (m[(s << 1) | 1] + (off >> 31) + (lo >>> 0 < off >>> 0 ? 1 : 0)) | 0;
          const window = (((lo >>> 12) ^ (hi << 3)) & 0xff) << 2;
          const within = (lo - readWindows[window | 1]) | 0;
          if (
            readWindows[window] !== hi ||
            within < 0 ||
            within > ((readWindows[window | 2] - size) | 0)
          ) {
            if (!access(machine, m, pc)) return machine.stopAt(count, pc, OUTCOME.FAULT);
            pc = (pc + 8) | 0;
            continue;
          }
          const at = readWindows[window | 3] + within;
          if (size === 1) x[d] = BigInt(view.getUint8(at));
          else if (size === 2) x[d] = BigInt(view.getUint16(at, true));
          else if (size === 4) x[d] = BigInt(view.getUint32(at, true));
          else {
            x[d] = (BigInt(view.getInt32(at + 4, true)) << 32n) | BigInt(view.getUint32(at, true));
          }
          pc = (pc + 8) | 0;
          continue;
        }
        case 0x73: // *(u8 *)(r1 + off) = r2
        case 0x6b: // *(u16 *)(r1 + off) = r2
        case 0x63: // *(u32 *)(r1 + off) = r2
        case 0x7b: {
          // *(u64 *)(r1 + off) = r2
          const off = m[pc | 3];
          const size = m[pc | 2];
          const lo = (m[d << 1] + off) | 0;
          const hi = (m[(d << 1) | 1] + (off >> 31) + (lo >>> 0 < off >>> 0 ? 1 : 0)) | 0;
          const window = (((lo >>> 12) ^ (hi << 3)) & 0xff) << 2;
          const within = (lo - writeWindows[window | 1]) | 0;
          if (
            writeWindows[window] !== hi ||
            within < 0 ||
            within > ((writeWindows[window | 2] - size) | 0)
          ) {
            if (!access(machine, m, pc)) return machine.stopAt(count, pc, OUTCOME.FAULT);
            pc = (pc + 8) | 0;
            continue;
          }
          const at = writeWindows[window | 3] + within;
          const low = m[s << 1];
          if (size === 1) bytes[at] = low;
          else if (size === 2) {
            if ((at & 1) === 0) halfwords[at >> 1] = low;
            else {
              bytes[at] = low;
              bytes[at + 1] = low >> 8;
            }
          } else if ((at & 3) === 0) {
            words[at >> 2] = low;
            if (size === 8) words[(at >> 2) + 1] = m[(s << 1) | 1];
          } else if (!access(machine, m, pc)) return machine.stopAt(count, pc, OUTCOME.FAULT);
          pc = (pc + 8) | 0;
          continue;
        }

        // --- jumps
        case 0x05: // goto, gotol
          break;
        case 0x1d: // if r1 == r2
          if (x[d] === x[s]) break;
          pc = (pc + 8) | 0;
          continue;
        case 0x5d: // if r1 != r2
          if (x[d] !== x[s]) break;
          pc = (pc + 8) | 0;
          continue;
        case 0x4d: // if r1 & r2
          if ((x[d] & x[s]) !== 0n) break;
          pc = (pc + 8) | 0;
          continue;
        case 0x2d: {
          // if r1 > r2
          const a = m[(d << 1) | 1];
          const b = m[(s << 1) | 1];
          if (a === b ? m[d << 1] >>> 0 > m[s << 1] >>> 0 : a >>> 0 > b >>> 0) break;
          pc = (pc + 8) | 0;
          continue;
        }
        case 0x3d: {
          // if r1 >= r2
          const a = m[(d << 1) | 1];
          const b = m[(s << 1) | 1];
          if (a === b ? m[d << 1] >>> 0 >= m[s << 1] >>> 0 : a >>> 0 > b >>> 0) break;
          pc = (pc + 8) | 0;
          continue;
        }
        case 0xad: {
          // if r1 < r2
          const a = m[(d << 1) | 1];
          const b = m[(s << 1) | 1];
          if (a === b ? m[d << 1] >>> 0 < m[s << 1] >>> 0 : a >>> 0 < b >>> 0) break;
          pc = (pc + 8) | 0;
          continue;
        }
        case 0xbd: {
          // if r1 <= r2
          const a = m[(d << 1) | 1];
          const b = m[(s << 1) | 1];
          if (a === b ? m[d << 1] >>> 0 <= m[s << 1] >>> 0 : a >>> 0 < b >>> 0) break;
          pc = (pc + 8) | 0;
          continue;
        }
        case 0x6d: // if r1 s> r2
          if (x[d] > x[s]) break;
          pc = (pc + 8) | 0;
          continue;
        case 0x7d: // if r1 s>= r2
          if (x[d] >= x[s]) break;
          pc = (pc + 8) | 0;
          continue;
        case 0xcd: // if r1 s< r2
          if (x[d] < x[s]) break;
          pc = (pc + 8) | 0;
          continue;
        case 0xdd: // if r1 s<= r2
          if (x[d] <= x[s]) break;
          pc = (pc + 8) | 0;
          continue;
        case 0x1e: // if w1 == w2
          if (m[d << 1] === m[s << 1]) break;
          pc = (pc + 8) | 0;
          continue;
        case 0x5e: // if w1 != w2
          if (m[d << 1] !== m[s << 1]) break;
          pc = (pc + 8) | 0;
          continue;
        case 0x4e: // if w1 & w2
          if ((m[d << 1] & m[s << 1]) !== 0) break;
          pc = (pc + 8) | 0;
          continue;
        case 0x2e: // if w1 > w2
          if (m[d << 1] >>> 0 > m[s << 1] >>> 0) break;
          pc = (pc + 8) | 0;
          continue;
        case 0x3e: // if w1 >= w2
          if (m[d << 1] >>> 0 >= m[s << 1] >>> 0) break;
          pc = (pc + 8) | 0;
          continue;
        case 0xae: // if w1 < w2
          if (m[d << 1] >>> 0 < m[s << 1] >>> 0) break;
          pc = (pc + 8) | 0;
          continue;
        case 0xbe: // if w1 <= w2
          if (m[d << 1] >>> 0 <= m[s << 1] >>> 0) break;
          pc = (pc + 8) | 0;
          continue;
        case 0x6e: // if w1 s> w2
          if (m[d << 1] > m[s << 1]) break;
          pc = (pc + 8) | 0;
          continue;
        case 0x7e: // if w1 s>= w2
          if (m[d << 1] >= m[s << 1]) break;
          pc = (pc + 8) | 0;
          continue;
        case 0xce: // if w1 s< w2
          if (m[d << 1] < m[s << 1]) break;
          pc = (pc + 8) | 0;
          continue;
        case 0xde: // if w1 s<= w2
          if (m[d << 1] <= m[s << 1]) break;
          pc = (pc + 8) | 0;
          continue;
        // --- the rest
        case 0x10f: {
          // r1 = bswap16 r1
          const a = m[d << 1];
          x[d] = BigInt(((a & 0xff) << 8) | ((a >>> 8) & 0xff));
          pc = (pc + 8) | 0;
          continue;
        }
        case 0x110: {
          // r1 = bswap32 r1
          const a = m[d << 1];
          const odd = (a >>> 8) & 0x00ff00ff;
          const swapped = ((a & 0x00ff00ff) << 8) | odd;
          x[d] = BigInt(((swapped << 16) | (swapped >>> 16)) >>> 0);
          pc = (pc + 8) | 0;
          continue;
        }
        case 0x113: // r1 = (s8)r2
          x[d] = BigInt.asIntN(8, x[s]);
          pc = (pc + 8) | 0;
          continue;
        case 0x114: // r1 = (s16)r2
          x[d] = BigInt.asIntN(16, x[s]);
          pc = (pc + 8) | 0;
          continue;
        case 0x115: // r1 = (s32)r2
          x[d] = BigInt.asIntN(32, x[s]);
          pc = (pc + 8) | 0;
          continue;
        case 0x116: // w1 = (s8)w2
          x[d] = BigInt.asUintN(32, BigInt.asIntN(8, x[s]));
          pc = (pc + 8) | 0;
          continue;
        case 0x117: // w1 = (s16)w2
          x[d] = BigInt.asUintN(32, BigInt.asIntN(16, x[s]));
          pc = (pc + 8) | 0;
          continue;
        case 0x10e: // nothing
          pc = (pc + 8) | 0;
          continue;
        // --- calls
        case 0x10c: // call helper
          machine.record = pc;
          helpers[m[pc | 4]](m, host);
          // as one word: see above
          x[0] = (BigInt(m[1]) << 32n) | BigInt(m[0] >>> 0);
          pc = (pc + 8) | 0;
          continue;
        case 0x10b: // call pc+n
          if (!machine.push(pc + 8)) return machine.stopAt(count, pc, OUTCOME.CALL_DEPTH);
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
        case 0x10d: {
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
        default:
          if (isAccess(head & 0xffff)) {
            if (!access(machine, m, pc)) return machine.stopAt(count, pc, OUTCOME.FAULT);
          } else rareOperation(m, head & 0xffff, d << 1, s << 1);
          // as one word: see above
          x[d] = (BigInt(m[(d << 1) | 1]) << 32n) | BigInt(m[d << 1] >>> 0);
          pc = (pc + 8) | 0;
          continue;
      }
      // a jump is taken
      const target = m[pc | 3];
      count = (count + pc + 8 - target) | 0;
      pc = target;
      if (((count + pc) | 0) > limit) {
        const isSpent = machine.executed + (count + pc) / 8 >= budget;
        return machine.stopAt(count, pc, isSpent ? OUTCOME.BUDGET : YIELD);
      }
    }
  }
}
