/**
 * The kernel functions that programs call in place of map helpers, as bodies.
 *
 * Each does what the helper does that it stands for, on the map in R1, so engines treat its call as they treat
 * the helper's. Reference: bpf_map_ops; see `maps/operations.ts`.
 *
 * Usage:
 *   for (const { name, body } of mapFunctions(helperTable())) ...
 */
import { withSignature, type HelperBody } from '../host.js';
import { HashBase } from '../maps/hash.js';
import { HTAB_LOOKUP, MAP_OPERATIONS } from '../maps/operations.js';
import { argument, fail, setResult64, type Helper } from './helper.js';
import { MapFinder } from './maps.js';

/** First number of such a function for hosts that number what they have. */
const MAP_FUNCTION_BASE = 2000;

export interface MapFunction {
  readonly id: number;
  readonly name: string;
  readonly body: HelperBody;
}

function hashLookup(): HelperBody {
  const finder = new MapFinder();
  return withSignature({ arguments: 2, result: true }, (registers, host) => {
    const map = finder.find(registers, host);
    if (map instanceof HashBase) setResult64(registers, map.findElement(argument(registers, 2)));
    else fail(registers, 'EINVAL');
  });
}

const NUMBERS: ReadonlyMap<string, number> = new Map(
  [HTAB_LOOKUP, ...MAP_OPERATIONS.keys()].map((name, index) => [name, MAP_FUNCTION_BASE + index]),
);

/** Its number; undefined for names that are none of them. */
export function mapFunctionNumber(name: string): number | undefined {
  return NUMBERS.get(name);
}

/** Those whose helper is in the table. */
export function mapFunctions(helpers: ReadonlyMap<number, Helper>): readonly MapFunction[] {
  return [...NUMBERS].flatMap(([name, id]) => {
    const helper = MAP_OPERATIONS.get(name);
    const body = helper === undefined ? hashLookup() : helpers.get(helper)?.body;
    return body ? [{ id, name, body }] : [];
  });
}
