/**
 * bpf_map_lookup_elem and bpf_map_update_elem in place, on maps that are known when code is written.
 *
 * Looked up: arrays and hashes, per CPU and LRU as well. Updated: arrays. Other map types, values with
 * locks or timers, long keys are the body's, and so is a map that has been freed.
 */
import { ArrayMap } from '../maps/array.js';
import { HashBase } from '../maps/hash.js';
import { BPF_EXIST } from '../maps/base.js';
import type { BpfMap, MapTypeName } from '../maps/map.js';
import type { Place } from './access.js';
import type { FunctionContext, ModuleContext } from './context.js';
import { I32, I64, OP, type CodeWriter } from './emitter.js';
import { emitHashLookup, HASH_LOCALS, MAX_KEY_SIZE } from './hash.js';
import type { InPlace } from './in-place.js';
import { argumentOf, emitSpan } from './span.js';
import { STATE } from './state.js';

// maps of maps and devmaps have the same classes, and look up differently
const ARRAYS: readonly MapTypeName[] = ['ARRAY', 'PERCPU_ARRAY'];
const HASHES: readonly MapTypeName[] = ['HASH', 'PERCPU_HASH', 'LRU_HASH', 'LRU_PERCPU_HASH'];

/** Longest value that is copied without a loop. */
const MAX_UNROLLED = 64;

/** The map in R1, when it is always the same. */
function mapOf(context: FunctionContext, insn: number): BpfMap | undefined {
  const { constant } = argumentOf(context, insn, 1);
  return constant === undefined ? undefined : context.program.host.mapAt(constant);
}

export function mapLookup(context: FunctionContext, insn: number): InPlace | undefined {
  const map = mapOf(context, insn);
  if (map instanceof ArrayMap && ARRAYS.includes(map.spec.type)) {
    return { kind: 'partly', write: (body) => emitArrayLookup(context, insn, map, body) };
  }
  if (map instanceof HashBase && HASHES.includes(map.spec.type)) {
    if (map.spec.keySize > MAX_KEY_SIZE) return undefined;
    return { kind: 'partly', write: (body) => emitHashCall(context, insn, map, body) };
  }
  return undefined;
}

function emitAliveCheck({ code, program }: FunctionContext, map: BpfMap, body: number): void {
  program.uses(map);
  code
    .i32(0)
    .memory(OP.i32_load, program.state + STATE.mapsFreed)
    .branch(body, OP.br_if);
}

function emitKey(context: FunctionContext, insn: number, map: BpfMap, body: number): Place {
  const { keySize } = map.spec;
  const span = { register: 2, size: keySize, write: false, insn } as const;
  return emitSpan(context, span, context.locals.at, body);
}

function emitArrayLookup(
  context: FunctionContext,
  insn: number,
  map: ArrayMap,
  body: number,
): void {
  const { code, locals, program } = context;
  emitAliveCheck(context, map, body);
  const key = emitKey(context, insn, map, body);
  code.get(key.local).memory(OP.i32_load, key.offset).tee(locals.at);
  code.i32(map.spec.maxEntries).op(OP.i32_lt_u).op(OP.if).u8(I64);
  code.get(locals.at).op(OP.i64_extend_i32_u).i64(map.stride).op(OP.i64_mul);
  emitForCpu(code, program, map, (cpu) => void code.i64Big(map.valueRegion(cpu).address));
  code.op(OP.i64_add).op(OP.else).i64(0).op(OP.end);
  code.set(locals.registers[0] as number);
}

/** Pushes what `push` pushes for the CPU that runs, of a map with values for each. */
function emitForCpu(
  code: CodeWriter,
  { host, state }: ModuleContext,
  map: ArrayMap | HashBase,
  push: (cpu: number) => void,
): void {
  push(0);
  for (let cpu = 1; cpu < host.cpuCount; cpu++) {
    if (map.valueRegion(cpu) === map.valueRegion(0)) return;
    push(cpu);
    code
      .i32(0)
      .memory(OP.i32_load, state + STATE.cpu)
      .i32(cpu)
      .op(OP.i32_ne);
    code.op(OP.select);
  }
}

function emitHashCall(context: FunctionContext, insn: number, map: HashBase, body: number): void {
  const { code, locals, program } = context;
  emitAliveCheck(context, map, body);
  const key = emitKey(context, insn, map, body);
  const lookup = program.shared(map, {
    parameters: [I32],
    results: [I64],
    locals: HASH_LOCALS,
    write: (to) =>
      emitHashLookup(to, map, () =>
        emitForCpu(to, program, map, (cpu) => void to.i64Big(map.valueRegion(cpu).address)),
      ),
  });
  code.get(key.local);
  if (key.offset !== 0) code.i32(key.offset).op(OP.i32_add);
  code.call(lookup).set(locals.registers[0] as number);
}

export function mapUpdate(context: FunctionContext, insn: number): InPlace | undefined {
  const map = mapOf(context, insn);
  if (!(map instanceof ArrayMap) || !ARRAYS.includes(map.spec.type) || map.spec.record) {
    return undefined;
  }
  return { kind: 'partly', write: (body) => emitArrayUpdate(context, insn, map, body) };
}

function emitArrayUpdate(
  context: FunctionContext,
  insn: number,
  map: ArrayMap,
  body: number,
): void {
  const { code, locals, program } = context;
  const { valueSize, maxEntries } = map.spec;
  emitAliveCheck(context, map, body);
  // BPF_ANY and BPF_EXIST are the same for elements that are always there
  code
    .get(locals.registers[4] as number)
    .i64(~BPF_EXIST)
    .op(OP.i64_and);
  code.op(OP.i64_eqz).op(OP.i32_eqz).branch(body, OP.br_if);
  const key = emitKey(context, insn, map, body);
  code.get(key.local).memory(OP.i32_load, key.offset).tee(locals.second);
  code.i32(maxEntries).op(OP.i32_ge_u).branch(body, OP.br_if);
  const span = { register: 3, size: valueSize, write: false, insn } as const;
  const value = emitSpan(context, span, locals.at, body);
  code.get(locals.second).i32(map.stride).op(OP.i32_mul);
  emitForCpu(code, program, map, (cpu) => void code.i32(map.valueRegion(cpu).offset));
  code.op(OP.i32_add).set(locals.second);
  emitCopyBytes(code, locals.second, value, valueSize);
  code.i64(0).set(locals.registers[0] as number);
}

const PIECES = [
  { size: 8, load: OP.i64_load, store: OP.i64_store },
  { size: 4, load: OP.i32_load, store: OP.i32_store },
  { size: 2, load: OP.i32_load16_u, store: OP.i32_store16 },
  { size: 1, load: OP.i32_load8_u, store: OP.i32_store8 },
] as const;

/** Everything is loaded before anything is stored, as source and destination may overlap. */
function emitCopyBytes(code: CodeWriter, to: number, from: Place, size: number): void {
  if (size > MAX_UNROLLED) {
    code.get(to).get(from.local).i32(from.offset).op(OP.i32_add).i32(size).memoryCopy();
    return;
  }
  const stores: (() => void)[] = [];
  let at = 0;
  for (const piece of PIECES) {
    for (; at + piece.size <= size; at += piece.size) {
      const offset = at;
      code
        .get(to)
        .get(from.local)
        .memory(piece.load, from.offset + offset);
      stores.push(() => void code.memory(piece.store, offset));
    }
  }
  for (const store of stores.toReversed()) store();
}
