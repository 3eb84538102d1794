/**
 * Loads and stores that the hot switch leaves out: sign extension, indexed and register addressing,
 * pairs, exclusives, LSE atomics (Arm ARM C6.2, B2.9).
 *
 * Alignment: LDAR and kin, exclusives and atomics must be aligned (as before FEAT_LSE2), all others
 * need not be. A pair is two accesses in the order of their addresses: when the second of a store
 * is refused, the first has been written (as libunicorn does), but no register has changed. The
 * exclusive monitor remembers address and value; a store exclusive succeeds when memory still holds
 * that value, also if it was written meanwhile.
 */
import { high32, low32, u64 } from '../../common/bytes.js';
import { NEXT, SINK_SLOT, STOPPED, type Code, type Core } from './core.js';
import { ATOMIC_OPERATIONS } from './lower.js';
import { ACCESS, OP, PAIR } from './operations.js';

/** Value of `1 << size` bytes at an offset that is known to be good. */
function readAt(view: DataView, offset: number, size: number): bigint {
  if (size === 3) return view.getBigUint64(offset, true);
  if (size === 2) return BigInt(view.getUint32(offset, true));
  return BigInt(size === 1 ? view.getUint16(offset, true) : view.getUint8(offset));
}

function writeAt(view: DataView, offset: number, size: number, value: bigint): void {
  if (size === 3) view.setBigUint64(offset, value, true);
  else if (size === 2) view.setInt32(offset, low32(value), true);
  else if (size === 1) view.setUint16(offset, low32(value), true);
  else view.setUint8(offset, low32(value));
}

/** Loads into slot `d`, extended as `b` says. */
function loadInto(core: Core, d: number, offset: number, b: number): void {
  const { lo, hi, view } = core;
  const signed = (b & ACCESS.SIGNED) !== 0;
  switch (b & ACCESS.SIZE) {
    case 0:
      lo[d] = signed ? view.getInt8(offset) : view.getUint8(offset);
      break;
    case 1:
      lo[d] = signed ? view.getInt16(offset, true) : view.getUint16(offset, true);
      break;
    case 2:
      lo[d] = view.getInt32(offset, true);
      break;
    default:
      lo[d] = view.getInt32(offset, true);
      hi[d] = view.getInt32(offset + 4, true);
      return;
  }
  hi[d] = signed && (b & ACCESS.TO32) === 0 ? (lo[d] as number) >> 31 : 0;
}

function storeFrom(core: Core, d: number, offset: number, size: number): void {
  const { lo, hi, view } = core;
  const low = lo[d] as number;
  if (size === 0) view.setUint8(offset, low);
  else if (size === 1) view.setUint16(offset, low, true);
  else view.setInt32(offset, low, true);
  if (size === 3) view.setInt32(offset + 4, hi[d] as number, true);
}

/** LDR (literal, register offset, indexed, sign-extending), STR, LDAR, STLR. */
function single(core: Core, code: Code, at: number, load: boolean): number {
  const { records } = code;
  const head = records[at] as number;
  const a = records[at + 1] as number;
  const b = records[at + 2] as number;
  const d = (head >>> 8) & 63;
  const n = (head >>> 16) & 63;
  const size = b & ACCESS.SIZE;
  const bytes = 1 << size;
  let hi = core.hi[n] as number;
  let lo = core.lo[n] as number;
  if ((b & ACCESS.LITERAL) !== 0) {
    hi = code.hi;
    lo = (code.lo + at) | 0;
  }
  let sum = (lo + a) | 0;
  let sumHi = (hi + (a >> 31) + (sum >>> 0 < a >>> 0 ? 1 : 0)) | 0;
  if ((b & ACCESS.REGISTER) !== 0) {
    const m = head >>> 24;
    const shift = (b >> 12) & 7;
    const option = (b >> 8) & 7;
    const index = core.lo[m] as number;
    // UXTW, SXTW or all 64 bits
    const indexHi = option === 2 ? 0 : option === 6 ? index >> 31 : (core.hi[m] as number);
    const by = index << shift;
    sum = (lo + by) | 0;
    const byHi = shift === 0 ? indexHi : (indexHi << shift) | (index >>> (32 - shift));
    sumHi = (hi + byHi + (sum >>> 0 < by >>> 0 ? 1 : 0)) | 0;
  }
  if ((b & ACCESS.POST) === 0) {
    hi = sumHi;
    lo = sum;
  }
  const access = load ? 'read' : 'write';
  if ((b & ACCESS.ORDERED) !== 0 && (lo & (bytes - 1)) !== 0) {
    return core.alignmentFault(access, address64(hi, lo), bytes);
  }
  const { memory } = core;
  const offset = load ? memory.offsetRead(hi, lo, bytes) : memory.offsetWrite(hi, lo, bytes);
  if (offset < 0) return core.fault(access, hi, lo, bytes);
  if (load) loadInto(core, d, offset, b);
  else storeFrom(core, d, offset, size);
  if ((b & (ACCESS.POST | ACCESS.PRE)) !== 0) {
    core.lo[n] = sum;
    core.hi[n] = sumHi;
  }
  return NEXT;
}

function address64(hi: number, lo: number): bigint {
  return (BigInt(hi >>> 0) << 32n) | BigInt(lo >>> 0);
}

/** LDP, STP, LDPSW; also the 64-bit ones whose halves do not lie in one region. */
function pair(core: Core, records: Int32Array, at: number): number {
  const head = records[at] as number;
  const op = head & 255;
  const d = (head >>> 8) & 63;
  const n = (head >>> 16) & 63;
  const m = head >>> 24;
  const b = records[at + 2] as number;
  const wide = op === OP.LDP64 || op === OP.STP64;
  const load = op === OP.LDP64 || op === OP.LOAD_PAIR;
  const writeback = wide ? b : b >> 8;
  const size = wide ? 3 : 2;
  const bytes = 1 << size;
  const base = core.x(n);
  const address = u64(base + BigInt(records[at + 1] as number));
  const second = u64(address + BigInt(bytes));
  const { memory } = core;
  if (load) {
    const [hi, lo, hi2, lo2] = [high32(address), low32(address), high32(second), low32(second)];
    const one = memory.offsetRead(hi, lo, bytes);
    if (one < 0) return core.fault('read', hi, lo, bytes);
    const two = memory.offsetRead(hi2, lo2, bytes);
    if (two < 0) return core.fault('read', hi2, lo2, bytes);
    const extension = size | (wide ? 0 : b & ACCESS.SIGNED);
    if (writeback !== 0) core.setX(n, base + BigInt(writeback));
    loadInto(core, d, one, extension);
    loadInto(core, m, two, extension);
    return NEXT;
  }
  for (const [slot, where] of [
    [d, address],
    [m, second],
  ] as const) {
    const offset = memory.offsetWrite(high32(where), low32(where), bytes);
    if (offset < 0) return core.fault('write', high32(where), low32(where), bytes);
    storeFrom(core, slot, offset, size);
  }
  if (writeback !== 0) core.setX(n, base + BigInt(writeback));
  return NEXT;
}

/**
 * Offset of an aligned, readable and (for `write`) writable atomic access; -1 when it is refused,
 * which `core.stop` then explains.
 */
function atomicOffset(core: Core, n: number, bytes: number, write: 'no' | 'only' | 'also'): number {
  const hi = core.hi[n] as number;
  const lo = core.lo[n] as number;
  if ((lo & (bytes - 1)) !== 0) {
    core.alignmentFault(write === 'only' ? 'write' : 'read', core.x(n), bytes);
    return -1;
  }
  if (write !== 'only') {
    const offset = core.memory.offsetRead(hi, lo, bytes);
    if (offset < 0) core.fault('read', hi, lo, bytes);
    if (offset < 0 || write === 'no') return offset;
  }
  const offset = core.memory.offsetWrite(hi, lo, bytes);
  if (offset < 0) core.fault('write', hi, lo, bytes);
  return offset;
}

function loadExclusive(core: Core, d: number, n: number, m: number, a: number): number {
  const size = a & 3;
  const isPair = (a & PAIR) !== 0;
  const offset = atomicOffset(core, n, isPair ? 2 << size : 1 << size, 'no');
  if (offset < 0) return STOPPED;
  core.monitor = core.x(n);
  core.monitorValue = readAt(core.view, offset, size);
  core.monitorHigh = isPair ? readAt(core.view, offset + (1 << size), size) : 0n;
  core.setX(d, core.monitorValue);
  if (isPair) core.setX(m, core.monitorHigh);
  return NEXT;
}

/** Rs = 0 when stored, 1 when the monitor does not allow it (nothing is accessed then). */
function storeExclusive(core: Core, records: Int32Array, at: number): number {
  const head = records[at] as number;
  const [d, n, m] = [(head >>> 8) & 63, (head >>> 16) & 63, head >>> 24];
  const a = records[at + 1] as number;
  const size = a & 3;
  const isPair = (a & PAIR) !== 0;
  const bytes = isPair ? 2 << size : 1 << size;
  const address = core.x(n);
  if ((low32(address) & (bytes - 1)) !== 0) return core.alignmentFault('write', address, bytes);
  let status = 1;
  if (core.monitor === address) {
    const offset = atomicOffset(core, n, bytes, 'only');
    if (offset < 0) return STOPPED;
    const held =
      readAt(core.view, offset, size) === core.monitorValue &&
      (!isPair || readAt(core.view, offset + (1 << size), size) === core.monitorHigh);
    if (held) {
      status = 0;
      storeFrom(core, records[at + 2] as number, offset, size);
      if (isPair) storeFrom(core, m, offset + (1 << size), size);
    }
  }
  core.monitor = -1n;
  core.lo[d] = status;
  core.hi[d] = 0;
  return NEXT;
}

function combine(kind: number, old: bigint, value: bigint, bits: number): bigint {
  const signed = (x: bigint): bigint => BigInt.asIntN(bits, x);
  switch (ATOMIC_OPERATIONS[kind]) {
    case 'add':
      return old + value;
    case 'clr':
      return old & ~value;
    case 'eor':
      return old ^ value;
    case 'set':
      return old | value;
    case 'smax':
      return signed(old) > signed(value) ? old : value;
    case 'smin':
      return signed(old) < signed(value) ? old : value;
    case 'umax':
      return old > value ? old : value;
    case 'umin':
      return old < value ? old : value;
    case 'swp':
      return value;
    case undefined:
      throw new RangeError(`atomic operation ${kind}`);
  }
}

/** LDADD of 32 or 64 bits: what counters in maps are made of. */
function addAtomically(core: Core, d: number, s: number, offset: number, wide: boolean): void {
  const { view } = core;
  const lo = view.getInt32(offset, true);
  const by = core.lo[s] as number;
  const sum = (lo + by) | 0;
  let hi = 0;
  if (wide) {
    hi = view.getInt32(offset + 4, true);
    const carry = sum >>> 0 < by >>> 0 ? 1 : 0;
    view.setInt32(offset + 4, hi + (core.hi[s] as number) + carry, true);
  }
  view.setInt32(offset, sum, true);
  core.lo[d] = lo;
  core.hi[d] = hi;
}

function atomic(core: Core, records: Int32Array, at: number): number {
  const head = records[at] as number;
  const size = records[at + 1] as number;
  const bits = 8 << size;
  const offset = atomicOffset(core, (head >>> 16) & 63, 1 << size, 'also');
  if (offset < 0) return STOPPED;
  if (ATOMIC_OPERATIONS[records[at + 2] as number] === 'add' && size >= 2) {
    addAtomically(core, (head >>> 8) & 63, head >>> 24, offset, size === 3);
    return NEXT;
  }
  const old = readAt(core.view, offset, size);
  const value = BigInt.asUintN(bits, core.x(head >>> 24));
  const result = combine(records[at + 2] as number, old, value, bits);
  writeAt(core.view, offset, size, BigInt.asUintN(bits, result));
  core.setX((head >>> 8) & 63, old);
  return NEXT;
}

/** CAS: d (Rs) holds the expected value and takes the old one, m (Rt) the new value. */
function compareAndSwap(core: Core, records: Int32Array, at: number): number {
  const head = records[at] as number;
  const d = (head >>> 8) & 63;
  const size = records[at + 1] as number;
  const bits = 8 << size;
  const offset = atomicOffset(core, (head >>> 16) & 63, 1 << size, 'also');
  if (offset < 0) return STOPPED;
  const old = readAt(core.view, offset, size);
  const expected = d === SINK_SLOT ? 0n : BigInt.asUintN(bits, core.x(d));
  if (old === expected) writeAt(core.view, offset, size, BigInt.asUintN(bits, core.x(head >>> 24)));
  core.setX(d, old);
  return NEXT;
}

/** CASP: registers d, d+1 and m, m+1; the number 31 is XZR. */
function compareAndSwapPair(core: Core, records: Int32Array, at: number): number {
  const head = records[at] as number;
  const [d, m] = [(head >>> 8) & 63, head >>> 24];
  const size = 2 + (records[at + 1] as number);
  const bits = 8 << size;
  const step = 1 << size;
  const value = (register: number): bigint =>
    register === 31 ? 0n : BigInt.asUintN(bits, core.x(register));
  const offset = atomicOffset(core, (head >>> 16) & 63, 2 * step, 'also');
  if (offset < 0) return STOPPED;
  const old = [readAt(core.view, offset, size), readAt(core.view, offset + step, size)] as const;
  if (old[0] === value(d) && old[1] === value(d + 1)) {
    writeAt(core.view, offset, size, value(m));
    writeAt(core.view, offset + step, size, value(m + 1));
  }
  core.setX(d, old[0]);
  if (d < 30) core.setX(d + 1, old[1]);
  return NEXT;
}

export function executeMemory(core: Core, code: Code, at: number): number {
  const { records } = code;
  const head = records[at] as number;
  const op = head & 255;
  switch (op) {
    case OP.LOAD:
    case OP.STORE:
      return single(core, code, at, op === OP.LOAD);
    case OP.LDP64:
    case OP.STP64:
    case OP.LOAD_PAIR:
    case OP.STORE_PAIR:
      return pair(core, records, at);
    case OP.LOAD_EXCLUSIVE: {
      const a = records[at + 1] as number;
      return loadExclusive(core, (head >>> 8) & 63, (head >>> 16) & 63, head >>> 24, a);
    }
    case OP.STORE_EXCLUSIVE:
      return storeExclusive(core, records, at);
    case OP.ATOMIC:
      return atomic(core, records, at);
    case OP.SWAP:
      return compareAndSwap(core, records, at);
    case OP.SWAP_PAIR:
      return compareAndSwapPair(core, records, at);
    default:
      throw new RangeError(`memory operation ${op}`);
  }
}
