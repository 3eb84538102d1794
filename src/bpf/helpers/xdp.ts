/**
 * XDP helpers on a `struct xdp_buff`: moving the packet's borders, copying its bytes.
 *
 * Reference: net/core/filter.c bpf_xdp_adjust_head, bpf_xdp_adjust_meta, bpf_xdp_adjust_tail,
 * bpf_xdp_load_bytes. Fragments: `xdp-packet.ts`.
 */
import { ERRNO } from '../../common/errno.js';
import { PAGE_SIZE } from '../../cpu/memory.js';
import { withIntrinsic, type BpfHost, type RegisterPairs } from '../host.js';
import {
  ETH_HLEN,
  SKB_FRAG,
  SKB_SHARED_INFO,
  XDP_BUFF,
  XDP_FLAGS_HAS_FRAGS,
  XDP_FRAME_SIZE,
  XDP_RXQ_INFO,
} from '../xdp-buff.js';
import { argument32, fail, offsetOf, setResult, type Helper } from './helper.js';
import {
  copyPacket,
  fragmentAt,
  fragmentBytes,
  fragmentsOf,
  frameOf,
  frameOffset,
  lengthOf,
  setBorder,
  type Fragments,
  type Frame,
} from './xdp-packet.js';

/** Most metadata: what fits skb_shared_info.meta_len. */
const MAX_METADATA = 255;

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
  const fragments = fragmentsOf(frame);
  if (fragments) {
    const result =
      offset < 0
        ? shrinkTail(frame, fragments, -offset, host)
        : growTail(frame, fragments, offset, host);
    setResult(registers, result);
    return;
  }
  const dataEnd = frame.dataEnd + offset;
  const tooLarge =
    host.adjustTailBug === 'large frames refused' &&
    frame.memory.view.getUint32(frame.at + XDP_BUFF.frameSize, true) > PAGE_SIZE;
  if (dataEnd > frame.hardEnd || dataEnd < frame.data + ETH_HLEN || tooLarge) {
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

/** bpf_xdp_frags_increase_tail: the last fragment grows inside its buffer, of which a page may hold several. */
function growTail(frame: Frame, fragments: Fragments, grow: number, host: BpfHost): number {
  const { view, bytes } = frame.memory;
  const rxq = view.getBigUint64(frame.at + XDP_BUFF.rxq, true);
  const fragSize = frame.memory.read32(rxq + BigInt(XDP_RXQ_INFO.fragSize));
  if (fragSize === 0 || fragSize > view.getUint32(frame.at + XDP_BUFF.frameSize, true)) {
    return -ERRNO.EOPNOTSUPP;
  }
  const last = fragmentAt(fragments, fragments.count - 1);
  const length = view.getUint32(last + SKB_FRAG.length, true);
  const offset = view.getUint32(last + SKB_FRAG.offset, true);
  const room =
    host.adjustTailBug === 'unsigned tailroom'
      ? (fragSize - length - offset) >>> 0
      : fragSize - length - (offset % fragSize);
  if (grow > room) return -ERRNO.EINVAL;
  if (grow > 0) {
    const at = fragmentBytes(frame, last, length, grow, 'write');
    bytes.fill(0, at, at + grow);
  }
  view.setUint32(last + SKB_FRAG.length, length + grow, true);
  view.setUint32(fragments.info + SKB_SHARED_INFO.xdpFragsSize, fragments.total + grow, true);
  return 0;
}

/** bpf_xdp_frags_shrink_tail: whole fragments go from the end, then the first buffer shrinks. */
function shrinkTail(frame: Frame, fragments: Fragments, shrink: number, host: BpfHost): number {
  const { view } = frame.memory;
  const linear = frame.dataEnd - frame.data;
  if (shrink > linear + fragments.total - ETH_HLEN) return -ERRNO.EINVAL;
  let left = shrink;
  let { count, total } = fragments;
  while (count > 0 && left > 0) {
    const fragment = fragmentAt(fragments, count - 1);
    const length = view.getUint32(fragment + SKB_FRAG.length, true);
    const part = Math.min(left, length);
    left -= part;
    total -= part;
    if (part < length) {
      view.setUint32(fragment + SKB_FRAG.length, length - part, true);
      break;
    }
    host.returnFragment?.(frame.memory.ram.pointer(fragment + SKB_FRAG.page));
    count--;
  }
  view.setUint8(fragments.info + SKB_SHARED_INFO.nrFrags, count);
  view.setUint32(fragments.info + SKB_SHARED_INFO.xdpFragsSize, total, true);
  if (count === 0) {
    const flags = view.getUint32(frame.at + XDP_BUFF.flags, true);
    view.setUint32(frame.at + XDP_BUFF.flags, flags & ~XDP_FLAGS_HAS_FRAGS, true);
    setBorder(frame, XDP_BUFF.dataEnd, frame.dataEnd - left);
  }
  return 0;
}

/** bpf_xdp_load_bytes and bpf_xdp_store_bytes: R2 offset in the packet, R3 buffer, R4 length. */
function copyBytes(registers: RegisterPairs, host: BpfHost, toPacket: boolean): void {
  const frame = frameOf(registers, host);
  const offset = argument32(registers, 2) >>> 0;
  const size = argument32(registers, 4) >>> 0;
  const buffer = (): number =>
    offsetOf(frame.memory, registers, 3, size, toPacket ? 'read' : 'write');
  setResult(registers, copyPacket(frame, offset, buffer, size, toPacket));
}

export const XDP_HELPERS: readonly Helper[] = [
  {
    id: 44,
    name: 'xdp_adjust_head',
    arguments: ['ctx', 'anything'],
    result: 'integer',
    changesPacket: true,
    body: withIntrinsic({ kind: 'xdp_adjust_head' }, adjustHead),
  },
  {
    id: 54,
    name: 'xdp_adjust_meta',
    arguments: ['ctx', 'anything'],
    result: 'integer',
    changesPacket: true,
    body: adjustMeta,
  },
  {
    id: 65,
    name: 'xdp_adjust_tail',
    arguments: ['ctx', 'anything'],
    result: 'integer',
    changesPacket: true,
    body: adjustTail,
  },
  {
    id: 188,
    name: 'xdp_get_buff_len',
    arguments: ['ctx'],
    result: 'integer',
    body: withIntrinsic({ kind: 'xdp_buff_len' }, (registers, host) =>
      setResult(registers, lengthOf(frameOf(registers, host))),
    ),
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
