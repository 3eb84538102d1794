/**
 * The slow path of an access, in WebAssembly: finds the region of an address in the region table,
 * puts it into the class's slot, gives the offset.
 *
 * What the table does not allow goes to `miss`, which knows why, and stops the run; whoever can do
 * without hears of it quietly.
 */
import { I32, I64, OP, type CodeWriter, type ValueType } from './emitter.js';
import type { Imports } from './context.js';
import { ACCESS, ENTRY, ENTRY_READ, ENTRY_WRITE, SLOT, STATE } from './state.js';

/** (address, site, `ACCESS` bits, slot) -> offset */
export const LOCATE_PARAMETERS: readonly ValueType[] = [I64, I32, I32, I32];

const ADDRESS = 0;
const SITE = 1;
const BITS = 2;
const SLOT_AT = 3;
const SIZE = 4;
const LOW = 5;
const HIGH = 6;
const MIDDLE = 7;
const ENTRY_AT = 8;

export const LOCATE_LOCALS = [
  [1, I64],
  [4, I32],
] as const;

export function emitLocate(code: CodeWriter, state: number, imports: Imports): CodeWriter {
  code.i32(0).memory(OP.i32_load, state + STATE.stale);
  code.open(OP.if);
  code.call(imports.refresh).end();

  // LOW becomes the number of entries that begin at or below the address
  code
    .i32(0)
    .memory(OP.i32_load, state + STATE.tableCount)
    .set(HIGH);
  const found = code.open(OP.block);
  const again = code.open(OP.loop);
  code.get(LOW).get(HIGH).op(OP.i32_ge_u).branch(found, OP.br_if);
  code.get(LOW).get(HIGH).op(OP.i32_add).i32(1).op(OP.i32_shr_u).tee(MIDDLE);
  emitEntry(code, state);
  code.memory(OP.i64_load, ENTRY.lo).get(ADDRESS).op(OP.i64_le_u);
  code.open(OP.if);
  code.get(MIDDLE).i32(1).op(OP.i32_add).set(LOW).branch(again).end();
  code.get(MIDDLE).set(HIGH).branch(again);
  code.end().end();

  const refused = code.open(OP.block);
  code.get(LOW).op(OP.i32_eqz).branch(refused, OP.br_if);
  code.get(LOW).i32(1).op(OP.i32_sub);
  emitEntry(code, state);
  code.tee(ENTRY_AT).memory(OP.i64_load, ENTRY.size);
  code.get(BITS).i32(ACCESS.sizeShift).op(OP.i32_shr_u).op(OP.i64_extend_i32_u).op(OP.i64_sub);
  code.tee(SIZE).i64(0).op(OP.i64_lt_s).branch(refused, OP.br_if);
  code.get(ADDRESS).get(ENTRY_AT).memory(OP.i64_load, ENTRY.lo).op(OP.i64_sub);
  code.get(SIZE).op(OP.i64_gt_u).branch(refused, OP.br_if);
  emitAllowed(code, ACCESS.write);
  code.op(OP.i32_eqz).branch(refused, OP.br_if);

  const uncached = code.open(OP.block);
  emitAllowed(code, ACCESS.needsWrite);
  code.op(OP.i32_eqz).branch(uncached, OP.br_if);
  code.get(ENTRY_AT).memory(OP.i64_load, ENTRY.size).i64(8).op(OP.i64_sub);
  code.tee(SIZE).i64(0).op(OP.i64_lt_s).branch(uncached, OP.br_if);
  code.get(SLOT_AT).get(SIZE).memory(OP.i64_store, SLOT.limit);
  code.get(SLOT_AT).get(ENTRY_AT).memory(OP.i64_load, ENTRY.lo).memory(OP.i64_store, SLOT.lo);
  code.get(SLOT_AT).get(ENTRY_AT).memory(OP.i32_load, ENTRY.delta);
  code.memory(OP.i32_store, SLOT.delta);
  code.end();
  code.get(ADDRESS).op(OP.i32_wrap_i64).get(ENTRY_AT).memory(OP.i32_load, ENTRY.delta);
  code.op(OP.i32_add).op(OP.return);

  code.end();
  code.get(BITS).i32(ACCESS.quiet).op(OP.i32_and);
  code.open(OP.if);
  code.i32(-1).op(OP.return).end();
  code.get(ADDRESS).get(SITE).get(BITS).call(imports.miss);
  return code;
}

/** From the number of an entry to its offset. */
function emitEntry(code: CodeWriter, state: number): void {
  code.i32(ENTRY.bytes).op(OP.i32_mul);
  code
    .i32(0)
    .memory(OP.i32_load, state + STATE.table)
    .op(OP.i32_add);
}

/** Pushes whether the entry allows writing if `bit` is set, else reading. */
function emitAllowed(code: CodeWriter, bit: number): void {
  code.i32(ENTRY_WRITE).i32(ENTRY_READ).get(BITS).i32(bit).op(OP.i32_and).op(OP.select);
  code.get(ENTRY_AT).memory(OP.i32_load, ENTRY.flags).op(OP.i32_and);
}
