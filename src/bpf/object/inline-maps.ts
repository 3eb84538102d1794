/**
 * Calls of map helpers on a map that is known: look-ups become code, other operations calls of the map's own
 * function.
 *
 * Reference: do_misc_fixups in kernel/bpf/verifier.c; array_map_gen_lookup, percpu_array_map_gen_lookup,
 * array_of_map_gen_lookup in kernel/bpf/arraymap.c, htab_*_gen_lookup in kernel/bpf/hashtab.c, xsk_map_gen_lookup
 * in net/xdp/xskmap.c; checked against xlated programs of booted 6.1, 6.12, 6.18 and 7.2. Offsets are those of
 * the host's maps (`maps/array.ts`, `maps/hash-table.ts`). Whoever loads programs here has CAP_PERFMON, so maps
 * are not guarded against speculation (`bypass_spec_v1`): no index is masked.
 */
import { alignUp } from '../../common/bytes.js';
import { callDistance } from '../call-immediate.js';
import type { BpfHost } from '../host.js';
import { makeSlot, type Slot } from '../instruction.js';
import { arrayElements } from '../maps/base.js';
import { HTAB_ELEM, valueInElement } from '../maps/hash-table.js';
import { HTAB_LOOKUP, MAP_HELPER, mapOperation } from '../maps/operations.js';
import { xskMapElements } from '../maps/redirect-maps.js';
import { PERCPU_MOVE } from '../opcodes.js';

const ADD64_IMM = 0x07;
const ADD64_REG = 0x0f;
const MUL64_IMM = 0x27;
const LSH64_IMM = 0x67;
const MOV64_IMM = 0xb7;
const MOV64_REG = 0xbf;
const LDX_W = 0x61;
const LDX_B = 0x71;
const LDX_DW = 0x79;
const ST_B = 0x72;
const JA = 0x05;
const JEQ_IMM = 0x15;
const JGE_IMM = 0x35;
const JGE32_IMM = 0x36;
const JNE_IMM = 0x55;
const CALL = 0x85;

const BPF_F_INNER_MAP = 1 << 12;
const POINTER_SIZE = 8;

const RESULT = 0;
const MAP = 1;
const KEY = 2;

/** What has to be known of a map. */
export interface InlinedMap {
  /** enum bpf_map_type, by name. */
  readonly type: string;
  readonly keySize: number;
  readonly valueSize: number;
  readonly maxEntries: number;
  /** BPF_F_* of creation. */
  readonly flags: number;
}

/** Instructions in place of a call. */
export interface MapCall {
  readonly slots: readonly Slot[];
  /** Of a look-up: which of them reads the key, or calls what does. */
  readonly lookupAt?: number;
}

type Generator = (map: InlinedMap, host: BpfHost) => MapCall | undefined;

const move = (imm: number): Slot => makeSlot(MOV64_IMM, { dst: RESULT, imm });
const load = (code: number, dst: number, src: number, off = 0): Slot =>
  makeSlot(code, { dst, src, off });
const jump = (code: number, imm: number, off: number, dst = RESULT): Slot =>
  makeSlot(code, { dst, imm, off });

/** R0 *= size */
function scale(size: number): Slot {
  const isPowerOf2 = (size & (size - 1)) === 0;
  return isPowerOf2
    ? makeSlot(LSH64_IMM, { dst: RESULT, imm: Math.log2(size) })
    : makeSlot(MUL64_IMM, { dst: RESULT, imm: size });
}

/** R0 = the address of element *R2 of what begins at R1 + `elements`, then `rest`; 0 beyond the last one. */
function indexed(
  { maxEntries }: InlinedMap,
  elements: number,
  size: number,
  rest: readonly Slot[],
): MapCall {
  return {
    slots: [
      makeSlot(ADD64_IMM, { dst: MAP, imm: elements }),
      load(LDX_W, RESULT, KEY),
      jump(JGE_IMM, maxEntries | 0, 3 + rest.length),
      scale(size),
      makeSlot(ADD64_REG, { dst: RESULT, src: MAP }),
      ...rest,
      makeSlot(JA, { off: 1 }),
      move(0),
    ],
    lookupAt: 1,
  };
}

const PERCPU_ADDRESS = makeSlot(MOV64_REG, { dst: RESULT, src: RESULT, off: PERCPU_MOVE });

const array: Generator = (map, host) =>
  (map.flags & BPF_F_INNER_MAP) === 0
    ? indexed(map, arrayElements(host), alignUp(map.valueSize, 8), [])
    : undefined;

const percpuArray: Generator = (map, host) =>
  host.percpuMoves !== false && (map.flags & BPF_F_INNER_MAP) === 0
    ? indexed(map, arrayElements(host), POINTER_SIZE, [
        load(LDX_DW, RESULT, RESULT),
        PERCPU_ADDRESS,
      ])
    : undefined;

const arrayOfMaps: Generator = (map, host) =>
  indexed(map, arrayElements(host), POINTER_SIZE, [
    load(LDX_DW, RESULT, RESULT),
    jump(JEQ_IMM, 0, 1),
  ]);

const xskMap: Generator = ({ maxEntries }, host) => ({
  slots: [
    load(LDX_W, RESULT, KEY),
    jump(JGE32_IMM, maxEntries | 0, 5),
    scale(POINTER_SIZE),
    makeSlot(ADD64_IMM, { dst: MAP, imm: xskMapElements(host) }),
    makeSlot(ADD64_REG, { dst: RESULT, src: MAP }),
    load(LDX_DW, RESULT, RESULT),
    makeSlot(JA, { off: 1 }),
    move(0),
  ],
  lookupAt: 0,
});

/** R0 = the element, then `marks` and its value's address, then `rest`. */
function hashed(
  { keySize }: InlinedMap,
  host: BpfHost,
  rest: readonly Slot[],
  marks: readonly Slot[] = [],
): MapCall | undefined {
  const call = callOf(host, HTAB_LOOKUP);
  if (!call) return undefined;
  return {
    slots: [
      call,
      jump(JEQ_IMM, 0, marks.length + 1 + rest.length),
      ...marks,
      makeSlot(ADD64_IMM, { dst: RESULT, imm: valueInElement(keySize) }),
      ...rest,
    ],
    lookupAt: 0,
  };
}

const USED: readonly Slot[] = [
  load(LDX_B, MAP, RESULT, HTAB_ELEM.ref),
  jump(JNE_IMM, 0, 1, MAP),
  makeSlot(ST_B, { dst: RESULT, off: HTAB_ELEM.ref, imm: 1 }),
];

/** map_gen_lookup; the other types have none. */
const GENERATORS: Readonly<Record<string, Generator | undefined>> = {
  ARRAY: array,
  PERCPU_ARRAY: percpuArray,
  ARRAY_OF_MAPS: arrayOfMaps,
  HASH: (map, host) => hashed(map, host, []),
  LRU_HASH: (map, host) => hashed(map, host, [], USED),
  PERCPU_HASH: (map, host) =>
    host.percpuMoves === false
      ? undefined
      : hashed(map, host, [load(LDX_DW, RESULT, RESULT), PERCPU_ADDRESS]),
  HASH_OF_MAPS: (map, host) => hashed(map, host, [load(LDX_DW, RESULT, RESULT)]),
  XSKMAP: xskMap,
};

/** The instructions for a call of helper `id` on `map`; undefined when it stays a call of the helper. */
export function inlineMapCall(id: number, map: InlinedMap, host: BpfHost): MapCall | undefined {
  if (!host.functionAddress) return undefined;
  const inlined = id === MAP_HELPER.lookup ? GENERATORS[map.type]?.(map, host) : undefined;
  if (inlined) return inlined;
  const operation = mapOperation(map.type, id);
  const call = operation === undefined ? undefined : callOf(host, operation);
  return call && { slots: [call] };
}

function callOf(host: BpfHost, name: string): Slot | undefined {
  const address = host.functionAddress?.(name);
  return address === undefined
    ? undefined
    : makeSlot(CALL, { imm: callDistance(name, address, host) });
}
