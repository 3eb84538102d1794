/** Who may be on a site together: the kernel's rules, found by trying. */
import { describe, expect, it } from 'vitest';
import { partnersOf, siteTable } from '../../../src/lab/strategies/coexist.js';
import { strategyLab, strategyNamed } from './helpers.js';

const lab = await strategyLab();

const LATE = 'ftrace_caller list callback call_direct_funcs late br x17 image';
const TABLE = [
  ['near programs', 'bpf_trampoline_1', 'bpf_trampoline_1.fops', 'image'],
  ['far programs', 'ftrace_caller', 'bpf_trampoline_1.fops', 'ftrace_caller br x17 image'],
  ['near programs,ops', 'ftrace_caller', 'ftrace_list_ops', LATE],
  ['far programs,ops', 'ftrace_caller', 'ftrace_list_ops', LATE],
  [
    'near programs,ops,ops',
    'ftrace_caller',
    'ftrace_list_ops',
    LATE.replace('callback', 'callback callback'),
  ],
  ['near ops', 'ftrace_caller', 'lab_ops', 'ftrace_caller callback'],
  ['near RECURSION', 'ftrace_caller', 'ftrace_list_ops', 'ftrace_caller list callback'],
  ['near RCU', 'ftrace_caller', 'ftrace_list_ops', 'ftrace_caller list callback'],
  ['near ops,ops', 'ftrace_caller', 'ftrace_list_ops', 'ftrace_caller list callback callback'],
  ['near programs,direct', 'bpf_trampoline_1', 'bpf_trampoline_1.fops', 'image', 'EBUSY'],
  ['near programs,IPMODIFY', 'ftrace_caller', 'ftrace_list_ops', LATE],
  [
    // who is registered last is called first
    'near IPMODIFY,programs',
    'ftrace_caller',
    'ftrace_list_ops',
    'ftrace_caller list call_direct_funcs callback late br x17 image',
  ],
  ['near IPMODIFY,IPMODIFY', 'ftrace_caller', 'lab_ops', 'ftrace_caller callback', 'EBUSY'],
] as const;

describe('6.12: what is on a function, what its site calls, its literal, the path', () => {
  const states = siteTable(lab, strategyNamed('direct')).map((state) => {
    const { far, on, calls, literal, path, refused } = state;
    const row = [`${far ? 'far' : 'near'} ${on.join()}`, calls, literal, path.join(' ')];
    return refused === undefined ? row : [...row, /^-(\w+)/.exec(refused)?.[1]];
  });
  it.each(TABLE.map((row) => [row[0], row] as const))('%s', (name, row) => {
    expect(states.find(([key]) => key === name)).toEqual(row);
  });
  it('has no other rows', () => expect(states).toHaveLength(TABLE.length));
});

describe('beside an fentry program', () => {
  const refusals = (name: string): string[] =>
    partnersOf(lab, strategyNamed(name)).flatMap(({ partner, first, refused }) =>
      refused === undefined ? [] : [`${partner} ${first} ${/^-?(\w+)/.exec(refused)?.[1]}`],
    );
  it.each([
    ['direct', []],
    ['literal-call', []],
    ['v5', ['IPMODIFY program EBUSY', 'IPMODIFY partner EBUSY']],
    ['always-late', []],
    ['ops-call-site', ['fexit program program ENOTSUPP', 'fexit program partner ENOTSUPP']],
  ])('%s', (name, expected) => {
    expect(refusals(name)).toEqual(expected);
  });
});
