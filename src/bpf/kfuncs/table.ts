/**
 * The table of kernel functions that programs may call by name.
 *
 * Usage:
 *   const kfunc = findKfunc('bpf_iter_num_next');
 */
import type { Btf } from '../btf/btf.js';
import { CAST_KFUNCS } from './cast.js';
import { CPUMASK_KFUNCS } from './cpumask.js';
import { CRITICAL_KFUNCS } from './critical.js';
import { DYNPTR_KFUNCS } from './dynptr.js';
import { ITER_NUM_KFUNCS } from './iter-num.js';
import type { Kfunc } from './kfunc.js';
import { LIST_KFUNCS } from './lists.js';
import { OBJECT_KFUNCS } from './objects.js';
import { TREE_KFUNCS } from './trees.js';
import { kfuncBtf, parseKfuncPrototype } from './types.js';
import { XDP_METADATA_KFUNCS } from './xdp-metadata.js';

/** First number of a kfunc; helpers end at 211. */
const KFUNC_BASE = 1000;

export const KFUNCS: readonly Kfunc[] = [
  ...XDP_METADATA_KFUNCS,
  ...DYNPTR_KFUNCS,
  ...ITER_NUM_KFUNCS,
  ...CRITICAL_KFUNCS,
  ...CAST_KFUNCS,
  ...OBJECT_KFUNCS,
  ...LIST_KFUNCS,
  ...TREE_KFUNCS,
  ...CPUMASK_KFUNCS,
].map((row, index) => ({
  ...row,
  id: KFUNC_BASE + index,
  name: parseKfuncPrototype(row.prototype).name,
}));

const BY_NAME: ReadonlyMap<string, Kfunc> = new Map(KFUNCS.map((kfunc) => [kfunc.name, kfunc]));

/** The kfunc of that name; undefined when it is not modelled. */
export function findKfunc(name: string): Kfunc | undefined {
  return BY_NAME.get(name);
}

/** Their prototypes: a func by each name. */
export const KFUNC_BTF: Btf = kfuncBtf(KFUNCS.map(({ prototype }) => prototype));
