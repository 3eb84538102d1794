/** `trampolab race`: interleavings of a patching CPU with CPUs that execute what it patches. */
import {
  INVARIANTS,
  FTRACE_VERSIONS,
  OWN_OPERATIONS,
  SCENARIOS,
  UsageError,
  exploration,
  formatSchedule,
  isInvariant,
  ownRace,
  parseSchedule,
  prepareRace,
  printReport,
  racePlanFile,
  reportSchedule,
  type Break,
  type ExploreOptions,
  type ExploreResult,
  type FtraceVersion,
  type Invariant,
  type Race,
  type RaceBoot,
  type RaceScenario as Scenario,
} from '../index.js';
import { labBooter, readInput } from '../node/index.js';
import { dirname, join } from 'node:path';
import { integerOption, parseOptions, type Command, type Output } from './command.js';
import { readOwn } from './strategies-own.js';

const USAGE = `race [SCENARIO] [options]
  SCENARIO            see the list that 'race' prints; 'all': each scenario and each break, a line for each
  --break NAME        with one protection taken away: exit 0 if that is found
  --kernel V          whose ftrace: 6.1, 6.2, 6.3, 6.12, 7.3, v5; default: the scenario's own, mostly 6.12
  --cpus N            CPUs, one of which patches; 2 to 5, default 2
  --random N          N random schedules instead of all; --seed S, default 1
  --only I1,CMODX     invariants that are looked at; default all
  --limit N           most states, default 5000000
  --replay SCHEDULE   what happens on one schedule, as a violation prints it
  --plan FILE         a plan of your own (JSON, see docs/race.md) instead of a scenario
  --own FILE          a strategy of your own (docs/strategies.md): its plans, near and far; exit 1 if one fails
  --json, -j          as JSON`;

interface Request {
  readonly options: ExploreOptions;
  readonly walks: number | undefined;
  readonly seed: number;
  readonly replay: string | undefined;
  readonly json: boolean;
}

function readText(path: string): string {
  return new TextDecoder().decode(readInput(path));
}

function listScenarios(output: Output, json: boolean): void {
  if (json) {
    const described = ({ name, summary }: { name: string; summary: string }): object => ({
      name,
      summary,
    });
    const list = SCENARIOS.map((scenario) => {
      return { ...described(scenario), breaks: scenario.breaks.map(described) };
    });
    output.line(JSON.stringify({ scenarios: list, invariants: INVARIANTS }));
    return;
  }
  for (const { name, summary, breaks } of SCENARIOS) {
    output.line(`${name.padEnd(16)} ${summary}`);
    for (const each of breaks) output.line(`    --break ${each.name.padEnd(22)} ${each.summary}`);
  }
}

function findScenario(name: string): Scenario {
  const found = SCENARIOS.find((each) => each.name === name);
  if (found) return found;
  const names = SCENARIOS.map((each) => each.name).join(', ');
  throw new UsageError(`no scenario '${name}' (there are: ${names})`);
}

function findBreak(scenario: Scenario, name: string): Break {
  const found = scenario.breaks.find((each) => each.name === name);
  if (found) return found;
  const names = scenario.breaks.map((each) => each.name).join(', ') || 'none';
  throw new UsageError(`${scenario.name} has no break '${name}' (there are: ${names})`);
}

function parseKernel(text: string | undefined): FtraceVersion | undefined {
  if (text === undefined) return undefined;
  const known = FTRACE_VERSIONS.find((each) => each === text);
  if (!known) {
    throw new UsageError(`no kernel '${text}' (there are: ${FTRACE_VERSIONS.join(', ')})`);
  }
  return known;
}

function parseOnly(text: string | undefined): readonly Invariant[] | undefined {
  return text?.split(',').map((name) => {
    if (isInvariant(name)) return name;
    const names = Object.keys(INVARIANTS).join(', ');
    throw new UsageError(`no invariant '${name}' (there are: ${names})`);
  });
}

function figuresText({ figures }: ExploreResult): string {
  const { states, transitions, depth, nodes } = figures;
  return `${states} states, ${transitions} transitions, depth ${depth}, ${nodes} states of a CPU alone`;
}

function verdict(result: ExploreResult, request: Request): string {
  const how = request.walks === undefined ? '' : `${request.walks} random schedules, `;
  switch (result.kind) {
    case 'holds':
      return `holds: ${figuresText(result)}`;
    case 'limit':
      return request.walks === undefined
        ? `not finished: ${figuresText(result)}`
        : `nothing found: ${how}${result.figures.transitions} steps`;
    case 'violation':
      return `violation of ${result.problem.invariant}: ${figuresText(result)}`;
  }
}

/** Explores or replays, and prints; true when a violation was found. */
function explore(output: Output, title: string, race: Race, request: Request): boolean {
  const explorer = exploration(race, request.options);
  if (request.replay !== undefined) {
    const schedule = parseSchedule(request.replay);
    const report = reportSchedule(race, explorer, schedule);
    if (request.json) output.line(JSON.stringify({ scenario: title, ...report }));
    else for (const line of printReport(report)) output.line(line);
    if (report.steps.length < schedule.length) {
      output.notice(`step ${report.steps.length + 1} of the schedule is not possible`);
    }
    return report.problem !== undefined;
  }
  const result =
    request.walks === undefined ? explorer.exhaust() : explorer.sample(request.walks, request.seed);
  const found = result.kind === 'violation';
  const report = found ? reportSchedule(race, explorer, result.schedule) : undefined;
  const schedule = found ? formatSchedule(result.schedule) : undefined;
  if (request.json) {
    output.line(
      JSON.stringify({
        scenario: title,
        result: result.kind,
        ...result.figures,
        schedule,
        ...report,
      }),
    );
    return found;
  }
  output.line(`${title}: ${verdict(result, request)}`);
  if (report) {
    for (const line of printReport(report)) output.line(line);
    output.line(`again: --replay ${schedule}`);
  }
  return found;
}

async function withRace<T>(made: Promise<Race>, use: (race: Race) => T): Promise<T> {
  const race = await made;
  try {
    return use(race);
  } finally {
    race.kernel.close();
  }
}

/** Every scenario and every break; the number of those that are not as they should be. */
async function exploreAll(output: Output, boot: RaceBoot, request: Request): Promise<number> {
  let wrong = 0;
  for (const scenario of SCENARIOS) {
    for (const broken of [undefined, ...scenario.breaks]) {
      await withRace(prepareRace(scenario, boot, broken), (race) => {
        const explorer = exploration(race, request.options);
        const result = explorer.exhaust();
        const isRight = broken
          ? result.kind === 'violation' && broken.breaks.includes(result.problem.invariant)
          : result.kind === 'holds';
        if (!isRight) wrong++;
        const title = broken ? `  --break ${broken.name}` : scenario.name;
        const schedule = result.kind === 'violation' ? formatSchedule(result.schedule) : undefined;
        if (request.json) {
          const name = { scenario: scenario.name, break: broken?.name };
          output.line(
            JSON.stringify({ ...name, result: result.kind, ...result.figures, schedule }),
          );
        } else {
          output.line(
            `${title}: ${verdict(result, request)}${isRight ? '' : ' (NOT AS IT SHOULD BE)'}`,
          );
        }
      });
    }
  }
  return wrong;
}

/** All plans of a strategy; how many fail. */
async function exploreOwn(
  output: Output,
  path: string,
  boot: RaceBoot,
  request: Request,
): Promise<number> {
  const { own, texts, assembler } = await readOwn(path);
  const distances = own.way.kind === 'plan' && !own.way.far ? [false] : [false, true];
  let failed = 0;
  for (const far of distances) {
    for (const operation of OWN_OPERATIONS) {
      const made = ownRace(own, texts, assembler, boot, { operation, far });
      await withRace(made, (each) => {
        if (explore(output, each.plan.name, each, request)) failed++;
      });
    }
  }
  return failed;
}

async function raceCommand(args: string[], output: Output): Promise<number> {
  const { values, positionals } = parseOptions(args, {
    break: { type: 'string' },
    kernel: { type: 'string' },
    cpus: { type: 'string' },
    random: { type: 'string' },
    seed: { type: 'string' },
    only: { type: 'string' },
    limit: { type: 'string' },
    replay: { type: 'string' },
    plan: { type: 'string' },
    own: { type: 'string' },
    json: { type: 'boolean', short: 'j' },
  });
  const [name, surplus] = positionals;
  if (surplus !== undefined) throw new UsageError(`unexpected '${surplus}'`);
  const cpus = integerOption('cpus', values.cpus, 2, { min: 2, max: 5 });
  const only = parseOnly(values.only);
  const request: Request = {
    options: {
      executors: cpus - 1,
      limit: integerOption('limit', values.limit, 5_000_000, { min: 1, max: 100_000_000 }),
      ...(only && { only }),
    },
    walks:
      values.random === undefined
        ? undefined
        : integerOption('random', values.random, 1, { min: 1, max: 100_000_000 }),
    seed: integerOption('seed', values.seed, 1, { min: 0, max: 0xffffffff }),
    replay: values.replay,
    json: values.json ?? false,
  };
  if (values.kernel !== undefined && (name === undefined || name === 'all')) {
    throw new UsageError('--kernel needs a scenario');
  }
  const booter = await labBooter();
  const boot: RaceBoot = async (options) => booter(options);
  if (values.own !== undefined) {
    const rest = [name, values.break, values.plan, values.replay];
    if (rest.some((each) => each !== undefined)) {
      throw new UsageError('--own comes without a scenario, --break, --plan and --replay');
    }
    return (await exploreOwn(output, values.own, boot, request)) === 0 ? 0 : 1;
  }
  if (values.plan !== undefined) {
    if (name !== undefined || values.break !== undefined) {
      throw new UsageError('--plan comes without a scenario and without --break');
    }
    const path = values.plan;
    const made = racePlanFile(readText(path), (file) => readText(join(dirname(path), file)), boot);
    return withRace(made, (race) => (explore(output, race.plan.name, race, request) ? 1 : 0));
  }
  if (name === undefined) {
    if (values.break !== undefined) throw new UsageError('--break needs a scenario');
    listScenarios(output, request.json);
    return 0;
  }
  if (name === 'all') return (await exploreAll(output, boot, request)) === 0 ? 0 : 1;
  const scenario = findScenario(name);
  const broken = values.break === undefined ? undefined : findBreak(scenario, values.break);
  const version = parseKernel(values.kernel);
  const words = [name, ...(broken ? ['--break', broken.name] : [])];
  const title = [...words, ...(version ? ['--kernel', version] : [])].join(' ');
  return withRace(prepareRace(scenario, boot, broken, version), (race) => {
    const found = explore(output, title, race, request);
    return found === (broken !== undefined) || request.replay !== undefined ? 0 : 1;
  });
}

export const race: Command = {
  name: 'race',
  summary:
    'every interleaving of patching with executing CPUs, and shortest schedules that break it',
  usage: USAGE,
  run: raceCommand,
};
