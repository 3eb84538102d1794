/**
 * Dynptrs: pointers that carry their size, on the program's stack, and the helpers on them.
 *
 * A `struct bpf_dynptr_kern` is 16 bytes: data, then size with the type in bits 28..30 and read-only in bit
 * 31, then the offset in the data. Its data is memory (local, ringbuf) or a `struct xdp_buff` (xdp). All
 * zero is a null dynptr: every operation on it fails. Reference: kernel/bpf/helpers.c bpf_dynptr_*,
 * kernel/bpf/ringbuf.c. The functions on dynptrs that are no helpers are in `kfuncs/dynptr.ts`. Left
 * out: socket buffers.
 *
 * Usage:
 *   const dynptr = dynptrAt(registers, host, 1);
 *   if (isNull(dynptr) || !isInside(dynptr, offset, length)) ...
 */
import { join64 } from '../../common/bytes.js';
import type { BpfHost, HelperBody, RegisterPairs } from '../host.js';
import { RingBuffer } from '../maps/ringbuf.js';
import {
  argument,
  argument32,
  fail,
  offsetAt,
  offsetOf,
  setResult,
  setResult64,
  type Helper,
} from './helper.js';
import { copyPacket, frameAt } from './xdp-packet.js';

/** enum bpf_dynptr_type */
export const DYNPTR_TYPE = { LOCAL: 1, RINGBUF: 2, XDP: 4 } as const;

/** Byte offsets in `struct bpf_dynptr_kern`. */
const DATA = 0;
const SIZE = 8;
const OFFSET = 12;
export const DYNPTR_SIZE = 16;

/** DYNPTR_MAX_SIZE */
const MAX_SIZE = 0xff_ffff;
const TYPE_SHIFT = 28;
const TYPE_MASK = 7;
const RDONLY_BIT = 0x8000_0000;

/** A dynptr in memory, as it was when it was looked at. */
export interface Dynptr {
  readonly host: BpfHost;
  /** Offset in the backing store. */
  readonly at: number;
  readonly dataHi: number;
  readonly dataLo: number;
  readonly type: number;
  readonly size: number;
  readonly offset: number;
  readonly isReadOnly: boolean;
}

/** The dynptr whose address is in R`register`. */
export function dynptrAt(registers: RegisterPairs, host: BpfHost, register: number): Dynptr {
  const at = offsetOf(host.memory, registers, register, DYNPTR_SIZE, 'write');
  const { view } = host.memory;
  const size = view.getUint32(at + SIZE, true);
  return {
    host,
    at,
    dataHi: view.getInt32(at + DATA + 4, true),
    dataLo: view.getInt32(at + DATA, true),
    type: (size >>> TYPE_SHIFT) & TYPE_MASK,
    size: size & MAX_SIZE,
    offset: view.getUint32(at + OFFSET, true),
    isReadOnly: (size & RDONLY_BIT) !== 0,
  };
}

export function isNull({ dataHi, dataLo }: Dynptr): boolean {
  return (dataHi | dataLo) === 0;
}

/** Whether bytes `offset` to `offset + length` are part of it. */
export function isInside({ size }: Dynptr, offset: number, length: number): boolean {
  return length <= size && offset <= size - length;
}

/** bpf_dynptr_init */
export function initDynptr(dynptr: Dynptr, type: number, data: bigint, size: number): void {
  const { view } = dynptr.host.memory;
  view.setBigUint64(dynptr.at + DATA, data, true);
  view.setUint32(dynptr.at + SIZE, ((type << TYPE_SHIFT) | size) >>> 0, true);
  view.setUint32(dynptr.at + OFFSET, 0, true);
}

/** bpf_dynptr_set_null */
export function clearDynptr({ host, at }: Dynptr): void {
  host.memory.bytes.fill(0, at, at + DYNPTR_SIZE);
}

/** Keeps bytes `start` to `end` of what it was. */
export function narrowDynptr(dynptr: Dynptr, start: number, end: number): void {
  const { host, at, offset } = dynptr;
  const { view } = host.memory;
  const marks = view.getUint32(at + SIZE, true) & ~MAX_SIZE;
  view.setUint32(at + SIZE, (marks | (end - start)) >>> 0, true);
  view.setUint32(at + OFFSET, offset + start, true);
}

/** Address of its byte `offset`, of memory. */
export function addressIn({ dataHi, dataLo, offset: start }: Dynptr, offset: number): bigint {
  return join64(dataLo, dataHi) + BigInt(start + offset);
}

/** Copies between its bytes from `offset` and a buffer in the backing store; 0 or a negative errno. */
export function copyDynptr(
  dynptr: Dynptr,
  offset: number,
  buffer: () => number,
  length: number,
  toDynptr: boolean,
): number {
  const { host, dataHi, dataLo, type, offset: start } = dynptr;
  const { memory } = host;
  if (type === DYNPTR_TYPE.XDP) {
    return copyPacket(frameAt(memory, dataHi, dataLo), start + offset, buffer, length, toDynptr);
  }
  if (length === 0) return 0;
  const access = toDynptr ? 'write' : 'read';
  const data = offsetAt(memory, dataHi, dataLo, length, access, start + offset);
  const at = buffer();
  if (toDynptr) memory.bytes.copyWithin(data, at, at + length);
  else memory.bytes.copyWithin(at, data, data + length);
  return 0;
}

/** R1 memory, R2 its size, R3 flags, R4 the new dynptr. */
const fromMemory: HelperBody = (registers, host) => {
  const dynptr = dynptrAt(registers, host, 4);
  const size = argument32(registers, 2) >>> 0;
  const error = size > MAX_SIZE ? 'E2BIG' : argument(registers, 3) !== 0n ? 'EINVAL' : undefined;
  if (error) {
    clearDynptr(dynptr);
    fail(registers, error);
    return;
  }
  initDynptr(dynptr, DYNPTR_TYPE.LOCAL, argument(registers, 1), size);
  setResult(registers, 0);
};

/** R1 where to, R2 length, R3 dynptr, R4 offset, R5 flags. */
const read: HelperBody = (registers, host) => {
  const dynptr = dynptrAt(registers, host, 3);
  const length = argument32(registers, 2) >>> 0;
  const offset = argument32(registers, 4) >>> 0;
  if (isNull(dynptr) || argument(registers, 5) !== 0n) fail(registers, 'EINVAL');
  else if (!isInside(dynptr, offset, length)) fail(registers, 'E2BIG');
  else {
    const buffer = (): number => offsetOf(host.memory, registers, 1, length, 'write');
    setResult(registers, copyDynptr(dynptr, offset, buffer, length, false));
  }
};

/** R1 dynptr, R2 offset, R3 where from, R4 length, R5 flags. */
const write: HelperBody = (registers, host) => {
  const dynptr = dynptrAt(registers, host, 1);
  const offset = argument32(registers, 2) >>> 0;
  const length = argument32(registers, 4) >>> 0;
  if (isNull(dynptr) || dynptr.isReadOnly) fail(registers, 'EINVAL');
  else if (!isInside(dynptr, offset, length)) fail(registers, 'E2BIG');
  else if (argument(registers, 5) !== 0n) fail(registers, 'EINVAL');
  else {
    const buffer = (): number => offsetOf(host.memory, registers, 3, length, 'read');
    setResult(registers, copyDynptr(dynptr, offset, buffer, length, true));
  }
};

/** R1 dynptr, R2 offset, R3 length: the address, or NULL. */
const data: HelperBody = (registers, host) => {
  const dynptr = dynptrAt(registers, host, 1);
  const offset = argument32(registers, 2) >>> 0;
  const isThere =
    !isNull(dynptr) &&
    isInside(dynptr, offset, argument32(registers, 3) >>> 0) &&
    !dynptr.isReadOnly &&
    dynptr.type !== DYNPTR_TYPE.XDP;
  setResult64(registers, isThere ? addressIn(dynptr, offset) : 0n);
};

/** R1 map, R2 size, R3 flags, R4 the new dynptr. */
const reserve: HelperBody = (registers, host) => {
  const dynptr = dynptrAt(registers, host, 4);
  const size = argument32(registers, 2) >>> 0;
  const map = host.mapAt(argument(registers, 1));
  const isRefused = argument(registers, 3) !== 0n || !(map instanceof RingBuffer);
  const record = isRefused || size > MAX_SIZE ? 0n : map.reserve(size);
  if (record === 0n) {
    clearDynptr(dynptr);
    fail(registers, !isRefused && size > MAX_SIZE ? 'E2BIG' : 'EINVAL');
    return;
  }
  initDynptr(dynptr, DYNPTR_TYPE.RINGBUF, record, size);
  setResult(registers, 0);
};

/** R1 dynptr, R2 flags. */
function finish(registers: RegisterPairs, host: BpfHost, discard: boolean): void {
  const dynptr = dynptrAt(registers, host, 1);
  if (!isNull(dynptr)) {
    const record = join64(dynptr.dataLo, dynptr.dataHi);
    RingBuffer.of(host, record).finish(record, discard, argument32(registers, 2));
    clearDynptr(dynptr);
  }
  setResult(registers, 0);
}

export const DYNPTR_HELPERS: readonly Helper[] = [
  {
    id: 197,
    name: 'dynptr_from_mem',
    arguments: ['uninit_mem', 'size_or_zero', 'anything', 'uninit_dynptr'],
    result: 'integer',
    body: fromMemory,
  },
  {
    id: 198,
    name: 'ringbuf_reserve_dynptr',
    arguments: ['map', 'anything', 'anything', 'uninit_dynptr'],
    maps: ['RINGBUF'],
    result: 'integer',
    body: reserve,
  },
  {
    id: 199,
    name: 'ringbuf_submit_dynptr',
    arguments: ['release_dynptr', 'anything'],
    result: 'void',
    body: (registers, host) => finish(registers, host, false),
  },
  {
    id: 200,
    name: 'ringbuf_discard_dynptr',
    arguments: ['release_dynptr', 'anything'],
    result: 'void',
    body: (registers, host) => finish(registers, host, true),
  },
  {
    id: 201,
    name: 'dynptr_read',
    arguments: ['uninit_mem', 'size_or_zero', 'dynptr', 'anything', 'anything'],
    result: 'integer',
    body: read,
  },
  {
    id: 202,
    name: 'dynptr_write',
    arguments: ['dynptr', 'anything', 'mem', 'size_or_zero', 'anything'],
    result: 'integer',
    body: write,
  },
  {
    id: 203,
    name: 'dynptr_data',
    arguments: ['dynptr', 'anything', 'const_alloc_size'],
    result: 'memory_or_null',
    body: data,
  },
];
