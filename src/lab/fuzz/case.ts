/**
 * A case of the fuzzer: programs, the memory that R1 points at, the maps, and what a run leaves behind.
 *
 * The first program runs; the others lie in the slots of the prog array that tail calls go through. In
 * the instructions a map is its index (ld_imm64 with src_reg MAP_IDX), a helper its number, a function of
 * the program its index (as in an xlated program): a host resolves them, see `workbench.ts`.
 */
import { encodeSlots, readSlots } from '../../bpf/instruction.js';
import type { MapSpec } from '../../bpf/maps/map.js';
import { PSEUDO } from '../../bpf/opcodes.js';
import type { XlatedFunction } from '../../bpf/program.js';
import { bytesToHex } from '../../common/bytes.js';

export interface FuzzFunction {
  readonly insns: Uint8Array;
  /** Bytes of stack below R10. */
  readonly stackDepth: number;
}

/** Functions, main first. */
export type FuzzProgram = readonly FuzzFunction[];

export interface FuzzCase {
  readonly programs: readonly FuzzProgram[];
  readonly memory: Uint8Array;
  /** By index. A PROG_ARRAY holds programs 1, 2, .. in its first slots. */
  readonly maps: readonly MapSpec[];
}

/** What a run left behind. */
export interface FuzzOutcome {
  /** `return 0x..`, or what stopped it. */
  readonly end: string;
  readonly memory: Uint8Array;
  /** Contents by map; of a case that uses none: empty. */
  readonly maps: readonly MapContents[];
}

/** Keys and values one after the other, sorted by key. */
export interface MapContents {
  readonly name: string;
  readonly keySize: number;
  readonly valueSize: number;
  readonly bytes: Uint8Array;
}

/** Functions as `validate` takes them: constants in the place of maps. */
export function functionsOf(program: FuzzProgram): XlatedFunction[] {
  return program.map(({ insns, stackDepth }, index) => {
    const slots = readSlots(insns).map((slot) =>
      slot.code === 0x18 && slot.src === PSEUDO.MAP_IDX ? { ...slot, src: 0 } : slot,
    );
    return { name: `function ${index}`, insns: encodeSlots(slots), stackDepth };
  });
}

function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}

export function sameOutcome(a: FuzzOutcome, b: FuzzOutcome): boolean {
  if (a.end !== b.end || a.maps.length !== b.maps.length || !sameBytes(a.memory, b.memory)) {
    return false;
  }
  return a.maps.every((map, i) => sameBytes(map.bytes, b.maps[i]?.bytes ?? new Uint8Array()));
}

/** `map[key]=value` lines. */
export function mapLines({ maps }: FuzzOutcome): string[] {
  return maps.flatMap(({ name, keySize, valueSize, bytes }) => {
    const lines: string[] = [];
    for (let at = 0; at < bytes.length; at += keySize + valueSize) {
      const key = bytes.subarray(at, at + keySize);
      const value = bytes.subarray(at + keySize, at + keySize + valueSize);
      lines.push(`${name}[${bytesToHex(key)}]=${bytesToHex(value)}`);
    }
    return lines;
  });
}
