/**
 * eBPF instruction slots: 8 bytes `code, dst | src << 4, off i16, imm i32`, little-endian.
 *
 * ld_imm64 takes two slots; the second holds the upper half of the constant in its imm and is zero
 * elsewhere (in an xlated function pointer its off is the callee's index). Reference: struct bpf_insn
 * in include/uapi/linux/bpf.h.
 *
 * Usage:
 *   const slot = readSlot(insns, 3);
 *   const opcode = OPCODES[slot.code];
 */
export interface Slot {
  readonly code: number;
  readonly dst: number;
  readonly src: number;
  /** Signed 16 bits. */
  readonly off: number;
  /** Signed 32 bits. */
  readonly imm: number;
}

export const SLOT_SIZE = 8;

export function slotCount(insns: Uint8Array): number {
  return Math.floor(insns.length / SLOT_SIZE);
}

export function readSlot(insns: Uint8Array, index: number): Slot {
  if (index < 0 || index >= slotCount(insns)) throw new RangeError(`no insn ${index}`);
  return slotAt(insns, index * SLOT_SIZE);
}

export function readSlots(insns: Uint8Array): Slot[] {
  const slots: Slot[] = [];
  const end = insns.length - (insns.length % SLOT_SIZE);
  for (let at = 0; at < end; at += SLOT_SIZE) slots.push(slotAt(insns, at));
  return slots;
}

function slotAt(insns: Uint8Array, at: number): Slot {
  // bytes, because a DataView per program costs more than it saves
  const byte = (index: number): number => insns[at + index] as number;
  const registers = byte(1);
  return {
    code: byte(0),
    dst: registers & 15,
    src: registers >> 4,
    off: ((byte(2) | (byte(3) << 8)) << 16) >> 16,
    imm: byte(4) | (byte(5) << 8) | (byte(6) << 16) | (byte(7) << 24),
  };
}

/** Bytes of slots. Throws RangeError when off or imm do not fit their fields. */
export function encodeSlots(slots: readonly Slot[]): Uint8Array {
  const bytes = new Uint8Array(slots.length * SLOT_SIZE);
  let at = 0;
  for (const { code, dst, src, off, imm } of slots) {
    if (off < -0x8000 || off > 0x7fff) {
      throw new RangeError(`insn ${at / SLOT_SIZE}: offset ${off} does not fit 16 bits`);
    }
    bytes[at] = code;
    bytes[at + 1] = (src << 4) | dst;
    bytes[at + 2] = off;
    bytes[at + 3] = off >> 8;
    bytes[at + 4] = imm;
    bytes[at + 5] = imm >> 8;
    bytes[at + 6] = imm >> 16;
    bytes[at + 7] = imm >> 24;
    at += SLOT_SIZE;
  }
  return bytes;
}

/** A slot with the fields that are not given zero. */
export function makeSlot(code: number, fields: Partial<Omit<Slot, 'code'>> = {}): Slot {
  const { dst = 0, src = 0, off = 0, imm = 0 } = fields;
  return { code, dst, src, off, imm };
}

/** The 64-bit constant of an ld_imm64 from the imm of its two slots. */
export function imm64(first: Slot, second: Slot): bigint {
  return (BigInt(second.imm >>> 0) << 32n) | BigInt(first.imm >>> 0);
}
