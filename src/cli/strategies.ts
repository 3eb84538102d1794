/** `trampolab strategies`: what the ways from a patch site to BPF programs cost, and where each fails. */
import {
  ALONE,
  GRID,
  STRATEGIES,
  StrategyLab,
  UsageError,
  attachOdds,
  callOpsRows,
  partnersOf,
  siteTable,
  trigRows,
  type Situation,
  type Strategy,
} from '../index.js';
import { labBooter, readAsm } from '../node/index.js';
import { ownRow } from './strategies-own.js';
import { integerOption, parseOptions, type Command, type Output } from './command.js';
import {
  detailLines,
  gridLines,
  oddsJson,
  oddsLines,
  partnerLines,
  siteLines,
  summaryLines,
  toJson,
  upstreamLines,
} from './strategies-tables.js';

const USAGE = `strategies [--strategy NAME] [--programs N] [--args N] [--others N] [--irrelevant N] [--far]
           [--own FILE]
strategies --grid | --layouts N | --coexist | --upstream
  without options: each strategy in the simplest situation in which it is used
  --strategy NAME  one of them, part by part
  --programs N     fentry programs on the function; default 1
  --args N         its arguments, 0 to 8; default 1
  --others N       ordinary ftrace ops on the same function
  --irrelevant N   ordinary ftrace ops on another function
  --far            BPF images out of BL range
  --grid           all strategies in many situations: instructions of the way
  --layouts N      how often attaching succeeds in N layouts each: KASLR on and off, kernel and module functions
  --coexist        who may be on a function together
  --upstream       what the authors of the series measured, beside the same here
  --own FILE       a strategy of your own as one of them (docs/strategies.md)
  --json, -j       as JSON`;

/** The situation that the options ask for; undefined: none. */
function situationOf(values: {
  readonly programs?: string;
  readonly args?: string;
  readonly others?: string;
  readonly irrelevant?: string;
  readonly far?: boolean;
}): Situation | undefined {
  const { programs, args, others, irrelevant, far } = values;
  const given = [programs, args, others, irrelevant, far].some((value) => value !== undefined);
  if (!given) return undefined;
  const count = (name: string, text: string | undefined, fallback: number, max: number): number =>
    integerOption(name, text, fallback, { min: 0, max });
  return {
    programs: count('programs', programs, ALONE.programs, 38),
    args: count('args', args, ALONE.args, 8),
    others: count('others', others, 0, 1000),
    irrelevant: count('irrelevant', irrelevant, 0, 1000),
    far: far ?? false,
  };
}

function chosen(name: string | undefined, strategies: readonly Strategy[]): readonly Strategy[] {
  if (name === undefined) return strategies;
  const found = strategies.find((strategy) => strategy.name === name);
  if (found) return [found];
  const names = strategies.map((strategy) => strategy.name).join(', ');
  throw new UsageError(`no strategy '${name}' (there are ${names})`);
}

/** ftrace knows the sites. */
function sharesSites(reaching: Strategy['reaching']): boolean {
  return reaching === 'image' || reaching === 'ftrace_caller' || reaching === 'own trampoline';
}

const PARTNER_LEGEND = [
  'What may be beside an fentry program: "yes" where a call reached both, and the one that stays when the first',
  'to come has gone; program first / partner first where they differ.',
];

const MODES = ['grid', 'layouts', 'coexist', 'upstream'] as const;

function oneMode(values: Readonly<Partial<Record<(typeof MODES)[number], unknown>>>): void {
  const given = MODES.filter((mode) => values[mode] !== undefined);
  if (given.length > 1) throw new UsageError(`--${given[0]} and --${given[1]} are two tables`);
}

function strategyNamed(name: string): Strategy {
  const [found] = chosen(name, STRATEGIES);
  if (!found) throw new RangeError(`no strategy ${name}`);
  return found;
}

async function strategiesCommand(args: string[], output: Output): Promise<number> {
  const { values, positionals } = parseOptions(args, {
    strategy: { type: 'string' },
    programs: { type: 'string' },
    args: { type: 'string' },
    others: { type: 'string' },
    irrelevant: { type: 'string' },
    far: { type: 'boolean' },
    grid: { type: 'boolean' },
    layouts: { type: 'string' },
    coexist: { type: 'boolean' },
    upstream: { type: 'boolean' },
    own: { type: 'string' },
    json: { type: 'boolean', short: 'j' },
  });
  if (positionals[0] !== undefined) throw new UsageError(`unexpected '${positionals[0]}'`);
  const situation = situationOf(values);
  oneMode(values);
  const own = values.own === undefined ? [] : [await ownRow(values.own)];
  const strategies = chosen(values.strategy, [...STRATEGIES, ...own]);
  const lab = new StrategyLab(await labBooter(), readAsm('strategies'));
  const print = (lines: readonly string[]): void => lines.forEach((line) => output.line(line));
  try {
    if (values.layouts !== undefined) {
      const count = integerOption('layouts', values.layouts, 0, { min: 1, max: 100_000 });
      const odds = attachOdds(
        strategies.filter(({ caseOf }) => caseOf === undefined),
        count,
      );
      if (values.json) output.line(JSON.stringify(odds.map(oddsJson)));
      else print(oddsLines(odds));
      return 0;
    }
    if (values.coexist) {
      const sites = siteTable(lab, strategyNamed('direct'));
      const partnerships = strategies
        .filter(({ caseOf, reaching }) => caseOf === undefined && sharesSites(reaching))
        .flatMap((strategy) => partnersOf(lab, strategy));
      if (values.json) {
        const partners = partnerships.map(({ strategy, ...rest }) => ({
          strategy: strategy.name,
          ...rest,
        }));
        output.line(JSON.stringify({ sites, partners }));
      } else print([...siteLines(sites), '', ...PARTNER_LEGEND, '', ...partnerLines(partnerships)]);
      return 0;
    }
    if (values.upstream) {
      const rows = callOpsRows(lab);
      const trig = trigRows(lab, strategyNamed('literal-call'), strategyNamed('ops-loop'));
      if (values.json) output.line(JSON.stringify({ call_ops: rows, trig_fentry: trig }));
      else print(upstreamLines(rows, trig));
      return 0;
    }
    if (values.grid) {
      const columns = GRID.map((each) => ({ ...(situation ?? ALONE), ...each }));
      const rows = lab.grid(strategies, columns);
      if (values.json) output.line(JSON.stringify(rows.flat().map(toJson)));
      else print(gridLines(rows, columns));
      return 0;
    }
    const compared = lab.compare(strategies, situation);
    if (values.json) output.line(JSON.stringify(compared.map(toJson)));
    else if (values.strategy === undefined) print(summaryLines(compared));
    else for (const each of compared) print(detailLines(each));
    return 0;
  } finally {
    lab.close();
  }
}

export const strategies: Command = {
  name: 'strategies',
  summary: 'what the ways from a patch site to BPF programs cost, and where each fails',
  usage: USAGE,
  run: strategiesCommand,
};
