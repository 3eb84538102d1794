/**
 * The invariants of patching under execution: names, and what each says.
 *
 * Reference: the rules of `docs/race.md`. Those that one CPU alone can break are looked at where its
 * instructions run (executor.ts), those that need the patcher's position where schedules are made
 * (transitions.ts), those of the end in final.ts.
 */
export const INVARIANTS = {
  CMODX:
    'text that may be fetched old or new changes only between B, BL, BRK, HVC, ISB, NOP, SMC and SVC',
  I1: 'the body behind a site finds x30, sp, x0-x8 and x18-x29 as they were at the entry',
  I2: 'every fetch is of text that is alive: no BRK, nothing freed, nothing unmapped',
  I3: 'the literal is an ops of those that may be there, and no freed ops is read',
  I4: 'a callback runs only for an ops that covers the site and has not been waited for',
  I5: 'what is stale is harmless: the body runs once, and who is attached all the time is called',
  I6: 'nobody sees half a store; direct_call of nop_ops and list_ops is 0',
  I7: 'images and programs are freed when nobody is in them or comes back to them',
  I8: 'after a call registers, stack and nesting counts of the task are as before, and x0 is right',
  I9: 'a tracer that stands alone in ftrace_caller gets its own ops',
  I10: 'a second direct call on a site is refused and changes nothing',
  I11: 'when all ops are gone the site is a NOP and its literal nop_ops',
} as const;

export type Invariant = keyof typeof INVARIANTS;

export interface Problem {
  readonly invariant: Invariant;
  /** One line. */
  readonly message: string;
}

export function isInvariant(name: string): name is Invariant {
  return Object.hasOwn(INVARIANTS, name);
}
