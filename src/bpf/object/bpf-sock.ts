/**
 * `struct bpf_sock` of the uapi: which of its bytes a program may read, and what such a read becomes.
 *
 * A program reads a socket through fields of this struct; on loading, each read is rewritten to one of
 * `struct sock` (`socket.ts`). A read that is narrower than its field reads the whole field, shifts and
 * masks. Reference: bpf_sock_is_valid_access, bpf_sock_common_is_valid_access and
 * bpf_sock_convert_ctx_access in net/core/filter.c, convert_ctx_accesses in kernel/bpf/verifier.c. Left
 * out: struct bpf_tcp_sock, which XDP programs do not get.
 *
 *   bound_dev_if 0, family 4, type 8, protocol 12, mark 16, priority 20, src_ip4 24, src_ip6 28,
 *   src_port 44 (of the host), dst_port 48 (be16), dst_ip4 52, dst_ip6 56, state 72, rx_queue_mapping 76
 */
import { makeSlot, type Slot } from '../instruction.js';
import { OPCODES } from '../opcodes.js';
import { SOCK } from '../socket.js';

/** Loads of 1, 2 and 4 bytes. */
const LDX: Readonly<Record<number, number>> = { 1: 0x71, 2: 0x69, 4: 0x61 };
const RSH32_IMM = 0x74;
const AND32_IMM = 0x54;
const JNE_IMM = 0x55;
const MOV64_IMM = 0xb7;
/** dst = (s8)src, (s16)src, (s32)src: mov with an offset of that many bits. */
const MOVSX64_REG = 0xbf;

const NO_QUEUE_MAPPING = 0xffff;

interface Field {
  /** Offset in `struct bpf_sock`, and bytes. */
  readonly at: number;
  readonly size: number;
  /** Offset in `struct sock`, and bytes there. */
  readonly to: number;
  readonly width: 1 | 2 | 4;
  /** Where reads that are narrower may begin. */
  readonly narrow: 'nowhere' | 'start' | 'anywhere';
  /** Whether a `struct sock_common` has it. */
  readonly common: boolean;
}

const FIELDS: readonly Field[] = [
  { at: 0, size: 4, to: SOCK.boundDevIf, width: 4, narrow: 'nowhere', common: true },
  { at: 4, size: 4, to: SOCK.family, width: 2, narrow: 'start', common: true },
  { at: 8, size: 4, to: SOCK.type, width: 2, narrow: 'start', common: false },
  { at: 12, size: 4, to: SOCK.protocol, width: 2, narrow: 'start', common: false },
  { at: 16, size: 4, to: SOCK.mark, width: 4, narrow: 'nowhere', common: false },
  { at: 20, size: 4, to: SOCK.priority, width: 4, narrow: 'nowhere', common: false },
  { at: 24, size: 4, to: SOCK.rcvSaddr, width: 4, narrow: 'anywhere', common: true },
  { at: 28, size: 16, to: SOCK.v6RcvSaddr, width: 4, narrow: 'anywhere', common: true },
  { at: 44, size: 4, to: SOCK.num, width: 2, narrow: 'start', common: true },
  // the two bytes behind it are padding: readable with it, not alone
  { at: 48, size: 2, to: SOCK.dport, width: 2, narrow: 'anywhere', common: true },
  { at: 52, size: 4, to: SOCK.daddr, width: 4, narrow: 'anywhere', common: true },
  { at: 56, size: 16, to: SOCK.v6Daddr, width: 4, narrow: 'anywhere', common: true },
  { at: 72, size: 4, to: SOCK.state, width: 1, narrow: 'start', common: true },
  { at: 76, size: 4, to: SOCK.rxQueueMapping, width: 2, narrow: 'start', common: true },
];

const RX_QUEUE_MAPPING = 76;
const DST_PORT = 48;

function fieldAt(off: number): Field | undefined {
  return FIELDS.find(({ at, size }) => off >= at && off < at + size);
}

/** May a program read `size` bytes at `off` of a `struct bpf_sock`? */
export function isReadable(off: number, size: number, isCommon: boolean): boolean {
  const field = fieldAt(off);
  if (!field || size > 4 || off % size !== 0 || (isCommon && !field.common)) return false;
  if (size === 4) return true;
  if (off === DST_PORT) return true;
  return field.narrow === 'anywhere' || (field.narrow === 'start' && off === field.at);
}

/** What a load of such bytes becomes. */
export function rewriteSocketLoad(slot: Slot): readonly Slot[] {
  const opcode = OPCODES[slot.code];
  const field = fieldAt(slot.off);
  const load = field && LDX[field.width];
  if (opcode?.kind !== 'load' || !field || load === undefined) {
    throw new RangeError(`no load of a socket: code ${slot.code}, offset ${slot.off}`);
  }
  const { dst, src } = slot;
  const { size } = opcode;
  const unit = Math.min(field.size, 4);
  const within = slot.off & (unit - 1);
  const whole = slot.off - within;
  const slots = [makeSlot(load, { dst, src, off: field.to + whole - field.at })];
  if (field.at === RX_QUEUE_MAPPING) {
    slots.push(makeSlot(JNE_IMM, { dst, imm: NO_QUEUE_MAPPING, off: 1 }));
    slots.push(makeSlot(MOV64_IMM, { dst, imm: -1 }));
  }
  if (size < unit && size < field.width) {
    if (within > 0) slots.push(makeSlot(RSH32_IMM, { dst, imm: 8 * within }));
    slots.push(makeSlot(AND32_IMM, { dst, imm: 2 ** (8 * size) - 1 }));
  }
  if (opcode.signed) slots.push(makeSlot(MOVSX64_REG, { dst, src: dst, off: 8 * size }));
  return slots;
}
