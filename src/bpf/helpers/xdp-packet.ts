/**
 * The packet behind a `struct xdp_buff`: its borders, its fragments, its bytes from any offset.
 *
 * Reference: net/core/filter.c bpf_xdp_pointer, bpf_xdp_copy_buf. XDP helpers and dynptrs work on it.
 *
 * Usage:
 *   const frame = frameOf(registers, host);
 *   copyPacket(frame, 14, () => buffer, 20, false);
 */
import { join64 } from '../../common/bytes.js';
import { ERRNO } from '../../common/errno.js';
import type { Memory } from '../../cpu/memory.js';
import type { BpfHost, RegisterPairs } from '../host.js';
import {
  SKB_FRAG,
  SKB_SHARED_INFO,
  SKB_SHARED_INFO_SIZE,
  XDP_BUFF,
  XDP_FLAGS_HAS_FRAGS,
} from '../xdp-buff.js';
import { offsetAt } from './helper.js';

/** Most offset and length of load and store. */
const MAX_COPY = 0xffff;

/** The packet's borders as distances from data_hard_start; they lie in one region of < 4 GiB. */
export class Frame {
  readonly memory: Memory;
  /** Offset of the xdp_buff in the backing store. */
  at = 0;
  hardStartHi = 0;
  hardStartLo = 0;
  data = 0;
  dataEnd = 0;
  dataMeta = 0;
  /** Bytes that may be used behind data_hard_start. */
  hardEnd = 0;

  constructor(memory: Memory) {
    this.memory = memory;
  }

  /** Reads the borders of the xdp_buff at (hi:lo). */
  read(hi: number, lo: number): this {
    const at = offsetAt(this.memory, hi, lo, XDP_BUFF.size, 'write');
    const { view } = this.memory;
    this.at = at;
    this.hardStartHi = view.getInt32(at + XDP_BUFF.dataHardStart + 4, true);
    this.hardStartLo = view.getInt32(at + XDP_BUFF.dataHardStart, true);
    this.data = this.#distance(XDP_BUFF.data);
    this.dataEnd = this.#distance(XDP_BUFF.dataEnd);
    this.dataMeta = this.#distance(XDP_BUFF.dataMeta);
    this.hardEnd = view.getInt32(at + XDP_BUFF.frameSize, true) - SKB_SHARED_INFO_SIZE;
    return this;
  }

  #distance(field: number): number {
    return (this.memory.view.getInt32(this.at + field, true) - this.hardStartLo) | 0;
  }
}

// one per memory, read anew by each helper call: a call per packet would else make one per packet
const FRAMES = new WeakMap<Memory, Frame>();

/** The frame of the xdp_buff in R1; good until the next call. */
export function frameOf(registers: RegisterPairs, { memory }: BpfHost): Frame {
  return frameAt(memory, registers[3], registers[2]);
}

/** The frame of the xdp_buff at (hi:lo); good until the next call. */
export function frameAt(memory: Memory, hi: number, lo: number): Frame {
  let frame = FRAMES.get(memory);
  if (!frame) {
    frame = new Frame(memory);
    FRAMES.set(memory, frame);
  }
  return frame.read(hi, lo);
}

export function setBorder(frame: Frame, field: number, distance: number): void {
  frame.memory.view.setInt32(frame.at + field, frame.hardStartLo + distance, true);
}

/** Offset in the backing store of `size` bytes at `distance` from data_hard_start. */
export function frameOffset(
  frame: Frame,
  distance: number,
  size: number,
  access: 'read' | 'write',
): number {
  const { memory, hardStartHi, hardStartLo } = frame;
  return offsetAt(memory, hardStartHi, hardStartLo, size, access, distance);
}

/** The shared info of a packet in fragments, as offsets in the backing store. */
export interface Fragments {
  readonly info: number;
  readonly count: number;
  /** Bytes in all fragments. */
  readonly total: number;
}

/** undefined for a packet in one piece. */
export function fragmentsOf(frame: Frame): Fragments | undefined {
  const { view } = frame.memory;
  if ((view.getUint32(frame.at + XDP_BUFF.flags, true) & XDP_FLAGS_HAS_FRAGS) === 0)
    return undefined;
  const info = frameOffset(frame, frame.hardEnd, SKB_SHARED_INFO_SIZE, 'write');
  return {
    info,
    count: view.getUint8(info + SKB_SHARED_INFO.nrFrags),
    total: view.getUint32(info + SKB_SHARED_INFO.xdpFragsSize, true),
  };
}

export function fragmentAt({ info }: Fragments, index: number): number {
  return info + SKB_SHARED_INFO.frags + SKB_FRAG.size * index;
}

/** Offset in the backing store of a fragment's byte `from`, for `size` bytes. */
export function fragmentBytes(
  frame: Frame,
  fragment: number,
  from: number,
  size: number,
  access: 'read' | 'write',
): number {
  const { memory } = frame;
  const lo = memory.view.getInt32(fragment + SKB_FRAG.page, true);
  const hi = memory.view.getInt32(fragment + SKB_FRAG.page + 4, true);
  const offset = memory.view.getInt32(fragment + SKB_FRAG.offset, true);
  return offsetAt(memory, hi, lo, size, access, offset + from);
}

export function lengthOf(frame: Frame): number {
  return frame.dataEnd - frame.data + (fragmentsOf(frame)?.total ?? 0);
}

/**
 * The stretches of memory that hold `size` bytes of the packet from `offset`, as offsets in the backing
 * store: one in most packets.
 */
function* stretches(
  frame: Frame,
  offset: number,
  size: number,
  access: 'read' | 'write',
): Iterable<{ readonly at: number; readonly length: number }> {
  const linear = frame.dataEnd - frame.data;
  let from = offset;
  let left = size;
  if (from < linear && left > 0) {
    const length = Math.min(left, linear - from);
    yield { at: frameOffset(frame, frame.data + from, length, access), length };
    left -= length;
    from += length;
  }
  from -= linear;
  const fragments = fragmentsOf(frame);
  if (!fragments) return;
  for (let index = 0; left > 0 && index < fragments.count; index++) {
    const fragment = fragmentAt(fragments, index);
    const held = frame.memory.view.getUint32(fragment + SKB_FRAG.length, true);
    if (from < held) {
      const length = Math.min(left, held - from);
      yield { at: fragmentBytes(frame, fragment, from, length, access), length };
      left -= length;
      from += length;
    }
    from -= held;
  }
}

/** Copies between the packet and an offset of the backing store; 0 or a negative errno. */
export function copyPacket(
  frame: Frame,
  offset: number,
  buffer: () => number,
  size: number,
  toPacket: boolean,
): number {
  if (offset > MAX_COPY || size > MAX_COPY) return -ERRNO.EFAULT;
  if (offset + size > lengthOf(frame)) return -ERRNO.EINVAL;
  if (size === 0) return 0;
  const { bytes } = frame.memory;
  let at = buffer();
  for (const stretch of stretches(frame, offset, size, toPacket ? 'write' : 'read')) {
    if (toPacket) bytes.copyWithin(stretch.at, at, at + stretch.length);
    else bytes.copyWithin(at, stretch.at, stretch.at + stretch.length);
    at += stretch.length;
  }
  return 0;
}

/** bpf_xdp_pointer: the address of bytes that lie in one piece; undefined where they do not. */
export function packetPointer(frame: Frame, offset: number, size: number): bigint | undefined {
  if (offset > MAX_COPY || size > MAX_COPY || offset + size > lengthOf(frame)) return undefined;
  const linear = frame.dataEnd - frame.data;
  const start = join64(frame.hardStartLo, frame.hardStartHi) + BigInt(frame.data);
  if (offset < linear) return offset + size <= linear ? start + BigInt(offset) : undefined;
  let from = offset - linear;
  const fragments = fragmentsOf(frame);
  if (!fragments) return start + BigInt(from);
  for (let index = 0; index < fragments.count; index++) {
    const fragment = fragmentAt(fragments, index);
    const { view } = frame.memory;
    const held = view.getUint32(fragment + SKB_FRAG.length, true);
    if (from < held) {
      if (from + size > held) return undefined;
      const page = view.getBigUint64(fragment + SKB_FRAG.page, true);
      return page + BigInt(view.getUint32(fragment + SKB_FRAG.offset, true) + from);
    }
    from -= held;
  }
  return start + BigInt(from);
}

/** bpf_xdp_copy_buf: copies what there is of these bytes to an offset of the backing store. */
export function copyFromPacket(frame: Frame, offset: number, to: number, size: number): void {
  let at = to;
  for (const stretch of stretches(frame, offset, size, 'read')) {
    frame.memory.bytes.copyWithin(at, stretch.at, stretch.at + stretch.length);
    at += stretch.length;
  }
}
