import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { OP } from '../../src/cpu/embedded/operations.js';

test('the literal cases of the hot switch are the operations their comments name', () => {
  const source = readFileSync(new URL('../../src/cpu/embedded/hot.ts', import.meta.url), 'utf8');
  const cases = [...source.matchAll(/case (\d+):(?: \{)?\s*\/\/ (\w+)/g)].map(
    ([, number, name]) => [name, Number(number)] as const,
  );
  expect(cases.length).toBe(source.match(/^ +case /gm)?.length);
  expect(Object.fromEntries(cases)).toEqual(
    Object.fromEntries(Object.entries(OP).filter(([, number]) => number < 64)),
  );
});
