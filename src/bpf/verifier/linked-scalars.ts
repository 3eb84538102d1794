/**
 * Scalars that are a constant apart: `r2 = r1; r2 += 8` and then a comparison of either narrows both.
 *
 * A scalar that came out of such an addition remembers the one it began as (`Link`); all that go back to one
 * root form a set, wherever in the state they are. A set has one step of addition: a copy of a linked scalar
 * begins a set of its own, which the register it was copied from joins. Reference: BPF_ADD_CONST,
 * assign_scalar_id_before_mov, collect_linked_regs and sync_linked_regs in kernel/bpf/verifier.c. Left out:
 * the limit of six registers in a set.
 *
 * Usage:
 *   env.write(2, linkedSum(r1, 8n, sum)); // r2 = r1 + 8
 *   narrowLinked(state, r1, range, other); // r2 is narrowed, too
 */
import type { Range } from './range.js';
import { constScalar, Scalar, type Link } from './scalar.js';
import { compute } from './scalar-alu.js';
import { replaceValues, type State } from './state.js';
import type { Value } from './value.js';

const U32_MAX = 0xffff_ffffn;
/** What a link can add is an s32. */
const MAX_DELTA = 0x7fff_ffffn;

/** `sum`, which is `left + delta` in so many bits, knowing that. */
export function linkedSum(left: Scalar, delta: bigint, width: 32 | 64, sum: Scalar): Scalar {
  if (left.isConst || left.link || left.kernel) return sum;
  if (delta > MAX_DELTA || delta < ~MAX_DELTA) return sum;
  if (width === 32 && left.umax > U32_MAX) return sum;
  return new Scalar(sum.bounds, sum.first, sum.second, false, { base: left, delta, width });
}

/** A scalar that is about to be in two places: of a linked one both hold a fresh root. */
export function unlinked(value: Value): Value {
  if (value.kind !== 'scalar' || !value.link) return value;
  return new Scalar(value.bounds, value, undefined, value.kernel);
}

/**
 * All places that hold `known`, or a number a constant apart from it, hold what is left of it when `known` is
 * in `range`, as a comparison with `other` showed.
 */
export function narrowLinked(state: State, known: Scalar, range: Range, other: Scalar): void {
  if (known.isConst || range === known.bounds) return;
  const core = new Scalar(range, known, other, known.kernel && !range.isConst);
  const { link } = known;
  const root = link?.base ?? known;
  const newRoot = link ? shifted(core, root, -link.delta, link.width) : core;
  const changed = new Map<Scalar, Scalar>([[root, newRoot]]);
  if (link) changed.set(known, relinked(core, newRoot, link));
  replaceValues(state, (value) => {
    if (value.kind !== 'scalar') return value;
    const done = changed.get(value);
    if (done) return done;
    const theirs = value.link;
    if (theirs?.base !== root) return value;
    // what wrapped and what did not are no constant apart
    const isMixed = link !== undefined && link.width !== theirs.width;
    const moved = isMixed
      ? value
      : shifted(core, value, theirs.delta - (link?.delta ?? 0n), theirs.width);
    const next = relinked(moved, newRoot, theirs);
    changed.set(value, next);
    return next;
  });
}

/** `value`, linked to what its root has become. */
function relinked(value: Scalar, base: Scalar, { delta, width }: Link): Scalar {
  const link = base.isConst ? undefined : { base, delta, width };
  return new Scalar(value.bounds, value, undefined, value.kernel, link);
}

/** `core + delta`, which is what is left of `before`. */
function shifted(core: Scalar, before: Scalar, delta: bigint, width: 32 | 64): Scalar {
  return new Scalar(compute('add', width, core, constScalar(delta)).bounds, before, core);
}
