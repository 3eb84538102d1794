/**
 * File helpers for Node: the only place beside `cli/` and `cpu/unicorn/` that knows a file system.
 */
import {
  appendFileSync,
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { InputError } from '../common/errors.js';
import { FTRACE_PROFILES, KERNEL_OF_FTRACE, type FtraceVersion } from '../kernel/ftrace/profile.js';
import type { AsmSources } from '../kernel/kernel.js';

/** The folder of the package: the nearest above this file with a package.json, built or not. */
export const PACKAGE_ROOT = packageRoot(dirname(fileURLToPath(import.meta.url)));

function packageRoot(from: string): string {
  let folder = from;
  while (!existsSync(join(folder, 'package.json'))) {
    const parent = dirname(folder);
    if (parent === folder) throw new InputError(`no package.json above ${from}`);
    folder = parent;
  }
  return folder;
}

/** The texts of a kernel: entry code of its ftrace, and the functions of the tracing test runs. Default 6.12. */
export function kernelAsm(version: FtraceVersion = '6.12'): AsmSources {
  const folders = [...FTRACE_PROFILES[version].asm, `test-run/${KERNEL_OF_FTRACE[version]}`];
  return folders.map(readAsm).reduce((texts, each) => ({ ...texts, ...each }));
}

/** The assembly texts of one folder (`asm/6.12/`), in name order. */
export function readAsm(name: string): AsmSources {
  const folder = join(PACKAGE_ROOT, 'asm', name);
  const files = readdirSync(folder).filter((file) => file.endsWith('.s'));
  return Object.fromEntries(
    files.sort().map((file) => [`asm/${name}/${file}`, readFileSync(join(folder, file), 'utf8')]),
  );
}

/** Bytes of a file, or of standard input for `-`. Throws InputError saying what is wrong with it. */
export function readInput(path: string): Uint8Array {
  return attempt(path, () => new Uint8Array(readFileSync(path === '-' ? 0 : path)));
}

/** What `parse` makes of the bytes of a file. Throws InputError that names the file. */
export function parseInput<T>(path: string, parse: (bytes: Uint8Array) => T): T {
  const bytes = readInput(path);
  return naming(path, () => parse(bytes));
}

/** What the action gives; what it says of its input names the file. */
export function naming<T>(path: string, action: () => T): T {
  try {
    return action();
  } catch (error) {
    if (!(error instanceof InputError)) throw error;
    const name = path === '-' ? 'standard input' : path;
    throw error.message.startsWith(name) ? error : new InputError(`${name}: ${error.message}`);
  }
}

const CHUNK_BYTES = 1 << 20;

/** The bytes of a file, or of standard input for `-`, a megabyte at a time. */
export function* readChunks(path: string): Generator<Uint8Array> {
  const file = path === '-' ? 0 : attempt(path, () => openSync(path, 'r'));
  try {
    for (;;) {
      const chunk = new Uint8Array(CHUNK_BYTES);
      const size = attempt(path, () => readSome(file, chunk));
      if (size === 0) return;
      yield chunk.subarray(0, size);
    }
  } finally {
    if (file !== 0) closeSync(file);
  }
}

/** A pipe that has nothing yet says EAGAIN. */
function readSome(file: number, chunk: Uint8Array): number {
  for (;;) {
    try {
      return readSync(file, chunk);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') throw error;
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 5);
    }
  }
}

/** What the action gives; its failure as InputError that names the file. */
export function attempt<T>(path: string, action: () => T): T {
  try {
    return action();
  } catch (error) {
    throw new InputError(`${path}: ${reasonOf(error)}`);
  }
}

/** Makes a folder unless it is there. */
export function makeFolder(path: string): void {
  attempt(path, () => mkdirSync(path, { recursive: true }));
}

/** Writes behind what a file has. */
export function appendOutput(path: string, bytes: Uint8Array): void {
  attempt(path, () => appendFileSync(path, bytes));
}

/** Writes a file, or standard output for `-`. */
export function writeOutput(path: string, bytes: Uint8Array): void {
  attempt(path, () => writeFileSync(path === '-' ? 1 : path, bytes));
}

function reasonOf(error: unknown): string {
  const code = (error as NodeJS.ErrnoException).code;
  switch (code) {
    case 'ENOENT':
      return 'no such file';
    case 'EISDIR':
      return 'is a directory';
    case 'EEXIST':
    case 'ENOTDIR':
      return 'not a directory';
    case 'EACCES':
      return 'permission denied';
    default:
      return error instanceof Error ? error.message : String(error);
  }
}
