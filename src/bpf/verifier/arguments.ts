/**
 * Checks the arguments of a helper call against its prototype.
 *
 * Reference: check_func_arg, check_reg_type, check_mem_size_reg, check_map_func_compatibility in
 * kernel/bpf/verifier.c.
 */
import { offsetOfField, type BtfField } from '../btf/record.js';
import { helperName } from '../object/helper-names.js';
import { makeDynptr, releaseDynptr, useDynptr } from './dynptr.js';
import type { Env } from './env.js';
import { inTreeCallback } from './graph.js';
import type { VerifierMap } from './input.js';
import { checkExchanged, exchangedField, recordOf } from './kptr.js';
import { checkContext, checkMemory, type Access } from './memory.js';
import {
  DELETES_SOCKETS,
  HELPERS_OF_MAP,
  MAPS_OF_HELPER,
  SOCKET_MAPS,
  type ArgumentRule,
  type Prototype,
} from './prototypes.js';
import { lockOrUnlock } from './references.js';
import { markPrecise } from './scalar.js';
import { constantAt, helperStack, isAligned } from './stack.js';
import type { DynptrSlot } from './state.js';
import {
  isPlainObject,
  typeName,
  variableText,
  withFields,
  type Pointer,
  type PointerType,
  type Value,
} from './value.js';

const BPF_F_RDONLY_PROG = 1 << 7;
const MAX_SIZE = 1n << 29n;
/** bpf_map_delete_elem */
const MAP_DELETE = 3;
/** Helpers that change the map they are given. */
const CHANGES_MAP: readonly number[] = [2, 3, 87, 88];

/** Maps in which a constant index that is in range is known to be found (can_elide_value_nullness). */
const INDEXED_MAPS: readonly string[] = ['ARRAY', 'PERCPU_ARRAY'];

/** What a call's arguments told. */
export interface CallFacts {
  map: VerifierMap | undefined;
  mapId: number;
  /** The constant index in an array. */
  key: bigint | undefined;
  /** Where the timer is that comes before its map. */
  timer: Pointer | undefined;
  /** Most bytes of the memory that is given with a size. */
  maxSize: bigint;
  /** Bytes to be allocated. */
  allocSize: number;
  /** Reference that the call gives back. */
  released: number;
  /** Index of the callback. */
  callback: number;
  /** The dynptr that is used. */
  dynptr: DynptrSlot | undefined;
  /** The kptr that is exchanged. */
  kptr: BtfField | undefined;
  /** The per-CPU object. */
  place: Pointer | undefined;
}

/** Pointer types that count as memory, and how messages list them. */
const MEMORY: readonly PointerType[] = [
  'stack',
  'packet',
  'packet_meta',
  'map_key',
  'map_value',
  'mem',
];
const MEMORY_NAMES = 'fp, pkt, pkt_meta, map_key, map_value, mem, ringbuf_mem, buf, trusted_ptr_';

export function checkArguments(env: Env, prototype: Prototype): CallFacts {
  const facts: CallFacts = {
    map: undefined,
    mapId: 0,
    key: undefined,
    timer: undefined,
    maxSize: 0n,
    allocSize: 0,
    released: 0,
    callback: -1,
    dynptr: undefined,
    kptr: undefined,
    place: undefined,
  };
  for (const [index, rule] of prototype.arguments.entries()) {
    checkArgument(env, rule, index, prototype, facts);
  }
  if (facts.map && CHANGES_MAP.includes(prototype.id)) {
    if ((facts.map.flags & BPF_F_RDONLY_PROG) !== 0) {
      env.refuse('EACCES', 'write into map forbidden');
    }
  }
  return facts;
}

function checkArgument(
  env: Env,
  rule: ArgumentRule,
  index: number,
  { id, arguments: rules }: Prototype,
  facts: CallFacts,
): void {
  const register = index + 1;
  const value = env.read(register);
  switch (rule) {
    case 'any':
      return;
    case 'ctx':
      checkContext(env, register, expect(env, register, value, ['ctx'], 'ctx'));
      return;
    case 'map': {
      const { map, mapId } = expect(env, register, value, ['map'], 'map_ptr');
      const { timer } = facts;
      if (timer && (timer.map !== map || timer.mapId !== mapId)) {
        env.refuse(
          'EINVAL',
          `timer pointer in R1 map '${timer.map?.name ?? ''}' map_uid=${timer.mapId} doesn't match map pointer in R2 map '${map?.name ?? ''}' map_uid=${mapId}`,
        );
      }
      facts.map = map;
      facts.mapId = mapId;
      return;
    }
    case 'map_key': {
      const size = facts.map?.keySize ?? 0;
      checkBytes(env, register, value, size, 'read');
      const isIndex = INDEXED_MAPS.includes(facts.map?.type ?? '');
      if (isIndex && value.kind === 'pointer') facts.key = constantAt(env, value, size);
      return;
    }
    case 'map_value':
    case 'uninit_map_value':
      // a bloom filter has values only
      checkBytes(
        env,
        register,
        value,
        facts.map?.valueSize ?? 0,
        rule === 'map_value' ? 'read' : 'write',
      );
      return;
    case 'mem':
    case 'mem?':
    case 'uninit':
    case 'uninit?': {
      const size = rules[index + 1];
      const mayBeNull = rule.endsWith('?');
      if (mayBeNull && value.kind === 'scalar' && value.is(0n)) {
        markPrecise(value);
        checkSize(env, register + 1, undefined, size === 'size0', 'read', 0);
        return;
      }
      const access = rule.startsWith('uninit') ? 'write' : 'read';
      const pointer = expectMemory(env, register, value);
      const bytes = env.read(register + 1);
      if (bytes.kind === 'scalar') facts.maxSize = bytes.umax;
      checkSize(env, register + 1, pointer, size === 'size0', access, register);
      return;
    }
    case 'size':
    case 'size0':
      // checked with the memory in front of it
      return;
    case 'alloc_size':
      if (value.kind !== 'scalar' || !value.isConst) {
        env.refuse('EACCES', `R${register} is not a known constant`);
      } else {
        // too much is found out at run time only
        markPrecise(value);
        facts.allocSize = value.u32max;
      }
      return;
    case 'dynptr':
      facts.dynptr = useDynptr(env, register, expectDynptr(env, register, value));
      return;
    case 'local_dynptr':
    case 'ringbuf_dynptr': {
      const pointer = expect(env, register, value, ['stack'], 'fp');
      makeDynptr(env, register, pointer, rule === 'local_dynptr' ? 'local' : 'ringbuf');
      return;
    }
    case 'release_dynptr':
      releaseDynptr(env, register, expectDynptr(env, register, value));
      return;
    case 'const_str':
      checkString(env, register, expect(env, register, value, ['map_value'], 'map_value'));
      return;
    case 'spin_lock':
      if (inTreeCallback(env.state)) {
        env.refuse('EACCES', "can't spin_{lock,unlock} in rbtree cb");
      }
      lockArgument(env, id, register, expectHolder(env, register, value));
      return;
    case 'kptr_place':
      facts.kptr = exchangedField(env, register, expectHolder(env, register, value));
      return;
    case 'kptr_or_null':
      if (facts.kptr) checkExchanged(env, register, value, facts.kptr);
      return;
    case 'percpu':
      facts.place = expectPerCpu(env, register, value);
      return;
    case 'timer':
      facts.timer = expect(env, register, value, ['map_value'], 'map_value');
      checkTimer(env, register, facts.timer);
      return;
    case 'func':
      facts.callback = expect(env, register, value, ['function'], 'func').frame;
      return;
    case 'callback_ctx':
      if (value.kind === 'scalar' && value.is(0n)) markPrecise(value);
      else expect(env, register, value, ['stack'], 'fp');
      return;
    case 'release_mem':
    case 'release_sock': {
      const isMemory = rule === 'release_mem';
      const pointer = isMemory
        ? expect(env, register, value, ['mem'], 'ringbuf_mem')
        : expectSocket(env, register, value);
      if (isMemory && pointer.memory !== 'ringbuf') {
        env.refuse('EACCES', `R${register} type=${typeName(pointer)} expected=ringbuf_mem`);
      }
      if (pointer.off !== 0 || pointer.variable) {
        env.refuse(
          'EINVAL',
          `R${register} must have zero offset when passed to release func or trusted arg to kfunc`,
        );
      }
      if (pointer.ref === 0) {
        env.refuse('EINVAL', `R${register} must be referenced when passed to release function`);
      }
      facts.released = pointer.ref;
      return;
    }
    case 'sock':
      expectSocket(env, register, value);
      return;
    default: {
      const writes = rule.endsWith('w');
      const size = Number(rule.slice('fixed:'.length).replace('w', ''));
      checkBytes(env, register, value, size, writes ? 'write' : 'read');
      if (writes && value.kind === 'pointer' && !isAligned(value, 0, size)) {
        env.refuse(
          'EACCES',
          `misaligned access off ${variableText(value)}+${value.off}+0 size ${size}`,
        );
      }
    }
  }
}

/** The value as a pointer of one of these types. */
function expect(
  env: Env,
  register: number,
  value: Value,
  types: readonly PointerType[],
  names: string,
): Pointer {
  if (value.kind === 'scalar' || value.orNull || !types.includes(value.type)) {
    return env.refuse('EACCES', `R${register} type=${typeName(value)} expected=${names}`);
  }
  return value;
}

function lockArgument(env: Env, id: number, register: number, value: Pointer): void {
  lockOrUnlock(env, id, register, value, recordOf(env, value));
}

/** A map value, or an object of the program. */
function expectHolder(env: Env, register: number, value: Value): Pointer {
  if (value.kind === 'pointer' && isPlainObject(value)) return value;
  return expect(env, register, value, ['map_value'], 'map_value, ptr_');
}

function expectPerCpu(env: Env, register: number, value: Value): Pointer {
  if (value.kind === 'pointer' && value.type === 'btf' && value.perCpu) {
    if (!value.alloc && !value.untrusted && !value.orNull) return value;
  }
  const names = 'percpu_ptr_, percpu_rcu_ptr_, percpu_trusted_ptr_';
  return env.refuse('EACCES', `R${register} type=${typeName(value)} expected=${names}`);
}

function expectSocket(env: Env, register: number, value: Value): Pointer {
  const names = 'sock_common, sock, tcp_sock, xdp_sock, ptr_, trusted_ptr_';
  return expect(env, register, value, ['sock', 'sock_common'], names);
}

function expectDynptr(env: Env, register: number, value: Value): Pointer {
  return expect(env, register, value, ['stack', 'dynptr'], 'fp, dynptr_ptr');
}

function expectMemory(env: Env, register: number, value: Value): Pointer {
  return expect(env, register, value, MEMORY, MEMORY_NAMES);
}

/** Checks that `size` bytes can be read or written through R`register`. */
export function checkBytes(
  env: Env,
  register: number,
  value: Value,
  size: number,
  access: Access,
  zeroSizeAllowed = false,
): void {
  const pointer = expectMemory(env, register, value);
  if (pointer.type === 'stack') {
    if (size === 0 && !zeroSizeAllowed) env.refuse('EACCES', 'invalid zero-sized read');
    helperStack(env, register, pointer, size, access === 'write');
  } else {
    checkMemory(env, register, pointer, 0, size, access, zeroSizeAllowed);
  }
}

function asMemory(env: Env, register: number, value: Value | undefined): Pointer {
  if (value?.kind !== 'pointer' || !MEMORY.includes(value.type)) {
    return env.refuse('EACCES', `R${register} type=${value ? typeName(value) : '?'} expected=fp`);
  }
  return value.orNull ? withFields(value, { orNull: false }) : value;
}

/** Memory that the function may read and write. */
export function checkWritable(
  env: Env,
  register: number,
  value: Value | undefined,
  size: number,
): void {
  const pointer = asMemory(env, register, value);
  checkBytes(env, register, pointer, size, 'read', true);
  checkBytes(env, register, pointer, size, 'write', true);
}

/** The size in R`register` of the memory in R`of`. */
function checkSize(
  env: Env,
  register: number,
  pointer: Pointer | undefined,
  zeroAllowed: boolean,
  access: Access,
  of: number,
): void {
  const size = env.read(register);
  if (size.kind !== 'scalar') {
    env.refuse('EACCES', `R${register} type=${typeName(size)} expected=scalar`);
  }
  markPrecise(size);
  if (size.smin < 0n) {
    env.refuse(
      'EACCES',
      `R${register} min value is negative, either use unsigned or 'var &= const'`,
    );
  }
  if (size.umin === 0n && !zeroAllowed) {
    env.refuse('EACCES', `R${register} invalid zero-sized read: u64=[${size.umin},${size.umax}]`);
  }
  if (size.umax >= MAX_SIZE) {
    env.refuse(
      'EACCES',
      `R${register} unbounded memory access, use 'var &= const' or 'if (var < const)'`,
    );
  }
  const most = Number(size.umax);
  if (pointer) checkBytes(env, of, pointer, most, access, zeroAllowed);
  else if (most > 0) env.refuse('EACCES', `R${register - 1} type=scalar expected=${MEMORY_NAMES}`);
}

/** Whether helper `id` takes maps of this type; the last thing that is asked of a call. */
export function checkMapType(env: Env, id: number, map: VerifierMap): void {
  const helpers = Object.hasOwn(HELPERS_OF_MAP, map.type) ? HELPERS_OF_MAP[map.type] : undefined;
  const maps = MAPS_OF_HELPER.get(id);
  if (id === MAP_DELETE && SOCKET_MAPS.has(map.type) && DELETES_SOCKETS.has(env.input.kind)) return;
  if ((helpers && !helpers.includes(id)) || (maps && !maps.includes(map.type))) {
    env.refuse('EINVAL', `cannot pass map_type ${map.type} into func ${helperName(id)}#${id}`);
  }
}

function checkString(env: Env, register: number, value: Pointer): void {
  const { map } = value;
  const isReadOnly = map?.frozen === true && (map.flags & BPF_F_RDONLY_PROG) !== 0;
  if (!isReadOnly || !map?.contents) {
    return env.refuse('EACCES', `R${register} does not point to a readonly map`);
  }
  if (value.variable) env.refuse('EACCES', `R${register} is not a constant address`);
  checkMemory(env, register, value, 0, Math.max(map.valueSize - value.off, 1), 'read');
  if (!map.contents.subarray(value.off).includes(0)) {
    env.refuse('EINVAL', 'string is not zero-terminated');
  }
}

function checkTimer(env: Env, register: number, value: Pointer): void {
  const { map } = value;
  if (value.variable) {
    env.refuse(
      'EINVAL',
      `R${register} doesn't have constant offset. bpf_timer has to be at the constant offset`,
    );
  }
  if (!map?.hasBtf) {
    env.refuse('EINVAL', `map '${map?.name ?? ''}' has to have BTF in order to use bpf_timer`);
  }
  const timer = offsetOfField(map.record, 'bpf_timer');
  if (timer === undefined) env.refuse('EINVAL', `map '${map.name}' has no valid bpf_timer`);
  if (timer !== value.off) {
    env.refuse(
      'EINVAL',
      `off ${value.off} doesn't point to 'struct bpf_timer' that is at ${timer}`,
    );
  }
}
