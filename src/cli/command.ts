/**
 * What every command of `trampolab` looks like, and the shared ways to parse and print.
 *
 * Conventions: bpftool's (text for people, `--json` for programs); exit 0 done, 1 failed or mismatch,
 * 2 usage. A command prints through `Output`, so that tests can run it in-process.
 */
import { parseArgs } from 'node:util';
import { UsageError } from '../index.js';

export interface Output {
  /** One line to stdout. */
  line(text?: string): void;
  /** One line to stderr. */
  notice(text: string): void;
  /** Bytes to stdout. */
  bytes(data: Uint8Array): void;
  readonly colour: boolean;
}

export interface Command {
  readonly name: string;
  /** One line for the overview. */
  readonly summary: string;
  /** Usage text: the synopsis line first, then what the options mean. */
  readonly usage: string;
  /** Resolves to the exit code. Errors are thrown and printed by `main`. */
  readonly run: (args: string[], output: Output) => Promise<number>;
}

type OptionKinds = Readonly<
  Record<
    string,
    { readonly type: 'string' | 'boolean'; readonly short?: string; readonly multiple?: true }
  >
>;

/** Values by option name: text for `string` options (a list with `multiple`), true for `boolean` ones. */
export interface ParsedOptions<T extends OptionKinds> {
  readonly values: {
    readonly [K in keyof T]?: T[K]['type'] extends 'boolean'
      ? boolean
      : T[K]['multiple'] extends true
        ? readonly string[]
        : string;
  };
  readonly positionals: readonly string[];
}

/** `node:util` parseArgs whose complaints are one-line usage errors. */
export function parseOptions<const T extends OptionKinds>(
  args: string[],
  options: T,
): ParsedOptions<T> {
  try {
    const { values, positionals } = parseArgs({ args, options, allowPositionals: true });
    return { values: values as ParsedOptions<T>['values'], positionals };
  } catch (error) {
    const text = error instanceof Error ? error.message : String(error);
    throw new UsageError(text.split('. ')[0] ?? text);
  }
}

/** A whole number option within bounds. */
export function integerOption(
  name: string,
  text: string | undefined,
  fallback: number,
  bounds: { readonly min: number; readonly max: number },
): number {
  if (text === undefined) return fallback;
  const value = Number(text);
  if (!Number.isSafeInteger(value) || value < bounds.min || value > bounds.max) {
    throw new UsageError(
      `--${name} takes a whole number from ${bounds.min} to ${bounds.max}, not '${text}'`,
    );
  }
  return value;
}

/** One of a few words. */
export function choiceOption<T extends string>(
  name: string,
  text: string | undefined,
  fallback: T,
  choices: readonly T[],
): T {
  if (text === undefined) return fallback;
  const found = choices.find((choice) => choice === text);
  if (found === undefined) {
    throw new UsageError(`--${name} takes ${choices.join('|')}, not '${text}'`);
  }
  return found;
}

/** The only or first positional argument. */
export function requiredArgument(positionals: readonly string[], what: string): string {
  const value = positionals[0];
  if (value === undefined) throw new UsageError(`${what} is missing`);
  return value;
}

/** Columns padded to their widest cell; the first row is the heading, numbers align right. */
export function table(rows: readonly (readonly string[])[]): string[] {
  const widths: number[] = [];
  for (const row of rows) {
    row.forEach((cell, i) => (widths[i] = Math.max(widths[i] ?? 0, cell.length)));
  }
  return rows.map((row) =>
    row
      .map((cell, i) => {
        const width = widths[i] ?? 0;
        return /^[\d.,x+-]+%?$/.test(cell) ? cell.padStart(width) : cell.padEnd(width);
      })
      .join('  ')
      .trimEnd(),
  );
}
