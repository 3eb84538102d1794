/**
 * Classic BPF: its check and its translation to eBPF.
 *
 * Reference: bpf_check_classic and bpf_convert_filter in net/core/filter.c. Registers as there: A is
 * R0, X is R7, a temporary R8, the context R6; M[] lies on the stack. What the kernel reads from a socket
 * buffer goes through five helpers here (`CLASSIC_HELPERS`) and a header in front of the packet
 * (`classicPacket`). Left out: ancillary data beyond ALU_XOR_X, CPU and netlink attributes, and loads
 * relative to the network header: `skbFieldOf` names what a program would need.
 *
 * Usage:
 *   const filter = parseClassic(bytes);
 *   const why = checkClassic(filter);            // undefined: accepted
 *   const insns = translateClassic(filter);      // eBPF slots, helpers called by number
 */
import { InputError } from '../common/errors.js';
import type { HelperBody, RegisterPairs } from './host.js';
import { offsetOf, setResult, setResult64, argument32 } from './helpers/helper.js';
import { encodeSlots, makeSlot, type Slot } from './instruction.js';

/** struct sock_filter */
export interface ClassicInstruction {
  readonly code: number;
  readonly jt: number;
  readonly jf: number;
  /** Unsigned. */
  readonly k: number;
}

const MAX_INSTRUCTIONS = 4096;
const MEMWORDS = 16;

/** SKF_AD_OFF, SKF_NET_OFF, SKF_LL_OFF as u32, and lengths of the ranges behind them. */
const AD_OFF = 0xffff_f000;
const NET_OFF = 0xfff0_0000;
const LL_OFF = 0xffe0_0000;

const AD = { NLATTR: 12, NLATTR_NEST: 16, CPU: 36, ALU_XOR_X: 40 } as const;

/** Ancillary data by offset from SKF_AD_OFF. */
const ANCILLARY: ReadonlyMap<number, string> = new Map([
  [0, 'protocol'],
  [4, 'packet type'],
  [8, 'ifindex'],
  [AD.NLATTR, ''],
  [AD.NLATTR_NEST, ''],
  [20, 'mark'],
  [24, 'queue'],
  [28, 'hardware type'],
  [32, 'receive hash'],
  [AD.CPU, ''],
  [AD.ALU_XOR_X, ''],
  [44, 'VLAN tag'],
  [48, 'VLAN tag present'],
  [52, 'payload offset'],
  [56, 'random number'],
  [60, 'VLAN protocol'],
]);

const CLASS = { LD: 0, LDX: 1, ST: 2, STX: 3, ALU: 4, JMP: 5, RET: 6, MISC: 7 } as const;
const MODE = { IMM: 0x00, ABS: 0x20, IND: 0x40, MEM: 0x60, LEN: 0x80, MSH: 0xa0 } as const;
const RET_K = 0x06;
const RET_A = 0x16;
const JA = 0x05;
const TAX = 0x07;
const TXA = 0x87;
const NEG = 0x84;
const SOURCE_X = 0x08;

/** Every code there is (bpf_check_classic's table). */
const CODES: ReadonlySet<number> = new Set([
  ...[0x00, 0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70, 0x90, 0xa0].flatMap((op) => [
    op | CLASS.ALU,
    op | CLASS.ALU | SOURCE_X,
  ]),
  NEG,
  0x20,
  0x28,
  0x30,
  0x40,
  0x48,
  0x50,
  0x80,
  0x00,
  0x60,
  0x81,
  0xb1,
  0x01,
  0x61,
  CLASS.ST,
  CLASS.STX,
  TAX,
  TXA,
  RET_K,
  RET_A,
  JA,
  ...[0x10, 0x20, 0x30, 0x40].flatMap((op) => [op | CLASS.JMP, op | CLASS.JMP | SOURCE_X]),
]);

export function parseClassic(bytes: Uint8Array): ClassicInstruction[] {
  if (bytes.length % 8 !== 0) {
    throw new InputError(`a classic program of ${bytes.length} bytes is no multiple of 8`);
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return Array.from({ length: bytes.length / 8 }, (_, i) => ({
    code: view.getUint16(8 * i, true),
    jt: view.getUint8(8 * i + 2),
    jf: view.getUint8(8 * i + 3),
    k: view.getUint32(8 * i + 4, true),
  }));
}

function classOf({ code }: ClassicInstruction): number {
  return code & 7;
}

function isPacketLoad({ code }: ClassicInstruction, mode: number): boolean {
  return (code & 7) === CLASS.LD && (code & 0xe0) === mode;
}

/** Why the kernel refuses the program with -EINVAL; undefined when it takes it. */
export function checkClassic(filter: readonly ClassicInstruction[]): string | undefined {
  if (filter.length === 0 || filter.length > MAX_INSTRUCTIONS) {
    return `${filter.length} instructions, there may be 1 to ${MAX_INSTRUCTIONS}`;
  }
  for (const [at, instruction] of filter.entries()) {
    const why = checkInstruction(instruction, filter.length - at - 1);
    if (why !== undefined) return `insn ${at}: ${why}`;
  }
  const last = filter[filter.length - 1]?.code;
  if (last !== RET_K && last !== RET_A) return 'the last instruction is no return';
  return checkMemory(filter) ?? checkDistances(filter);
}

/**
 * eBPF instructions that the kernel makes of a classic one (convert_bpf_ld_abs,
 * convert_bpf_extensions): its jumps have 16 bits of offset, so long ways over long
 * translations are refused.
 */
function kernelLength(instruction: ClassicInstruction): number {
  const { code, jt, jf, k } = instruction;
  const isX = (code & SOURCE_X) !== 0;
  // straight from the packet when the offset is not negative, then the call that copes with all
  const load = (size: number): number =>
    (k < 0x8000_0000 ? 4 + (k > 0 ? 1 : 0) + (size > 1 ? 1 : 0) + (k > 0x7fff ? 2 : 0) : 0) + 8;
  switch (classOf(instruction)) {
    case CLASS.ALU:
      return isX && ((code & 0xf0) === 0x30 || (code & 0xf0) === 0x90) ? 5 : 1;
    case CLASS.JMP:
      if (code === JA) return 1;
      return (!isX && k >= 0x8000_0000 ? 1 : 0) + (jt === 0 || jf === 0 ? 1 : 2);
    case CLASS.RET:
      return code === RET_K ? 2 : 1;
    case CLASS.LDX:
      return (code & 0xe0) === MODE.MSH ? 6 + load(1) : 1;
    case CLASS.LD:
      if ((code & 0xe0) === MODE.IND) return 8 + (k === 0 ? 0 : 1);
      if ((code & 0xe0) !== MODE.ABS) return 1;
      if (k >= AD_OFF) return k - AD_OFF === AD.ALU_XOR_X ? 1 : 4;
      return load(code & 0x10 ? 1 : 2);
    default:
      return 1;
  }
}

function checkDistances(filter: readonly ClassicInstruction[]): string | undefined {
  const starts = [0];
  for (const instruction of filter) {
    starts.push((starts.at(-1) ?? 0) + kernelLength(instruction));
  }
  for (const [at, instruction] of filter.entries()) {
    if (classOf(instruction) !== CLASS.JMP) continue;
    const { code, jt, jf, k } = instruction;
    const farthest = at + 1 + (code === JA ? k : Math.max(jt, jf));
    const distance = (starts[farthest] ?? 0) - (starts[at + 1] ?? 0);
    if (distance > 0x7fff) return `insn ${at}: jump over ${distance} translated instructions`;
  }
  return undefined;
}

/** `left` instructions follow. */
function checkInstruction(instruction: ClassicInstruction, left: number): string | undefined {
  const { code, jt, jf, k } = instruction;
  if (!CODES.has(code)) return `unknown code 0x${code.toString(16)}`;
  const isConstant = (code & SOURCE_X) === 0;
  const op = code & 0xf0;
  switch (classOf(instruction)) {
    case CLASS.ALU:
      if (code !== NEG && isConstant && (op === 0x30 || op === 0x90) && k === 0) {
        return 'division by zero';
      }
      return isConstant && (op === 0x60 || op === 0x70) && k >= 32 ? `shift by ${k}` : undefined;
    case CLASS.JMP:
      if (code === JA) return k >= left ? `jump by ${k} leaves the program` : undefined;
      return jt >= left || jf >= left ? 'jump leaves the program' : undefined;
    case CLASS.ST:
    case CLASS.STX:
      return k >= MEMWORDS ? `M[${k}]` : undefined;
    case CLASS.LD:
    case CLASS.LDX:
      if ((code & 0xe0) === MODE.MEM && k >= MEMWORDS) return `M[${k}]`;
      if (isPacketLoad(instruction, MODE.ABS) && k >= AD_OFF && !ANCILLARY.has(k - AD_OFF)) {
        return `unknown ancillary data ${k - AD_OFF}`;
      }
      return undefined;
    default:
      return undefined;
  }
}

/** check_load_and_stores: M[] is not read before it is written, on any path. */
function checkMemory(filter: readonly ClassicInstruction[]): string | undefined {
  const ALL = 0xffff;
  // words that every path to an instruction has written; jumps only go forward
  const masks = new Uint16Array(filter.length).fill(ALL);
  let valid = 0;
  for (const [at, instruction] of filter.entries()) {
    valid &= masks[at] as number;
    const { code, jt, jf, k } = instruction;
    const kind = classOf(instruction);
    const target = (offset: number): void => {
      masks[at + 1 + offset] = (masks[at + 1 + offset] as number) & valid;
    };
    if (kind === CLASS.ST || kind === CLASS.STX) {
      valid |= 1 << k;
    } else if ((kind === CLASS.LD || kind === CLASS.LDX) && (code & 0xe0) === MODE.MEM) {
      if ((valid & (1 << k)) === 0) return `insn ${at}: M[${k}] is read before it is written`;
    } else if (kind === CLASS.JMP) {
      if (code === JA) {
        target(k);
      } else {
        target(jt);
        target(jf);
      }
      valid = ALL;
    }
  }
  return undefined;
}

/** What of a socket buffer, besides its data, the program needs; undefined: nothing. */
export function skbFieldOf(filter: readonly ClassicInstruction[]): string | undefined {
  for (const instruction of filter) {
    if (!isPacketLoad(instruction, MODE.ABS)) continue;
    const { k } = instruction;
    const field = k >= AD_OFF ? ANCILLARY.get(k - AD_OFF) : undefined;
    if (field) return field;
    if (k >= NET_OFF && k < AD_OFF) return 'network header';
  }
  return undefined;
}

/** Registers. */
const [A, X, TMP, CTX, FP] = [0, 7, 8, 6, 10];

const mov64 = (dst: number, src: number): Slot => makeSlot(0xbf, { dst, src });
const mov32 = (dst: number, src: number): Slot => makeSlot(0xbc, { dst, src });
const set32 = (dst: number, imm: number): Slot => makeSlot(0xb4, { dst, imm: imm | 0 });
const EXIT = makeSlot(0x95);
const call = (imm: number): Slot => makeSlot(0x85, { imm });

/** Helper numbers. */
const LOAD_8 = 1;
const LOAD_16 = 2;
const LOAD_32 = 3;
const NLATTR = 4;
const NLATTR_NEST = 5;

/** A jump of a translated program: slot, and the classic instruction that it goes to. */
interface Jump {
  readonly slot: number;
  readonly target: number;
}

/** eBPF slots of an accepted program; helpers are called by their numbers in `CLASSIC_HELPERS`. */
export function translateClassic(filter: readonly ClassicInstruction[]): Uint8Array {
  const slots: Slot[] = [mov64(CTX, 1), set32(A, 0), set32(X, 0)];
  const starts: number[] = [];
  const jumps: Jump[] = [];
  for (const [at, instruction] of filter.entries()) {
    starts.push(slots.length);
    if (classOf(instruction) === CLASS.JMP) addJump(slots, jumps, at, instruction);
    else slots.push(...translateOne(instruction));
  }
  for (const { slot, target } of jumps) {
    const distance = (starts[target] ?? 0) - slot - 1;
    const jump = slots[slot] as Slot;
    // gotol carries its distance in imm
    slots[slot] = jump.code === 0x06 ? { ...jump, imm: distance } : { ...jump, off: distance };
  }
  return encodeSlots(slots);
}

function addJump(
  slots: Slot[],
  jumps: Jump[],
  at: number,
  { code, jt, jf, k }: ClassicInstruction,
): void {
  if (code === JA) {
    jumps.push({ slot: slots.length, target: at + 1 + k });
    slots.push(makeSlot(0x06));
    return;
  }
  const fromX = (code & SOURCE_X) !== 0;
  const op = (code & 0xf0) | (fromX ? SOURCE_X : 0) | 0x06;
  jumps.push({ slot: slots.length, target: at + 1 + jt });
  slots.push(makeSlot(op, { dst: A, src: fromX ? X : 0, imm: fromX ? 0 : k | 0 }));
  if (jf === 0) return;
  jumps.push({ slot: slots.length, target: at + 1 + jf });
  slots.push(makeSlot(0x06));
}

function translateOne(instruction: ClassicInstruction): readonly Slot[] {
  const { code, k } = instruction;
  const word = (k - MEMWORDS) * 4;
  switch (classOf(instruction)) {
    case CLASS.ALU:
      return translateAlu(instruction);
    case CLASS.ST:
      return [makeSlot(0x63, { dst: FP, src: A, off: word })];
    case CLASS.STX:
      return [makeSlot(0x63, { dst: FP, src: X, off: word })];
    case CLASS.RET:
      return code === RET_K ? [set32(A, k), EXIT] : [EXIT];
    case CLASS.MISC:
      return [code === TAX ? mov32(X, A) : mov32(A, X)];
    default:
      break;
  }
  const dst = classOf(instruction) === CLASS.LD ? A : X;
  switch (code & 0xe0) {
    case MODE.IMM:
      return [set32(dst, k)];
    case MODE.MEM:
      return [makeSlot(0x61, { dst, src: FP, off: word })];
    case MODE.LEN:
      return [makeSlot(0x61, { dst, src: CTX, off: 0 })];
    case MODE.MSH:
      // A is kept in the temporary
      return [
        mov64(TMP, A),
        ...packetLoad(LOAD_8, [set32(2, k)]),
        makeSlot(0x54, { dst: A, imm: 15 }),
        makeSlot(0x64, { dst: A, imm: 2 }),
        mov32(X, A),
        mov64(A, TMP),
      ];
    case MODE.ABS:
      return k >= AD_OFF ? ancillary(k - AD_OFF) : packetLoad(loadHelper(code), [set32(2, k)]);
    default:
      return packetLoad(loadHelper(code), [mov32(2, X), makeSlot(0x04, { dst: 2, imm: k | 0 })]);
  }
}

function translateAlu({ code, k }: ClassicInstruction): readonly Slot[] {
  if (code === NEG) return [makeSlot(0x84, { dst: A })];
  const op = code & 0xf0;
  if ((code & SOURCE_X) === 0) return [makeSlot(op | 0x04, { dst: A, imm: k | 0 })];
  const operation = makeSlot(op | 0x0c, { dst: A, src: X });
  if (op !== 0x30 && op !== 0x90) return [operation];
  // division by zero ends the program with 0
  return [makeSlot(0x56, { dst: X, off: 2 }), set32(A, 0), EXIT, operation];
}

function loadHelper(code: number): number {
  return { 0x00: LOAD_32, 0x08: LOAD_16, 0x10: LOAD_8 }[code & 0x18] ?? LOAD_8;
}

/** A = what is at the offset in R2; the program ends with 0 when nothing is there. */
function packetLoad(helper: number, offset: readonly Slot[]): readonly Slot[] {
  return [
    ...offset,
    mov64(1, CTX),
    call(helper),
    makeSlot(0x75, { dst: A, off: 2 }),
    set32(A, 0),
    EXIT,
  ];
}

function ancillary(which: number): readonly Slot[] {
  switch (which) {
    case AD.ALU_XOR_X:
      return [makeSlot(0xac, { dst: A, src: X })];
    case AD.CPU:
      return [set32(A, 0)];
    case AD.NLATTR:
    case AD.NLATTR_NEST:
      return [
        mov64(1, CTX),
        mov32(2, A),
        mov32(3, X),
        call(which === AD.NLATTR ? NLATTR : NLATTR_NEST),
      ];
    default:
      throw new InputError(`ancillary data ${ANCILLARY.get(which) ?? which} is not modelled`);
  }
}

/** Bytes in front of the packet: its length. */
const HEADER = 4;

/** What R1 has to point at: the packet with its length in front. */
export function classicPacket(packet: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(HEADER + packet.length);
  new DataView(bytes.buffer).setUint32(0, packet.length, true);
  bytes.set(packet, HEADER);
  return bytes;
}

/** bpf_skb_load_helper_N: R2 is an offset, also one relative to the MAC header. */
function loader(size: 1 | 2 | 4): HelperBody {
  return (registers, { memory }) => {
    const at = offsetOf(memory, registers, 1, HEADER, 'read');
    const length = memory.view.getUint32(at, true);
    let offset = argument32(registers, 2);
    if (offset < 0)
      offset = offset >= (LL_OFF | 0) && offset < (NET_OFF | 0) ? offset - (LL_OFF | 0) : -1;
    if (offset < 0 || offset + size > length) {
      setResult64(registers, -1n);
      return;
    }
    let value = 0;
    for (let i = 0; i < size; i++) {
      value =
        value * 256 + memory.bytes[offsetOf(memory, registers, 1, 1, 'read', HEADER + offset + i)];
    }
    registers[0] = value;
    registers[1] = 0;
  };
}

/** bpf_skb_get_nlattr and _nest: R2 the offset of the attributes, R3 the type; gives an offset or 0. */
function findAttribute(
  registers: RegisterPairs,
  memory: Parameters<HelperBody>[1]['memory'],
  nest: boolean,
): number {
  const base = offsetOf(memory, registers, 1, HEADER, 'read');
  const length = memory.view.getUint32(base, true);
  const u16 = (offset: number): number => memory.view.getUint16(base + HEADER + offset, true);
  let from = argument32(registers, 2) >>> 0;
  const type = argument32(registers, 3) >>> 0;
  if (length < 4 || from > length - 4) return 0;
  let end = length;
  if (nest) {
    const size = u16(from);
    if (size < 4 || size > length - from) return 0;
    end = from + size;
    from += 4;
  }
  while (end - from >= 4) {
    const size = u16(from);
    if (size < 4 || size > end - from) return 0;
    if ((u16(from + 2) & 0x3fff) === type) return from;
    from += (size + 3) & ~3;
  }
  return 0;
}

export const CLASSIC_HELPERS: ReadonlyMap<number, HelperBody> = new Map<number, HelperBody>([
  [LOAD_8, loader(1)],
  [LOAD_16, loader(2)],
  [LOAD_32, loader(4)],
  [
    NLATTR,
    (registers, { memory }) => setResult(registers, findAttribute(registers, memory, false)),
  ],
  [
    NLATTR_NEST,
    (registers, { memory }) => setResult(registers, findAttribute(registers, memory, true)),
  ],
]);
