/**
 * What a helper is, and how a body reads its arguments and leaves its result.
 *
 * Argument and result kinds are those of `struct bpf_func_proto` (include/linux/bpf.h) as far as the
 * helpers here need them: a loader can check calls with them, a listing can name them.
 */
import { ERRNO, type ErrnoName } from '../../common/errno.js';
import { join64 } from '../../common/bytes.js';
import { MemoryAccessError, type AccessKind } from '../../cpu/fault.js';
import type { Memory } from '../../cpu/memory.js';
import type { HelperBody, RegisterPairs } from '../host.js';
import type { MapTypeName } from '../maps/map.js';

export type ArgumentKind =
  | 'ctx'
  | 'map'
  | 'map_key'
  | 'map_value'
  /** Memory that is read; its size is the next argument. */
  | 'mem'
  /** As `mem`, or NULL with size 0. */
  | 'mem_or_null'
  /** Memory that is written; its size is the next argument. */
  | 'uninit_mem'
  /** As `uninit_mem`, or NULL with size 0. */
  | 'mem_or_null_write'
  /** Address of a 64-bit result. */
  | 'long'
  /** Address of a string that ends in a zero byte, in a read-only map. */
  | 'const_str'
  /** As `map_value`, but written (pop, peek). */
  | 'uninit_map_value'
  /** As `map_value`; for a bloom filter read, else written. */
  | 'map_value_or_uninit'
  /** Memory of a fixed size that is read and written; see `sizes`. */
  | 'fixed_mem'
  /** A `struct bpf_spin_lock` or `struct bpf_timer` in a map value. */
  | 'spin_lock'
  | 'timer'
  /** A function of the program, and what is passed on to it: stack memory or NULL. */
  | 'func'
  | 'stack_or_null'
  /** A constant size that the result has. */
  | 'const_alloc_size'
  /** A ring buffer record that the call gives back. */
  | 'ringbuf_record'
  /** A socket; one that the call gives back. */
  | 'socket'
  | 'release_socket'
  /** A `struct bpf_dynptr` on the stack: filled by the call, used, or given back. */
  | 'uninit_dynptr'
  | 'dynptr'
  | 'release_dynptr'
  /** A field of a map value or object that holds a pointer; what is put there; a per-CPU object. */
  | 'kptr'
  | 'kptr_or_null'
  | 'percpu'
  | 'size'
  | 'size_or_zero'
  | 'anything';

export type ResultKind =
  | 'integer'
  | 'map_value_or_null'
  /** Memory of the size of the `const_alloc_size` argument; to be submitted or discarded. */
  | 'ringbuf_record_or_null'
  /** Memory of the size of the `const_alloc_size` argument. */
  | 'memory_or_null'
  /** To be released. */
  | 'socket_or_null'
  | 'kptr_or_null'
  | 'void';

export interface Helper {
  /** BPF_FUNC_* number. */
  readonly id: number;
  /** Without the `bpf_` in front. */
  readonly name: string;
  readonly arguments: readonly ArgumentKind[];
  readonly result: ResultKind;
  /** Bytes of `fixed_mem` arguments, by argument number from 1. */
  readonly sizes?: Readonly<Record<number, number>>;
  /** Map types that its `map` argument may be. Default: any that the type's own rules allow. */
  readonly maps?: readonly MapTypeName[];
  /** Packet pointers from before the call are stale after it. Default: false. */
  readonly changesPacket?: boolean;
  /** Only for programs with a GPL-compatible license. Default: false. */
  readonly gplOnly?: boolean;
  readonly body: HelperBody;
}

/** Argument `n` (1..5) as an address. */
export function argument(registers: RegisterPairs, n: number): bigint {
  return join64(registers[2 * n], registers[2 * n + 1]);
}

/** The lower half of argument `n`, signed. */
export function argument32(registers: RegisterPairs, n: number): number {
  return registers[2 * n];
}

/** R0 = a signed 32-bit number, sign-extended. */
export function setResult(registers: RegisterPairs, value: number): void {
  registers[0] = value;
  registers[1] = value >> 31;
}

/** R0 = a 64-bit number. */
export function setResult64(registers: RegisterPairs, value: bigint): void {
  registers[0] = Number(BigInt.asIntN(32, value));
  registers[1] = Number(BigInt.asIntN(32, value >> 32n));
}

/** Argument `n` = a 64-bit number: what a helper passes to a function that it calls back. */
export function setArgument(registers: RegisterPairs, n: number, value: bigint): void {
  registers[2 * n] = Number(BigInt.asIntN(32, value));
  registers[2 * n + 1] = Number(BigInt.asIntN(32, value >> 32n));
}

/** R0 = a negative errno. */
export function fail(registers: RegisterPairs, errno: ErrnoName): void {
  setResult(registers, -ERRNO[errno]);
}

/**
 * Offset in the backing store of `size` bytes at argument `n` plus `distance`. Throws
 * MemoryAccessError: a helper given a bad pointer faults where the kernel would oops.
 */
export function offsetOf(
  memory: Memory,
  registers: RegisterPairs,
  n: number,
  size: number,
  access: AccessKind & ('read' | 'write'),
  distance = 0,
): number {
  return offsetAt(memory, registers[2 * n + 1], registers[2 * n], size, access, distance);
}

/** As `offsetOf`, for the address (hi:lo). */
export function offsetAt(
  memory: Memory,
  hi: number,
  lo: number,
  size: number,
  access: AccessKind & ('read' | 'write'),
  distance = 0,
): number {
  const at = (lo + distance) | 0;
  const carry = at >>> 0 < distance >>> 0 ? 1 : 0;
  const high = (hi + (distance >> 31) + carry) | 0;
  const offset =
    access === 'read' ? memory.offsetRead(high, at, size) : memory.offsetWrite(high, at, size);
  if (offset >= 0) return offset;
  const address = join64(at, high);
  const fault = memory.faultAt(address, size, access);
  throw new MemoryAccessError(fault ?? { access, address, size, reason: 'unmapped' });
}
