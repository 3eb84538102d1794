/**
 * A traced call of a booted kernel, ready to be made in the lab: a kernel like that one, in the state that the call was
 * made in. Usage:
 *   const scene = await recreate(scenario, trace, setting, options);
 *   ... scene.kernel.call(scene.entry, ...)
 *   scene.close();
 */
import { InputError } from '../../../common/errors.js';
import type { Kernel } from '../../../kernel/kernel.js';
import { bootSettingOf } from './booted-text.js';
import type { ImageSetting } from './corpus-images.js';
import type { BootedOptions } from './options.js';
import { defineFunctions } from './scenario-attach.js';
import type { Scenario, ScenarioState, ScenarioTrace } from './scenario-file.js';
import { ScenarioPlayer } from './scenario-player.js';
import { stateOf } from './traced-state.js';

export interface Scene {
  readonly kernel: Kernel;
  readonly state: ScenarioState;
  readonly player: ScenarioPlayer;
  close(): void;
}

/** Throws InputError when the file does not say enough, KernelError for what the lab refuses. */
export async function recreate(
  scenario: Scenario,
  trace: ScenarioTrace,
  setting: ImageSetting,
  far: boolean,
  options: Pick<BootedOptions, 'boot' | 'readSibling'>,
): Promise<Scene> {
  const code = options.readSibling('static.json');
  const kernel = await options.boot(
    setting.kernel.lab,
    bootSettingOf(scenario, setting, far, code),
  );
  defineFunctions(kernel, scenario);
  skipShortAddresses(kernel);
  const state = stateOf(scenario, trace);
  const player = new ScenarioPlayer(kernel, scenario);
  try {
    // what the kernel did on the way there belongs to the state
    for (const each of scenario.states.slice(0, scenario.states.indexOf(state) + 1)) {
      player.goTo(each);
    }
  } catch (error) {
    player.close();
    throw error;
  }
  return { kernel, state, player, close: () => player.close() };
}

/** Takes memory until addresses have as many 16-bit parts as on a machine with more of it in use. */
function skipShortAddresses(kernel: Kernel): void {
  while (((kernel.allocPages(1) >> 16n) & 0xffffn) === 0n);
}

export function traceCalled(scenario: Scenario, label: string): ScenarioTrace {
  const trace = scenario.traces.find((each) => each.label === label);
  if (!trace) throw new InputError(`${scenario.name}: no call '${label}' in the scenario's file`);
  return trace;
}

/** Where a call begins here that begins there at `name+0x0`. */
export function ourEntry({ kernel, player }: Scene, place: string): bigint | undefined {
  const [, name] = /^(.*)\+0x0$/.exec(place) ?? [];
  if (name === undefined) return undefined;
  const [, program] = /^prog (\w+)$/.exec(name) ?? [];
  if (program !== undefined) return player.program(program)?.entry;
  return kernel.symbols.find(name)?.address;
}
