/** Programs that a booted kernel accepts, each beside one that it refuses for want of a detail. */
import { describe, expect, it } from 'vitest';
import { Btf } from '../../../src/bpf/btf/btf.js';
import { BtfBuilder } from '../../../src/bpf/btf/builder.js';
import type { BtfType } from '../../../src/bpf/btf/types.js';
import type { SectionKind } from '../../../src/bpf/object/spec.js';
import { globalArguments } from '../../../src/bpf/verifier/global-arguments.js';
import { fromBounds, UNKNOWN } from '../../../src/bpf/verifier/scalar.js';
import { verdict, type TextOptions } from './program-text.js';

type Row = readonly [what: string, program: string, verdict: string, options?: TextOptions];

const END = '\nr0 = 0\nexit';

/** R0 = a value of the map, or the program ends. */
const lookup = (map: number, label = 'found'): string => `
  *(u32 *)(r10 -4) = 1
  r2 = r10
  r2 += -4
  r1 = map[fd:${map}]
  call 1
  if r0 != 0 goto ${label}
  exit
${label}:`;
const LOOKUP_AGAIN = '\nr1 = map[fd:1]\nr2 = r10\nr2 += -4\ncall 1';

/** R6 = 8 bytes behind data, R7 = the end. */
const PACKET = 'r6 = *(u32 *)(r1 +0)\nr7 = *(u32 *)(r1 +4)\nr6 += 8\nr0 = 0\n';
const NOT_REACHED = '\nr0 = *(u64 *)(r10 +8)\nexit\n';

/** Each round sets one of three numbers, two rounds cannot set three. */
const rounds = (a: number, b: number, c: number): string => `
  *(u64 *)(r10 -8) = 7
  *(u64 *)(r10 -16) = 7
  *(u64 *)(r10 -24) = 7
  r1 = 2
  r2 = subprog[+14]
  r3 = r10
  r3 += -24
  r4 = 0
  call 181
  r1 = *(u64 *)(r10 -8)
  r2 = *(u64 *)(r10 -16)
  r3 = *(u64 *)(r10 -24)
  if r1 != ${a} goto out
  if r2 != ${b} goto out
  if r3 != ${c} goto out
  r0 = *(u64 *)(r10 +8)
out:
  r0 = 0
  exit
  r6 = r2
  call 7
  if r0 == 1 goto first
  if r0 == 2 goto second
  *(u64 *)(r6 +0) = 42
  goto done
first:
  *(u64 *)(r6 +16) = 42
  goto done
second:
  *(u64 *)(r6 +8) = 42
done:
  r0 = 0
  exit`;
const OUT_OF_STACK = 'EACCES invalid read from stack R10 off=8 size=8';

const TYPES = new BtfBuilder()
  .struct('bpf_map', 64, { map_type: ['int', 24], max_entries: ['int', 36] })
  .struct('task_struct', 16, { pid: ['int', 8] })
  .build();
const XSKMAP = lookup(9);
const TIMER = `${lookup(8)}\nr1 = r0\nr3 = 1`;

const TABLE: Readonly<Record<string, readonly Row[]>> = {
  'maps of sockets': [
    [
      'an XDP program may delete from them',
      `*(u32 *)(r10 -4) = 0\nr1 = map[fd:10]\nr2 = r10\nr2 += -4\ncall 3${END}`,
      'accepted',
    ],
  ],
  'numbers on the stack': [
    [
      'one byte keeps its range',
      `call 7\nr0 &= 31\n*(u8 *)(r10 -16) = r0${lookup(1)}\nr1 = *(u8 *)(r10 -16)\nr0 += r1\nr0 = *(u8 *)(r0 +0)\nexit`,
      'accepted',
    ],
    [
      'a wider load of it does not',
      `call 7\nr0 &= 31\n*(u8 *)(r10 -16) = r0${lookup(1)}\nr1 = *(u16 *)(r10 -16)\nr0 += r1\nr0 = *(u8 *)(r0 +0)\nexit`,
      'EACCES invalid access to map value, value_size=48 off=65535 size=1; R0 max value is outside of the allowed memory range',
    ],
    [
      'what an atomic operation found there is known',
      `*(u32 *)(r10 -4) = 0\nr1 = 1\nr1 = atomic_fetch_add((u32 *)(r10 -4), r1)\nif r1 == 0 goto out${NOT_REACHED}out:${END}`,
      'accepted',
    ],
    [
      'and is not after it',
      `*(u32 *)(r10 -4) = 0\nr1 = 1\nr1 = atomic_fetch_add((u32 *)(r10 -4), r1)\nr1 = *(u32 *)(r10 -4)\nif r1 == 1 goto out${NOT_REACHED}out:${END}`,
      OUT_OF_STACK,
    ],
  ],
  comparisons: [
    [
      'what equals a valid pointer is valid',
      `${lookup(1)}\nr6 = r0${LOOKUP_AGAIN}\nif r0 != r6 goto out\nr0 = *(u64 *)(r0 +0)\nout:${END}`,
      'accepted',
    ],
    [
      'what differs from it may be NULL',
      `${lookup(1)}\nr6 = r0${LOOKUP_AGAIN}\nif r0 == r6 goto out\nr0 = *(u64 *)(r0 +0)\nout:${END}`,
      "EACCES R0 invalid mem access 'map_value_or_null'",
    ],
    [
      'behind the end is behind it',
      `${PACKET}if r6 > r7 goto past\nexit\npast:\nif r6 > r7 goto out${NOT_REACHED}out:${END}`,
      'accepted',
    ],
    [
      'at the end is not',
      `${PACKET}if r6 >= r7 goto past\nexit\npast:\nif r6 > r7 goto out${NOT_REACHED}out:${END}`,
      OUT_OF_STACK,
    ],
    [
      'a load there',
      `${PACKET}if r6 > r7 goto past\nexit\npast:\nr0 = *(u8 *)(r6 -1)\nexit`,
      'EINVAL R6 offset is outside of the packet',
    ],
  ],
  calls: [
    ['two rounds of a callback', rounds(42, 42, 7), OUT_OF_STACK],
    ['three would be needed', rounds(42, 42, 42), 'accepted'],
    [
      'the length of a copied string',
      `call 7\nr6 = r0${lookup(1)}\nr7 = r0\nr1 = r10\nr1 += -40\nr2 = 32\nr3 = r6\ncall 115\nif r0 s< 0 goto out\nr7 += r0\nr0 = *(u8 *)(r7 +0)\nout:${END}`,
      'accepted',
    ],
    [
      'the same of fewer bytes than there are',
      `call 7\nr6 = r0${lookup(1)}\nr7 = r0\nr1 = r10\nr1 += -64\nr2 = 60\nr3 = r6\ncall 115\nif r0 s< 0 goto out\nr7 += r0\nr0 = *(u8 *)(r7 +0)\nout:${END}`,
      'EACCES invalid access to map value, value_size=48 off=60 size=1; R7 max value is outside of the allowed memory range',
    ],
    [
      'a number of the linker',
      `call 2001${END}`,
      'EINVAL invalid func unknown#2001',
      { kind: 'fsession' },
    ],
    [
      'arguments of bpf_snprintf',
      `r1 = r10\nr1 += -16\nr2 = 8\nr3 = map[fd:6][0]+0\nr4 = r10\nr4 += -24\nr5 = 8\ncall 165${END}`,
      'accepted',
    ],
    [
      'half an argument',
      `r1 = r10\nr1 += -16\nr2 = 8\nr3 = map[fd:6][0]+0\nr4 = r10\nr4 += -24\nr5 = 4\ncall 165${END}`,
      'EINVAL Invalid format string',
    ],
    ['a timer of its map', `${TIMER}\nr2 = map[fd:8]\ncall 169${END}`, 'accepted'],
    [
      'a timer of another',
      `${TIMER}\nr2 = map[fd:2]\ncall 169${END}`,
      "EINVAL timer pointer in R1 map 'hash' map_uid=0 doesn't match map pointer in R2 map 'hash' map_uid=0",
    ],
    ['the current task', `call 158\nr0 = *(u32 *)(r0 +8)\nexit`, 'accepted', { kernelBtf: TYPES }],
  ],
  maps: [
    ['queue of a socket', `${XSKMAP}\nr0 = *(u32 *)(r0 +0)\nexit`, 'accepted'],
    [
      'more of it',
      `${XSKMAP}\nr0 = *(u64 *)(r0 +0)\nexit`,
      'EACCES R0 invalid xdp_sock access off=0 size=8',
    ],
    [
      'a store to it',
      `${XSKMAP}\n*(u32 *)(r0 +0) = 1${END}`,
      'EACCES R0 cannot write into xdp_sock',
    ],
    [
      'arithmetic on it',
      `${XSKMAP}\nr0 += 4${END}`,
      'EACCES R0 pointer arithmetic on xdp_sock prohibited',
    ],
    [
      'a member of struct bpf_map',
      'r1 = map[fd:1]\nr0 = *(u32 *)(r1 +36)\nexit',
      'accepted',
      { kernelBtf: TYPES },
    ],
    [
      'a place that is none',
      'r1 = map[fd:1]\nr0 = *(u32 *)(r1 +64)\nexit',
      'EACCES access beyond struct bpf_map at off 64 size 4',
      { kernelBtf: TYPES },
    ],
    [
      'a store to a map',
      `r1 = map[fd:1]\n*(u32 *)(r1 +36) = 1${END}`,
      'EACCES only read from bpf_map is supported',
      { kernelBtf: TYPES },
    ],
    [
      'behind a global variable',
      `r1 = map[fd:6][0]+16${END}`,
      'EINVAL invalid access to map value pointer, value_size=16 off=16',
    ],
  ],
  'global functions': [
    [
      'memory that cannot be NULL',
      'r1 = r10\nr1 += -8\n*(u64 *)(r10 -8) = 0\ncall f\nexit\nf:\nr0 = *(u32 *)(r1 +0)\nexit',
      'accepted',
      { globals: { 1: [{ kind: 'memory', size: 8, nonNull: true }] } },
    ],
    [
      'NULL for it',
      'r1 = 0\ncall f\nexit\nf:\nr0 = *(u32 *)(r1 +0)\nexit',
      "EINVAL arg#0 is expected to be non-NULL; Caller passes invalid args into func#1 ('test_sub_1')",
      { globals: { 1: [{ kind: 'memory', size: 8, nonNull: true }] } },
    ],
    [
      'a dynptr',
      `r1 = map[fd:4]\nr2 = 16\nr3 = 0\nr4 = r10\nr4 += -16\ncall 198\nr1 = r10\nr1 += -16\ncall f\nr1 = r10\nr1 += -16\nr2 = 0\ncall 200${END}\nf:\nr3 = r1\nr1 = r10\nr1 += -8\nr2 = 8\nr4 = 0\nr5 = 0\ncall 201\nexit`,
      'accepted',
      { globals: { 1: [{ kind: 'dynptr' }] } },
    ],
    [
      'which is not given back there',
      `r1 = map[fd:4]\nr2 = 16\nr3 = 0\nr4 = r10\nr4 += -16\ncall 198\nr1 = r10\nr1 += -16\ncall f${END}\nf:\nr2 = 0\ncall 200\nr0 = 0\nexit`,
      'EINVAL Unreleased reference id=2 alloc_insn=6; BPF_EXIT instruction in main prog would lead to reference leak',
      { globals: { 1: [{ kind: 'dynptr' }] } },
    ],
    [
      'no dynptr',
      `r1 = r10\nr1 += -16\ncall f${END}\nf:\nr0 = 0\nexit`,
      "EINVAL Expected an initialized dynptr as arg #0; Caller passes invalid args into func#1 ('test_sub_1')",
      { globals: { 1: [{ kind: 'dynptr' }] } },
    ],
    [
      'a task',
      `call 158\nr1 = r0\ncall f\nexit\nf:\nr0 = *(u32 *)(r1 +8)\nexit`,
      'accepted',
      {
        kernelBtf: TYPES,
        globals: { 1: [{ kind: 'trusted', struct: 'task_struct', nonNull: true }] },
      },
    ],
    [
      'a number for it',
      `r1 = 5\ncall f\nexit\nf:\nr0 = *(u32 *)(r1 +8)\nexit`,
      "EACCES R1 type=scalar expected=ptr_, trusted_ptr_, rcu_ptr_ of struct task_struct; Caller passes invalid args into func#1 ('test_sub_1')",
      {
        kernelBtf: TYPES,
        globals: { 1: [{ kind: 'trusted', struct: 'task_struct', nonNull: true }] },
      },
    ],
    [
      'another program type its context',
      `call f\nexit\nf:\nr0 = 0\nexit`,
      "EINVAL R1 type=ctx expected=fp; Caller passes invalid args into func#1 ('test_sub_1')",
      { globals: { 1: [{ kind: 'memory', size: 192, nonNull: false }] } },
    ],
  ],
};

describe.each(Object.entries(TABLE))('accepted or not: %s', (_, rows) => {
  it.each(rows.map((row) => [row[0], row] as const))(
    '%s',
    (_what, [, program, expected, options]) => {
      const seen = verdict(program, options ?? {});
      expect(seen).toBe(expected);
    },
  );
});

describe('ranges that both go over their edge', () => {
  it.each([
    ['meet among the positive', { umin: 3n, umax: 2n ** 63n + 2n, smin: -5n, smax: 4n }, [3n, 4n]],
    [
      'meet among the negative',
      { umin: 2n ** 63n - 3n, umax: 2n ** 64n - 6n, smin: -9n, smax: 4n },
      [2n ** 64n - 9n, 2n ** 64n - 6n],
    ],
  ] as const)('%s', (_, bounds, [umin, umax]) => {
    const { umin: low, umax: high } = fromBounds({ ...UNKNOWN, ...bounds });
    expect([low, high]).toEqual([umin, umax]);
  });
});

describe('arguments of global functions, by type and tag', () => {
  const INT: BtfType = {
    kind: 'int',
    name: 'int',
    size: 4,
    bits: 32,
    signed: true,
    char: false,
    bool: false,
  };
  const struct = (name: string): BtfType => ({ kind: 'struct', name, size: 24, members: [] });
  const argument = (target: BtfType, tags: readonly string[], kind: SectionKind) => {
    const types: BtfType[] = [
      { kind: 'void' },
      target,
      { kind: 'ptr', type: target.kind === 'void' ? 0 : 1 },
      INT,
      { kind: 'func_proto', returnType: 3, parameters: [{ name: 'p', type: 2 }] },
      { kind: 'func', name: 'f', type: 4, linkage: 'global' },
      ...tags.map((name): BtfType => ({ kind: 'decl_tag', name, type: 5, componentIndex: 0 })),
    ];
    return globalArguments(new Btf(types, () => ''), 5, kind)?.[0];
  };
  it.each([
    ['its own context', struct('xdp_md'), [], 'xdp', { kind: 'ctx' }],
    [
      'that of others',
      struct('__sk_buff'),
      [],
      'xdp',
      { kind: 'memory', size: 24, nonNull: false },
    ],
    ['a void context', { kind: 'void' }, ['arg:ctx'], 'xdp', { kind: 'ctx' }],
    [
      'a wrong context',
      struct('__sk_buff'),
      ['arg:ctx'],
      'xdp',
      { kind: 'refused', why: 'arg#0 should be struct xdp_md *' },
    ],
    [
      'void',
      { kind: 'void' },
      [],
      'xdp',
      { kind: 'refused', why: "arg#0 reference type('void') size cannot be determined" },
    ],
    ['not NULL', INT, ['arg:nonnull'], 'tc', { kind: 'memory', size: 4, nonNull: true }],
    ['a dynptr', struct('bpf_dynptr'), [], 'xdp', { kind: 'dynptr' }],
    [
      'a task or NULL',
      struct('task_struct'),
      ['arg:trusted', 'arg:nullable'],
      'fentry',
      { kind: 'trusted', struct: 'task_struct', nonNull: false },
    ],
  ] as const)('%s', (_, target, tags, kind, expected) => {
    expect(argument(target, tags, kind)).toEqual(expected);
  });
});
