/**
 * File helpers for Node: the only place beside `cli/` and `cpu/unicorn/` that knows a file system.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { AsmSources } from '../kernel/kernel.js';

/** The folder of the package: two levels above this file, in `src` and in `dist` alike. */
export const PACKAGE_ROOT = join(dirname(fileURLToPath(import.meta.url)), '..', '..');

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
