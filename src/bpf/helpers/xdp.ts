/**
 * XDP helpers on a `struct xdp_buff`: moving the packet's borders, copying its bytes.
 *
 * Reference: net/core/filter.c bpf_xdp_adjust_head, bpf_xdp_adjust_meta, bpf_xdp_adjust_tail,
 * bpf_xdp_load_bytes. Left out: packets in fragments, redirects.
 */
import type { Memory } from '../../cpu/memory.js';
import type { BpfHost, RegisterPairs } from '../host.js';
import { SKB_SHARED_INFO_SIZE, XDP_BUFF, XDP_FRAME_SIZE } from '../xdp-buff.js';
import { argument32, fail, offsetAt, offsetOf, setResult, type Helper } from './helper.js';

const ETH_HLEN = 14;
/** Most metadata: what fits skb_shared_info.meta_len. */
const MAX_METADATA = 255;
/** Most offset and length of load and store. */
const MAX_COPY = 0xffff;

/** The packet's borders as distances from data_hard_start; they lie in one region of < 4 GiB. */
interface Frame {
  readonly memory: Memory;
  /** Offset of the xdp_buff in the backing store. */
  readonly at: number;
  readonly hardStartHi: number;
  readonly hardStartLo: number;
  readonly data: number;
  readonly dataEnd: number;
  readonly dataMeta: number;
  /** Bytes that may be used behind data_hard_start. */
  readonly hardEnd: number;
}

function frameOf(registers: RegisterPairs, { memory }: BpfHost): Frame {
  const { view } = memory;
  const at = offsetOf(memory, registers, 1, XDP_BUFF.size, 'write');
  const hardStartLo = view.getInt32(at + XDP_BUFF.dataHardStart, true);
  const distance = (field: number): number => (view.getInt32(at + field, true) - hardStartLo) | 0;
  return {
    memory,
    at,
    hardStartHi: view.getInt32(at + XDP_BUFF.dataHardStart + 4, true),
    hardStartLo,
    data: distance(XDP_BUFF.data),
    dataEnd: distance(XDP_BUFF.dataEnd),
    dataMeta: distance(XDP_BUFF.dataMeta),
    hardEnd: view.getInt32(at + XDP_BUFF.frameSize, true) - SKB_SHARED_INFO_SIZE,
  };
}

function setBorder(frame: Frame, field: number, distance: number): void {
  frame.memory.view.setInt32(frame.at + field, frame.hardStartLo + distance, true);
}

/** Offset in the backing store of `size` bytes at `distance` from data_hard_start. */
function frameOffset(
  frame: Frame,
  distance: number,
  size: number,
  access: 'read' | 'write',
): number {
  const { memory, hardStartHi, hardStartLo } = frame;
  return offsetAt(memory, hardStartHi, hardStartLo, size, access, distance);
}

function adjustHead(registers: RegisterPairs, host: BpfHost): void {
  const frame = frameOf(registers, host);
  const offset = argument32(registers, 2);
  const metadata = Math.max(frame.data - frame.dataMeta, 0);
  const data = frame.data + offset;
  if (data < XDP_FRAME_SIZE + metadata || data > frame.dataEnd - ETH_HLEN) {
    fail(registers, 'EINVAL');
    return;
  }
  if (metadata > 0) {
    const from = frameOffset(frame, frame.dataMeta, metadata, 'read');
    const to = frameOffset(frame, frame.dataMeta + offset, metadata, 'write');
    frame.memory.bytes.copyWithin(to, from, from + metadata);
  }
  setBorder(frame, XDP_BUFF.dataMeta, frame.dataMeta + offset);
  setBorder(frame, XDP_BUFF.data, data);
  setResult(registers, 0);
}

function adjustMeta(registers: RegisterPairs, host: BpfHost): void {
  const frame = frameOf(registers, host);
  const meta = frame.dataMeta + argument32(registers, 2);
  const metadata = frame.data - meta;
  if (frame.dataMeta > frame.data) {
    // a driver without metadata support says so by data_meta = data + 1
    fail(registers, 'ENOTSUPP');
  } else if (meta < XDP_FRAME_SIZE || meta > frame.data) {
    fail(registers, 'EINVAL');
  } else if (metadata % 4 !== 0 || metadata > MAX_METADATA) {
    fail(registers, 'EACCES');
  } else {
    setBorder(frame, XDP_BUFF.dataMeta, meta);
    setResult(registers, 0);
  }
}

function adjustTail(registers: RegisterPairs, host: BpfHost): void {
  const frame = frameOf(registers, host);
  const offset = argument32(registers, 2);
  const dataEnd = frame.dataEnd + offset;
  if (dataEnd > frame.hardEnd || dataEnd < frame.data + ETH_HLEN) {
    fail(registers, 'EINVAL');
    return;
  }
  if (offset > 0) {
    const at = frameOffset(frame, frame.dataEnd, offset, 'write');
    frame.memory.bytes.fill(0, at, at + offset);
  }
  setBorder(frame, XDP_BUFF.dataEnd, dataEnd);
  setResult(registers, 0);
}

/** bpf_xdp_load_bytes and bpf_xdp_store_bytes: R2 offset in the packet, R3 buffer, R4 length. */
function copyBytes(registers: RegisterPairs, host: BpfHost, toPacket: boolean): void {
  const frame = frameOf(registers, host);
  const offset = argument32(registers, 2) >>> 0;
  const size = argument32(registers, 4) >>> 0;
  if (offset > MAX_COPY || size > MAX_COPY) {
    fail(registers, 'EFAULT');
    return;
  }
  if (offset + size > frame.dataEnd - frame.data) {
    fail(registers, 'EINVAL');
    return;
  }
  setResult(registers, 0);
  if (size === 0) return;
  const { bytes } = frame.memory;
  const packet = frameOffset(frame, frame.data + offset, size, toPacket ? 'write' : 'read');
  const buffer = offsetOf(frame.memory, registers, 3, size, toPacket ? 'read' : 'write');
  if (toPacket) bytes.copyWithin(packet, buffer, buffer + size);
  else bytes.copyWithin(buffer, packet, packet + size);
}

export const XDP_HELPERS: readonly Helper[] = [
  {
    id: 44,
    name: 'xdp_adjust_head',
    arguments: ['ctx', 'anything'],
    result: 'integer',
    body: adjustHead,
  },
  {
    id: 54,
    name: 'xdp_adjust_meta',
    arguments: ['ctx', 'anything'],
    result: 'integer',
    body: adjustMeta,
  },
  {
    id: 65,
    name: 'xdp_adjust_tail',
    arguments: ['ctx', 'anything'],
    result: 'integer',
    body: adjustTail,
  },
  {
    id: 188,
    name: 'xdp_get_buff_len',
    arguments: ['ctx'],
    result: 'integer',
    body: (registers, host) => {
      const frame = frameOf(registers, host);
      setResult(registers, frame.dataEnd - frame.data);
    },
  },
  {
    id: 189,
    name: 'xdp_load_bytes',
    arguments: ['ctx', 'anything', 'uninit_mem', 'size'],
    result: 'integer',
    body: (registers, host) => copyBytes(registers, host, false),
  },
  {
    id: 190,
    name: 'xdp_store_bytes',
    arguments: ['ctx', 'anything', 'mem', 'size'],
    result: 'integer',
    body: (registers, host) => copyBytes(registers, host, true),
  },
];
