/** Wanted state and transition of a patch site against the rules, as sequences of ops. */
import { describe, expect, it } from 'vitest';
import { FTRACE_PROFILES, type FtraceVersion } from '../../../src/kernel/ftrace/profile.js';
import {
  FTRACE_FL,
  addOps,
  checkRecord,
  commitRecord,
  recordRules,
  removeOps,
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

const REGS: OpsTraits = { ...PLAIN, saveRegs: true };
const IPMODIFY: OpsTraits = { ...PLAIN, ipmodify: true };

const KINDS = {
  plain: PLAIN,
  recursion: RECURSION,
  direct: DIRECT,
  regs: REGS,
  ipmodify: IPMODIFY,
  /** As before 6.2: SAVE_REGS is one of its flags. */
  directregs: { ...DIRECT, saveRegs: true },
};
type Step = `${'+' | '-'}${keyof typeof KINDS}` | 'off';

function flagNames(flags: number): string {
  return Object.entries(FTRACE_FL)
    .filter(([, flag]) => flags & flag)
    .map(([name]) => name)
    .join(' ');
}

/** Plays steps and tells the transition of the last one. `off` is the sysctl. */
function play(
  steps: readonly Step[],
  version: FtraceVersion = '6.12',
  first = 0,
): { flags: number; last: string } {
  const rules = recordRules(FTRACE_PROFILES[version]);
  let flags = first;
  const present: OpsTraits[] = [];
  let last = 'ignore';
  for (const step of steps) {
    const ops = KINDS[step.slice(1) as keyof typeof KINDS];
    if (step.startsWith('+')) {
      flags = addOps(flags, ops, rules);
      present.push(ops);
    } else if (step.startsWith('-')) {
      present.splice(present.indexOf(ops), 1);
      const others = {
        wantRegs: () => present.some((each) => each.saveRegs),
        haveTrampoline: () => present.some((each) => each.hasTrampoline),
      };
      flags = removeOps(flags, ops, others, rules);
    }
    last = checkRecord(flags, step !== 'off', rules);
    if (last !== 'ignore') flags = commitRecord(flags, step !== 'off', rules);
  }
  return { flags, last };
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
  { steps: ['+plain', 'off'], last: 'make_nop', flags: 'CALL_OPS TOUCHED' },
  {
    steps: ['+ipmodify'],
    last: 'make_call',
    flags: 'ENABLED CALL_OPS CALL_OPS_EN TOUCHED MODIFIED',
  },
])('6.12: $steps', ({ steps, last, flags }) => {
  it(`ends with ${last}: ${flags}`, () => {
    const { flags: result, last: transition } = play(steps);
    expect(transition).toBe(last);
    expect(flagNames(result)).toBe(flags);
  });
});

describe.each<{ version: FtraceVersion; steps: Step[]; last: string; flags: string }>([
  { version: '6.1', steps: ['+plain'], last: 'make_call', flags: 'ENABLED' },
  { version: '6.1', steps: ['+plain', '+recursion'], last: 'ignore', flags: 'ENABLED' },
  { version: '6.1', steps: ['+regs'], last: 'make_call', flags: 'ENABLED REGS REGS_EN' },
  {
    version: '6.1',
    steps: ['+plain', '+regs'],
    last: 'modify_call',
    flags: 'ENABLED REGS REGS_EN',
  },
  { version: '6.1', steps: ['+plain', '+regs', '-regs'], last: 'modify_call', flags: 'ENABLED' },
  {
    version: '6.1',
    steps: ['+regs', '+regs', '-regs'],
    last: 'ignore',
    flags: 'ENABLED REGS REGS_EN',
  },
  // nothing sticks: the flags came later
  { version: '6.1', steps: ['+plain', '-plain'], last: 'make_nop', flags: '' },
  { version: '6.2', steps: ['+plain', '-plain'], last: 'make_nop', flags: '' },
  {
    version: '6.3',
    steps: ['+plain'],
    last: 'make_call',
    flags: 'ENABLED CALL_OPS CALL_OPS_EN TOUCHED',
  },
  { version: '6.3', steps: ['+ipmodify', '-ipmodify'], last: 'make_nop', flags: 'TOUCHED' },
  {
    version: 'v5',
    steps: ['+directregs'],
    last: 'make_call',
    flags: 'ENABLED REGS REGS_EN TRAMP TRAMP_EN DIRECT DIRECT_EN',
  },
  {
    version: 'v5',
    steps: ['+directregs', '+plain'],
    last: 'modify_call',
    flags: 'ENABLED REGS REGS_EN DIRECT',
  },
  {
    version: 'v5',
    steps: ['+directregs', '+plain', '-directregs'],
    last: 'modify_call',
    flags: 'ENABLED',
  },
])('$version: $steps', ({ version, steps, last, flags }) => {
  it(`ends with ${last}: ${flags}`, () => {
    const { flags: result, last: transition } = play(steps, version);
    expect(transition).toBe(last);
    expect(flagNames(result)).toBe(flags);
  });
});

it('counts the ops of a site', () => {
  expect(play(['+plain', '+direct', '+recursion']).flags & 0x7ffff).toBe(3);
});

it.each<{ version: FtraceVersion; bits: number }>([
  { version: '6.1', bits: 23 },
  { version: '6.3', bits: 20 },
  { version: '6.12', bits: 19 },
])('$version counts up to 2^$bits - 1', ({ version, bits }) => {
  const rules = recordRules(FTRACE_PROFILES[version]);
  expect(rules.refMax).toBe(2 ** bits - 1);
  expect(() => addOps(rules.refMax, PLAIN, rules)).toThrow('too many ops');
  expect(() => play(['-plain'], version)).toThrow('no ops to remove');
});

it('leaves a DISABLED record alone', () => {
  expect(play(['+plain'], '6.12', FTRACE_FL.DISABLED).last).toBe('ignore');
});
