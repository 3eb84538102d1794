/**
 * The explorer: every scenario holds for two CPUs with the order of writes that the kernel has, every break is found
 * and says which invariant it breaks, and schedules are shortest ones that can be replayed. Numbers of states and
 * lengths of schedules are what the model gives: a change to them has to be looked at.
 */
import { describe, expect, it } from 'vitest';
import { labBooter } from '../../../src/node/boot.js';
import { branchWord } from '../../../src/a64/immediates.js';
import { FTRACE_VERSIONS } from '../../../src/kernel/ftrace/profile.js';
import { explorePlan } from '../../../src/lab/race/explore.js';
import type { Invariant } from '../../../src/lab/race/invariants.js';
import {
  free,
  storeData,
  storeInstruction,
  sync,
  wait,
  word32,
  word64,
} from '../../../src/lab/race/plan.js';
import {
  bootRace,
  exploration,
  prepareRace,
  type RaceBoot,
  type Scenario,
} from '../../../src/lab/race/scenario.js';
import { SCENARIOS } from '../../../src/lab/race/scenarios/index.js';
import { formatSchedule, parseSchedule } from '../../../src/lab/race/schedule.js';
import { readInput } from '../../../src/node/files.js';
import { runForTest } from '../../helpers/cli.js';

const booter = await labBooter();
const boot: RaceBoot = async (options) => booter(options);

/** What each break breaks first. */
const FOUND: Readonly<Record<string, readonly [Invariant, number]>> = {
  'enable dynamic-mov': ['CMODX', 3],
  'disable no-grace-period': ['I3', 8],
  'disable rude-only': ['I3', 12],
  'disable literal-last': ['I3', 7],
  'disable literal-kept': ['I11', 12],
  'list no-grace-period': ['I3', 23],
  'list next-cleared': ['I2', 18],
  'trace_op no-ipi': ['I9', 17],
  'trace_op back-to-back': ['I9', 7],
  'trace_op no-list-phase': ['I9', 5],
  'trace_op interrupted-between': ['I9', 18],
  'direct_by_ip no-grace-period': ['I2', 10],
  'attach_near no-image-sync': ['CMODX', 5],
  'attach_far no-image-sync': ['CMODX', 9],
  'attach_far unordered-fetches': ['CMODX', 10],
  'near_far no-grace-period': ['I7', 24],
  'near_far no-site-sync': ['I7', 26],
  'far_near no-grace-period': ['I7', 26],
  'image_exchange no-grace-period': ['I7', 24],
  'image_exchange no-site-sync': ['I7', 26],
  'modify_direct site-off-meanwhile': ['I5', 3],
  'modify_direct target-cleared': ['I5', 15],
  'poke_long plt-empty': ['I2', 5],
  'poke_short_long torn-plt': ['I6', 7],
  'poke_long_short plt-cleared': ['I2', 7],
  'image_free no-grace-period': ['I7', 6],
  'image_free no-tasks': ['I7', 12],
  'image_free no-site-sync': ['I7', 13],
  'fexit_sleep no-reference': ['I7', 22],
  'fexit_sleep preempted-behind-nop': ['I7', 24],
  'fexit_sleep no-skip': ['I7', 21],
  'fexit_sleep no-tasks': ['I7', 13],
  'module_unload no-grace-period': ['I3', 9],
  'module_unload never-unregistered': ['I3', 3],
};

describe.each(SCENARIOS.map((scenario) => [scenario.name, scenario] as const))(
  '%s',
  (name, scenario) => {
    it('holds for two CPUs', async () => {
      const race = await prepareRace(scenario, boot);
      const result = exploration(race).exhaust();
      race.kernel.close();
      expect(result.kind).toBe('holds');
      // a refusal has nothing to interleave
      expect(result.figures.states).toBeGreaterThan(race.plan.steps.length > 0 ? 15 : 0);
    });

    it.each(scenario.breaks.map((each) => [each.name, each] as const))(
      '%s is found',
      async (key, broken) => {
        const race = await prepareRace(scenario, boot, broken);
        const explorer = exploration(race);
        const result = explorer.exhaust();
        if (result.kind !== 'violation') throw new Error(`${key}: ${result.kind}`);
        expect(broken.breaks).toContain(result.problem.invariant);
        expect([result.problem.invariant, result.figures.depth]).toEqual(FOUND[`${name} ${key}`]);
        const again = parseSchedule(formatSchedule(result.schedule));
        const fresh = exploration(race).replay(again);
        race.kernel.close();
        expect(fresh.outcomes).toHaveLength(result.schedule.length);
        expect(fresh.problem).toEqual(result.problem);
      },
    );
  },
);

it('the JIT of 7.3 keeps R0 in x8: allowed behind its trampolines, and nowhere else', async () => {
  const scenario = SCENARIOS.find(({ name }) => name === 'attach_near') as Scenario;
  const race = await prepareRace(scenario, boot, undefined, '7.3');
  const { call } = race.plan;
  const strict = { ...race.plan, call: { ...call, clobbers: [] } };
  const result = exploration({ ...race, plan: strict }).exhaust();
  race.kernel.close();
  expect(call.clobbers).toEqual([8]);
  expect(result).toMatchObject({ problem: { message: 'the body finds x8 changed' } });
});

const OLDER = SCENARIOS.flatMap((scenario) => {
  const { name, runs } = scenario;
  return runs.kernels.slice(1).map((version) => [name, version, scenario] as const);
});

describe.each(OLDER)('%s on %s', (_scenario, version, scenario) => {
  it('holds for two CPUs', async () => {
    const race = await prepareRace(scenario, boot, undefined, version);
    const result = exploration(race).exhaust();
    race.kernel.close();
    expect(race.kernel.ftrace.profile.version).toBe(version);
    expect(result.kind).toBe('holds');
    expect(result.figures.states).toBeGreaterThan(race.plan.steps.length > 0 ? 15 : 0);
  });

  // with a literal and without
  const isOther = ['6.2', '6.3'].includes(version) && scenario.name !== 'module_unload';
  it.each(isOther ? scenario.breaks.map((each) => [each.name, each] as const) : [])(
    '%s is found, or is none there',
    async (_name, broken) => {
      const made = prepareRace(scenario, boot, broken, version);
      if (broken.runs?.kernels.includes(version) === false) {
        await expect(made).rejects.toThrow(broken.runs.elsewhere);
        return;
      }
      const race = await made;
      const result = exploration(race).exhaust();
      race.kernel.close();
      const found = result.kind === 'violation' ? result.problem.invariant : result.kind;
      expect(broken.breaks).toContain(found);
    },
  );
});

describe('without CALL_OPS', () => {
  it('the rude grace period is enough for an ops that only the list function reads', async () => {
    const disable = SCENARIOS.find(({ name }) => name === 'disable');
    const rude = disable?.breaks.find(({ name }) => name === 'rude-only');
    if (!disable || !rude) throw new Error('no break');
    const { runs: _, ...anywhere } = rude;
    const race = await prepareRace(disable, boot, anywhere, '6.2');
    const result = exploration(race).exhaust();
    race.kernel.close();
    expect(result.kind).toBe('holds');
  });
});

describe('a kernel on which a scenario makes no sense', () => {
  it.each(SCENARIOS.map((scenario) => [scenario.name, scenario] as const))(
    'is refused by %s',
    async (name, scenario) => {
      const other = FTRACE_VERSIONS.find((each) => !scenario.runs.kernels.includes(each)) ?? '';
      const { code, notices } = await runForTest(['race', name, '--kernel', other]);
      expect([code, notices[0]]).toEqual([
        2,
        `Error: ${name} runs on ${scenario.runs.kernels.join(', ')}, not on ${other}: ${scenario.runs.elsewhere}`,
      ]);
    },
  );
});

describe('an instruction that is stored again and loads what changes', () => {
  it.each([
    ['waits', [wait('tasks')], 'holds'],
    ['does not wait', [], 'I2'],
  ] as const)('%s', async (_what, waits, expected) => {
    const text = new TextDecoder().decode(readInput('examples/race/hook.s'));
    const kernel = await bootRace(boot, { modules: { 'hook.s': text } });
    const [entry = 0n, veneer = 0n, slot = 0n, hook = 0n, pass = 0n] = [
      'traced',
      'veneer',
      'slot',
      'hook',
      'pass',
    ].map((name) => kernel.symbol(name));
    const result = explorePlan(kernel, {
      name: 'stored again',
      before: [
        { address: slot, bytes: word64(hook) },
        { address: entry + 4n, bytes: word32(branchWord(entry + 4n, veneer, true)) },
      ],
      steps: [
        storeData(slot, pass, 'slot := pass'),
        storeInstruction(veneer, kernel.memory.read32(veneer), 'veneer := ldr x16, slot'),
        sync(veneer, veneer + 4n),
        ...waits,
        free(hook, 12, 'hook, freed'),
      ],
      call: { entry, args: [1n], result: 2n, body: entry + 8n },
    });
    kernel.close();
    expect(result.kind === 'violation' ? result.problem.invariant : result.kind).toBe(expected);
  });
});

describe('three CPUs', () => {
  it.each(['enable', 'disable', 'list', 'poke_long_short', 'image_free', 'module_unload'])(
    '%s holds',
    async (name) => {
      const scenario = SCENARIOS.find((each) => each.name === name);
      if (!scenario) throw new Error(name);
      const race = await prepareRace(scenario, boot);
      const alone = exploration(race).exhaust();
      const two = exploration(race, { executors: 2 }).exhaust();
      race.kernel.close();
      expect(two.kind).toBe('holds');
      expect(two.figures.states).toBeGreaterThan(2 * alone.figures.states);
    },
  );
});

describe('a dynamic MOV', () => {
  it('loses the return address where nobody minds the architecture', async () => {
    const [scenario] = SCENARIOS;
    const [broken] = scenario?.breaks ?? [];
    if (!scenario || !broken) throw new Error('no break');
    const race = await prepareRace(scenario, boot, broken);
    const result = exploration(race, { only: ['I1'] }).exhaust();
    race.kernel.close();
    expect(result).toMatchObject({ kind: 'violation', problem: { invariant: 'I1' } });
  });
});

describe('random schedules', () => {
  it('find what is broken, the same for the same seed, and are shortened', async () => {
    const scenario = SCENARIOS.find(({ name }) => name === 'disable');
    const broken = scenario?.breaks.find(({ name }) => name === 'no-grace-period');
    if (!scenario || !broken) throw new Error('no break');
    const race = await prepareRace(scenario, boot, broken);
    const found = [1, 2].map(() => exploration(race, { executors: 3 }).sample(500, 7));
    race.kernel.close();
    expect(found[0]).toEqual(found[1]);
    if (found[0]?.kind !== 'violation') throw new Error('nothing found');
    const cpus = new Set(found[0].schedule.map(({ cpu }) => cpu));
    expect(cpus.size).toBe(2);
  });

  it('find nothing where nothing is broken', async () => {
    const { code, lines } = await runForTest(['race', 'list', '--cpus', '4', '--random', '50']);
    expect([code, lines[0]]).toEqual([0, expect.stringMatching(/^list: nothing found: 50 random/)]);
  });
});

describe('trampolab race', () => {
  it('lists scenarios and breaks', async () => {
    const { lines } = await runForTest(['race', '--json']);
    const { scenarios } = JSON.parse(lines.join('')) as { scenarios: { name: string }[] };
    expect(scenarios.map(({ name }) => name)).toEqual(SCENARIOS.map(({ name }) => name));
  });

  it('replays', async () => {
    const { code, lines } = await runForTest([
      'race',
      'disable',
      '--break',
      'rude-only',
      '--replay',
      '0x8,1,0,1.1x3,0x2,1',
    ]);
    expect(code).toBe(0);
    expect(lines).toContain('I3: cpu1 ftrace_caller+0xc uses ops_a, freed');
    expect(lines).toContain('  16  cpu1   ftrace_caller+0xc loads ops_a.direct_call');
  });

  it.each([
    [['race', 'nothing'], /no scenario 'nothing'/],
    [['race', 'enable', '--break', 'nothing'], /enable has no break 'nothing'/],
    [['race', 'enable', '--only', 'I99'], /no invariant 'I99'/],
    [['race', 'enable', '--replay', '0,x'], /'x' is no step of a schedule/],
    [['race', 'enable', '--cpus', '1'], /--cpus takes a whole number from 2 to 5/],
  ])('%j is refused', async (words, message) => {
    const { code, notices } = await runForTest(words);
    expect([code, notices[0]]).toEqual([2, expect.stringMatching(message)]);
  });

  it('explores plans from files', async () => {
    const good = await runForTest(['race', '--plan', 'examples/race/hook.json']);
    expect([good.code, good.lines[0]]).toEqual([0, expect.stringMatching(/^hook: holds: /)]);
    const hasty = await runForTest(['race', '--plan', 'examples/race/hasty.json']);
    expect([hasty.code, hasty.lines[0]]).toEqual([
      1,
      expect.stringMatching(/^hasty: violation of I2/),
    ]);
  });
});
