/**
 * `trampolab check …/scen.*.json`: patch sites, trampolines and programs of a booted kernel, scenario by
 * scenario, against what the lab makes of the same attachments.
 *
 * One result per program (its images), per state (the patch site, its literal and the ops, its line in
 * enabled_functions, or the text of a BPF program that is traced; each state is reached from the one
 * before), per trampoline image, and per attachment that the kernel refused. Skipped, with
 * their reasons: images that call no program of the file, scenarios that a kernel did not have.
 *
 * The kernel's version comes from facts.json beside the file; without it from how its programs begin.
 */
import { KernelError } from '../../../common/errors.js';
import { errnoName } from '../../../common/errno.js';
import { rawProgram } from '../../../bpf/raw-program.js';
import type { Kernel } from '../../../kernel/kernel.js';
import { failed, passed, skipped, type CaseResult } from '../kind.js';
import { VectorRecord } from '../record.js';
import { compareImages, type ImageSetting } from './corpus-images.js';
import type { BootedOptions } from './options.js';
import {
  attachScenarioPrograms,
  defineFunctions,
  targetOf,
  type ScenarioTarget,
} from './scenario-attach.js';
import { readScenario, type Scenario, type ScenarioState } from './scenario-file.js';
import { readImage } from './scenario-image.js';
import { comparePokedProgram, shownProgram } from './scenario-program-site.js';
import { ScenarioPlayer } from './scenario-player.js';
import { isFar, settingOf } from './scenario-setting.js';
import { compareSite } from './scenario-site.js';
import { compareTrampoline } from './scenario-trampoline.js';

/** r0 = 0; exit */
const RETURN_0 = Uint8Array.of(0xb7, 0, 0, 0, 0, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0);

/** Throws InputError for a malformed file or a kernel without a profile. */
export async function* checkScenario(
  name: string,
  json: unknown,
  options: BootedOptions,
): AsyncGenerator<CaseResult> {
  const scenario = readScenario(name, json);
  const setting = settingOf(scenario, options);
  const kernel = await options.boot(setting.kernel.lab, { far: isFar(scenario) });
  defineFunctions(kernel, scenario);
  let results = 0;
  for (const program of scenario.programs) {
    results++;
    yield verdict(aspect(scenario, `program ${program.name}`), () =>
      compareImages(program, setting),
    );
  }
  const player = new ScenarioPlayer(kernel, scenario);
  try {
    for (const state of scenario.states) {
      results++;
      yield checkState(player, kernel, scenario, state, setting);
    }
  } finally {
    player.close();
  }
  for (const state of scenario.states) {
    yield* checkTrampolines(kernel, scenario, state, setting);
  }
  for (const result of checkRefusals(kernel, scenario)) {
    results++;
    yield result;
  }
  if (results === 0) {
    const why = scenario.notes[0] ?? 'no reason is given';
    yield skipped(aspect(scenario, 'states'), `the kernel did not do it: ${why}`);
  }
}

function aspect({ record, name }: Scenario, what: string): VectorRecord {
  return new VectorRecord(record.origin, { name: `${name}: ${what}` });
}

function verdict(record: VectorRecord, compare: () => string | undefined): CaseResult {
  try {
    const difference = compare();
    return difference === undefined ? passed(record) : failed(record, difference);
  } catch (error) {
    if (error instanceof KernelError) return failed(record, error.message);
    throw error;
  }
}

function checkState(
  player: ScenarioPlayer,
  kernel: Kernel,
  scenario: Scenario,
  state: ScenarioState,
  setting: ImageSetting,
): CaseResult {
  const record = aspect(scenario, `${state.label}: site`);
  const program = shownProgram(scenario, state);
  if (program) {
    return verdict(record, () => comparePokedProgram(program, state, scenario, setting));
  }
  return verdict(record, () => {
    player.goTo(state);
    return compareSite(kernel, state);
  });
}

function* checkTrampolines(
  kernel: Kernel,
  scenario: Scenario,
  state: ScenarioState,
  setting: ImageSetting,
): Generator<CaseResult> {
  for (const trampoline of state.trampolines) {
    const record = aspect(scenario, `${state.label}: ${trampoline.name}`);
    const image = readImage(trampoline, scenario.programs);
    const target = image && targetOf(scenario, image, state.label);
    if (!image || !target) {
      yield skipped(record, 'it calls no program of the file: of a scenario before, not yet freed');
      continue;
    }
    yield verdict(record, () => {
      const attached = attachScenarioPrograms(kernel, scenario, image, target);
      try {
        return compareTrampoline(kernel, attached, trampoline, image, {
          booted: setting.kernel,
          config: setting.traits.config,
          functionAddress: functionAddress(scenario, target),
        });
      } finally {
        attached.undo();
      }
    });
  }
}

/** Address of the traced function there: what get_func_ip gives. */
function functionAddress({ states }: Scenario, target: ScenarioTarget): bigint {
  if (target.kind === 'program') return target.program.addresses[target.index] ?? 0n;
  return states.find(({ fn }) => fn === target.name)?.address ?? 0n;
}

/** Notes about attachments that the kernel refused: `fe NAME: attach -524`. */
function* checkRefusals(kernel: Kernel, scenario: Scenario): Generator<CaseResult> {
  for (const note of scenario.notes) {
    const [, short, named, plain, direct, errno] =
      /^(?:(fe|fx) (\w+): attach|raw_tracepoint_open of an (\w+) program on (\w+):) (-\d+)/.exec(
        note,
      ) ?? [];
    const target = named ?? direct;
    if (target === undefined || errno === undefined) continue;
    const kind = short === 'fx' || plain === 'fexit' ? 'fexit' : 'fentry';
    yield verdict(aspect(scenario, `${kind} on ${target}: refused`), () => {
      const program = kernel.bpf.load(
        rawProgram('refused', RETURN_0, { type: 'tracing', stackDepth: 0 }),
      );
      try {
        kernel.bpf.attach(program, kind, target).detach();
        return `expected ${errno}, but it is attached`;
      } catch (error) {
        if (!(error instanceof KernelError)) throw error;
        if (error.code === Number(errno)) return undefined;
        return `expected -${errnoName(Number(errno))}, got ${error.message}`;
      } finally {
        program.free();
      }
    });
  }
}
