/** `trampolab check`: vector files of any kind against this lab. */
import { basename, dirname, join } from 'node:path';
import { brotliDecompressSync, inflateSync } from 'node:zlib';
import {
  InputError,
  InterpreterRunner,
  JitRunner,
  KernelWorkbench,
  RUN_KINDS,
  TrampolineRunner,
  WasmRunner,
  checkFile,
  checkKernelText,
  checkSavedCase,
  checkSavedTrampoline,
  describeCase,
  interpreterObjects,
  isKernelText,
  interpreterEngine,
  isSavedCase,
  isSavedTrampoline,
  jitEngine,
  jitKind,
  rejectKind,
  summarize,
  wasmEngine,
  type CaseResult,
  type FuzzEngine,
  type Kernel,
  type ProgramRunner,
  type VectorKind,
  wasmObjects,
} from '../index.js';
import { UsageError } from '../index.js';
import { bootLab, readInput } from '../node/index.js';
import { choiceOption, parseOptions, type Command, type Output } from './command.js';
import { cpuEngine, ENGINES, type EngineName } from './engine.js';

const USAGE = `check FILE... [--engine E] [--verbose]
  FILE         vectors as JSON or JSON lines, recognised by their fields:
               run vectors (conformance, ubpf, test_bpf, bench-programs), XDP programs with a
               kernel's results (objects and packets beside the file), JIT images and
               trampolines, code of a booted kernel (static.json)
  --engine E   for run vectors: interpreter (default), wasm, embedded or unicorn
  --verbose    a line for each case, not only for those that fail or are skipped
  --json, -j   as JSON`;

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined; // JSON lines, or nothing at all: checkFile finds out and says where
  }
}

class Checker {
  #kernel: Kernel | undefined;
  #fuzz: FuzzEngine | undefined;
  readonly #runners = new Map<string, TrampolineRunner>();
  readonly #engine: EngineName;

  constructor(engine: EngineName) {
    this.#engine = engine;
  }

  async *check(path: string): AsyncGenerator<CaseResult> {
    const text = new TextDecoder().decode(readInput(path));
    const json = parseJson(text);
    if (isKernelText(json)) {
      yield* checkKernelText(await this.#boot(), json);
      return;
    }
    const options = {
      runner: await this.#runner(),
      decompressor: {
        deflate: (bytes: Uint8Array) => new Uint8Array(inflateSync(bytes)),
        brotli: (bytes: Uint8Array) => new Uint8Array(brotliDecompressSync(bytes)),
      },
      ...(this.#engine === 'interpreter' ? { objectEngine: interpreterObjects } : {}),
      ...(this.#engine === 'wasm' ? { objectEngine: wasmObjects } : {}),
      readSibling: (name: string) => readInput(join(dirname(path), name)),
    };
    const fuzzKind: VectorKind = {
      name: 'saved by trampolab fuzz',
      matches: isSavedCase,
      check: async (record) => checkSavedCase(record, await this.#fuzzEngine()),
    };
    const trampolineKind: VectorKind = {
      name: 'trampolines saved by trampolab fuzz',
      matches: isSavedTrampoline,
      check: (record) => checkSavedTrampoline(record, (version) => this.#runnerFor(version)),
    };
    const kinds = [...RUN_KINDS, jitKind, rejectKind, fuzzKind, trampolineKind];
    yield* checkFile(basename(path), text, options, kinds);
  }

  close(): void {
    this.#kernel?.close();
    for (const { kernel } of this.#runners.values()) kernel.close();
  }

  async #runner(): Promise<ProgramRunner> {
    if (this.#engine === 'interpreter') return new InterpreterRunner();
    if (this.#engine === 'wasm') return new WasmRunner();
    return new JitRunner(await this.#boot());
  }

  /** A kernel of that version for saved trampolines. */
  async #runnerFor(version: TrampolineRunner['version']): Promise<TrampolineRunner> {
    const known = this.#runners.get(version);
    if (known) return known;
    const kernel = await bootLab({ engine: cpuEngine(this.#engine), version });
    const runner = new TrampolineRunner(kernel);
    this.#runners.set(version, runner);
    return runner;
  }

  async #fuzzEngine(): Promise<FuzzEngine> {
    this.#fuzz ??= await this.#makeFuzzEngine();
    return this.#fuzz;
  }

  async #makeFuzzEngine(): Promise<FuzzEngine> {
    if (this.#engine === 'interpreter') return interpreterEngine();
    if (this.#engine === 'wasm') return wasmEngine();
    return jitEngine(new KernelWorkbench(await this.#boot()));
  }

  async #boot(): Promise<Kernel> {
    this.#kernel ??= await bootLab({ engine: cpuEngine(this.#engine) });
    return this.#kernel;
  }
}

async function checkCommand(args: string[], output: Output): Promise<number> {
  const { values, positionals } = parseOptions(args, {
    engine: { type: 'string' },
    verbose: { type: 'boolean', short: 'v' },
    json: { type: 'boolean', short: 'j' },
  });
  const engine = choiceOption('engine', values.engine, 'interpreter', ENGINES);
  if (positionals.length === 0) throw new UsageError('FILE is missing');
  const checker = new Checker(engine);
  const results: CaseResult[] = [];
  try {
    for (const path of positionals) {
      for await (const result of checker.check(path)) {
        results.push(result);
        const shown = values.verbose || result.status !== 'passed';
        if (shown && !values.json) output.line(describeCase(result));
      }
    }
  } finally {
    checker.close();
  }
  if (results.length === 0) throw new InputError(`${positionals.join(', ')}: no records`);
  if (values.json) output.line(JSON.stringify(results));
  else output.line(summarize(results));
  return results.some(({ status }) => status === 'failed') ? 1 : 0;
}

export const check: Command = {
  name: 'check',
  summary: 'vector files against this lab: programs, JIT images, kernel code',
  usage: USAGE,
  run: checkCommand,
};
