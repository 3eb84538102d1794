/**
 * Programs with the errno that BPF_PROG_LOAD of a booted Linux 6.12.117 or, where they differ, 6.18.44
 * (x86-64) gave for them: 0 where it loads. Each row is the smallest form of something random programs found.
 */
import { describe, expect, it } from 'vitest';
import type { ErrnoName } from '../../../src/common/errno.js';
import { verdict } from './program-text.js';

type Row = readonly [what: string, program: string, errno: ErrnoName | 0];

/** R6 = any number; R0 = a value of 48 bytes, or the program ends. */
const VALUE = `
  call 7
  r6 = r0
  *(u32 *)(r10 -4) = 0
  r2 = r10
  r2 += -4
  r1 = map[fd:1]
  call 1
  if r0 != 0 goto found
  exit
found:`;
const READ = '\nr0 += r6\nr1 = *(u64 *)(r0 +0)\nend:\nr0 = 0\nexit';

/** Looks up index `key` in an array of one and reads the value unchecked. */
const index = (store: string, key = -4): string =>
  `${store}\nr2 = r10\nr2 += ${key}\nr1 = map[fd:1]\ncall 1\nr1 = *(u64 *)(r0 +0)\nr0 = 0\nexit`;

/** R6 = 8 bytes of a packet. */
const packet = (call: string): string =>
  `r6 = *(u32 *)(r1 +0)\nr2 = *(u32 *)(r1 +4)\nr3 = r6\nr3 += 8\nif r3 > r2 goto e\n${call}\ne:\nr0 = 0\nexit`;

const TABLE: Readonly<Record<string, readonly Row[]>> = {
  'constant index of an array (6.18)': [
    ['in range', index('*(u32 *)(r10 -4) = 0'), 0],
    ['in range, behind another variable', index('*(u32 *)(r10 -4) = 0\n*(u32 *)(r10 -8) = 7'), 0],
    ['overwritten', index('*(u32 *)(r10 -4) = 0\n*(u64 *)(r10 -8) = 7'), 'EACCES'],
    ['out of range', index('*(u32 *)(r10 -8) = 1', -8), 'EACCES'],
    ['of another size', index('*(u64 *)(r10 -8) = 0', -8), 'EACCES'],
    ['not known', index('call 7\n*(u32 *)(r10 -8) = r0', -8), 'EACCES'],
    ['a byte is not zero', index('*(u32 *)(r10 -4) = 0\n*(u8 *)(r10 -2) = 1'), 'EACCES'],
  ],
  'packets given to helpers': [
    ['one that may read them', packet('r1 = map[fd:2]\nr2 = r6\ncall 1'), 0],
    ['one that may not', packet('r1 = map[fd:4]\nr2 = r6\nr3 = 8\nr4 = 0\ncall 130'), 'EACCES'],
    ['one that would write', packet('r2 = 0\nr3 = r6\nr4 = 8\ncall 189'), 'EACCES'],
  ],
  'numbers as 6.18 follows them': [
    ['byte swap', `${VALUE}\nr6 = be16 r6\nr6 &= 40${READ}`, 0],
    ['byte swap of few bits', `${VALUE}\nr6 &= 7\nr6 = be16 r6\nr6 >>= 8${READ}`, 0],
    ['byte swap of the wrong bits', `${VALUE}\nr6 &= 7\nr6 = be16 r6\nr6 >>= 4${READ}`, 'EACCES'],
    ['0 or -1 picks one of two', `${VALUE}\nr6 s>>= 63\nr6 &= 40\nr6 ^= 40${READ}`, 0],
    ['one of which is too far', `${VALUE}\nr6 s>>= 63\nr6 &= 41\nr6 ^= 41${READ}`, 'EACCES'],
    [
      'sign extension that changes nothing keeps the number',
      `${VALUE}\nr6 &= 63\nr7 = (s8)r6\nif r7 > 40 goto end${READ}`,
      0,
    ],
    [
      'tested bits are clear, the range is forgotten',
      `${VALUE}\nif r6 > 40 goto end\nif r6 & 1 goto end${READ}`,
      'EACCES',
    ],
    ['differences that all wrap', `${VALUE}\nr6 &= 7\nw6 -= 8\nw6 += 8${READ}`, 0],
    [
      'rounds that differ in nothing',
      'r1 = 1\nloop:\ncall 7\nif r0 == 0 goto end\ncall 7\nif r0 == 1 goto end\ngoto loop\nend:\nr0 = 0\nexit',
      'EINVAL',
    ],
    ['constants into the frame pointer', 'r10 += 2147483647\nr0 = 0\nexit', 'EACCES'],
  ],
  'what no path reaches may be malformed': [
    ['shift', 'r0 = 1\nif r0 == 1 goto e\nr0 <<= 64\ne:\nexit', 0],
    ['shift of an unset register', 'w8 <<= 40\nr0 = 2\nexit', 'EACCES'],
    ['division of an unset register', 'r4 /= 0\nr0 = 0\nexit', 'EACCES'],
    ['division', 'r4 = 1\nr4 /= 0\nr0 = 0\nexit', 'EINVAL'],
  ],
  'stack borders': [
    ['begins above the frame', '*(u64 *)(r10 +0) = 1\nr0 = 0\nexit', 'EACCES'],
    [
      'begins in it, ends above',
      'r1 = map[fd:2]\nr2 = r10\nr2 += -4\ncall 1\nr0 = 0\nexit',
      'EINVAL',
    ],
    ['begins below', '*(u64 *)(r10 -520) = 1\nr0 = 0\nexit', 'EACCES'],
    [
      'no bytes above the frame',
      'r1 = 0\nr2 = 0\nr3 = r10\nr4 = 0\nr5 = 0\ncall 28\nexit',
      'EACCES',
    ],
  ],
  'ranges that are not followed': [
    ['32-bit remainder', `${VALUE}\nw6 %= 40\nr0 -= r6\nr0 = 0\nexit`, 'EINVAL'],
    [
      'shift by a bounded amount',
      `${VALUE}\nr7 = r6\nr7 &= 1\nr6 &= 3\nr6 <<= r7${READ}`,
      'EINVAL',
    ],
    [
      'sign extension of both signs',
      `${VALUE}\nr6 = (s16)r6\nif w6 s> 8 goto end\nr6 = (s32)r6${READ}`,
      'EINVAL',
    ],
  ],
  'ranges that are followed': [
    [
      'lower half through 64-bit arithmetic',
      `${VALUE}\nif w6 s> 40 goto end\nif w6 s< 8 goto end\nr6 -= 8\nw6 = w6${READ}`,
      0,
    ],
    ['32-bit comparison', `${VALUE}\nif w6 > 40 goto end\nw6 = w6${READ}`, 0],
    [
      'sign extension by shifts',
      `${VALUE}\nr6 <<= 32\nr6 s>>= 32\nif r6 s> 40 goto end\nif r6 s< 0 goto end${READ}`,
      0,
    ],
    ['one byte too far', `${VALUE}\nif w6 > 41 goto end\nw6 = w6${READ}`, 'EACCES'],
  ],
  'null checks': [
    [
      'the context compared with zero in a register',
      'r2 = 0\nif r2 == r1 goto e\nr0 = 1\ne:\nexit',
      'EACCES',
    ],
    [
      'a reservation that can never be had',
      'r1 = map[fd:4]\nr2 = -520\nr3 = 0\ncall 131\nif r0 == 0 goto e\nr1 = r0\nr2 = 0\ncall 132\ne:\nr0 = 0\nexit',
      0,
    ],
  ],
  calls: [
    ['arguments before the kind of map', 'r2 = map[fd:1]\ncall 12\nr0 = 2\nexit', 'EACCES'],
    ['a key of no bytes', 'r1 = map[fd:4]\nr2 = r10\nr2 += -4\ncall 1\nr0 = 0\nexit', 'EACCES'],
    [
      'arguments that a variadic helper does not check',
      '*(u64 *)(r10 -8) = 0\nr1 = r10\nr1 += -8\nr2 = 8\ncall 6\nr0 = 0\nexit',
      0,
    ],
  ],
};

describe.each(Object.entries(TABLE))('%s', (_, rows) => {
  it.each(rows.map((row) => [row[0], row] as const))('%s', (_what, [, program, errno]) => {
    const given = verdict(program);
    expect(given, given).toMatch(errno === 0 ? /^accepted$/ : new RegExp(`^${errno} `));
  });
});
