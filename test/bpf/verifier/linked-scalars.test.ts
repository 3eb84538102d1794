/** Scalars a constant apart: which comparison of one narrows the other, as a 6.18 has it. */
import { expect, it } from 'vitest';
import { verdict } from './program-text.js';

/** R6 = 48 bytes of a map value, R7 = any number; then what is tested; then a byte at R6 + R`index`. */
const program = (body: string, index: number): string => `
  *(u32 *)(r10 -4) = 0
  r2 = r10
  r2 += -4
  r1 = map[fd:1]
  call 1
  if r0 == 0 goto out
  r6 = r0
  call 5
  r7 = r0
  ${body}
  r6 += r${index}
  r0 = *(u8 *)(r6 +0)
out:
  r0 = 0
  exit`;

const ABOVE =
  'EACCES invalid access to map value, value_size=48 off=48 size=1; R6 max value is outside of the allowed memory range';
const UNBOUNDED = 'EACCES R6 unbounded memory access, make sure to bounds check any such access';
const BELOW =
  'EACCES R6 min value is negative, either use unsigned index or do a if (index >=0) check';
const UNKNOWN =
  'EINVAL math between map_value pointer and register with unbounded min value is not allowed';
/** R1 is below `n`, unsigned. */
const below = (register: string, n: number): string => `if ${register} >= ${n} goto out`;

type Row = readonly [what: string, body: string, index: number, verdict: string];

const ROWS: readonly Row[] = [
  ['the copy is narrowed', `r2 = r7\nr2 += 8\n${below('r7', 40)}`, 2, 'accepted'],
  ['no further than that', `r2 = r7\nr2 += 8\n${below('r7', 41)}`, 2, ABOVE],
  [
    'the origin is narrowed',
    `r2 = r7\nr2 += 8\n${below('r2', 48)}\nif r2 s< 8 goto out`,
    7,
    'accepted',
  ],
  ['which may be below 0', `r2 = r7\nr2 += 8\n${below('r2', 48)}`, 7, BELOW],
  ['subtraction', `r2 = r7\nr2 -= -8\n${below('r7', 40)}`, 2, 'accepted'],
  ['a negative constant', `r2 = r7\nr2 += -8\n${below('r2', 40)}`, 7, 'accepted'],
  ['a constant in a register', `r3 = 8\nr2 = r7\nr2 += r3\n${below('r7', 40)}`, 2, 'accepted'],
  ['the origin is what is added to', `r2 = r7\nr7 += 8\n${below('r2', 40)}`, 7, 'accepted'],
  [
    'two sums of one origin',
    `r2 = r7\nr2 += 8\nr3 = r7\nr3 += 16\n${below('r3', 48)}\nif r3 s< 16 goto out`,
    2,
    'accepted',
  ],
  ['more than once is not followed', `r2 = r7\nr2 += 4\nr2 += 4\n${below('r7', 40)}`, 2, UNKNOWN],
  [
    'a copy of a sum is the origin of the next',
    `r2 = r7\nr2 += 4\nr3 = r2\nr2 += 4\n${below('r3', 40)}`,
    2,
    'accepted',
  ],
  [
    'and no longer tied to the first',
    `r2 = r7\nr2 += 4\nr3 = r2\nr2 += 4\n${below('r7', 40)}`,
    2,
    UNKNOWN,
  ],
  [
    'spilled, it is an origin, too',
    `r2 = r7\nr2 += 8\n*(u64 *)(r10 -16) = r2\n${below('r7', 40)}`,
    2,
    UNKNOWN,
  ],
  [
    'an origin that is spilled',
    `*(u64 *)(r10 -16) = r7\nr2 = *(u64 *)(r10 -16)\nr2 += 8\n${below('r7', 40)}`,
    2,
    'accepted',
  ],
  ['32 bits of 64', `r2 = r7\nw2 += 8\n${below('r7', 40)}`, 2, UNBOUNDED],
  ['32 bits of 32', `w7 = w7\nw2 = w7\nw2 += 8\n${below('r7', 40)}`, 2, 'accepted'],
  ['which wrap', `w7 = w7\nw2 = w7\nw2 += 8\n${below('r2', 40)}`, 7, UNBOUNDED],
  ['32 bits are compared', `w7 = w7\nr2 = r7\nr2 += 8\n${below('w7', 40)}`, 2, 'accepted'],
  [
    'both are compared',
    `r2 = r7\nr2 += 8\nr3 = r7\nr3 += 16\nif r2 > r3 goto out\n${below('r3', 48)}`,
    2,
    BELOW,
  ],
];

it.each(ROWS)('%s', (_, body, index, expected) => {
  expect(verdict(program(body, index))).toBe(expected);
});

it('a state with a link covers none without', () => {
  // the second way to `use` has the same ranges, and no link
  const body = `
  r2 = r7
  call 5
  if r0 == 0 goto other
  r2 = r7
  r2 += 8
  goto use
other:
  call 5
  r2 = r0
  r2 += 8
use:
  if r7 >= 40 goto out`.replace('r2 = r7\n', '');
  expect(verdict(program(body, 2))).toBe(UNKNOWN);
});
