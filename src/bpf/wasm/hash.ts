/**
 * The look-up in a hash table as a WebAssembly function: offset of a key -> address of the value, or 0.
 *
 * What `HashTable.find` does, on the same bytes; an LRU map's element gets its mark. Key size and places
 * are constants, so hash and comparison are straight code.
 */
import { HASH, HTAB_ELEM, LINK } from '../maps/hash-table.js';
import type { HashBase } from '../maps/hash.js';
import { LruHashMap } from '../maps/lru-hash.js';
import { I32, OP, type CodeWriter } from './emitter.js';

/** Longest key that is looked up here. */
export const MAX_KEY_SIZE = 64;

const KEY = 0;
const HASHED = 1;
const ELEMENT = 2;
const AT = 3;
const DATA = 4;
export const HASH_LOCALS = [[4, I32]] as const;

/** `pushValues` pushes the address of the first value, as i64. */
export function emitHashLookup(code: CodeWriter, map: HashBase, pushValues: () => void): void {
  const isAged = map instanceof LruHashMap;
  const { region, elements, layout } = map.table;
  const { keySize, buckets, links, elementSize } = layout;
  emitHash(code, keySize);
  code
    .get(HASHED)
    .i32(buckets - 1)
    .op(OP.i32_and)
    .i32(2)
    .op(OP.i32_shl);
  code.memory(OP.i32_load, region.offset).set(ELEMENT);
  const end = code.open(OP.block);
  const again = code.open(OP.loop);
  code.get(ELEMENT).i32(0).op(OP.i32_lt_s).branch(end, OP.br_if);
  code.get(ELEMENT).i32(LINK.size).op(OP.i32_mul).set(AT);
  const other = code.open(OP.block);
  code
    .get(AT)
    .memory(OP.i32_load, region.offset + links + LINK.hash)
    .get(HASHED);
  code.op(OP.i32_ne).branch(other, OP.br_if);
  code.get(ELEMENT).i32(elementSize).op(OP.i32_mul).set(DATA);
  emitDifference(code, keySize, elements.offset + HTAB_ELEM.key);
  code.branch(other, OP.br_if);
  if (isAged) {
    code
      .get(DATA)
      .i32(1)
      .memory(OP.i32_store8, elements.offset + HTAB_ELEM.ref);
  }
  code.get(ELEMENT).op(OP.i64_extend_i32_u).i64(map.step).op(OP.i64_mul);
  pushValues();
  code.op(OP.i64_add).op(OP.return);
  code.end();
  code
    .get(AT)
    .memory(OP.i32_load, region.offset + links)
    .set(ELEMENT)
    .branch(again);
  code.end().end();
  code.i64(0);
}

/** HASHED = the hash of the key. */
function emitHash(code: CodeWriter, keySize: number): void {
  const mix = (multiplier: number): void => {
    code.op(OP.i32_xor).i32(multiplier).op(OP.i32_mul);
  };
  const shifted = (shift: number): void => {
    code.tee(HASHED).get(HASHED).i32(shift).op(OP.i32_shr_u);
  };
  let at = 0;
  code.i32(keySize);
  for (; at + 4 <= keySize; at += 4) {
    code.get(KEY).memory(OP.i32_load, at);
    mix(HASH.word);
    shifted(HASH.shift);
    code.op(OP.i32_xor);
  }
  for (; at < keySize; at++) {
    code.get(KEY).memory(OP.i32_load8_u, at);
    mix(HASH.word);
  }
  shifted(HASH.high);
  mix(HASH.last);
  shifted(HASH.low);
  code.op(OP.i32_xor).set(HASHED);
}

const PIECES = [
  { size: 8, load: OP.i64_load, differs: OP.i64_ne },
  { size: 4, load: OP.i32_load, differs: OP.i32_ne },
  { size: 2, load: OP.i32_load16_u, differs: OP.i32_ne },
  { size: 1, load: OP.i32_load8_u, differs: OP.i32_ne },
] as const;

/** Pushes whether the key and that of the element differ; `keys` is where the key of element 0 is. */
function emitDifference(code: CodeWriter, keySize: number, keys: number): void {
  let at = 0;
  for (const { size, load, differs } of PIECES) {
    for (; at + size <= keySize; at += size) {
      code
        .get(KEY)
        .memory(load, at)
        .get(DATA)
        .memory(load, keys + at);
      code.op(differs);
      if (at > 0) code.op(OP.i32_or);
    }
  }
}
