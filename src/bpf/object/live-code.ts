/**
 * What is left of a program's functions without the code that never runs.
 *
 * Reference: opt_hard_wire_dead_code_branches, opt_remove_dead_code, bpf_remove_insns and adjust_subprog_starts in
 * kernel/bpf/verifier.c. Source lines, callees and the places of loops move along.
 */
import { makeSlot, type Slot } from '../instruction.js';
import { OPCODES, PSEUDO } from '../opcodes.js';
import type { VerifiedProgram } from '../verifier/input.js';
import { removeDeadCode } from './dead-code.js';
import type { LinkedFunction } from './link.js';
import type { Patched } from './patch.js';
import type { SourceLine } from './spec.js';

const LD_IMM64 = 0x18;

/** The function without what constants rule out. Its source lines move along. */
export interface LiveFunction {
  readonly linked: LinkedFunction;
  /** Where each slot went. */
  readonly moved: readonly number[];
}

/** @param dead slots that the verifier found dead; without it constants are followed */
export function withoutDeadCode(
  { spec, slots }: LinkedFunction,
  dead: ReadonlySet<number> | undefined,
): LiveFunction {
  const live = removeDeadCode(slots, dead);
  const lines = live.slots.length === slots.length ? spec.lines : movedLines(spec.lines, live);
  return { linked: { spec: { ...spec, lines }, slots: live.slots }, moved: live.moved };
}

/** r0 = 0; exit */
const NOTHING: readonly Slot[] = [makeSlot(0xb7), makeSlot(0x95)];

/** Functions whose address these instructions load. */
function addressedFunctions(slots: readonly Slot[]): number[] {
  return slots.flatMap(({ code, src }, at) =>
    code === LD_IMM64 && src === PSEUDO.FUNC ? [slots[at + 1]?.off ?? -1] : [],
  );
}

/** Functions that are only called where nothing gets are gone as well; the others are numbered anew. */
export function withoutDeadFunctions(
  patches: readonly LiveFunction[],
  facts: VerifiedProgram['functions'] | undefined,
): {
  readonly patches: readonly LiveFunction[];
  readonly facts: VerifiedProgram['functions'] | undefined;
} {
  const isDead = (i: number): boolean => patches[i]?.linked.slots.length === 0;
  if (![...patches.keys()].some(isDead)) return { patches, facts };
  // a callback that never runs has an address all the same
  const named = new Set(patches.flatMap(({ linked: { slots } }) => addressedFunctions(slots)));
  const kept = [...patches.keys()].filter((i) => !isDead(i) || named.has(i));
  const renumbered = ({ linked: { spec, slots }, moved }: LiveFunction): LiveFunction => {
    const changed = slots.map((slot, at): Slot => {
      const before = slots[at - 1];
      const isAddress = before?.code === LD_IMM64 && before.src === PSEUDO.FUNC;
      const isCall = OPCODES[slot.code]?.kind === 'call' && slot.src === PSEUDO.CALL;
      return isAddress || isCall ? { ...slot, off: kept.indexOf(slot.off) } : slot;
    });
    return { linked: { spec, slots: changed.length === 0 ? NOTHING : changed }, moved };
  };
  return {
    patches: patches.filter((_, i) => kept.includes(i)).map(renumbered),
    facts: facts
      ?.filter((_, i) => kept.includes(i))
      .map((fact) => ({ ...fact, loops: renumberedLoops(fact.loops, kept) })),
  };
}

function renumberedLoops(
  loops: VerifiedProgram['functions'][number]['loops'],
  kept: readonly number[],
): ReadonlyMap<number, number | undefined> {
  return new Map(
    [...loops].map(([slot, callee]) => [
      slot,
      callee === undefined ? callee : kept.indexOf(callee),
    ]),
  );
}

/** Lines whose instructions are gone are left out. */
export function movedLines(lines: readonly SourceLine[], { slots, moved }: Patched): SourceLine[] {
  const byStart = new Map<number, SourceLine>();
  for (const line of lines) {
    const slot = moved[line.slot] ?? line.slot;
    if (slot < slots.length) byStart.set(slot, { ...line, slot });
  }
  return [...byStart.values()];
}
