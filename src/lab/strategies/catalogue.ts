/**
 * The strategies of the arm64 direct-call thread ("bpf trampoline for arm64" v5, May to August 2022), and
 * what was merged or proposed after it.
 *
 * | place              | strategies                                                                |
 * | ------------------ | ------------------------------------------------------------------------- |
 * | patch site         | BL to the image; with a detour where it is out of range                    |
 * | ftrace op          | the callback of an ops calls the image or the programs                     |
 * | ftrace trampoline  | ftrace_caller goes on to the image, at its start or at its end             |
 * | PLT                | veneers for sites that even ftrace_caller, or a BPF image, is too far from |
 *
 * Text of the lab's own is said to be so in `source`; all other is that of the kernel.
 */
import { OpsSite, OpsTrampolineSite, programTable } from './sites.js';
import type { Strategy } from './strategy.js';
import { programFunction } from './traced.js';

const OFF: Strategy = {
  name: 'off',
  title: 'nothing attached',
  place: 'patch site',
  source: 'any kernel; what every call of a traceable function costs',
  kernel: {},
  texts: [],
  least: { programs: 0 },
};

const DIRECT: Strategy = {
  name: 'direct',
  title: '6.4: BL to the image, or early, or late',
  place: 'patch site',
  source: 'merged in 6.4 (2aa6ac03516d): near BL, far through ftrace_caller, beside others late',
  kernel: {},
  texts: [],
  least: {},
};

const EARLY: Strategy = {
  ...DIRECT,
  name: 'direct-early',
  title: '6.4: early tail call of ftrace_caller',
  place: 'ftrace trampoline',
  source: 'merged in 6.4: the image is out of BL range of the site',
  least: { far: true },
};

const LATE: Strategy = {
  ...DIRECT,
  name: 'direct-late',
  title: '6.4: late tail call of ftrace_caller',
  place: 'ftrace trampoline',
  source: 'merged in 6.4: other ops are on the site',
  least: { others: 1 },
};

const ALWAYS_LATE: Strategy = {
  name: 'always-late',
  title: 'every call through ops, then tail call',
  place: 'ftrace trampoline',
  source: "Florent Revest's suggestion of 9 August 2022, on 6.12; the lab's own callback",
  kernel: {
    functionSite: (kernel, _profile, key, target) =>
      new OpsSite(kernel, key, target, { callback: 'lab_set_direct' }),
  },
  texts: ['set-direct.s'],
  least: {},
  callbacks: ['lab_set_direct'],
};

const OPS_CALL_SITE: Strategy = {
  name: 'ops-call-site',
  title: 'ftrace op, found by the literal of its site',
  place: 'ftrace op',
  source:
    "Mark Rutland's proposal on his per-call-site ops (merged in 6.3); the lab's own callback",
  kernel: {
    functionSite: (kernel, _profile, key, target) =>
      new OpsSite(kernel, key, target, { callback: 'lab_ops_caller' }),
  },
  texts: ['ops-caller.s'],
  least: {},
  callbacks: ['lab_ops_caller'],
};

const OPS_LOOP: Strategy = {
  name: 'ops-loop',
  title: 'ftrace op that calls the programs itself',
  place: 'ftrace op',
  source: 'after the "BPF on fprobe" proof of concept of October 2022; the lab\'s own callback',
  kernel: {
    functionSite: (kernel, _profile, key, target) =>
      new OpsSite(kernel, key, target, { callback: 'lab_ops_loop', private: programTable }),
  },
  texts: ['ops-loop.s'],
  least: {},
  callbacks: ['lab_ops_loop'],
  withoutImage: true,
};

const OPS_TRAMPOLINE: Strategy = {
  name: 'ops-trampoline',
  title: 'ftrace op with an ftrace trampoline of its own',
  place: 'ftrace op',
  source: "Wang ShaoBo's dynamic trampolines of March 2022 (never merged); the lab's own text",
  kernel: {
    functionSite: (kernel, _profile, key, target) =>
      new OpsTrampolineSite(kernel, key, target, { callback: 'lab_ops_caller' }),
  },
  texts: ['ops-caller.s', 'ops-trampoline.s'],
  least: {},
  callbacks: ['lab_ops_caller'],
};

const BPF_PLT: Strategy = {
  name: 'bpf-plt',
  title: 'PLT behind a BPF program',
  place: 'PLT',
  source: 'merged in 6.0 (b2ad54e1533e): programs as targets',
  kernel: {},
  texts: [],
  least: { far: true },
  traced: programFunction,
};

export const STRATEGIES: readonly Strategy[] = [
  OFF,
  DIRECT,
  EARLY,
  LATE,
  ALWAYS_LATE,
  OPS_CALL_SITE,
  OPS_LOOP,
  OPS_TRAMPOLINE,
  BPF_PLT,
];
