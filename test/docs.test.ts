/**
 * Runs the examples of README.md and docs/: every ```console block holds commands behind `$ ` and what
 * they print. A line `...` stands for any lines. With ACCEPT=1 the blocks without `...` are
 * rewritten to what the commands print now.
 */
import { readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { PACKAGE_ROOT } from '../src/node/files.js';
import { runForTest } from './helpers/cli.js';

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

/** Does the output match, with `...` for any run of lines? */
function matches(expected: readonly string[], actual: readonly string[]): boolean {
  const [first, ...rest] = expected;
  if (first === undefined) return actual.length === 0;
  if (first.trim() === '...') {
    for (let skip = 0; skip <= actual.length; skip++) {
      if (matches(rest, actual.slice(skip))) return true;
    }
    return false;
  }
  return actual.length > 0 && actual[0] === first && matches(rest, actual.slice(1));
}

function accept(example: Example, actual: readonly string[]): void {
  const path = join(PACKAGE_ROOT, example.file);
  const lines = readFileSync(path, 'utf8').split('\n');
  const at = lines.findIndex((line) => line === `$ ${example.command}`);
  lines.splice(at + 1, example.expected.length, ...actual);
  writeFileSync(path, lines.join('\n'));
}

describe.each(FILES)('%s', (file) => {
  it.each(examplesOf(file).map((example) => [example.command, example] as const))(
    '$ %s',
    async (_command, example) => {
      const words = example.command.split(' ');
      expect(words[0]).toBe('trampolab');
      const { lines, code } = await runForTest(words.slice(1));
      const wild = example.expected.some((line) => line.trim() === '...');
      if (process.env['ACCEPT'] === '1' && !wild) {
        accept(example, lines);
        return;
      }
      expect(code, `exit code of the example at line ${example.line}`).toBe(0);
      if (!matches(example.expected, lines)) expect(lines).toEqual(example.expected);
    },
  );
});
