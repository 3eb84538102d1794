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
 * Text of the lab's own is said to be so in `source`; all other is that of the kernel that is named.
 */
import { FTRACE_OPS_FL } from '../../kernel/ftrace/ops.js';
import { BL_RANGE } from '../far-images.js';
import { OpsSite, OpsTrampolineSite, programTable, type OpsRecipe } from './sites.js';
import type { Strategy, StrategyKernel } from './strategy.js';
import { moduleFunction, programFunction } from './traced.js';

const V5: StrategyKernel = { ftrace: 'v5' };

/** A kernel in which programs are attached by an ops. */
function withOps(kernel: StrategyKernel, recipe: OpsRecipe): StrategyKernel {
  return { ...kernel, functionSite: (...parts) => new OpsSite(...parts, recipe) };
}

const OFF: Strategy = {
  name: 'off',
  title: 'nothing attached',
  place: 'patch site',
  source: 'any kernel: what every call of a traceable function costs',
  kernel: {},
  texts: [],
  least: { programs: 0 },
};

const V5_SITE: Strategy = {
  name: 'v5',
  title: 'BL to the image, as on x86',
  place: 'patch site',
  source: 'Xu Kuohai, v5, May 2022 (not merged); on 5.19',
  kernel: V5,
  texts: [],
  least: {},
  layout: 'v5',
  reaching: 'image',
};

const V5_LATE: Strategy = {
  ...V5_SITE,
  name: 'v5-late',
  title: 'ftrace_regs_caller ends in pt_regs.orig_x0',
  place: 'ftrace trampoline',
  source: 'v5 where other ops are on the site, as on x86',
  least: { others: 1 },
  caseOf: 'v5',
};

const LITERAL_CALL: Strategy = {
  name: 'literal-call',
  title: 'BL to ldr x16, br x16 before the function (7,5 NOPs)',
  place: 'patch site',
  source: 'Xu Kuohai, "Add ftrace direct call for arm64" v2, September 2022 (not merged); on 6.0',
  kernel: { ftrace: 'sep-2022' },
  texts: [],
  least: { far: true },
  layout: 'sep-2022',
  reaching: 'image',
};

const ALWAYS_ORIG_X0: Strategy = {
  name: 'always-orig-x0',
  title: 'always through an ops, then tail call (pt_regs)',
  place: 'ftrace trampoline',
  source: "Florent Revest's suggestion of 9 August 2022 on v5; the lab's own callback",
  kernel: withOps(V5, { callback: 'lab_set_orig_x0', flags: FTRACE_OPS_FL.SAVE_REGS }),
  texts: ['set-orig-x0.s'],
  least: {},
  callbacks: ['lab_set_orig_x0'],
  layout: 'v5',
  reaching: 'ftrace_caller',
};

const ALWAYS_LATE: Strategy = {
  name: 'always-late',
  title: 'always through the ops of the site, then tail call',
  place: 'ftrace trampoline',
  source: "the same with arguments only and per-call-site ops, on 6.12; the lab's own callback",
  kernel: withOps({}, { callback: 'lab_set_direct' }),
  texts: ['set-direct.s'],
  least: {},
  callbacks: ['lab_set_direct'],
  reaching: 'ftrace_caller',
};

const OPS_LIST: Strategy = {
  name: 'ops-list',
  title: 'ftrace op on the global list, calls the image',
  place: 'ftrace op',
  source: "Mark Rutland's proposal without what 6.3 brought, on 6.2; the lab's own callback",
  kernel: withOps({ ftrace: '6.2' }, { callback: 'lab_ops_caller', entryOnly: true }),
  texts: ['ops-caller.s'],
  least: {},
  callbacks: ['lab_ops_caller'],
  layout: '6.2',
  reaching: 'ftrace_caller',
};

const OPS_CALL_SITE: Strategy = {
  ...OPS_LIST,
  name: 'ops-call-site',
  title: 'ftrace op found by the literal of its site, calls the image',
  source: "the same on the per-call-site ops of 6.3; the lab's own callback",
  kernel: withOps({ ftrace: '6.3' }, { callback: 'lab_ops_caller', entryOnly: true }),
};

const OPS_TRAMPOLINE: Strategy = {
  ...OPS_LIST,
  name: 'ops-trampoline',
  title: 'ftrace op with an ftrace trampoline of its own, calls the image',
  source:
    "the same with Wang ShaoBo's dynamic trampolines of March 2022 (not merged), on 6.1; the lab's own text",
  kernel: {
    ftrace: '6.1',
    functionSite: (...parts) =>
      new OpsTrampolineSite(...parts, { callback: 'lab_ops_caller', entryOnly: true }),
  },
  texts: ['ops-caller.s', 'ops-trampoline.s'],
  layout: '6.1',
  reaching: 'own trampoline',
};

const OPS_LOOP: Strategy = {
  name: 'ops-loop',
  title: 'ftrace op found by the literal of its site, calls the programs itself',
  place: 'ftrace op',
  source:
    'after the "BPF on fprobe" proof of concept of October 2022 (not merged), on 6.3; the lab\'s own callback',
  kernel: withOps(
    { ftrace: '6.3' },
    { callback: 'lab_ops_loop', private: programTable, entryOnly: true },
  ),
  texts: ['ops-loop.s'],
  least: {},
  callbacks: ['lab_ops_loop'],
  withoutImage: true,
  layout: '6.2',
  reaching: 'ftrace_caller',
};

const DIRECT: Strategy = {
  name: 'direct',
  title: 'BL to the image',
  place: 'patch site',
  source: 'merged in 6.4 (2aa6ac03516d): the image is in BL range, nobody else on the site',
  kernel: {},
  texts: [],
  least: {},
  reaching: 'image',
};

const DIRECT_EARLY: Strategy = {
  ...DIRECT,
  name: 'direct-early',
  title: 'ftrace_caller goes on to ops->direct_call before it saves anything',
  place: 'ftrace trampoline',
  source: 'merged in 6.4: the image is out of BL range',
  least: { far: true },
  caseOf: 'direct',
};

const DIRECT_LATE: Strategy = {
  ...DIRECT,
  name: 'direct-late',
  title: 'ftrace_caller ends in fregs->direct_tramp',
  place: 'ftrace trampoline',
  source: 'merged in 6.4: other ops are on the site',
  least: { others: 1 },
  caseOf: 'direct',
};

const MODULE_PLT: Strategy = {
  name: 'module-plt',
  title: 'adrp, add, br of a module to ftrace_caller',
  place: 'PLT',
  source: "a module's PLT entry for ftrace_caller, which is out of BL range of the function",
  // the 128 MiB around the kernel are full of modules
  kernel: { modulesUsed: Number(BL_RANGE) },
  texts: [],
  least: {},
  traced: moduleFunction,
  caseOf: 'direct',
};

const BPF_PLT: Strategy = {
  name: 'bpf-plt',
  title: 'ldr x10, br x10 behind a BPF program that is traced',
  place: 'PLT',
  source: 'merged in 6.0 (b2ad54e1533e): BPF programs as targets, the image is out of BL range',
  kernel: {},
  texts: [],
  least: { far: true },
  traced: programFunction,
  reaching: 'program',
};

export const STRATEGIES: readonly Strategy[] = [
  OFF,
  V5_SITE,
  V5_LATE,
  ALWAYS_ORIG_X0,
  OPS_LIST,
  OPS_TRAMPOLINE,
  OPS_CALL_SITE,
  OPS_LOOP,
  LITERAL_CALL,
  ALWAYS_LATE,
  DIRECT,
  DIRECT_EARLY,
  DIRECT_LATE,
  MODULE_PLT,
  BPF_PLT,
];
