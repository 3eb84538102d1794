/**
 * Helpers that only the fuzzer has: number N takes N arguments and mixes all of them into its result.
 *
 * A wrong or missing argument shows in the result, whichever it is. What a C function may destroy,
 * these destroy where they can (`clobbered`): nothing may be kept there across a call.
 */
import type { HelperBody, RegisterPairs } from '../../bpf/host.js';

/** Helper numbers of the mixing helpers with 0 to 5 arguments; no kernel has these numbers. */
export const MIX_HELPERS = [4000, 4001, 4002, 4003, 4004, 4005] as const;

/** Registers that a function may change by the procedure call standard, its result apart. */
export const CLOBBERED = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17] as const;

/** Result from the first `count` of R1..R5. */
function mix(registers: RegisterPairs, count: number): void {
  let lo = 0x2545f491;
  let hi = count;
  for (let register = 1; register <= count; register++) {
    lo = Math.imul(lo ^ (registers[2 * register] as number), 0x9e3779b1);
    hi = Math.imul(hi ^ (registers[2 * register + 1] as number), 0x85ebca6b);
    lo ^= hi >>> 15;
    hi = (hi + lo) | 0;
  }
  registers[0] = lo;
  registers[1] = hi;
}

export function mixHelpers(): Map<number, HelperBody> {
  return new Map(
    MIX_HELPERS.map((id, count): [number, HelperBody] => [
      id,
      (registers) => mix(registers, count),
    ]),
  );
}
