/** A user's own strategy: the file, the row, the plans under the explorer. */
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { runForTest } from '../../helpers/cli.js';
import { readOwn } from '../../../src/cli/strategies-own.js';
import { parseOwnStrategy } from '../../../src/lab/strategies/own-file.js';
import { ownStrategy } from '../../../src/lab/strategies/own.js';
import { ALONE, type Situation } from '../../../src/lab/strategies/situation.js';
import { strategyLab } from './helpers.js';

const EXAMPLES = 'examples/strategies';
const lab = await strategyLab();

async function outcome(name: string, situation: Partial<Situation>) {
  const { own, texts, assembler } = await readOwn(`${EXAMPLES}/${name}.json`);
  return lab.outcome(ownStrategy(own, texts, assembler), { ...ALONE, ...situation });
}

describe('a file that cannot be used', () => {
  const good = JSON.parse(readFileSync(`${EXAMPLES}/literal-jump.json`, 'utf8')) as object;
  it.each([
    ['no JSON', '{', /^f: .*JSON/],
    ['no object', '[]', /^f is no object$/],
    ['no name', { name: undefined }, /^f: name is missing$/],
    ['a strange name', { name: 'A b' }, /^f: name is a word of small letters/],
    ['an unknown member', { fast: true }, /^f: fast is unknown \(known: name, /],
    ['too many NOPs', { site: { before: 99, after: 2 } }, /before is no whole number from 0 to 32/],
    ['no detach', { detach: undefined }, /^f: detach is missing$/],
    ['a step without a place', { near: [{ word: 'nop' }] }, /^f: near\[0\]: at is missing$/],
    ['a step of nothing', { near: [{ at: 'F' }] }, /near\[0\]: word is missing$/],
    ['an unknown wait', { near: [{ wait: 'long' }] }, /wait is none of rcu, tasks/],
  ])('%s', (_what, change, message) => {
    const json = typeof change === 'string' ? change : JSON.stringify({ ...good, ...change });
    expect(() => parseOwnStrategy('f', json)).toThrow(message);
  });
});

describe('a row of the comparison', () => {
  it.each([
    ['literal-jump', {}, 0],
    ['literal-jump', { far: true }, 2],
    ['hasty-veneer', { far: true }, 2],
    ['few-arguments', { args: 2 }, 39],
  ] as const)('%s %o: %i instructions of glue', async (name, situation, glue) => {
    const found = await outcome(name, situation);
    if (found.kind !== 'attached') throw new Error(found.message);
    expect(found.parts.get('glue')?.instructions ?? 0).toBe(glue);
  });
  it('what ftrace does not know cannot be shared with its ops', async () => {
    expect(await outcome('literal-jump', { others: 1 })).toMatchObject({ errno: 'EINVAL' });
  });
  it('arguments that do not arrive are noticed', async () => {
    expect(await outcome('few-arguments', { args: 3 })).toEqual({
      kind: 'wrong',
      message: 'a program got another argument 2',
    });
  });
});

describe('its plans while others execute', () => {
  it('a literal and a jump that is there hold', async () => {
    const { code, lines } = await runForTest(['race', '--own', `${EXAMPLES}/literal-jump.json`]);
    expect(code).toBe(0);
    expect(lines.map((line) => line.split(':').slice(0, 3).join(':'))).toEqual(
      ['near', 'far'].flatMap((distance) =>
        ['attach', 'exchange', 'detach'].map(
          (operation) => `literal-jump, ${distance}: ${operation}: holds`,
        ),
      ),
    );
  });
  it('a call of a veneer that is not there yet does not', async () => {
    const { code, lines } = await runForTest(['race', '--own', `${EXAMPLES}/hasty-veneer.json`]);
    expect(code).toBe(1);
    expect(lines.some((line) => line.startsWith('hasty-veneer, far: attach: violation'))).toBe(
      true,
    );
    expect(lines.some((line) => line.startsWith('hasty-veneer, near: attach: holds'))).toBe(true);
  });
});
