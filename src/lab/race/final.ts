/**
 * What a plan leaves behind, and what it says of itself: problems that no schedule makes or mends.
 */
import { bytesToHex } from '../../common/bytes.js';
import type { Memory } from '../../cpu/memory.js';
import type { Problem } from './invariants.js';
import { valueOf, type PlanProgram } from './objects.js';
import type { PatchPlan } from './plan.js';

/** The first of them. What the plan does not store to is in `memory`. */
export function checkStatic(
  plan: PatchPlan,
  program: PlanProgram,
  memory: Memory,
): Problem | undefined {
  if (plan.complaint) return plan.complaint;
  for (const address of plan.zeroWords ?? []) {
    const stored = program.objects.find((each) => each.kind === 'data' && each.address === address);
    if (stored?.versions.some((bytes) => valueOf(bytes) !== 0n)) {
      return { invariant: 'I6', message: `${stored.what} is not 0` };
    }
  }
  for (const { address, bytes, what } of plan.final ?? []) {
    const object = program.objects.find(
      (each) => each.address === address && each.versions.length > 0 && each.kind !== 'range',
    );
    const last = object?.versions.at(-1) ?? memory.readBytes(address, bytes.length);
    if (bytesToHex(last) !== bytesToHex(bytes)) {
      return { invariant: 'I11', message: `in the end ${what} is not what it has to be` };
    }
  }
  return undefined;
}
