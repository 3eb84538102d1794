/**
 * The hot loop: executes records of one text region until something else has to be decided.
 *
 * One switch over the most frequent micro-operations, their numbers as literals (see
 * operations.ts). Everything else goes through `executeCold`. The index of a record is the byte
 * offset of its instruction, so `code.lo + at` is its address. The function keeps no state of its
 * own: registers are in typed arrays that all operations share.
 */
import { executeCold } from './cold.js';
import { EXIT, STOPPED, type Code, type Core } from './core.js';
import { decodeRecord } from './decode.js';
import { FIRST_WIDE } from './operations.js';
import { ROOM } from './trace.js';

/** 1 when adding `addend` wrapped to `sum`; with (x, y) 1 when x - y borrows. */
function carryOut(sum: number, addend: number): number {
  return sum >>> 0 < addend >>> 0 ? 1 : 0;
}

/** NZCV of x - y for 64 bits. */
function subtractFlags64(xl: number, xh: number, yl: number, yh: number): number {
  const rl = (xl - yl) | 0;
  const borrow = xl >>> 0 < yl >>> 0;
  const rh = (xh - yh - (borrow ? 1 : 0)) | 0;
  const carry = xh >>> 0 > yh >>> 0 || (xh === yh && !borrow);
  return (
    ((rh >>> 31) << 3) |
    ((rl | rh) === 0 ? 4 : 0) |
    (carry ? 2 : 0) |
    (((xh ^ yh) & (xh ^ rh)) >>> 31)
  );
}

function subtractFlags32(x: number, y: number): number {
  const r = (x - y) | 0;
  return (
    ((r >>> 31) << 3) |
    (r === 0 ? 4 : 0) |
    (x >>> 0 >= y >>> 0 ? 2 : 0) |
    (((x ^ y) & (x ^ r)) >>> 31)
  );
}

/**
 * Runs from pc, which must be in `code`, for at most `budget` instructions. Stops before offset
 * `until` (-1: none) and, when `watch` is set, before marked instructions. Returns the budget that
 * is left; `core.exit` and pc tell how it ended.
 */
export function execute(
  core: Core,
  code: Code,
  budget: number,
  until: number,
  watch: boolean,
): number {
  const { lo, hi, memory, view } = core;
  const { records, size, marks } = code;
  const { guarded } = code.region;
  const codeLo = code.lo;
  const codeHi = code.hi;
  const log = core.log;
  const shadowLo = log ? log.lo : lo;
  const shadowHi = log ? log.hi : hi;
  let left = budget;
  let at = (core.pcLo - codeLo) | 0;
  let exit: number = EXIT.LEFT;

  for (;;) {
    if (at >>> 0 >= size) break;
    if (at === until) {
      exit = EXIT.UNTIL;
      break;
    }
    if (watch && marks[at >> 2] === 1) {
      exit = EXIT.BREAKPOINT;
      break;
    }
    if (left === 0) {
      exit = EXIT.BUDGET;
      break;
    }
    const head = records[at] as number;
    const d = (head >>> 8) & 63;
    const n = (head >>> 16) & 63;
    const a = records[at + 1] as number;
    let next = at + 4;
    let failed = 0;

    switch (head & 255) {
      case 0: // DECODE
        decodeRecord(core, code, at);
        continue;
      case 1: // NOP
        break;
      case 2: // CONST
        lo[d] = a;
        hi[d] = records[at + 2] as number;
        break;
      case 3: {
        // ADD64I
        const sum = ((lo[n] as number) + a) | 0;
        hi[d] = (hi[n] as number) + (records[at + 2] as number) + carryOut(sum, a);
        lo[d] = sum;
        break;
      }
      case 4: // ADD32I
        lo[d] = (lo[n] as number) + a;
        hi[d] = 0;
        break;
      case 5: {
        // ADD64
        const m = head >>> 24;
        const y = lo[m] as number;
        const sum = ((lo[n] as number) + y) | 0;
        hi[d] = (hi[n] as number) + (hi[m] as number) + carryOut(sum, y);
        lo[d] = sum;
        break;
      }
      case 6: {
        // SUB64
        const m = head >>> 24;
        const x = lo[n] as number;
        const y = lo[m] as number;
        hi[d] = (hi[n] as number) - (hi[m] as number) - carryOut(x, y);
        lo[d] = x - y;
        break;
      }
      case 7: // ADD32
        lo[d] = (lo[n] as number) + (lo[head >>> 24] as number);
        hi[d] = 0;
        break;
      case 8: // SUB32
        lo[d] = (lo[n] as number) - (lo[head >>> 24] as number);
        hi[d] = 0;
        break;
      case 9: {
        // SUBS64I
        const x = lo[n] as number;
        const xh = hi[n] as number;
        lo[34] = subtractFlags64(x, xh, a, 0);
        hi[d] = xh - carryOut(x, a);
        lo[d] = x - a;
        break;
      }
      case 10: {
        // SUBS32I
        const x = lo[n] as number;
        lo[34] = subtractFlags32(x, a);
        lo[d] = x - a;
        hi[d] = 0;
        break;
      }
      case 11: {
        // SUBS64
        const m = head >>> 24;
        const x = lo[n] as number;
        const xh = hi[n] as number;
        const y = lo[m] as number;
        const yh = hi[m] as number;
        lo[34] = subtractFlags64(x, xh, y, yh);
        hi[d] = xh - yh - carryOut(x, y);
        lo[d] = x - y;
        break;
      }
      case 12: {
        // SUBS32
        const x = lo[n] as number;
        const y = lo[head >>> 24] as number;
        lo[34] = subtractFlags32(x, y);
        lo[d] = x - y;
        hi[d] = 0;
        break;
      }
      case 13: // AND64I
        lo[d] = (lo[n] as number) & a;
        hi[d] = (hi[n] as number) & (records[at + 2] as number);
        break;
      case 14: // ORR64I
        lo[d] = (lo[n] as number) | a;
        hi[d] = (hi[n] as number) | (records[at + 2] as number);
        break;
      case 15: // EOR64I
        lo[d] = (lo[n] as number) ^ a;
        hi[d] = (hi[n] as number) ^ (records[at + 2] as number);
        break;
      case 16: // AND64
        lo[d] = (lo[n] as number) & (lo[head >>> 24] as number);
        hi[d] = (hi[n] as number) & (hi[head >>> 24] as number);
        break;
      case 17: // ORR64
        lo[d] = (lo[n] as number) | (lo[head >>> 24] as number);
        hi[d] = (hi[n] as number) | (hi[head >>> 24] as number);
        break;
      case 18: // EOR64
        lo[d] = (lo[n] as number) ^ (lo[head >>> 24] as number);
        hi[d] = (hi[n] as number) ^ (hi[head >>> 24] as number);
        break;
      case 19: // AND32
        lo[d] = (lo[n] as number) & (lo[head >>> 24] as number);
        hi[d] = 0;
        break;
      case 20: // ORR32
        lo[d] = (lo[n] as number) | (lo[head >>> 24] as number);
        hi[d] = 0;
        break;
      case 21: // EOR32
        lo[d] = (lo[n] as number) ^ (lo[head >>> 24] as number);
        hi[d] = 0;
        break;
      case 22: // MOVK64
      case 23: {
        // MOVK32
        const part = records[at + 2] as number;
        const half = part > 1 ? hi : lo;
        const old = half[d] as number;
        half[d] = (part & 1) === 1 ? (old & 0xffff) | (a << 16) : (old & -0x10000) | a;
        if ((head & 1) === 1) hi[d] = 0;
        break;
      }
      case 24: {
        // LSL64I
        const x = lo[n] as number;
        const xh = hi[n] as number;
        if (a >= 32) {
          hi[d] = x << a;
          lo[d] = 0;
        } else {
          hi[d] = a === 0 ? xh : (xh << a) | (x >>> (32 - a));
          lo[d] = x << a;
        }
        break;
      }
      case 25: {
        // LSR64I
        const x = lo[n] as number;
        const xh = hi[n] as number;
        if (a >= 32) {
          lo[d] = xh >>> a;
          hi[d] = 0;
        } else {
          lo[d] = a === 0 ? x : (x >>> a) | (xh << (32 - a));
          hi[d] = xh >>> a;
        }
        break;
      }
      case 26: {
        // ASR64I
        const x = lo[n] as number;
        const xh = hi[n] as number;
        if (a >= 32) {
          lo[d] = xh >> a;
          hi[d] = xh >> 31;
        } else {
          lo[d] = a === 0 ? x : (x >>> a) | (xh << (32 - a));
          hi[d] = xh >> a;
        }
        break;
      }
      case 27: // UBF32
        lo[d] = ((lo[n] as number) << a) >>> (records[at + 2] as number);
        hi[d] = 0;
        break;
      case 31: {
        // BL
        const link = (codeLo + at + 4) | 0;
        lo[30] = link;
        hi[30] = link === 0 ? codeHi + 1 : codeHi;
        next = at + a;
        break;
      }
      case 30: // B
        next = at + a;
        break;
      case 32: // BCOND
        if ((((records[at + 2] as number) >>> (lo[34] as number)) & 1) !== 0) next = at + a;
        break;
      case 33: // CBZ64
        if (((lo[n] as number) | (hi[n] as number)) === 0) next = at + a;
        break;
      case 34: // CBNZ64
        if (((lo[n] as number) | (hi[n] as number)) !== 0) next = at + a;
        break;
      case 35: // CBZ32
        if (lo[n] === 0) next = at + a;
        break;
      case 36: // CBNZ32
        if (lo[n] !== 0) next = at + a;
        break;
      case 37: {
        // TBZ
        const half = head >>> 24 === 0 ? lo : hi;
        if (((half[n] as number) & (records[at + 2] as number)) === 0) next = at + a;
        break;
      }
      case 38: {
        // TBNZ
        const half = head >>> 24 === 0 ? lo : hi;
        if (((half[n] as number) & (records[at + 2] as number)) !== 0) next = at + a;
        break;
      }
      case 40: // BLR
      case 39: {
        // BR, RET
        const toLo = lo[n] as number;
        const toHi = hi[n] as number;
        if ((head & 255) === 40) {
          const link = (codeLo + at + 4) | 0;
          lo[30] = link;
          hi[30] = link === 0 ? codeHi + 1 : codeHi;
        }
        const offset = (toLo - codeLo) | 0;
        if (toHi === codeHi && offset >>> 0 < size && (offset & 3) === 0 && (a === 0 || !guarded)) {
          next = offset;
          break;
        }
        core.branchType = a;
        core.branchFrom = code;
        left -= 1;
        if (log) log.add(core, records, at);
        core.executed += budget - left;
        core.pcLo = toLo;
        core.pcHi = toHi;
        core.exit = EXIT.LEFT;
        return left;
      }
      case 41: {
        // LDR64
        const addressLo = ((lo[n] as number) + a) | 0;
        const addressHi =
          ((hi[n] as number) + (records[at + 2] as number) + carryOut(addressLo, a)) | 0;
        const offset = memory.offsetRead(addressHi, addressLo, 8);
        if (offset < 0) {
          failed = core.fault('read', addressHi, addressLo, 8);
          break;
        }
        lo[d] = view.getInt32(offset, true);
        hi[d] = view.getInt32(offset + 4, true);
        break;
      }
      case 42: {
        // LDR32
        const addressLo = ((lo[n] as number) + a) | 0;
        const addressHi =
          ((hi[n] as number) + (records[at + 2] as number) + carryOut(addressLo, a)) | 0;
        const offset = memory.offsetRead(addressHi, addressLo, 4);
        if (offset < 0) {
          failed = core.fault('read', addressHi, addressLo, 4);
          break;
        }
        lo[d] = view.getInt32(offset, true);
        hi[d] = 0;
        break;
      }
      case 43: {
        // LDRB
        const addressLo = ((lo[n] as number) + a) | 0;
        const addressHi =
          ((hi[n] as number) + (records[at + 2] as number) + carryOut(addressLo, a)) | 0;
        const offset = memory.offsetRead(addressHi, addressLo, 1);
        if (offset < 0) {
          failed = core.fault('read', addressHi, addressLo, 1);
          break;
        }
        lo[d] = view.getUint8(offset);
        hi[d] = 0;
        break;
      }
      case 44: {
        // LDRH
        const addressLo = ((lo[n] as number) + a) | 0;
        const addressHi =
          ((hi[n] as number) + (records[at + 2] as number) + carryOut(addressLo, a)) | 0;
        const offset = memory.offsetRead(addressHi, addressLo, 2);
        if (offset < 0) {
          failed = core.fault('read', addressHi, addressLo, 2);
          break;
        }
        lo[d] = view.getUint16(offset, true);
        hi[d] = 0;
        break;
      }
      case 45: {
        // STR64
        const addressLo = ((lo[n] as number) + a) | 0;
        const addressHi =
          ((hi[n] as number) + (records[at + 2] as number) + carryOut(addressLo, a)) | 0;
        const offset = memory.offsetWrite(addressHi, addressLo, 8);
        if (offset < 0) {
          failed = core.fault('write', addressHi, addressLo, 8);
          break;
        }
        view.setInt32(offset, lo[d] as number, true);
        view.setInt32(offset + 4, hi[d] as number, true);
        break;
      }
      case 46: // STR32
      case 47: // STRB
      case 48: {
        // STRH
        const bytes = (head & 255) === 46 ? 4 : (head & 255) - 46;
        const addressLo = ((lo[n] as number) + a) | 0;
        const addressHi =
          ((hi[n] as number) + (records[at + 2] as number) + carryOut(addressLo, a)) | 0;
        const offset = memory.offsetWrite(addressHi, addressLo, bytes);
        if (offset < 0) {
          failed = core.fault('write', addressHi, addressLo, bytes);
          break;
        }
        if (bytes === 4) view.setInt32(offset, lo[d] as number, true);
        else if (bytes === 1) view.setUint8(offset, lo[d] as number);
        else view.setUint16(offset, lo[d] as number, true);
        break;
      }
      case 49: {
        // LDP64
        const addressLo = ((lo[n] as number) + a) | 0;
        const addressHi = ((hi[n] as number) + (a >> 31) + carryOut(addressLo, a)) | 0;
        const offset = memory.offsetRead(addressHi, addressLo, 16);
        if (offset < 0) {
          failed = executeCold(core, code, at);
          break;
        }
        const b = records[at + 2] as number;
        if (b !== 0) {
          const base = ((lo[n] as number) + b) | 0;
          hi[n] = (hi[n] as number) + (b >> 31) + carryOut(base, b);
          lo[n] = base;
        }
        lo[d] = view.getInt32(offset, true);
        hi[d] = view.getInt32(offset + 4, true);
        lo[head >>> 24] = view.getInt32(offset + 8, true);
        hi[head >>> 24] = view.getInt32(offset + 12, true);
        break;
      }
      case 50: {
        // STP64
        const addressLo = ((lo[n] as number) + a) | 0;
        const addressHi = ((hi[n] as number) + (a >> 31) + carryOut(addressLo, a)) | 0;
        const offset = memory.offsetWrite(addressHi, addressLo, 16);
        if (offset < 0) {
          failed = executeCold(core, code, at);
          break;
        }
        view.setInt32(offset, lo[d] as number, true);
        view.setInt32(offset + 4, hi[d] as number, true);
        view.setInt32(offset + 8, lo[head >>> 24] as number, true);
        view.setInt32(offset + 12, hi[head >>> 24] as number, true);
        const b = records[at + 2] as number;
        if (b !== 0) {
          const base = ((lo[n] as number) + b) | 0;
          hi[n] = (hi[n] as number) + (b >> 31) + carryOut(base, b);
          lo[n] = base;
        }
        break;
      }
      default:
        core.pending = budget - left;
        failed = executeCold(core, code, at);
    }

    if (failed === STOPPED) {
      exit = EXIT.STOP;
      break;
    }
    left -= 1;
    if (log) {
      // what most instructions need of TraceLog.add, in line
      const { used } = log;
      if (used >= ROOM || (head & 255) >= FIRST_WIDE || shadowLo[34] !== lo[34]) {
        log.add(core, records, at);
      } else {
        const chunk = log.chunk;
        const low = lo[d] as number;
        const high = hi[d] as number;
        chunk[used] = records[at + 3] as number;
        if (d === 33 || (shadowLo[d] === low && shadowHi[d] === high)) {
          chunk[used + 1] = -1;
        } else {
          chunk[used + 1] = d;
          chunk[used + 2] = low;
          chunk[used + 3] = high;
          shadowLo[d] = low;
          shadowHi[d] = high;
        }
        log.used = used + 4;
      }
    }
    at = next;
  }
  core.executed += budget - left;
  core.exit = exit;
  const address = (codeLo >>> 0) + at;
  core.pcLo = address | 0;
  core.pcHi = codeHi + Math.floor(address / 0x1_0000_0000);
  return left;
}
