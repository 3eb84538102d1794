/**
 * What the steps of a plan share with executing CPUs: each word, field, image or freed block as an object with
 * the versions that it goes through, and which version is current, and coherent for fetches, at each position.
 *
 * Steps are taken apart here: a store that is not single-copy atomic into its halves, a grace period into
 * its begin and its end. Reference: Arm ARM B2.2.1 (single-copy atomicity), B2.2.5 (instruction fetches).
 */
import { InputError } from '../../common/errors.js';
import { hex64, viewOf } from '../../common/bytes.js';
import type { Memory } from '../../cpu/memory.js';
import type { RcuFlavour } from '../../kernel/patch-observer.js';
import type { PatchPlan, PlanStep } from './plan.js';

export type ObjectKind =
  /** One instruction that is replaced. */
  | 'word'
  /** Text that is replaced as a whole. */
  | 'range'
  /** What CPUs load. */
  | 'data'
  /** A u64 that executing CPUs add to. */
  | 'counter'
  /** Memory that is freed: version 0 is alive, version 1 is not. */
  | 'block';

export interface SharedObject {
  readonly id: number;
  readonly kind: ObjectKind;
  readonly address: bigint;
  readonly size: number;
  /** Name of what is there, for people. */
  readonly what: string;
  /** Contents of each version; none for blocks. */
  readonly versions: Uint8Array[];
  /** Position behind the step that made the version. */
  readonly writtenAt: number[];
  /** Offset of `address` in the backing store; -1 when nothing is mapped there at first. */
  readonly offset: number;
  /** CPUs may see more than the current version: text, and data that is loaded by its address alone. */
  readonly windowed: boolean;
}

/** Steps in their order; those of `later` are a strand of their own. */
export interface Strand {
  /** It begins once `parent` has done `after` steps. -1: at once. */
  readonly parent: number;
  readonly after: number;
  readonly steps: MicroStep[];
  /** Version of each object that the strand writes, by steps done. */
  readonly current: Uint16Array[];
  /** The oldest version that a fetch behind a context synchronisation event can see. */
  readonly coherent: Uint16Array[];
}

/** A step that takes effect at once. */
export type MicroStep = { readonly what: string } & (
  | { readonly kind: 'change'; readonly objects: readonly number[]; readonly frees: boolean }
  | { readonly kind: 'add'; readonly object: number; readonly amount: number }
  | { readonly kind: 'sync'; readonly objects: readonly number[] }
  | { readonly kind: 'ipi' }
  | { readonly kind: 'begin'; readonly flavour: RcuFlavour }
  | { readonly kind: 'end'; readonly flavour: RcuFlavour }
  | { readonly kind: 'drain'; readonly object: number }
);

export interface PlanProgram {
  readonly objects: readonly SharedObject[];
  readonly strands: readonly Strand[];
  /** By object: the strand that writes it. */
  readonly owners: readonly number[];
}

interface Extent {
  readonly kind: ObjectKind;
  readonly address: bigint;
  readonly size: number;
  readonly what: string;
}

const endOf = ({ address, size }: { address: bigint; size: number }): bigint =>
  address + BigInt(size);

function overlaps(
  a: Pick<Extent, 'address' | 'size'>,
  b: Pick<Extent, 'address' | 'size'>,
): boolean {
  return a.address < endOf(b) && b.address < endOf(a);
}

/** `site := bl x` names `site`. */
function subject(what: string): string {
  return what.split(' := ')[0] ?? what;
}

/** The parts that a store of data consists of: itself if it is aligned, else its halves. */
function parts(address: bigint, bytes: Uint8Array): { address: bigint; bytes: Uint8Array }[] {
  if (address % BigInt(bytes.length) === 0n) return [{ address, bytes }];
  const half = bytes.length / 2;
  return [
    ...parts(address, bytes.subarray(0, half)),
    ...parts(address + BigInt(half), bytes.subarray(half)),
  ];
}

function extentsOf(step: PlanStep): Extent[] {
  const what = subject(step.what);
  switch (step.kind) {
    case 'store': {
      const { address, bytes } = step;
      if (step.as === 'text') return [{ kind: 'range', address, size: bytes.length, what }];
      if (step.as === 'instruction') return [{ kind: 'word', address, size: 4, what }];
      return parts(address, bytes).map((part): Extent => {
        return { kind: 'data', address: part.address, size: part.bytes.length, what };
      });
    }
    case 'add':
    case 'drain':
      return [{ kind: 'counter', address: step.address, size: 8, what }];
    case 'free':
      return [{ kind: 'block', address: step.address, size: step.size, what }];
    case 'later':
      return step.steps.flatMap(extentsOf);
    case 'sync':
    case 'ipi':
    case 'wait':
      return [];
  }
}

/** One extent per object: stores of text that overlap are one range, counters win over data. */
function collect(steps: readonly PlanStep[]): Extent[] {
  const found: Extent[] = [];
  for (const extent of steps.flatMap(extentsOf)) {
    const same = found.findIndex(
      (each) => each.address === extent.address && each.size === extent.size,
    );
    const known = found[same];
    if (known && known.kind === extent.kind) continue;
    if (known && known.kind !== 'block' && extent.kind !== 'block') {
      if (extent.kind === 'counter') found[same] = extent;
      continue;
    }
    found.push(extent);
  }
  return mergeRanges(found);
}

function mergeRanges(extents: readonly Extent[]): Extent[] {
  const result = extents.filter(({ kind }) => kind !== 'range');
  const ranges = extents.filter(({ kind }) => kind === 'range');
  ranges.sort((a, b) => (a.address < b.address ? -1 : 1));
  let last: Extent | undefined;
  for (const range of ranges) {
    if (last && overlaps(last, range)) {
      const end = endOf(range) > endOf(last) ? endOf(range) : endOf(last);
      last = { ...last, size: Number(end - last.address) };
      result[result.length - 1] = last;
    } else {
      last = range;
      result.push(range);
    }
  }
  return result;
}

/** Is what CPUs load here found without another load: a literal in text, or one of `roots`? */
function isRoot(memory: Memory, address: bigint, roots: ReadonlySet<bigint>): boolean {
  return roots.has(address) || memory.regionAt(address)?.permissions.includes('x') === true;
}

/**
 * @param memory as it is before the first step
 * @param roots variables that code loads by their address
 */
export function compilePlan(
  plan: PatchPlan,
  memory: Memory,
  roots: ReadonlySet<bigint>,
): PlanProgram {
  const objects = collect(plan.steps).map((extent, id): SharedObject => {
    const region = memory.regionAt(extent.address);
    const offset = region ? region.offset + Number(extent.address - region.address) : -1;
    if (offset < 0 && extent.kind !== 'block') {
      throw new InputError(`${plan.name}: no memory at ${hex64(extent.address)} (${extent.what})`);
    }
    const isText = extent.kind === 'word' || extent.kind === 'range';
    const early = plan.earlyLoads !== false && extent.kind === 'data';
    return {
      ...extent,
      id,
      versions: offset < 0 ? [] : [memory.bytes.slice(offset, offset + extent.size)],
      writtenAt: [0],
      offset,
      windowed: isText || (early && isRoot(memory, extent.address, roots)),
    };
  });
  checkNesting(plan, objects);
  const strands: Strand[] = [];
  const owners = objects.map(() => -1);
  const own = (id: number, strand: number): void => {
    const owner = owners[id] as number;
    if (owner >= 0 && owner !== strand) {
      throw new InputError(
        `${plan.name}: ${objects[id]?.what} is written by two that run side by side`,
      );
    }
    owners[id] = strand;
  };

  const addStrand = (steps: readonly PlanStep[], parent: number, after: number): void => {
    const index = strands.length;
    const strand: Strand = {
      parent,
      after,
      steps: [],
      current: [new Uint16Array(objects.length)],
      coherent: [new Uint16Array(objects.length)],
    };
    strands.push(strand);
    const later: { readonly steps: readonly PlanStep[]; readonly after: number }[] = [];
    // what is deferred last goes on in the same strand
    for (const step of inlineLast(steps)) {
      if (step.kind === 'later') {
        later.push({ steps: step.steps, after: strand.steps.length });
        continue;
      }
      const isMine = (id: number): boolean => [-1, index].includes(owners[id] as number);
      for (const micro of microSteps(objects, step, strand.steps.length, isMine)) {
        if (micro.kind === 'change') for (const id of micro.objects) own(id, index);
        push(objects, strand, micro);
      }
    }
    for (const each of later) addStrand(each.steps, index, each.after);
  };
  addStrand(plan.steps, -1, 0);
  return { objects, strands, owners: owners.map((owner) => Math.max(owner, 0)) };
}

function inlineLast(steps: readonly PlanStep[]): readonly PlanStep[] {
  const last = steps.at(-1);
  return last?.kind === 'later' ? inlineLast([...steps.slice(0, -1), ...last.steps]) : steps;
}

function push(objects: readonly SharedObject[], strand: Strand, step: MicroStep): void {
  const now = (strand.current.at(-1) as Uint16Array).slice();
  const clean = (strand.coherent.at(-1) as Uint16Array).slice();
  if (step.kind === 'change') for (const id of step.objects) now[id] = versionOf(objects, id);
  if (step.kind === 'sync') for (const id of step.objects) clean[id] = now[id] as number;
  // data caches are coherent
  for (const { id, kind } of objects) if (kind === 'data') clean[id] = now[id] as number;
  strand.steps.push(step);
  strand.current.push(now);
  strand.coherent.push(clean);
}

function versionOf(objects: readonly SharedObject[], id: number): number {
  return (objects[id] as SharedObject).writtenAt.length - 1;
}

function* microSteps(
  objects: readonly SharedObject[],
  step: PlanStep,
  first: number,
  isMine: (id: number) => boolean,
): Generator<MicroStep> {
  const { what } = step;
  switch (step.kind) {
    case 'store': {
      const pieces =
        step.as === 'data'
          ? parts(step.address, step.bytes)
          : [{ address: step.address, bytes: step.bytes }];
      for (const [i, { address, bytes }] of pieces.entries()) {
        const changed = store(
          objects,
          { address, bytes },
          step.as === 'text',
          first + i + 1,
          isMine,
        );
        const part = pieces.length > 1 ? ` (bytes ${address & 7n}..${(address & 7n) + 3n})` : '';
        yield { kind: 'change', what: what + part, objects: changed, frees: false };
      }
      return;
    }
    case 'add':
      yield { kind: 'add', what, object: at(objects, step, 'counter'), amount: step.amount };
      return;
    case 'drain':
      yield { kind: 'drain', what, object: at(objects, step, 'counter') };
      return;
    case 'free': {
      const block = objects[at(objects, step, 'block')] as SharedObject;
      block.writtenAt.push(first + 1);
      yield { kind: 'change', what, objects: [block.id], frees: true };
      return;
    }
    case 'sync': {
      const range = { address: step.start, size: Number(step.end - step.start) };
      const covered = objects.filter(
        (each) => (each.kind === 'word' || each.kind === 'range') && overlaps(each, range),
      );
      yield { kind: 'sync', what, objects: covered.map(({ id }) => id) };
      return;
    }
    case 'ipi':
      yield { kind: 'ipi', what };
      return;
    case 'later':
      return;
    case 'wait':
      yield { kind: 'begin', what: `${what} begins`, flavour: step.flavour };
      yield { kind: 'end', what: `${what} ends`, flavour: step.flavour };
  }
}

function at(objects: readonly SharedObject[], step: { address: bigint }, kind: ObjectKind): number {
  return objects.findIndex((each) => each.address === step.address && each.kind === kind);
}

/** Gives every object that `bytes` reach a version of its own; the ids of those. */
function store(
  objects: readonly SharedObject[],
  { address, bytes }: { readonly address: bigint; readonly bytes: Uint8Array },
  isText: boolean,
  position: number,
  isMine: (id: number) => boolean,
): number[] {
  const piece = { address, size: bytes.length };
  const changed: number[] = [];
  for (const each of objects) {
    if (each.kind === 'block' || each.kind === 'counter' || !overlaps(each, piece)) continue;
    // a word or literal inside a range has versions of its own
    if (each.kind === 'range' && !isText) continue;
    // what another strand has patched in a range is gone with the range
    if (each.kind !== 'range' && isText && !isMine(each.id)) continue;
    const next = (each.versions.at(-1) as Uint8Array).slice();
    for (let i = 0; i < bytes.length; i++) {
      const to = Number(address - each.address) + i;
      if (to >= 0 && to < next.length) next[to] = bytes[i] as number;
    }
    each.versions.push(next);
    each.writtenAt.push(position);
    changed.push(each.id);
  }
  return changed;
}

/** Words may lie in ranges and anything in blocks; other overlaps have no meaning here. */
function checkNesting(plan: PatchPlan, objects: readonly SharedObject[]): void {
  for (const a of objects) {
    for (const b of objects) {
      if (a.id >= b.id || !overlaps(a, b)) continue;
      const kinds = [a.kind, b.kind];
      if (kinds.includes('block') || kinds.includes('range')) continue;
      throw new InputError(
        `${plan.name}: stores of different sizes at ${hex64(a.address)} (${a.what}, ${b.what})`,
      );
    }
  }
}

/** The u64 that an 8-byte version holds. */
export function valueOf(bytes: Uint8Array): bigint {
  return bytes.length === 8
    ? viewOf(bytes).getBigUint64(0, true)
    : BigInt(viewOf(bytes).getUint32(0, true));
}
