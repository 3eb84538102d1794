/**
 * File helpers for Node: the only place beside `cli/` and `cpu/unicorn/` that knows a file system.
 */
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { InputError } from '../common/errors.js';
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

/** The assembly texts of one kernel version (`asm/6.12/`), in name order. */
export function readAsm(version: string): AsmSources {
  const folder = join(PACKAGE_ROOT, 'asm', version);
  const files = readdirSync(folder).filter((name) => name.endsWith('.s'));
  return Object.fromEntries(
    files
      .sort()
      .map((name) => [`asm/${version}/${name}`, readFileSync(join(folder, name), 'utf8')]),
  );
}

/** Bytes of a file, or of standard input for `-`. Throws InputError saying what is wrong with it. */
export function readInput(path: string): Uint8Array {
  try {
    return new Uint8Array(readFileSync(path === '-' ? 0 : path));
  } catch (error) {
    throw new InputError(`${path}: ${reasonOf(error)}`);
  }
}

/** Writes a file, or standard output for `-`. */
export function writeOutput(path: string, bytes: Uint8Array): void {
  try {
    writeFileSync(path === '-' ? 1 : path, bytes);
  } catch (error) {
    throw new InputError(`${path}: ${reasonOf(error)}`);
  }
}

function reasonOf(error: unknown): string {
  const code = (error as NodeJS.ErrnoException).code;
  switch (code) {
    case 'ENOENT':
      return 'no such file';
    case 'EISDIR':
      return 'is a directory';
    case 'EACCES':
      return 'permission denied';
    default:
      return error instanceof Error ? error.message : String(error);
  }
}
