/**
 * A loaded program as `bpftool prog dump xlated` prints it, in text and as JSON records.
 *
 *   int drop(struct xdp_md * ctx):
 *   ; return XDP_DROP;
 *      0: (b7) r0 = 1
 *          b7 00 00 00 01 00 00 00
 *
 * Reference: tools/bpf/bpftool/xlated_dumper.c, btf_dumper.c (btf_dump_linfo_plain), and
 * bpf_insn_prepare_dump in kernel/bpf/syscall.c, which shows map addresses as `map[id:N]`, tail calls
 * as the helper they were, and loads that must not fault as plain ones. Subprograms follow each other in one numbering. Ids count the maps of the
 * object from 1. Left out: tags in the names of called subprograms, `visual`.
 */
import type { Btf } from '../bpf/btf/btf.js';
import { bpftoolPrototype } from '../bpf/btf/print.js';
import { disassemble, type DisassemblyNames } from '../bpf/disassemble.js';
import { listingNames } from '../bpf/helpers/names.js';
import type { BpfHost } from '../bpf/host.js';
import { encodeSlots, imm64, readSlots, type Slot } from '../bpf/instruction.js';
import type { BpfMap } from '../bpf/maps/map.js';
import type { LoadedProgram } from '../bpf/object/load.js';
import type { SourceLine } from '../bpf/object/spec.js';
import { PSEUDO } from '../bpf/opcodes.js';
import type { XlatedProgram } from '../bpf/program.js';

/** What a listing is made of. */
export interface ListedProgram {
  readonly xlated: XlatedProgram;
  readonly maps: readonly BpfMap[];
  readonly host: BpfHost;
  /** Of an object: source lines and prototypes. */
  readonly program?: LoadedProgram | undefined;
  readonly btf?: Btf | undefined;
}

/** One instruction. */
export interface ListedInstruction {
  /** Number of its first slot in the whole program. */
  readonly index: number;
  /** Number of its function, and of its slot there. */
  readonly function: number;
  readonly slot: number;
  /** In front of a function's first instruction. */
  readonly prototype?: string;
  readonly line?: SourceLine;
  /** `(b7) r0 = 1` */
  readonly text: string;
  /** 8 or 16 bytes, as the kernel gives them to user space. */
  readonly bytes: Uint8Array;
}

export interface ListingOptions {
  /** With the bytes of each instruction. */
  readonly opcodes?: boolean;
  /** With file, line and column of source lines. */
  readonly linum?: boolean;
}

const TAIL_CALL = 0xf5;
const CALL = 0x85;
const LD_IMM64 = 0x18;
/** A load through BPF_PROBE_MEM; BPF_MEM is 0x40 more. */
const PROBE_LOAD = 0x21;
const MODE_AND_CLASS = 0xe7;
/** BPF_FUNC_tail_call */
const TAIL_CALL_ID = 12;

export function listInstructions(listed: ListedProgram): ListedInstruction[] {
  const { xlated, program, btf } = listed;
  const starts: number[] = [];
  let length = 0;
  for (const { insns } of xlated.functions) {
    starts.push(length);
    length += insns.length / 8;
  }
  return xlated.functions.flatMap(({ insns }, number) => {
    const start = starts[number] ?? 0;
    const shown = userSlots(listed, readSlots(insns), start, starts);
    const info = program?.functions[number];
    const lines = new Map(info?.lines.map((line) => [line.slot, line]));
    const prototype = btf && info && info.btfId > 0 ? bpftoolPrototype(btf, info.btfId) : undefined;
    return disassemble(encodeSlots(shown), names(listed)).map(
      ({ index, slots, text }): ListedInstruction => {
        const line = lines.get(index);
        return {
          index: start + index,
          function: number,
          slot: index,
          ...(index === 0 && prototype !== undefined ? { prototype } : {}),
          ...(line ? { line } : {}),
          text,
          bytes: encodeSlots(shown.slice(index, index + slots)),
        };
      },
    );
  });
}

/** The slots as bpf_insn_prepare_dump and jit_subprogs leave them for user space. */
function userSlots(
  { maps }: ListedProgram,
  slots: readonly Slot[],
  start: number,
  starts: readonly number[],
): Slot[] {
  const shown = slots.slice();
  for (let at = 0; at < shown.length; at++) {
    const slot = shown[at] as Slot;
    const distance = (callee: number): number => (starts[callee] ?? 0) - (start + at) - 1;
    if (slot.code === TAIL_CALL) shown[at] = { ...slot, code: CALL, imm: TAIL_CALL_ID };
    if (slot.code === CALL && slot.src === PSEUDO.CALL) {
      shown[at] = { ...slot, off: distance(slot.off), imm: slot.off };
    }
    if ((slot.code & MODE_AND_CLASS) === PROBE_LOAD)
      shown[at] = { ...slot, code: slot.code | 0x40 };
    const second = shown[at + 1];
    if (slot.code !== LD_IMM64 || !second) continue;
    if (slot.src === PSEUDO.FUNC) {
      shown[at] = { ...slot, imm: distance(second.off) };
      shown[at + 1] = { ...second, off: 0, imm: second.off };
    } else {
      const reference = mapReference(maps, imm64(slot, second));
      if (reference) {
        shown[at] = { ...slot, src: reference.src, imm: reference.id };
        shown[at + 1] = { ...second, imm: reference.offset };
      }
    }
    at++;
  }
  return shown;
}

interface MapReference {
  readonly src: number;
  readonly id: number;
  readonly offset: number;
}

/** The map whose address, or whose value's address, a constant is. */
function mapReference(maps: readonly BpfMap[], value: bigint): MapReference | undefined {
  for (const [i, { address, valueAddress, spec }] of maps.entries()) {
    const id = i + 1;
    if (value === address) return { src: PSEUDO.MAP_FD, id, offset: 0 };
    const size = BigInt(spec.valueSize * spec.maxEntries);
    if (valueAddress !== 0n && value >= valueAddress && value < valueAddress + size) {
      return { src: PSEUDO.MAP_VALUE, id, offset: Number(value - valueAddress) };
    }
  }
  return undefined;
}

function names(listed: ListedProgram): DisassemblyNames {
  const { xlated, host } = listed;
  const helpers = listingNames(xlated, host);
  return {
    call: (slot, index) => {
      const { src, off, imm } = slot;
      if (src === PSEUDO.CALL) {
        return `pc${off < 0 ? off : `+${off}`}#${xlated.functions[imm]?.name ?? imm}`;
      }
      return imm === TAIL_CALL_ID ? `bpf_tail_call#${imm}` : helpers.call?.(slot, index);
    },
    constant: (value, { src, imm }) => {
      if (src === PSEUDO.MAP_FD) return `map[id:${imm}]`;
      return src === PSEUDO.MAP_VALUE ? `map[id:${imm}][0]+${value >> 32n}` : undefined;
    },
  };
}

/** The source line above an instruction. */
export function sourceLines({ line }: ListedInstruction, options: ListingOptions): string[] {
  if (!line) return [];
  const place = ` [file:${line.file} line_num:${line.line} line_col:${line.column}]`;
  return [`; ${line.text.trimStart()}${options.linum ? place : ''}`];
}

export function listXlated(listed: ListedProgram, options: ListingOptions = {}): string[] {
  return listInstructions(listed).flatMap((instruction) => {
    const { prototype } = instruction;
    const lines = [
      ...(prototype === undefined ? [] : [`${prototype}:`]),
      ...sourceLines(instruction, options),
      `${String(instruction.index).padStart(4)}: ${instruction.text}`,
    ];
    if (options.opcodes) lines.push(`       ${hexBytes(instruction.bytes)}`);
    return lines;
  });
}

export function hexBytes(bytes: Uint8Array): string {
  return [...bytes].map((byte) => byte.toString(16).padStart(2, '0')).join(' ');
}

/** The records of `bpftool -j prog dump xlated`. */
export function xlatedRecords(listed: ListedProgram, options: ListingOptions = {}): object[] {
  return listInstructions(listed).map((instruction) => {
    const { prototype, line, text, bytes } = instruction;
    return {
      ...(prototype === undefined ? {} : { proto: prototype }),
      ...(line && options.linum
        ? { file: line.file, line_num: line.line, line_col: line.column }
        : {}),
      ...(line ? { src: line.text.trimStart() } : {}),
      disasm: text,
      ...(options.opcodes ? { opcodes: opcodeFields(bytes) } : {}),
    };
  });
}

function opcodeFields(bytes: Uint8Array): object {
  const hex = (value: number): string => `0x${value.toString(16).padStart(2, '0')}`;
  const registers = bytes[1] ?? 0;
  return {
    code: hex(bytes[0] ?? 0),
    src_reg: `0x${(registers >> 4).toString(16)}`,
    dst_reg: `0x${(registers & 15).toString(16)}`,
    off: [...bytes.subarray(2, 4)].map(hex),
    imm: [...bytes.subarray(4)].map(hex),
  };
}
