/**
 * Runs the examples of README.md and docs/: every ```console block holds commands behind `$ ` and what
 * they print. A line `...` stands for any lines, `...` inside a line for any text. With ACCEPT=1 the
 * blocks without `...` are rewritten to what the commands print now. Every ```ts block is a program; what
 * it logs must be what the comment behind the call says.
 */
import { mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { inspect } from 'node:util';
import { describe, expect, it, vi } from 'vitest';
import { PACKAGE_ROOT } from '../src/node/files.js';
import { runForTest } from './helpers/cli.js';
import { lineMatches, linesMatch } from './helpers/wildcards.js';

interface Example {
  readonly file: string;
  /** 1-based line of the `$`. */
  readonly line: number;
  readonly command: string;
  readonly expected: readonly string[];
}

const FILES = [
  'README.md',
  ...readdirSync(join(PACKAGE_ROOT, 'docs'))
    .filter((name) => name.endsWith('.md'))
    .map((name) => join('docs', name)),
];

function examplesOf(file: string): Example[] {
  const examples: Example[] = [];
  const lines = readFileSync(join(PACKAGE_ROOT, file), 'utf8').split('\n');
  let current: { line: number; command: string; expected: string[] } | undefined;
  let inside = false;
  for (const [index, line] of lines.entries()) {
    if (!inside) {
      inside = line === '```console';
      continue;
    }
    const end = line === '```';
    if ((end || line.startsWith('$ ')) && current) {
      examples.push({ file, ...current });
      current = undefined;
    }
    if (end) inside = false;
    else if (line.startsWith('$ '))
      current = { line: index + 1, command: line.slice(2), expected: [] };
    else current?.expected.push(line);
  }
  return examples;
}

function accept(example: Example, actual: readonly string[]): void {
  const path = join(PACKAGE_ROOT, example.file);
  const lines = readFileSync(path, 'utf8').split('\n');
  const at = lines.findIndex((line) => line === `$ ${example.command}`);
  lines.splice(at + 1, example.expected.length, ...actual);
  writeFileSync(path, lines.join('\n'));
}

/** The ```ts blocks of a file. */
function programsOf(file: string): string[] {
  const text = readFileSync(join(PACKAGE_ROOT, file), 'utf8');
  return [...text.matchAll(/^```ts\n(.*?)^```$/gms)].map((match) => match[1] as string);
}

/** Runs a program; gives what it logged, as Node prints it. */
async function runProgram(source: string, name: string): Promise<string[]> {
  const folder = join(PACKAGE_ROOT, 'test', '.docs');
  const path = join(folder, `${name.replace(/\W/g, '-')}.ts`);
  mkdirSync(folder, { recursive: true });
  writeFileSync(path, source);
  const log = vi.spyOn(console, 'log').mockImplementation(() => undefined);
  try {
    await import(path);
    return log.mock.calls.map((values) => values.map((value) => inspect(value)).join(' '));
  } finally {
    log.mockRestore();
    rmSync(path);
  }
}

const WITH_EXAMPLES = FILES.filter((file) => programsOf(file).length + examplesOf(file).length > 0);

describe.each(WITH_EXAMPLES)('%s', (file) => {
  it.each(programsOf(file).map((source, index) => [index + 1, source] as const))(
    'program %i',
    async (index, source) => {
      const logged = await runProgram(source, `${file}-${index}`);
      const calls = [...source.matchAll(/console\.log\(.*?\);(?: \/\/ (.*))?$/gm)];
      expect(logged).toHaveLength(calls.length);
      for (const [i, [, expected]] of calls.entries()) {
        if (expected !== undefined) expect(logged[i]).toBe(expected);
      }
    },
  );

  it.each(examplesOf(file).map((example) => [example.command, example] as const))(
    '$ %s',
    async (_command, example) => {
      const words = example.command.split(' ');
      expect(words[0]).toBe('trampolab');
      const { lines, code } = await runForTest(words.slice(1));
      const wild = example.expected.some((line) => line.includes('...'));
      if (process.env['ACCEPT'] === '1' && !wild) {
        accept(example, lines);
        return;
      }
      expect(code, `exit code of the example at line ${example.line}`).toBe(0);
      if (!linesMatch(example.expected, lines)) expect(lines).toEqual(example.expected);
    },
  );
});

it.each<[string[], string[], boolean]>([
  [['a', '...', 'z'], ['a', 'b', 'c', 'z'], true],
  [['a', '...', 'z'], ['a', 'z'], true],
  [['a', '...', 'z'], ['a'], false],
  [['...', 'b', '...', 'b'], ['b', 'x', 'b'], true],
  [['...', 'b', '...', 'b'], ['b'], false],
  [['a', '...'], ['a', 'b', 'c'], true],
  [['a'], ['a', 'b'], false],
  [['x ... y'], ['x 1 2 y'], true],
])('%j and %j: %s', (expected, actual, isMatch) => {
  expect(linesMatch(expected, actual)).toBe(isMatch);
});

it('a run of wildcards takes no time', () => {
  expect(lineMatches(`${'...a'.repeat(200)}b`, 'a'.repeat(2000))).toBe(false);
  const lines = Array.from({ length: 200 }, () => ['...', 'a']).flat();
  expect(
    linesMatch(
      [...lines, 'b'],
      Array.from({ length: 2000 }, () => 'a'),
    ),
  ).toBe(false);
});
