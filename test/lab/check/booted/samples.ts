/** Checks files of booted kernels with one lab kernel for all of a version. */
import { existsSync, readFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import type { Kernel } from '../../../../src/kernel/kernel.js';
import { checkBooted } from '../../../../src/lab/check/booted/check-booted.js';
import { checkTrace } from '../../../../src/lab/check/booted/check-trace.js';
import type { BootedOptions } from '../../../../src/lab/check/booted/options.js';
import type { CaseResult } from '../../../../src/lab/check/kind.js';
import type { RunEngine } from '../../../../src/lab/run-program.js';
import { bootLab } from '../../../../src/node/boot.js';
import { PACKAGE_ROOT } from '../../../../src/node/files.js';

export const SAMPLES = join(PACKAGE_ROOT, 'test', 'vectors', 'kernel');

export function readJson(path: string): unknown {
  return JSON.parse(readFileSync(path, 'utf8'));
}

export class BootedFiles {
  readonly #kernels = new Map<string, Kernel>();

  /** `json` in place of the file's. */
  async check(
    path: string,
    engine: RunEngine = 'jit',
    json = readJson(path),
  ): Promise<CaseResult[]> {
    return collect(checkBooted(basename(path), json, this.#options(path, engine)));
  }

  /** Of the instructions of a call. */
  async checkTrace(path: string, text: string): Promise<CaseResult[]> {
    return collect(checkTrace(basename(path), text, this.#options(path, 'jit')));
  }

  #options(path: string, engine: RunEngine): BootedOptions {
    return {
      engine,
      boot: async (version, { far, ...setting }) => {
        const key = `${version} ${far} ${setting.bodies ? dirname(path) : ''}`;
        const known = this.#kernels.get(key);
        const layout = far ? { kaslrSeed: 1n } : {};
        const kernel = known ?? (await bootLab({ version, ...setting, ...layout }));
        this.#kernels.set(key, kernel);
        return kernel;
      },
      readSibling: (name) => {
        const sibling = join(dirname(path), name);
        return existsSync(sibling) ? (readJson(sibling) as Record<string, unknown>) : undefined;
      },
    };
  }

  close(): void {
    for (const kernel of this.#kernels.values()) kernel.close();
  }
}

async function collect(results: AsyncIterable<CaseResult>): Promise<CaseResult[]> {
  const list: CaseResult[] = [];
  for await (const result of results) list.push(result);
  return list;
}
