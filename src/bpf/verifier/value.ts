/**
 * What a register or stack slot may hold: a number, or a pointer of some type.
 *
 * Reference: enum bpf_reg_type and struct bpf_reg_state in include/linux/bpf_verifier.h. Pointers are
 * values that are never changed: copies of one object are one pointer. `id` ties copies that went
 * through arithmetic together: a null check or a comparison with the packet's end holds for all.
 */
import type { Btf } from '../btf/btf.js';
import type { Bounds } from './range.js';
import { describeBits, Scalar } from './scalar.js';
import type { VerifierMap } from './input.js';

export type PointerType =
  | 'ctx'
  | 'packet'
  | 'packet_meta'
  | 'packet_end'
  /** A `struct bpf_map`. */
  | 'map'
  | 'map_value'
  | 'map_key'
  | 'stack'
  | 'mem'
  | 'sock'
  /** A socket of any state: what all sockets share. */
  | 'sock_common'
  /** A `struct xdp_sock` (AF_XDP), as a lookup in an xskmap gives it. */
  | 'xdp_sock'
  /** A dynptr that was passed by address, where it lies is not known (CONST_PTR_TO_DYNPTR). */
  | 'dynptr'
  /** A kernel structure whose type BTF tells (PTR_TO_BTF_ID). */
  | 'btf'
  | 'function';

export type MemoryKind = 'plain' | 'ringbuf' | 'packet';

export class Pointer {
  readonly kind = 'pointer';
  readonly type: PointerType;
  /** Constant distance from where it began. */
  readonly off: number;
  /** Distance that is not constant; undefined for none. */
  readonly variable: Scalar | undefined;
  readonly id: number;
  /** May be NULL: must be checked before use. */
  readonly orNull: boolean;
  /** Bytes of packet that a comparison proved, from where it began; or one of `PACKET_END`. */
  readonly range: number;
  readonly map: VerifierMap | undefined;
  /** Which map of a map of maps `map` stands for, where that matters; 0 for one that the program names. */
  readonly mapId: number;
  /** Bytes of `mem` and `map_key`. */
  readonly size: number;
  /** Call depth of the frame a `stack` pointer goes to; index of a `function`. */
  readonly frame: number;
  /** Id of the reference that must be released; 0 for none. */
  readonly ref: number;
  readonly readOnly: boolean;
  /** What `mem` is: a ring buffer record, or bytes of a packet that helpers may move. */
  readonly memory: MemoryKind;
  /** Id of the dynptr that `mem` is a slice of; 0 for none. */
  readonly dynptr: number;
  /** Type of what a `btf` pointer goes to. */
  readonly btf: Btf | undefined;
  readonly typeId: number;
  /** Valid for sure (PTR_TRUSTED). */
  readonly trusted: boolean;
  /** Made by a cast (PTR_UNTRUSTED); what is neither may be stale. */
  readonly untrusted: boolean;
  /** To an object that a program allocated, of a type of its own (MEM_ALLOC). */
  readonly alloc: boolean;
  /** To one that a list or tree owns: valid until the lock is given back (NON_OWN_REF). */
  readonly nonOwning: boolean;
  /** Valid until the end of the RCU critical section (MEM_RCU). */
  readonly rcu: boolean;
  /** To memory that each CPU has (MEM_PERCPU). */
  readonly perCpu: boolean;

  constructor(type: PointerType, fields: Partial<Omit<Pointer, 'kind' | 'type'>> = {}) {
    this.type = type;
    this.off = fields.off ?? 0;
    this.variable = fields.variable;
    this.id = fields.id ?? 0;
    this.orNull = fields.orNull ?? false;
    this.range = fields.range ?? 0;
    this.map = fields.map;
    this.mapId = fields.mapId ?? 0;
    this.size = fields.size ?? 0;
    this.frame = fields.frame ?? 0;
    this.ref = fields.ref ?? 0;
    this.readOnly = fields.readOnly ?? false;
    this.memory = fields.memory ?? 'plain';
    this.dynptr = fields.dynptr ?? 0;
    this.btf = fields.btf;
    this.typeId = fields.typeId ?? 0;
    this.trusted = fields.trusted ?? false;
    this.untrusted = fields.untrusted ?? false;
    this.alloc = fields.alloc ?? false;
    this.nonOwning = fields.nonOwning ?? false;
    this.rcu = fields.rcu ?? false;
    this.perCpu = fields.perCpu ?? false;
  }
}

/** What is known of a packet pointer that a comparison found at or behind the packet's end. */
export const PACKET_END = { at: -1, beyond: -2 } as const;

export type Value = Scalar | Pointer;

export function withFields(
  pointer: Pointer,
  fields: Partial<Omit<Pointer, 'kind' | 'type'>>,
): Pointer {
  return new Pointer(pointer.type, { ...pointer, ...fields });
}

export function isPacket(value: Value): value is Pointer {
  return value.kind === 'pointer' && (value.type === 'packet' || value.type === 'packet_meta');
}

const NO_DISTANCE = { smin: 0n, smax: 0n, umin: 0n, umax: 0n } as const;

/** Range of the distance that is not constant. */
export function distance(pointer: Pointer): Pick<Bounds, 'smin' | 'smax' | 'umin' | 'umax'> {
  return pointer.variable ?? NO_DISTANCE;
}

const TYPE_NAMES: Readonly<Record<PointerType, string>> = {
  ctx: 'ctx',
  packet: 'pkt',
  packet_meta: 'pkt_meta',
  packet_end: 'pkt_end',
  map: 'map_ptr',
  map_value: 'map_value',
  map_key: 'map_key',
  stack: 'fp',
  mem: 'mem',
  sock: 'sock',
  sock_common: 'sock_common',
  xdp_sock: 'xdp_sock',
  dynptr: 'dynptr_ptr',
  btf: 'ptr_',
  function: 'func',
};

/** As messages name it: `map_value_or_null`. */
export function typeName(value: Value): string {
  if (value.kind === 'scalar') return 'scalar';
  const name = value.memory === 'ringbuf' ? 'ringbuf_mem' : TYPE_NAMES[value.type];
  const parts = [
    value.readOnly ? 'rdonly_' : '',
    value.perCpu ? 'percpu_' : '',
    value.rcu ? 'rcu_' : '',
    value.untrusted ? 'untrusted_' : '',
    value.trusted ? 'trusted_' : '',
    name,
  ];
  // ptr_or_null_, map_value_or_null
  if (value.orNull) parts.push(value.type === 'btf' ? 'or_null_' : '_or_null');
  return parts.join('');
}

/** The name of the struct that a `btf` pointer goes to. */
export function structName({ btf, typeId }: Pointer): string {
  const type = btf?.at(typeId);
  return type && 'name' in type ? type.name : '';
}

/** Valid for sure (is_trusted_reg). */
export function isTrusted(pointer: Pointer): boolean {
  if (pointer.ref !== 0) return true;
  const { alloc, trusted, nonOwning, orNull, untrusted, rcu, perCpu, readOnly } = pointer;
  if (!alloc && !trusted && !nonOwning) return false;
  return !orNull && !untrusted && !rcu && !perCpu && !readOnly;
}

/** An owning reference to an allocated object, and nothing else (PTR_TO_BTF_ID | MEM_ALLOC). */
export function isPlainObject(pointer: Pointer): boolean {
  const { type, alloc, nonOwning, orNull, untrusted, rcu, perCpu } = pointer;
  return type === 'btf' && alloc && !nonOwning && !orNull && !untrusted && !rcu && !perCpu;
}

/** The variable part as messages show it: `(0x0; 0xff)`. */
export function variableText(pointer: Pointer): string {
  const bits = pointer.variable?.bits ?? { value: 0n, mask: 0n };
  return describeBits(bits.value, bits.mask);
}

/** As in a state line: `ctx()`, `fp-8`, `pkt(off=14,r=34)`. */
export function describePointer(pointer: Pointer): string {
  const { type, off, id, range, map, size, ref, variable } = pointer;
  if (type === 'stack' && !variable) return `fp${off === 0 ? '0' : off}`;
  const parts: string[] = [];
  if (id !== 0) parts.push(`id=${id}`);
  if (ref !== 0) parts.push(`ref_obj_id=${ref}`);
  if (pointer.nonOwning) parts.push('non_own_ref');
  if (off !== 0) parts.push(`off=${off}`);
  if (type === 'packet' || type === 'packet_meta') parts.push(`r=${range}`);
  if (map) {
    parts.push(`map=${map.name}`);
    if (type === 'map_value') parts.push(`ks=${map.keySize}`, `vs=${map.valueSize}`);
  }
  if (type === 'mem') parts.push(`sz=${size}`);
  if (variable) {
    const { smin, smax, umax } = variable;
    parts.push(`smin=${smin}`, `smax=${smax}`, `umax=${umax}`);
    parts.push(`var_off=${variableText(pointer)}`);
  }
  const struct = type === 'btf' ? structName(pointer) : '';
  return `${typeName(pointer)}${struct}(${parts.join(',')})`;
}
