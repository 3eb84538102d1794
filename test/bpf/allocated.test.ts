/**
 * Objects that programs allocate. Verdicts, results and the shape of trees are those of a booted 6.18, for
 * the objects in test/vectors/objects.
 */
import { readFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { load, type LoadedObject } from '../../src/bpf/object/load.js';
import { parseObject } from '../../src/bpf/object/parse.js';
import type { ObjectSpec } from '../../src/bpf/object/spec.js';
import { VerifierError } from '../../src/bpf/verifier/error.js';
import type { Kernel } from '../../src/kernel/kernel.js';
import { createRunner, xdpContext, type RunEngine } from '../../src/lab/run-program.js';
import { bootLab } from '../../src/node/boot.js';

function read(name: string): ObjectSpec {
  const bytes = readFileSync(new URL(`../vectors/objects/${name}.o`, import.meta.url));
  return parseObject(Uint8Array.from(bytes), { name });
}

const spec = read('allocated');
let kernel: Kernel;

beforeAll(async () => {
  kernel = await bootLab({ engine: 'embedded' });
});
afterAll(() => kernel.close());

/** What `seen` has after programs ran one after the other on the maps of one object. */
function seenAfter(engine: RunEngine, names: readonly string[]): bigint[] {
  const programs = spec.programs.filter(({ name }) => names.includes(name));
  const object = load(spec, kernel.bpf.host, { programs });
  for (const name of names) {
    const runner = createRunner(kernel, engine, object.program(name).xlated);
    const { xdp } = xdpContext(kernel, new Uint8Array(64));
    expect(runner.run(xdp.address)).toEqual({ kind: 'return', r0: 2n });
    runner.close();
  }
  const seen = seenOf(object);
  object.free();
  return seen;
}

function seenOf(object: LoadedObject): bigint[] {
  const bss = spec.maps.find(({ section }) => section === '.bss')?.name ?? '';
  const value = object.maps.get(bss)?.get(new Uint8Array(4))?.[0] ?? new Uint8Array(0);
  return [...new BigUint64Array(value.buffer, value.byteOffset, value.length / 8)];
}

const RUNS: readonly (readonly [names: readonly string[], seen: readonly bigint[]])[] = [
  [['queue'], [1n, 0n, 3n]],
  [
    ['queue', 'ends'],
    [2n, 2n],
  ],
  [['sorted'], [1n, 3n, 5n, 7n]],
  [['walked'], [2n, 1n, 3n]],
  [['counted'], [7n, 0n]],
  // 2^64 - 22: -EINVAL, and the object is dropped
  [['twice'], [0n, 0xffff_ffff_ffff_ffean]],
  [['in_lists'], [0n]],
  [['stash'], [0n]],
  [['stash', 'stash'], [42n]],
  [['glance'], [1n]],
  [['stash', 'glance'], [42n]],
  [
    ['per_cpu', 'per_cpu'],
    [2n, 2n],
  ],
  [['chained', 'unchain'], [0n]],
  [['owner'], [1n]],
];

describe.each<RunEngine>(['interpreter', 'wasm', 'jit'])('programs that run: %s', (engine) => {
  it.each(RUNS)('%j', (names, seen) => {
    expect(seenAfter(engine, names).slice(0, seen.length)).toEqual(seen);
  });
});

it('frees all that maps hold when they are freed', () => {
  const all = RUNS.flatMap(([names]) => names).filter((name) => name !== 'unchain');
  // what the kernel itself keeps is there after the first time
  seenAfter('interpreter', all);
  const before = kernel.linear.liveBytes;
  seenAfter('interpreter', all);
  expect(kernel.linear.liveBytes).toBe(before);
});

it('frees what a value holds when it is deleted or written over', () => {
  const programs = spec.programs.filter(({ name }) => name === 'chained' || name === 'stash');
  const object = load(spec, kernel.bpf.host, { programs });
  const { objects } = kernel.bpf.host;
  const live = (): number => {
    objects.collect(kernel.bpf.host, 0);
    return kernel.linear.liveBytes;
  };
  const before = live();
  for (const name of ['chained', 'stash']) {
    const runner = createRunner(kernel, 'interpreter', object.program(name).xlated);
    runner.run(xdpContext(kernel, new Uint8Array(64)).xdp.address);
    runner.close();
  }
  const full = live();
  expect(full).toBeGreaterThan(before);
  expect(object.maps.get('chains')?.remove(Uint8Array.of(3, 0, 0, 0))).toBe(0);
  const less = live();
  expect(less).toBeLessThan(full);
  // user space does not see the object, and writing the value gives it back
  const slots = object.maps.get('slots');
  const [value = new Uint8Array(0)] = slots?.get(new Uint8Array(4)) ?? [];
  expect([...value.subarray(0, 8)]).toEqual([0, 0, 0, 0, 0, 0, 0, 0]);
  slots?.set(new Uint8Array(4), value.slice().fill(0xff));
  expect(live()).toBeLessThan(less);
  const [after = new Uint8Array(0)] = slots?.get(new Uint8Array(4)) ?? [];
  expect([...after.subarray(0, 24)]).toEqual([
    ...new Uint8Array(16),
    ...new Uint8Array(8).fill(0xff),
  ]);
  object.free();
});

const refused = read('allocated_refused');

it.each([
  ['leaked', 'EINVAL', 'BPF_EXIT instruction in main prog would lead to reference leak'],
  ['unchecked', 'EACCES', "R0 invalid mem access 'ptr_or_null_'"],
  ['used_after_drop', 'EACCES', "R6 invalid mem access 'scalar'"],
  ['beyond', 'EACCES', 'access beyond struct plain at off 16 size 8'],
  ['field_written', 'EACCES', 'direct access to bpf_list_node is disallowed'],
  ['no_lock', 'EINVAL', 'bpf_spin_lock at off=16 must be held for bpf_list_head'],
  ['wrong_lock', 'EINVAL', 'bpf_spin_lock at off=16 must be held for bpf_list_head'],
  ['after_unlock', 'EACCES', "R6 invalid mem access 'scalar'"],
  ['new_under_lock', 'EINVAL', 'function calls are not allowed while holding a lock'],
  ['pushed_twice', 'EINVAL', 'arg#1 expected pointer to allocated object'],
  ['pushed_null', 'EACCES', 'Possibly NULL pointer passed to trusted arg1'],
  [
    'other_type',
    'EINVAL',
    'operation on bpf_rb_root expects arg#1 bpf_rb_node at offset=0 in struct leaf, but arg is at offset=8 in struct other_leaf',
  ],
  ['changing_comparison', 'EINVAL', 'bpf_rbtree_remove not allowed in rbtree cb'],
  ['comparison_of_two', 'EINVAL', 'should have been in [0, 1]'],
  [
    'removed_owned',
    'EINVAL',
    'bpf_rbtree_remove can only take non-owning or refcounted bpf_rb_node pointer',
  ],
  ['not_counted', 'EFAULT', "Couldn't find btf_record"],
  [
    'moved_drop',
    'EINVAL',
    'R1 must have zero offset when passed to release func or trusted arg to kfunc',
  ],
  ['kptr_stored', 'EACCES', 'store to referenced kptr disallowed'],
  ['kptr_half', 'EACCES', 'kptr access size must be BPF_DW'],
  ['kptr_between', 'EACCES', 'kptr access misaligned expected=0 off=4'],
  ['kptr_to_helper', 'EACCES', 'kptr cannot be accessed indirectly by helper'],
  ['kptr_added', 'EACCES', 'kptr in map can only be accessed using BPF_MEM instruction mode'],
  ['exchanged_unreferenced', 'EACCES', "off=8 kptr isn't referenced kptr"],
  ['exchanged_leak', 'EINVAL', 'would lead to reference leak'],
  ['exchanged_other_type', 'EACCES', 'invalid kptr access, R2 type=ptr_item expected=ptr_plain'],
  ['exchanged_borrowed', 'EINVAL', 'R2 must be referenced when passed to release function'],
  ['exchanged_null_or_not', 'EACCES', 'Possibly NULL pointer passed to helper arg2'],
  ['exchanged_null_object', 'EFAULT', 'invalid PTR_TO_BTF_ID register for type match'],
  ['read_untrusted_as_owned', 'EINVAL', 'R1 must be a rcu pointer'],
  ['after_rcu', 'EINVAL', 'R1 must be a rcu pointer'],
  ['dropped_borrowed', 'EINVAL', 'R1 must be referenced or trusted'],
  ['per_cpu_read', 'EACCES', 'R1 is ptr_plain access percpu memory: off=0'],
  ['per_cpu_huge', 'EINVAL', 'bpf_percpu_obj_new type size (520) is greater than 512'],
  [
    'per_cpu_pointing',
    'EINVAL',
    'bpf_percpu_obj_new type ID argument must be of a struct of scalars',
  ],
  ['per_cpu_dropped_plain', 'EINVAL', 'arg#0 expected for bpf_percpu_obj_drop_impl()'],
  ['no_struct', 'EINVAL', 'bpf_obj_new/bpf_percpu_obj_new type ID argument must be of a struct'],
])('refuses %s with -%s', (name, errno, reason) => {
  const programs = refused.programs.filter((program) => program.name === name);
  let error: unknown;
  try {
    load(refused, kernel.bpf.host, { programs }).free();
  } catch (thrown) {
    error = thrown;
  }
  expect(error).toBeInstanceOf(VerifierError);
  expect(error).toMatchObject({ errno, reason: expect.stringContaining(reason) as string });
});

it('does not run such a program without the verifier', () => {
  const programs = spec.programs.filter(({ name }) => name === 'queue');
  expect(() => load(spec, kernel.bpf.host, { programs, check: false })).toThrow(
    "program 'queue' allocates objects: it does not run without the verifier",
  );
});
