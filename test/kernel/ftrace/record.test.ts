/** Wanted state and transition of a patch site against the rules, as sequences of ops. */
import { describe, expect, it } from 'vitest';
import {
  FTRACE_FL,
  addOps,
  countOf,
  removeOps,
  updateRecord,
  type DynFtrace,
  type OpsTraits,
} from '../../../src/kernel/ftrace/record.js';

const PLAIN: OpsTraits = {
  direct: false,
  ipmodify: false,
  saveRegs: false,
  hasTrampoline: false,
  callable: true,
};
const RECURSION: OpsTraits = { ...PLAIN, callable: false };
const DIRECT: OpsTraits = { ...PLAIN, direct: true, hasTrampoline: true };

const KINDS = { plain: PLAIN, recursion: RECURSION, direct: DIRECT };
type Step = `${'+' | '-'}${keyof typeof KINDS}`;

function flagNames(record: DynFtrace): string {
  return Object.entries(FTRACE_FL)
    .filter(([, flag]) => record.flags & flag)
    .map(([name]) => name)
    .join(' ');
}

/** Plays steps and tells the transition of the last one. */
function play(steps: readonly Step[]): { record: DynFtrace; last: string } {
  const record: DynFtrace = { ip: 0n, name: 'f', flags: 0 };
  const present: OpsTraits[] = [];
  let last = 'ignore';
  for (const step of steps) {
    const ops = KINDS[step.slice(1) as keyof typeof KINDS];
    if (step.startsWith('+')) {
      addOps(record, ops);
      present.push(ops);
    } else {
      present.splice(present.indexOf(ops), 1);
      removeOps(record, ops, {
        wantRegs: false,
        haveTrampoline: present.some((each) => each.hasTrampoline),
      });
    }
    last = updateRecord(record, true);
  }
  return { record, last };
}

describe.each<{ steps: Step[]; last: string; flags: string }>([
  { steps: ['+plain'], last: 'make_call', flags: 'ENABLED CALL_OPS CALL_OPS_EN TOUCHED' },
  { steps: ['+recursion'], last: 'make_call', flags: 'ENABLED TOUCHED' },
  { steps: ['+plain', '+plain'], last: 'modify_call', flags: 'ENABLED TOUCHED' },
  {
    steps: ['+direct'],
    last: 'make_call',
    flags: 'ENABLED TRAMP TRAMP_EN DIRECT DIRECT_EN CALL_OPS CALL_OPS_EN TOUCHED MODIFIED',
  },
  {
    steps: ['+direct', '+plain'],
    last: 'modify_call',
    flags: 'ENABLED DIRECT TOUCHED MODIFIED',
  },
  {
    steps: ['+direct', '+plain', '-plain'],
    last: 'modify_call',
    flags: 'ENABLED TRAMP TRAMP_EN DIRECT DIRECT_EN CALL_OPS CALL_OPS_EN TOUCHED MODIFIED',
  },
  {
    steps: ['+direct', '+plain', '-direct'],
    last: 'modify_call',
    flags: 'ENABLED CALL_OPS CALL_OPS_EN TOUCHED MODIFIED',
  },
  // decided by the ops that leaves: the plain one that stays keeps the list path
  { steps: ['+plain', '+recursion', '-recursion'], last: 'ignore', flags: 'ENABLED TOUCHED' },
  {
    steps: ['+recursion', '+plain', '-plain'],
    last: 'modify_call',
    flags: 'ENABLED CALL_OPS CALL_OPS_EN TOUCHED',
  },
  { steps: ['+plain', '-plain'], last: 'make_nop', flags: 'TOUCHED' },
  { steps: ['+direct', '-direct'], last: 'make_nop', flags: 'TOUCHED MODIFIED' },
])('$steps', ({ steps, last, flags }) => {
  it(`ends with ${last}: ${flags}`, () => {
    const { record, last: transition } = play(steps);
    expect(transition).toBe(last);
    expect(flagNames(record)).toBe(flags);
  });
});

it('counts the ops of a site', () => {
  expect(countOf(play(['+plain', '+direct', '+recursion']).record)).toBe(3);
});

it('leaves a DISABLED record alone', () => {
  const record: DynFtrace = { ip: 0n, name: 'f', flags: FTRACE_FL.DISABLED };
  addOps(record, PLAIN);
  expect(updateRecord(record, true)).toBe('ignore');
});
