/** The options that set what an object leaves to its loader: global variables and sizes of maps. */
import { withGlobal, withMaxEntries, type ObjectSpec } from '../index.js';
import type { ParsedOptions } from './command.js';

/** For `parseOptions`. */
export const OBJECT_OPTIONS = {
  global: { type: 'string', multiple: true },
  'max-entries': { type: 'string', multiple: true },
} as const;

/** What they mean, for usage texts. */
export const OBJECT_USAGE = `  --global V=VALUE  the initial value of a global variable, constants too: nr_cpus=4, config.ports[1]=53; may
                    be repeated
  --max-entries M=N the size of map M: objects leave some to their loader; may be repeated`;

/** The object as a loader with these options loads it. */
export function asSet(
  spec: ObjectSpec,
  values: ParsedOptions<typeof OBJECT_OPTIONS>['values'],
): ObjectSpec {
  const globals = (values.global ?? []).reduce(withGlobal, spec);
  return (values['max-entries'] ?? []).reduce(withMaxEntries, globals);
}
