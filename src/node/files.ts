/**
 * File helpers for Node: the only place beside `cli/` and `cpu/unicorn/` that knows a file system.
 */
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
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
  const testRun = readAsm(`test-run/${KERNEL_OF_FTRACE[version]}`);
  return { ...readAsm(FTRACE_PROFILES[version].asm), ...testRun };
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
