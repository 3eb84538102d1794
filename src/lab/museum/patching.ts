/**
 * Exhibits 10, 22, 24, 25, 27, 29 and 30: patching that a CPU can be caught in, or that patches the wrong thing.
 *
 * Each is a plan of the explorer (lab/race), made as it was and as it was fixed: the broken run shows a shortest
 * schedule, the fixed one that no interleaving breaks anything. Steps are recorded from the real code, 24 and 27
 * with the range test and the PLT entries of the version that has the bug. In 25 what the failing compare prevents
 * is left out; in 29 the PLT is written when the site is patched, which today is done when a module is loaded.
 * Reference: arch/arm64/kernel/ftrace.c, arch/arm64/net/bpf_jit_comp.c, kernel/trace/ftrace.c,
 * kernel/bpf/trampoline.c. What exactly the old code did is known from the fixes' descriptions.
 */
import { encode } from '../../a64/codec.js';
import { InputError } from '../../common/errors.js';
import { moveRegisterWord } from '../../jit/poke.js';
import { KernelOops } from '../../kernel/executor.js';
import { FTRACE_OPS_FL, type FtraceOps } from '../../kernel/ftrace/ops.js';
import { REACH_PROFILES } from '../../kernel/ftrace/reach.js';
import type { Kernel } from '../../kernel/kernel.js';
import { PLT_ENTRY_SIZE } from '../../kernel/module/plt.js';
import type { NameTable } from '../race/names.js';
import { sync, word32, type PatchPlan, type PlanStep } from '../race/plan.js';
import { printReport, reportSchedule } from '../race/report.js';
import {
  exploration,
  prepareRace,
  type Break,
  type Race,
  type Scenario,
} from '../race/scenario.js';
import { makeDirect } from '../race/scenarios/direct.js';
import { fexitSleep } from '../race/scenarios/images.js';
import {
  callOf,
  DIRECT_KERNELS,
  makeOps,
  siteIsOff,
  siteOf,
  TARGET,
  traced,
  tracerOf,
} from '../race/scenarios/parts.js';
import { pokeShortLong } from '../race/scenarios/poke.js';
import type { Exhibit, Observation, Variant } from './exhibit.js';

function observe(race: Race): Observation {
  const explorer = exploration(race);
  const result = explorer.exhaust();
  if (result.kind !== 'violation') {
    return {
      lines: [`${result.kind}: ${result.figures.states} states`],
      right: result.kind === 'holds',
    };
  }
  return { lines: printReport(reportSchedule(race, explorer, result.schedule)), right: false };
}

type Facts = Pick<Exhibit, 'number' | 'name' | 'fixedIn' | 'story'>;

function exhibit(
  facts: Facts,
  choose: (variant: Variant) => { readonly scenario: Scenario; readonly broken?: Break },
): Exhibit {
  return {
    ...facts,
    wing: 'patching',
    run: async (variant, boot) => {
      const { scenario, broken } = choose(variant);
      const race = await prepareRace(scenario, boot, broken);
      try {
        return observe(race);
      } finally {
        race.kernel.close();
      }
    },
  };
}

function breakOf(scenario: Scenario, name: string): Break {
  const found = scenario.breaks.find((each) => each.name === name);
  if (!found) throw new InputError(`${scenario.name} has no break ${name}`);
  return found;
}

export const tornTarget = exhibit(
  {
    number: 10,
    name: 'torn_plt_target',
    fixedIn: '6.1.192, 6.12.85',
    story:
      'The JIT buffer was aligned to 4 bytes, so that the target of the PLT could lie across an 8-byte boundary. ' +
      'text_poke stores it with one store that is then no single-copy atomic one: a CPU in the PLT may load half of the ' +
      'old and half of the new target. Now the buffer is 8-byte aligned.',
  },
  (variant) =>
    variant === 'fixed'
      ? { scenario: pokeShortLong }
      : { scenario: pokeShortLong, broken: breakOf(pokeShortLong, 'torn-plt') },
);

export const sleepingOriginal = exhibit(
  {
    number: 22,
    name: 'sleeping_original',
    fixedIn: '5.10.28',
    story:
      'The image of an fexit program was freed after a grace period that does not wait for a task asleep in the ' +
      'original function. It woke up and returned into freed text. Now the image is counted from __bpf_tramp_enter to ' +
      '__bpf_tramp_exit.',
  },
  (variant) =>
    variant === 'fixed'
      ? { scenario: fexitSleep }
      : { scenario: fexitSleep, broken: breakOf(fexitSleep, 'no-reference') },
);

const REACH = 128n << 20n;

export const rangeCheck = exhibit(
  {
    number: 24,
    name: 'ftrace_range_check',
    fixedIn: '5.18.14',
    story:
      'The distance of a branch was taken from the target to the branch: +128 MiB passed for -128 MiB. The encoder gives ' +
      'a BRK for what it cannot encode, and that was patched into the site. Now the distance has its sign.',
  },
  (variant) => ({
    scenario: {
      name: 'range_check',
      runs: DIRECT_KERNELS,
      summary: 'a direct call whose target is 128 MiB behind the site',
      breaks: [],
      boot: {
        reach: {
          ...REACH_PROFILES['6.18'],
          rangeTest: variant === 'fixed' ? 'target - ip' : 'ip - target',
        },
      },
      prepare: (kernel, names) => {
        const target = siteOf(kernel, TARGET) + REACH;
        const page = target & ~0xfffn;
        kernel.memory.map({
          name: 'a far trampoline',
          address: page,
          size: 4096,
          permissions: 'rx',
        });
        // as ftrace_stub_direct_tramp
        const code = [moveRegisterWord(10, 30), moveRegisterWord(30, 9), encode('RET', { Rn: 10 })];
        code.forEach((word, i) => kernel.memory.pokeBytes(target + BigInt(4 * i), word32(word)));
        const ops = makeDirect(kernel, names, 'direct_ops');
        return {
          operation: () => kernel.directCalls.register(ops, target),
          plan: (steps) => ({
            steps,
            ...traced(kernel, [], 'trampoline'),
            literal: literalOf(kernel, ops.address),
          }),
        };
      },
    },
  }),
);

const MODULE = 'far_module';
const FUNCTION = 'module_function';
const MODULE_TEXT = `
FUNCTION int ${FUNCTION}(int a)
	add w0, w0, #1
	ret
`;
/** Bytes of the first window for modules that the kernel's image leaves. */
const FIRST_WINDOW = 98 << 20;

/** An ordinary ops on the function of a module. */
function opsOnModule(kernel: Kernel, names: NameTable): FtraceOps {
  names.collect();
  const ops = makeOps(kernel, names, 'ops_a', kernel.symbol('lab_callback_a'));
  kernel.ftrace.setFilterIp(ops, siteOf(kernel, FUNCTION), false, true);
  return ops;
}

function moduleCall(kernel: Kernel, ops: FtraceOps): Omit<PatchPlan, 'name' | 'steps'> {
  const { literal: _, ...plan } = traced(kernel, [tracerOf(ops)]);
  return { ...plan, call: { ...callOf(kernel, FUNCTION), keeps: 8 } };
}

export const pltCompare = exhibit(
  {
    number: 25,
    name: 'ftrace_plt_compare',
    fixedIn: '5.18.14',
    story:
      'Enabling went through the module PLT where ftrace_caller is out of range, disabling expected a direct BL. It did not ' +
      'find one: the site stayed a call and ftrace was switched off for good. Now one function says for both where a ' +
      'site goes.',
  },
  (variant) => {
    const bug: Break = {
      name: 'ftrace-bug',
      summary: 'the word is not the one that is expected: nothing is stored, and ftrace stops',
      breaks: ['I11'],
      change: (plan) => {
        const store = plan.steps.findIndex((step) => isStoreOfInstruction(step));
        return { ...plan, steps: plan.steps.slice(0, store) };
      },
    };
    const scenario: Scenario = {
      name: 'plt_compare',
      runs: DIRECT_KERNELS,
      summary: 'an ops on the function of a far module is unregistered',
      breaks: [bug],
      boot: { modulesUsed: FIRST_WINDOW },
      prepare: (kernel, names) => {
        kernel.loadModule({ name: MODULE, text: MODULE_TEXT });
        const ops = opsOnModule(kernel, names);
        kernel.ftrace.register(ops);
        return {
          operation: () => kernel.ftrace.unregister(ops),
          plan: (steps) => ({
            steps,
            ...moduleCall(kernel, ops),
            final: siteIsOff(kernel, FUNCTION),
          }),
        };
      },
    };
    return variant === 'fixed' ? { scenario } : { scenario, broken: bug };
  },
);

function isStoreOfInstruction(step: PlanStep): boolean {
  return step.kind === 'store' && step.as === 'instruction';
}

export const initPlt = exhibit(
  {
    number: 27,
    name: 'ftrace_init_plt',
    fixedIn: '6.12.48',
    story:
      'Functions of .init.text used the PLT of the module core, which may be out of their range since 6.5: a BRK was ' +
      'patched in. Now .init.text has a PLT of its own.',
  },
  (variant) => ({
    scenario: {
      name: 'init_plt',
      runs: DIRECT_KERNELS,
      summary: 'an ops is registered on a function of .init.text, 1.9 GiB from the module core',
      breaks: [],
      boot: {
        // room for one page and its guard
        modulesUsed: FIRST_WINDOW - 8192,
        reach: REACH_PROFILES[variant === 'fixed' ? '6.18' : '6.4'],
      },
      prepare: (kernel, names) => {
        keepInit(kernel);
        const ops = opsOnModule(kernel, names);
        return {
          operation: () => kernel.ftrace.register(ops),
          plan: (steps) => ({ steps, ...moduleCall(kernel, ops) }),
        };
      },
    },
  }),
);

/** A module whose `.init.text` stays, since its init function oopses. */
function keepInit(kernel: Kernel): void {
  const text = 'CODE module_init\n\tbrk #0\n\tret\n';
  try {
    kernel.loadModule({ name: MODULE, text, init: MODULE_TEXT, initFunction: 'module_init' });
  } catch (error) {
    if (!(error instanceof KernelOops)) throw error;
  }
}

export const pltCoherence = exhibit(
  {
    number: 29,
    name: 'ftrace_plt_coherence',
    fixedIn: '5.2.17',
    story:
      'The PLT of a module was written when its first function was traced and branched to right away, without cache ' +
      'maintenance: another CPU may execute what was there before. Now the PLT is made coherent first.',
  },
  (variant) => ({
    scenario: {
      name: 'plt_coherence',
      runs: DIRECT_KERNELS,
      summary: 'an ops is registered on the function of a far module, whose PLT is written then',
      breaks: [],
      boot: { modulesUsed: FIRST_WINDOW },
      prepare: (kernel, names) => {
        const { plts } = kernel.loadModule({ name: MODULE, text: MODULE_TEXT });
        const plt = plts.ftrace_caller;
        if (plt === undefined) throw new InputError(`${MODULE} has no PLT`);
        const ops = opsOnModule(kernel, names);
        const end = plt + BigInt(PLT_ENTRY_SIZE);
        const entry = kernel.memory.readBytes(plt, PLT_ENTRY_SIZE);
        // the loader of today has written it already
        const written: PlanStep[] = [
          { kind: 'store', as: 'text', address: plt, bytes: entry, what: 'PLT := ftrace_caller' },
          ...(variant === 'fixed' ? [sync(plt, end)] : []),
        ];
        return {
          operation: () => kernel.ftrace.register(ops),
          plan: (steps) => ({
            ...moduleCall(kernel, ops),
            before: [{ address: plt, bytes: new Uint8Array(PLT_ENTRY_SIZE) }],
            steps: [...written, ...steps],
          }),
        };
      },
    },
  }),
);

export const staleDirect = exhibit(
  {
    number: 30,
    name: 'stale_direct_target',
    fixedIn: '5.10.28',
    story:
      'modify_ftrace_direct left the old target in the table of direct calls. The next time that sites were brought to ' +
      'what the table says they called a trampoline that was freed. Now the table changes with the target.',
  },
  (variant) => ({
    scenario: {
      runs: DIRECT_KERNELS,
      name: 'stale_direct',
      summary: 'modify_ftrace_direct, then the old target is freed',
      breaks: [],
      prepare: (kernel, names) => {
        const { ftrace, directCalls } = kernel;
        const page = kernel.vmalloc.take(8192n, 4096n);
        const old = kernel.memory.map({
          name: 'the old trampoline',
          address: page,
          size: 64,
          permissions: 'rx',
        });
        const code = [moveRegisterWord(10, 30), moveRegisterWord(30, 9), encode('RET', { Rn: 10 })];
        code.forEach((word, i) => kernel.memory.pokeBytes(page + BigInt(4 * i), word32(word)));
        const ops = makeDirect(kernel, names, 'direct_ops');
        const beside = ftrace.createOps(
          'tmp_ops_2',
          kernel.data.define('tmp_ops_2', kernel.ftrace.profile.ops.size),
          0n,
        );
        const next = kernel.symbol('lab_direct_b');
        directCalls.register(ops, page);
        return {
          operation: () => {
            if (variant === 'fixed') {
              directCalls.modify(ops, next);
            } else {
              for (const ip of ops.filter) ftrace.setFilterIp(beside, ip, false);
              beside.flags = FTRACE_OPS_FL.STUB | FTRACE_OPS_FL.INITIALIZED;
              ftrace.register(beside);
              ops.directCall = next;
              ftrace.unregister(beside);
            }
            kernel.rcu.synchronize('tasks');
            kernel.memory.unmap(old);
          },
          plan: (steps) => ({
            steps,
            ...traced(kernel, [], 'trampoline'),
            literal: literalOf(kernel, ops.address),
          }),
        };
      },
    },
  }),
);

function literalOf(kernel: Kernel, ops: bigint): NonNullable<PatchPlan['literal']> {
  const { nopOps, listOps } = kernel.ftrace;
  return {
    address: kernel.symbol(TARGET) - 8n,
    values: [nopOps.address, listOps.address, ops],
  };
}
