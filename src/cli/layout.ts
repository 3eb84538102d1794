/** `trampolab layout`: a kernel's address map, what lands where in it, and what attaching then does. */
import {
  LAYOUT_VERSIONS,
  UsageError,
  addressRows,
  attachRows,
  describeOutcome,
  distanceText,
  hex64,
  layoutOf,
  outcomeCells,
  outcomeRows,
  sizeText,
  surveyLayout,
  surveySeeds,
  type LayoutOptions,
  type LayoutSurvey,
  type SeedsSurvey,
  type SurveyOptions,
} from '../index.js';
import {
  choiceOption,
  integerOption,
  parseOptions,
  table,
  type Command,
  type Output,
} from './command.js';

const USAGE = `layout [--kernel V] [--kaslr SEED] [--modules SIZE,...] [--vmalloc-used SIZE] [--seeds N]
layout --table
  --kernel V           whose layout and attachment: ${LAYOUT_VERSIONS.join(', ')}
                       (default 6.12; v5 and sep-2022 are proposals that were not merged)
  --va-bits N          48 (default) or 39
  --kaslr SEED         64-bit seed, decimal or 0x; default: nokaslr
  --full               RANDOMIZE_MODULE_REGION_FULL (with KASLR)
  --modules SIZE,...   text of each module that is loaded; default 64K
  --modules-used SIZE  of the space for modules, in use before them; default 0
  --vmalloc-used SIZE  of vmalloc space, in use before the first BPF image; default 0
  --hole AT:SIZE       what of that was given back (may be repeated)
  --function OFFSET    of the kernel function in the image; default 4M
  --image-size SIZE    from _text to _end; default 30M
  --seeds N            what N KASLR seeds give, in place of one layout
  --table              what attaching does in each version
  --json, -j           as JSON; distances are from the patched instruction to the image
  SIZE, AT, OFFSET     bytes, or with K, M, G or T`;

const SCALE = { K: 2 ** 10, M: 2 ** 20, G: 2 ** 30, T: 2 ** 40 };
/** Half of the kernel's addresses: nothing larger can be in use. */
const MOST_BYTES = 2 ** 47;
const IMAGE_BYTES = { min: 16 << 20, max: 127 << 20 };
const MOST_SEEDS = 1_000_000;

function sizeOption(name: string, text: string): number {
  const [, digits, unit] = /^(\d+)([KMGT]?)$/.exec(text) ?? [];
  const scale = unit ? SCALE[unit as keyof typeof SCALE] : 1;
  const bytes = digits === undefined ? Number.NaN : Number(digits) * scale;
  if (!(bytes <= MOST_BYTES)) {
    throw new UsageError(`--${name} takes a size such as 64K or 2G, at most 128T, not '${text}'`);
  }
  return bytes;
}

function seedOption(text: string | undefined): bigint | undefined {
  if (text === undefined) return undefined;
  const seed = /^(\d+|0x[0-9a-f]+)$/i.test(text) ? BigInt(text) : undefined;
  if (seed === undefined || seed >= 1n << 64n) {
    throw new UsageError(`--kaslr takes a number of 64 bits, not '${text}'`);
  }
  return seed;
}

function holeOption(text: string): { readonly at: number; readonly size: number } {
  const [at, size, ...more] = text.split(':');
  if (at === undefined || size === undefined || more.length > 0) {
    throw new UsageError(`--hole takes AT:SIZE, not '${text}'`);
  }
  return { at: sizeOption('hole', at), size: sizeOption('hole', size) };
}

function printSurvey(output: Output, survey: LayoutSurvey): void {
  const span = addressRows(survey).map(({ start, end, what }) => [
    `${start.toString(16)}-${end.toString(16)}`,
    sizeText(end - start),
    what,
  ]);
  for (const line of table(span)) output.line(line);
  output.line();
  const attach = attachRows(survey).map(({ target, entry, distance, outcome }) => [
    target,
    entry.toString(16),
    distanceText(distance),
    describeOutcome(outcome),
  ]);
  for (const line of table([['attaching to', 'at', 'image is at', 'gives'], ...attach])) {
    output.line(line);
  }
  const refusals = attachRows(survey).flatMap(({ outcome }) =>
    'why' in outcome ? [`-${outcome.errno}: ${outcome.why}`] : [],
  );
  for (const refusal of new Set(refusals)) output.line(refusal);
}

function surveyJson(survey: LayoutSurvey): object {
  return {
    map: addressRows(survey).map(({ start, end, what }) => {
      return { start: hex64(start), end: hex64(end), what };
    }),
    image: hex64(survey.image),
    modules: survey.modules.map(({ entry, size, callerDistance, needsNoPlt }) => {
      const caller_distance = String(callerDistance);
      return { start: hex64(entry), size, caller_distance, needs_no_plt: needsNoPlt };
    }),
    attach: attachRows(survey).map(({ target, entry, distance, outcome }) => {
      const result = describeOutcome(outcome);
      return { target, entry: hex64(entry), distance: String(distance), outcome: result };
    }),
  };
}

function percent(count: number, of: number): string {
  return `${((100 * count) / of).toFixed(1)} %`;
}

function printSeeds(output: Output, odds: SeedsSurvey): void {
  const { seeds, nearest, farthest } = odds;
  output.line(
    `${seeds} KASLR seeds: image ${sizeText(nearest)} to ${sizeText(farthest)} from the kernel function`,
  );
  const rows = (['kernel', 'module'] as const).flatMap((target) =>
    [...odds[target]].map(([outcome, count]) => [
      `attaching to a function of the ${target}`,
      percent(count, seeds),
      outcome,
    ]),
  );
  rows.push(['the module', percent(odds.moduleNeedsNoPlt, seeds), 'needs no PLT']);
  for (const line of table(rows)) output.line(line);
}

function seedsJson({ seeds, kernel, module, ...rest }: SeedsSurvey): object {
  return {
    seeds,
    kernel: Object.fromEntries(kernel),
    module: Object.fromEntries(module),
    module_needs_no_plt: rest.moduleNeedsNoPlt,
    nearest: String(rest.nearest),
    farthest: String(rest.farthest),
  };
}

function printTable(output: Output, json: boolean): void {
  const [heading = [], ...rows] = outcomeCells(outcomeRows());
  if (json) {
    const keys = heading.map((name) => name.replaceAll(' ', '_'));
    const records = rows.map((row) => Object.fromEntries(row.map((cell, i) => [keys[i], cell])));
    output.line(JSON.stringify(records));
    return;
  }
  for (const line of table([heading, ...rows])) output.line(line);
}

function headline(kernel: LayoutOptions): string {
  const { profile, map } = layoutOf(kernel);
  const kaslr =
    kernel.kaslrSeed === undefined ? 'nokaslr' : `KASLR seed ${hex64(kernel.kaslrSeed)}`;
  return `${profile.kernels}: ${map.vaBits}-bit VA, ${kaslr}`;
}

async function layoutCommand(args: string[], output: Output): Promise<number> {
  const { values, positionals } = parseOptions(args, {
    kernel: { type: 'string' },
    'va-bits': { type: 'string' },
    kaslr: { type: 'string' },
    full: { type: 'boolean' },
    modules: { type: 'string' },
    'modules-used': { type: 'string' },
    'vmalloc-used': { type: 'string' },
    hole: { type: 'string', multiple: true },
    function: { type: 'string' },
    'image-size': { type: 'string' },
    seeds: { type: 'string' },
    table: { type: 'boolean' },
    json: { type: 'boolean', short: 'j' },
  });
  if (positionals[0] !== undefined) throw new UsageError(`unexpected '${positionals[0]}'`);
  const json = values.json ?? false;
  if (values.table) {
    printTable(output, json);
    return 0;
  }
  const version = choiceOption('kernel', values.kernel, '6.12', LAYOUT_VERSIONS);
  const bits = choiceOption('va-bits', values['va-bits'], '48', ['48', '39']);
  const size = (name: string, text: string | undefined, fallback: number): number =>
    text === undefined ? fallback : sizeOption(name, text);
  const imageSize = size('image-size', values['image-size'], 30 << 20);
  if (imageSize < IMAGE_BYTES.min || imageSize > IMAGE_BYTES.max) {
    throw new UsageError(`--image-size takes 16M to 127M, not '${values['image-size']}'`);
  }
  const functionOffset = size('function', values.function, 4 << 20);
  if (functionOffset >= imageSize) {
    throw new UsageError(`--function ${values.function} is not in an image of ${imageSize} bytes`);
  }
  const modules = (values.modules ?? '64K').split(',').map((text) => sizeOption('modules', text));
  const survey: SurveyOptions = {
    functionOffset,
    modules,
    modulesUsed: size('modules-used', values['modules-used'], 0),
    used: size('vmalloc-used', values['vmalloc-used'], 0),
    holes: (values.hole ?? []).map(holeOption),
  };
  const kernel = {
    version,
    vaBits: bits === '39' ? 39 : 48,
    fullModuleRegion: values.full ?? false,
    imageSize: BigInt(imageSize),
  } as const;
  const kaslrSeed = seedOption(values.kaslr);
  if (values.seeds !== undefined) {
    if (kaslrSeed !== undefined) throw new UsageError('--seeds and --kaslr exclude each other');
    const seeds = integerOption('seeds', values.seeds, 1, { min: 1, max: MOST_SEEDS });
    const odds = surveySeeds(kernel, { ...survey, seeds });
    if (json) output.line(JSON.stringify({ kernel: version, ...seedsJson(odds) }));
    else printSeeds(output, odds);
    return 0;
  }
  const options = { ...kernel, kaslrSeed };
  const result = surveyLayout(layoutOf(options), survey);
  if (json) {
    output.line(JSON.stringify({ kernel: version, ...surveyJson(result) }));
  } else {
    output.line(headline(options));
    output.line();
    printSurvey(output, result);
  }
  return 0;
}

export const layout: Command = {
  name: 'layout',
  summary: 'address map, where modules and BPF images land, what attaching does there',
  usage: USAGE,
  run: layoutCommand,
};
