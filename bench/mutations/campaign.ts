/**
 * A campaign of the fuzzer in this process: whether it finds something, on which program.
 */
import {
  makeEngines,
  makeTrampolineRunner,
  parseEngines,
  parseTrampolineKernels,
} from '../../src/cli/fuzz-engines.js';
import { fuzz, fuzzTrampolines } from '../../src/index.js';
import { CAMPAIGNS, type CampaignName } from './faults.js';

export interface CampaignResult {
  /** Programs up to the one that showed the difference; undefined when all agreed. */
  readonly foundAfter: number | undefined;
  readonly programs: number;
  /** What was different, one line. */
  readonly text: string;
}

export async function runCampaign(
  name: CampaignName,
  count: number,
  seed: number,
): Promise<CampaignResult> {
  const campaign = CAMPAIGNS[name];
  return 'engines' in campaign
    ? runPrograms(campaign.engines, count, seed)
    : runTrampolines(campaign.trampolines, count, seed);
}

async function runPrograms(names: string, count: number, seed: number): Promise<CampaignResult> {
  const engines = await makeEngines(parseEngines(names));
  const difference = fuzz(engines, { seed, count, batch: 32 });
  if (!difference) return { foundAfter: undefined, programs: count, text: '' };
  const [expected, got] = difference.outcomes;
  const text = `${difference.engines[1].name}: ${got.end === expected.end ? 'other memory' : got.end}`;
  return { foundAfter: difference.index + 1, programs: difference.index + 1, text };
}

/** Each kernel gets its share. */
async function runTrampolines(
  kernels: readonly string[],
  count: number,
  seed: number,
): Promise<CampaignResult> {
  const runners = [];
  for (const kernel of kernels) {
    const [request] = parseTrampolineKernels(`embedded:${kernel}`);
    if (request) runners.push(await makeTrampolineRunner(request));
  }
  const step = 16;
  for (let start = 0; start < count; start += step) {
    for (const [index, runner] of runners.entries()) {
      // the same seed gives each kernel other cases: its number counts
      const difference = fuzzTrampolines(runner, {
        seed: seed + 1000 * index + start,
        count: Math.ceil(step / runners.length),
      });
      if (!difference) continue;
      const programs = start + difference.index + 1;
      const at = difference.expected.findIndex((line, i) => line !== difference.got[i]);
      return { foundAfter: programs, programs, text: difference.got[at] ?? 'fewer events' };
    }
  }
  return { foundAfter: undefined, programs: count, text: '' };
}
