/**
 * The state of one embedded CPU that its micro-operations work on, and its view of text.
 *
 * Registers are two Int32Arrays (low and high halves) indexed by slot: 0..30 X0..X30, 31 SP, 32
 * always zero (XZR as a source), 33 a sink (XZR as a destination), 34 NZCV (low half). A region of
 * text is an array of records of four Int32, one per instruction, so that the array index of a
 * record equals the byte offset of its instruction:
 *   [0] operation | d << 8 | n << 16 | m << 24     d, n, m: register slots
 *   [1] a, [2] b                                   immediates, meaning by operation
 *   [3] number of the decoded word in `words` (for traces)
 * Operation 0 means that the word has to be decoded (again). Records are filled when first reached
 * and stay, whatever happens to memory, until `sync` clears them: they are what this CPU fetches.
 */
import { high32, join64, low32, u64 } from '../../common/bytes.js';
import type { Stop, SystemRegister } from '../cpu.js';
import type { AccessKind } from '../fault.js';
import type { Memory, Region } from '../memory.js';
import { DecodedWords } from './decoded-words.js';
import type { TraceLog } from './trace.js';

export const SP_SLOT = 31;
export const ZERO_SLOT = 32;
export const SINK_SLOT = 33;
export const NZCV_SLOT = 34;
export const SLOTS = 35;

/** Text of one executable region as this CPU sees it. */
export interface Code {
  readonly region: Region;
  /** Address of the record at index 0. */
  readonly lo: number;
  readonly hi: number;
  /** Offset of that address in the backing store. */
  readonly offset: number;
  /** Bytes of whole instructions, which is the number of Int32 in `records`. */
  readonly size: number;
  /** Empty until the region is first executed. */
  records: Int32Array;
  /** One byte per instruction: 1 at a breakpoint. */
  readonly marks: Uint8Array;
  /** Breakpoints in this region. */
  breakpoints: number;
}

/** How the hot loop ended. */
export const EXIT = {
  /** pc is outside the text that was being executed. */
  LEFT: 0,
  BUDGET: 1,
  UNTIL: 2,
  BREAKPOINT: 3,
  /** See `Core.stop`. */
  STOP: 4,
} as const;

/** Results of the operations outside the hot switch. */
export const NEXT = 0;
export const STOPPED = 1;

export class Core {
  readonly memory: Memory;
  readonly view: DataView;
  readonly lo = new Int32Array(SLOTS);
  readonly hi = new Int32Array(SLOTS);
  pcLo = 0;
  pcHi = 0;
  executed = 0;
  /** Of the run in progress, before the current operation outside the hot switch. */
  pending = 0;
  exit: number = EXIT.BUDGET;
  stop: Stop = { kind: 'budget' };
  /** Stops of traps by their word: one is made per word, not per trap. */
  readonly traps = new Map<number, Stop>();

  readonly system: Record<SystemRegister, bigint> = {
    sp_el0: 0n,
    tpidr_el0: 0n,
    tpidr_el1: 0n,
    tpidr_el2: 0n,
  };
  /** PSTATE.DAIF: D=8 A=4 I=2 F=1. */
  daif = 0;

  /** Exclusive monitor: address, or -1n when clear, and the values that were loaded. */
  monitor = -1n;
  monitorValue = 0n;
  monitorHigh = 0n;

  /** BTYPE (landing.ts) of the branch by register that left `branchFrom`, until its target is looked at. */
  branchType = 0;
  branchFrom: Code | undefined = undefined;

  readonly decoded = new DecodedWords();
  /** Words at their addresses by number (0 is none). */
  readonly words: { lo: number; hi: number; word: number }[] = [{ lo: 0, hi: 0, word: 0 }];
  log: TraceLog | undefined = undefined;

  constructor(memory: Memory) {
    this.memory = memory;
    this.view = memory.view;
  }

  x(slot: number): bigint {
    return join64(this.lo[slot] as number, this.hi[slot] as number);
  }

  setX(slot: number, value: bigint): void {
    this.lo[slot] = low32(value);
    this.hi[slot] = high32(value);
  }

  get pc(): bigint {
    return join64(this.pcLo, this.pcHi);
  }

  set pc(value: bigint) {
    this.pcLo = low32(value);
    this.pcHi = high32(value);
  }

  /** Records why the access was refused. Returns STOPPED. */
  fault(access: AccessKind, hi: number, lo: number, size: number): number {
    const address = join64(lo, hi);
    this.stop = {
      kind: 'fault',
      fault: this.memory.faultAt(address, size, access) ?? {
        access,
        address,
        size,
        reason: 'unmapped',
      },
    };
    return STOPPED;
  }

  alignmentFault(access: AccessKind, address: bigint, size: number): number {
    this.stop = {
      kind: 'fault',
      fault: { access, address: u64(address), size, reason: 'alignment' },
    };
    return STOPPED;
  }
}

/** Whether each condition holds, as a bit per NZCV value: `(CONDITION_MASKS[cond] >> nzcv) & 1`. */
export const CONDITION_MASKS: readonly number[] = Array.from({ length: 16 }, (_, condition) => {
  let mask = 0;
  for (let nzcv = 0; nzcv < 16; nzcv++) if (holds(condition, nzcv)) mask |= 1 << nzcv;
  return mask;
});

/** ConditionHolds of the Arm ARM. */
function holds(condition: number, nzcv: number): boolean {
  const n = (nzcv & 8) !== 0;
  const z = (nzcv & 4) !== 0;
  const c = (nzcv & 2) !== 0;
  const v = (nzcv & 1) !== 0;
  const base = [z, c, n, v, c && !z, n === v, n === v && !z, true][condition >> 1] as boolean;
  return (condition & 1) === 1 && condition !== 15 ? !base : base;
}
