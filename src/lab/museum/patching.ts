/**
 * Exhibits 10, 22, 24, 25, 27, 29 and 30: patching that a CPU can be caught in, or that patches the wrong thing.
 *
 * Each is a plan of the explorer (lab/race), made as it was and as it was fixed: the broken run shows a shortest
 * schedule, the fixed one that no interleaving breaks anything. Reference: arch/arm64/kernel/ftrace.c,
 * arch/arm64/net/bpf_jit_comp.c, kernel/trace/ftrace.c, kernel/bpf/trampoline.c. What exactly the old code
 * did is known from the fixes' descriptions; the PLT of the far module is the JIT's (ldr, br, quad), not adrp, add, br.
 */
import { branchWord, reachable } from '../../a64/immediates.js';
import { encode } from '../../a64/codec.js';
import { InputError } from '../../common/errors.js';
import { br, ldrLiteral } from '../../jit/emit.js';
import { moveRegisterWord } from '../../jit/poke.js';
import type { Kernel } from '../../kernel/kernel.js';
import { FTRACE_OPS_FL } from '../../kernel/ftrace/ops.js';
import { NOP } from '../../kernel/text.js';
import type { NameTable } from '../race/names.js';
import {
  storeData,
  storeInstruction,
  storeText,
  sync,
  word32,
  word64,
  type PatchPlan,
} from '../race/plan.js';
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
import { DIRECT_KERNELS, makeOps, siteOf, TARGET, traced } from '../race/scenarios/parts.js';
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

/** A scenario whose steps are written down. */
function written(
  name: string,
  plan: (kernel: Kernel, names: NameTable) => Omit<PatchPlan, 'name'>,
): Scenario {
  return {
    name,
    summary: name,
    runs: DIRECT_KERNELS,
    breaks: [],
    prepare: (kernel, names) => {
      const made = plan(kernel, names);
      return { operation: () => undefined, plan: () => made };
    },
  };
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
    scenario: written('range_check', (kernel, names) => {
      const ip = siteOf(kernel, TARGET);
      const target = ip + REACH;
      const page = target & ~0xfffn;
      kernel.memory.map({ name: 'a far trampoline', address: page, size: 4096, permissions: 'rx' });
      // as ftrace_stub_direct_tramp
      const code = [moveRegisterWord(10, 30), moveRegisterWord(30, 9), encode('RET', { Rn: 10 })];
      code.forEach((word, i) => kernel.memory.pokeBytes(target + BigInt(4 * i), word32(word)));
      const ops = makeDirect(kernel, names, 'direct_ops');
      ops.func = kernel.symbol('call_direct_funcs');
      ops.flags |= FTRACE_OPS_FL.DIRECT;
      ops.directCall = target;
      const backwards = ip - target;
      const isInRange =
        variant === 'fixed' ? reachable(ip, target) : backwards >= -REACH && backwards < REACH;
      const to = isInRange ? target : kernel.symbol('ftrace_caller');
      return {
        ...traced(kernel, [], 1),
        steps: [
          storeData(ip - 12n, ops.address, `literal of ${TARGET} := &direct_ops`),
          storeInstruction(ip, branchWord(ip, to, true), `${TARGET}+0x4 := bl, 128 MiB forwards`),
          sync(ip, ip + 4n),
        ],
        literal: { address: ip - 12n, values: [kernel.ftrace.nopOps.address, ops.address] },
      };
    }),
  }),
);

interface FarModule {
  readonly ip: bigint;
  readonly literal: bigint;
  readonly plt: bigint;
  readonly pltWords: readonly number[];
  readonly plan: Omit<PatchPlan, 'name' | 'steps'>;
}

/** A traceable function out of BL range of ftrace_caller, with room for a PLT behind it. */
function farModule(kernel: Kernel, pltIsThere = true): FarModule {
  const { nopOps } = kernel.ftrace;
  kernel.vmalloc.take(REACH, 4096n);
  const base = kernel.vmalloc.take(4096n, 4096n);
  kernel.memory.map({ name: 'module text', address: base, size: 4096, permissions: 'rx' });
  const plt = base + 24n;
  const target = kernel.symbol('ftrace_caller');
  const pltWords = [ldrLiteral(16, 2), br(16), Number(target & 0xffffffffn), Number(target >> 32n)];
  const increment = encode('ADD_immediate', { sf: 0, sh: 0, imm12: 1, Rn: 0, Rd: 0 });
  const words = [moveRegisterWord(9, 30), NOP, increment, encode('RET', { Rn: 30 })];
  kernel.memory.pokeBytes(base, word64(nopOps.address));
  [...words, ...(pltIsThere ? pltWords : [])].forEach((word, i) =>
    kernel.memory.pokeBytes(base + 8n + BigInt(4 * i), word32(word)),
  );
  const ip = base + 12n;
  kernel.symbols.add('module_function', base + 8n, 16);
  kernel.symbols.add('module_plt', plt, 16);
  return {
    ip,
    literal: base,
    plt,
    pltWords,
    plan: { call: { entry: base + 8n, args: [1n], result: 2n, body: base + 16n, keeps: 8 } },
  };
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
  (variant) => ({
    scenario: written('plt_compare', (kernel, names) => {
      const { ip, literal, plt, plan } = farModule(kernel);
      const { nopOps } = kernel.ftrace;
      const ops = makeOps(kernel, names, 'ops_a', kernel.symbol('lab_callback_a'));
      const found = branchWord(ip, plt, true);
      const expected = branchWord(
        ip,
        variant === 'fixed' ? plt : kernel.symbol('ftrace_caller'),
        true,
      );
      return {
        ...plan,
        before: [
          { address: literal, bytes: word64(ops.address) },
          { address: ip, bytes: word32(found) },
        ],
        steps: [
          storeData(literal, nopOps.address, 'literal of module_function := &ftrace_nop_ops'),
          ...(found === expected
            ? [storeInstruction(ip, NOP, 'module_function+0x4 := nop'), sync(ip, ip + 4n)]
            : []),
        ],
        final: [{ address: ip, bytes: word32(NOP), what: 'the site of module_function' }],
      };
    }),
  }),
);

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
    scenario: written('init_plt', (kernel, names) => {
      const { ip, literal, plt, plan } = farModule(kernel);
      const ops = makeOps(kernel, names, 'ops_a', kernel.symbol('lab_callback_a'));
      // the core's PLT lies as far away as the kernel
      const used = variant === 'fixed' ? plt : kernel.symbol('ftrace_stub');
      return {
        ...plan,
        steps: [
          storeData(literal, ops.address, 'literal of module_function := &ops_a'),
          storeInstruction(ip, branchWord(ip, used, true), 'module_function+0x4 := bl plt'),
          sync(ip, ip + 4n),
        ],
      };
    }),
  }),
);

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
    scenario: written('plt_coherence', (kernel, names) => {
      const { ip, literal, plt, pltWords, plan } = farModule(kernel, false);
      const ops = makeOps(kernel, names, 'ops_a', kernel.symbol('lab_callback_a'));
      return {
        ...plan,
        steps: [
          storeText(plt, pltWords, 'module_plt := ldr, br, ftrace_caller'),
          ...(variant === 'fixed' ? [sync(plt, plt + 16n)] : []),
          storeData(literal, ops.address, 'literal of module_function := &ops_a'),
          storeInstruction(ip, branchWord(ip, plt, true), 'module_function+0x4 := bl module_plt'),
          sync(ip, ip + 4n),
        ],
      };
    }),
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
            ...traced(kernel, [], 1),
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
