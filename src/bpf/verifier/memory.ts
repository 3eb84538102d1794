/**
 * Loads, stores and atomics: which memory a pointer may reach, by its type.
 *
 * Reference: check_mem_access, check_packet_access, check_map_access, check_mem_region_access in
 * kernel/bpf/verifier.c. Only stack accesses and atomics have to be aligned, as on machines with
 * efficient unaligned access.
 */
import { viewOf } from '../../common/bytes.js';
import { hasTrampoline } from '../object/spec.js';
import { isReadable } from '../object/bpf-sock.js';
import { isXdpSockRead } from '../object/xdp-sock.js';
import type { Env } from './env.js';
import { touchedField } from '../btf/record.js';
import { loadThrough, storeThrough } from './btf-pointer.js';
import { contextField } from './context.js';
import type { AccessKind, VerifierMap } from './input.js';
import { kptrAt, loadKptr, storeKptr } from './kptr.js';
import {
  constScalar,
  kernelScalar,
  signExtend,
  unknownScalar,
  unsignedScalar,
  Scalar,
} from './scalar.js';
import { loadStack, storeStack, isAligned } from './stack.js';
import { loadTracedContext } from './traced-context.js';
import { distance, Pointer, typeName, variableText, type Value } from './value.js';

const BPF_F_RDONLY_PROG = 1 << 7;
const BPF_F_WRONLY_PROG = 1 << 8;
/** BPF_MAX_VAR_OFF */
const MAX_DISTANCE = 1n << 29n;

export type Access = 'read' | 'write';

/** The base of an access as a pointer that may be followed. */
function followable(env: Env, register: number, base: Value): Pointer {
  if (base.kind === 'scalar' || base.orNull) {
    return env.refuse('EACCES', `R${register} invalid mem access '${typeName(base)}'`);
  }
  return base;
}

/** The result of a load of `size` bytes at R`register` + `off`. */
export function load(
  env: Env,
  register: number,
  off: number,
  size: number,
  signed: boolean,
): Value {
  const base = env.read(register);
  if (base.kind === 'scalar' && base.kernel) {
    env.noteAccess('kernel');
    return size === 8 ? kernelScalar() : unknownOf(size);
  }
  const value = loadFrom(env, register, followable(env, register, base), off, size, signed);
  if (!signed || value.kind !== 'scalar') return value;
  return signExtend(value, size);
}

function loadFrom(
  env: Env,
  register: number,
  base: Pointer,
  off: number,
  size: number,
  signed: boolean,
): Value {
  switch (base.type) {
    case 'stack':
      env.noteAccess('stack');
      return loadStack(env, register, base, off, size);
    case 'ctx': {
      checkContext(env, register, base);
      if (hasTrampoline(env.input.kind)) {
        const value = loadTracedContext(env, off, size);
        env.noteAccess('ctx');
        return value;
      }
      const field =
        contextField(env.input, off, size, signed) ??
        env.refuse('EACCES', `invalid bpf_context access off=${off} size=${size}`);
      env.noteAccess('ctx');
      return field;
    }
    case 'map_value': {
      checkDirect(env, register, base, off, size, 'read');
      env.noteAccess('map_value');
      const kptr = kptrAt(base, off);
      if (kptr) {
        if (signed) env.refuse('EACCES', ONLY_MEM);
        return loadKptr(env, kptr);
      }
      const { map } = base;
      if (!base.variable && map) {
        const known = frozenValue(map, base.off + off, size);
        if (known !== undefined) return constScalar(known);
      }
      return unknownOf(size);
    }
    case 'btf':
      return loadThrough(env, register, base, off, size);
    case 'map':
      return loadThrough(env, register, mapStruct(env, base), off, size);
    case 'xdp_sock':
      if (!isXdpSockRead(off, size)) {
        env.refuse('EACCES', `R${register} invalid xdp_sock access off=${off} size=${size}`);
      }
      env.noteAccess('xdp_sock');
      return unknownOf(size);
    case 'sock':
    case 'sock_common':
      if (!isReadable(off, size, base.type === 'sock_common')) {
        env.refuse(
          'EACCES',
          `R${register} invalid ${typeName(base)} access off=${off} size=${size}`,
        );
      }
      env.noteAccess('sock');
      return unknownOf(size);
    default:
      checkDirect(env, register, base, off, size, 'read');
      note(env, base);
      return unknownOf(size);
  }
}

function unknownOf(size: number): Scalar {
  return size === 8 ? unknownScalar() : unsignedScalar((1n << BigInt(8 * size)) - 1n);
}

/** A constant from a map that nobody can change any more. */
function frozenValue(map: VerifierMap, at: number, size: number): bigint | undefined {
  const { contents } = map;
  if (!map.frozen || !contents || (map.flags & BPF_F_RDONLY_PROG) === 0) return undefined;
  if (at < 0 || at + size > contents.length) return undefined;
  const view = viewOf(contents);
  switch (size) {
    case 1:
      return BigInt(view.getUint8(at));
    case 2:
      return BigInt(view.getUint16(at, true));
    case 4:
      return BigInt(view.getUint32(at, true));
    default:
      return view.getBigUint64(at, true);
  }
}

/** A store of `size` bytes of `value`, from R`from` or -1 for a number, at R`register` + `off`. */
export function store(
  env: Env,
  register: number,
  off: number,
  size: number,
  value: Value,
  from: number,
): void {
  const base = followable(env, register, env.read(register));
  if (base.type === 'stack') {
    env.noteAccess('stack');
    storeStack(env, register, base, off, size, value);
    return;
  }
  if (base.type === 'btf') {
    storeThrough(env, register, base, off, size);
    return;
  }
  if (base.type === 'map') env.refuse('EACCES', 'only read from bpf_map is supported');
  if (isSocket(base)) {
    env.refuse('EACCES', `R${register} cannot write into ${typeName(base)}`);
  }
  if (base.type === 'ctx') {
    checkContext(env, register, base);
    env.refuse('EACCES', `invalid bpf_context access off=${off} size=${size}`);
  }
  checkDirect(env, register, base, off, size, 'write');
  note(env, base);
  const kptr = kptrAt(base, off);
  if (kptr) storeKptr(env, kptr, value, from);
}

/** An atomic operation; gives the old value, which `value` stands for where it is not known. */
export function atomic(env: Env, register: number, off: number, size: number, value: Value): Value {
  const base = env.read(register);
  const type = base.kind === 'pointer' ? base.type : undefined;
  const isOther = type === 'ctx' || type === 'packet' || type === 'packet_meta';
  if (isOther || (base.kind === 'pointer' && isSocket(base))) {
    env.refuse('EACCES', `BPF_ATOMIC stores into R${register} ${typeName(base)} is not allowed`);
  }
  const pointer = followable(env, register, base);
  if (!isAligned(pointer, off, size)) {
    env.refuse(
      'EACCES',
      `misaligned value access off ${variableText(pointer)}+${pointer.off}+${off} size ${size}`,
    );
  }
  if (pointer.type === 'stack') {
    env.noteAccess('stack');
    const old = loadStack(env, register, pointer, off, size);
    storeStack(env, register, pointer, off, size, value);
    return old;
  }
  if (pointer.type === 'btf') {
    const old = loadThrough(env, register, pointer, off, size);
    storeThrough(env, register, pointer, off, size);
    return old.kind === 'scalar' ? value : old;
  }
  checkDirect(env, register, pointer, off, size, 'read');
  checkDirect(env, register, pointer, off, size, 'write');
  if (kptrAt(pointer, off)) env.refuse('EACCES', ONLY_MEM);
  note(env, pointer);
  return value;
}

function isSocket({ type }: Pointer): boolean {
  return type === 'sock' || type === 'sock_common' || type === 'xdp_sock';
}

/** A map as the kernel's structure that it is. */
function mapStruct(env: Env, base: Pointer): Pointer {
  const btf = env.input.kernelBtf;
  const typeId = btf?.find('struct', 'bpf_map');
  if (typeId === undefined) {
    env.refuse('ENOTSUPP', "bpf_map_ptr access is not supported: the kernel's BTF has no bpf_map");
  }
  return new Pointer('btf', { btf, typeId, off: base.off, trusted: true });
}

function note(env: Env, pointer: Pointer): void {
  const kind = accessKind(pointer);
  if (kind) env.noteAccess(kind);
}

/** The context pointer must be as it came. */
export function checkContext(env: Env, register: number, base: Pointer): void {
  if (base.variable) {
    env.refuse('EACCES', `variable ctx access var_off=${variableText(base)} disallowed`);
  }
  if (base.off < 0) {
    env.refuse('EACCES', `negative offset ctx ptr R${register} off=${base.off} disallowed`);
  }
  if (base.off !== 0) {
    env.refuse('EACCES', `dereference of modified ctx ptr R${register} off=${base.off} disallowed`);
  }
}

/** Checks `size` bytes that a helper is given, at `pointer + off`; neither stack nor context. */
export function checkMemory(
  env: Env,
  register: number,
  pointer: Pointer,
  off: number,
  size: number,
  access: Access,
  zeroSizeAllowed = false,
): void {
  checkRange(env, register, pointer, off, size, access, zeroSizeAllowed);
  checkFields(env, pointer, off, size, false);
}

/** The same for a load, store or atomic of the program itself. */
function checkDirect(
  env: Env,
  register: number,
  pointer: Pointer,
  off: number,
  size: number,
  access: Access,
): void {
  checkRange(env, register, pointer, off, size, access, false);
  checkFields(env, pointer, off, size, true);
}

function checkRange(
  env: Env,
  register: number,
  pointer: Pointer,
  off: number,
  size: number,
  access: Access,
  zeroSizeAllowed: boolean,
): void {
  const kind = accessKind(pointer);
  if (!kind || kind === 'sock') {
    env.refuse('EACCES', `R${register} invalid mem access '${typeName(pointer)}'`);
  }
  if (access === 'write' && kind === 'map_key') {
    env.refuse('EACCES', `write to change key R${register} not allowed`);
  }
  if (access === 'write' && pointer.readOnly) {
    env.refuse('EACCES', `R${register} cannot write into ${typeName(pointer)}`);
  }
  const whole = describeRegion(pointer, register, kind);
  const start = pointer.off + off;
  if (kind === 'packet' || kind === 'packet_meta') {
    if (distance(pointer).smin < 0n) refuseNegative(env, register);
    if (pointer.range < 0) env.refuse('EINVAL', `R${register} offset is outside of the packet`);
    if (!fits(start, size, pointer.range, zeroSizeAllowed)) {
      env.refuse('EACCES', `${whole(start, size)}; R${register} offset is outside of the packet`);
    }
    return;
  }
  const { map } = pointer;
  if (kind === 'map_value' && map) checkMapFlags(env, map, start, size, access);
  const limit = kind === 'map_value' && map ? map.valueSize : pointer.size;
  const { smin, umax } = distance(pointer);
  if (smin < 0n && (smin < -MAX_DISTANCE || Number(smin) + start < 0)) {
    refuseNegative(env, register);
  }
  const low = Number(smin) + start;
  const outside = 'is outside of the allowed memory range';
  if (!fits(low, size, limit, zeroSizeAllowed)) {
    env.refuse('EACCES', `${whole(low, size)}; R${register} min value ${outside}`);
  }
  if (umax >= MAX_DISTANCE) {
    env.refuse(
      'EACCES',
      `R${register} unbounded memory access, make sure to bounds check any such access`,
    );
  }
  const high = Number(umax) + start;
  if (!fits(high, size, limit, zeroSizeAllowed)) {
    env.refuse('EACCES', `${whole(high, size)}; R${register} max value ${outside}`);
  }
}

function refuseNegative(env: Env, register: number): never {
  return env.refuse(
    'EACCES',
    `R${register} min value is negative, either use unsigned index or do a if (index >=0) check`,
  );
}

function fits(start: number, size: number, limit: number, zeroSizeAllowed: boolean): boolean {
  return start >= 0 && (size > 0 || zeroSizeAllowed) && start + size <= limit;
}

function accessKind({ type }: Pointer): AccessKind | undefined {
  switch (type) {
    case 'packet':
    case 'packet_meta':
    case 'map_value':
    case 'map_key':
    case 'mem':
      return type;
    case 'sock':
    case 'sock_common':
      return 'sock';
    default:
      return undefined;
  }
}

function describeRegion(
  pointer: Pointer,
  register: number,
  kind: AccessKind,
): (off: number, size: number) => string {
  return (off, size) => {
    switch (kind) {
      case 'packet':
      case 'packet_meta':
        return `invalid access to packet, off=${off} size=${size}, R${register}(id=${pointer.id},off=${pointer.off},r=${pointer.range})`;
      case 'map_value':
        return `invalid access to map value, value_size=${pointer.map?.valueSize ?? 0} off=${off} size=${size}`;
      case 'map_key':
        return `invalid access to map key, key_size=${pointer.size} off=${off} size=${size}`;
      default:
        return `invalid access to memory, mem_size=${pointer.size} off=${off} size=${size}`;
    }
  };
}

function checkMapFlags(
  env: Env,
  map: VerifierMap,
  off: number,
  size: number,
  access: Access,
): void {
  const forbidden = access === 'write' ? BPF_F_RDONLY_PROG : BPF_F_WRONLY_PROG;
  if ((map.flags & forbidden) === 0) return;
  const what = access === 'write' ? 'write into' : 'read from';
  env.refuse(
    'EACCES',
    `${what} map forbidden, value_size=${map.valueSize} off=${off} size=${size}`,
  );
}

const ONLY_MEM = 'kptr in map can only be accessed using BPF_MEM instruction mode';

/** What belongs to the kernel in a map value is not touched, but for kptrs: those by themselves. */
function checkFields(
  env: Env,
  pointer: Pointer,
  off: number,
  size: number,
  isDirect: boolean,
): void {
  if (pointer.type !== 'map_value') return;
  const { smin, umax } = distance(pointer);
  const start = pointer.off + off;
  const [low, end] = [start + Number(smin), start + Number(umax) + size];
  const field = touchedField(pointer.map?.record, low, end);
  if (!field) return;
  if (!field.kptr) env.refuse('EACCES', `${field.kind} cannot be accessed directly by load/store`);
  if (!isDirect) env.refuse('EACCES', 'kptr cannot be accessed indirectly by helper');
  if (pointer.variable && !pointer.variable.isConst) {
    env.refuse('EACCES', 'kptr access cannot have variable offset');
  }
  if (low !== field.offset) {
    env.refuse('EACCES', `kptr access misaligned expected=${field.offset} off=${low}`);
  }
  if (size !== 8) env.refuse('EACCES', 'kptr access size must be BPF_DW');
}
