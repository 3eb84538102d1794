/**
 * Files about what a booted kernel did (`vectors/kernel`): recognised by their fields, checked whole.
 */
import { InputError } from '../../../common/errors.js';
import type { CaseResult } from '../kind.js';
import { checkJitCorpus } from './check-corpus.js';
import { checkScenario } from './check-scenario.js';
import { checkCosts, isCosts } from './check-costs.js';
import { isJitCorpus } from './corpus-file.js';
import type { BootedOptions } from './options.js';
import { isScenario } from './scenario-file.js';

type Check = (name: string, json: unknown, options: BootedOptions) => AsyncGenerator<CaseResult>;

const KINDS: readonly (readonly [matches: (json: unknown) => boolean, check: Check])[] = [
  [isJitCorpus, checkJitCorpus],
  [isScenario, checkScenario],
  [isCosts, checkCosts],
];

/** Whether parsed JSON is such a file. */
export function isBootedFile(json: unknown): boolean {
  return KINDS.some(([matches]) => matches(json));
}

/** Throws InputError for a malformed file or a kernel without a profile. */
export function checkBooted(
  name: string,
  json: unknown,
  options: BootedOptions,
): AsyncGenerator<CaseResult> {
  const kind = KINDS.find(([matches]) => matches(json));
  if (!kind) throw new InputError(`${name}: not the file of a booted kernel`);
  return kind[1](name, json, options);
}
