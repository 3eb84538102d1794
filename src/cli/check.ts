/** `trampolab check`: vector files of any kind against this lab. */
import { existsSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { brotliDecompressSync, inflateSync } from 'node:zlib';
import {
  ExecMachines,
  InputError,
  InterpreterRunner,
  JitRunner,
  KernelWorkbench,
  RUN_KINDS,
  TrampolineRunner,
  VirtioKind,
  WasmRunner,
  checkBooted,
  checkFile,
  checkTrace,
  cpuFactory,
  embeddedFactory,
  checkKernelText,
  checkSavedCase,
  checkSavedTrampoline,
  describeCase,
  interpreterObjects,
  isBootedFile,
  isKernelText,
  interpreterEngine,
  isSavedCase,
  isSavedTrampoline,
  isTraceFile,
  jitEngine,
  jitKind,
  jitObjects,
  labVersion,
  rejectKind,
  smcChecker,
  summarize,
  wasmEngine,
  type BootedOptions,
  type CaseResult,
  type CpuFactory,
  type FuzzEngine,
  type Kernel,
  type KernelVersion,
  type ObjectEngine,
  type ProgramRunner,
  type SmcChecker,
  type VectorKind,
  wasmObjects,
} from '../index.js';
import { UsageError } from '../index.js';
import { bootLab, labBooter, readInput, type LabBooter } from '../node/index.js';
import { choiceOption, parseOptions, type Command, type Output } from './command.js';
import { cpuEngine, ENGINES, KERNEL_VERSIONS, runEngine, type EngineName } from './engine.js';

const USAGE = `check FILE... [--engine E] [--kernel V] [--verbose]
  FILE         vectors as JSON or JSON lines, recognised by their fields:
               run vectors (conformance, ubpf, test_bpf, bench-programs), XDP programs with a
               kernel's results (objects and packets beside the file), JIT images and
               trampolines; of a booted kernel its code (static.json), small programs with
               images and results (jit-corpus.json), the sites, ops, trampolines and programs
               of a scenario (scen.*.json), the instructions of a call (trace.*.txt) and how
               many there were (costs.json); what a guest's virtio-net received, attached and
               hashed (results.jsonl); what SMC did on real kernels (handshake bytes, states,
               errno values)
  --engine E   interpreter (default), wasm, or the JIT image on embedded or unicorn: who runs
               vectors and objects; for a booted kernel's programs the default is embedded.
               Images of JIT records that say what their program returns run on embedded; by
               default (where it can be loaded) and with unicorn on both engines in lockstep;
               with interpreter and wasm their BPF instructions run
  --kernel V   whose JIT and struct layouts embedded and unicorn have: 6.1, 6.12 (default) or 7.3;
               JIT records and files of booted kernels say it themselves
  --verbose    a line for each case, not only for those that fail or are skipped
  --json, -j   as JSON`;

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined; // JSON lines, or nothing at all: checkFile finds out and says where
  }
}

/** Undefined when there is no such file. */
function readJson(path: string): Readonly<Record<string, unknown>> | undefined {
  if (!existsSync(path)) return undefined;
  return JSON.parse(new TextDecoder().decode(readInput(path))) as Readonly<Record<string, unknown>>;
}

/** Equal for settings with equal values, functions by their text. */
function keyOf(value: unknown): string {
  return JSON.stringify(value, (_name, each: unknown) => {
    if (each instanceof Map) return [...(each as Map<unknown, unknown>)];
    return typeof each === 'bigint' || typeof each === 'function' ? String(each) : each;
  });
}

class Checker {
  #kernel: Kernel | undefined;
  #boot: LabBooter | undefined;
  #machines: ExecMachines | undefined;
  #fuzz: FuzzEngine | undefined;
  #virtio: VirtioKind | undefined;
  #smc: SmcChecker | undefined;
  readonly #runners = new Map<string, TrampolineRunner>();
  readonly #chosen: EngineName | undefined;
  readonly #engine: EngineName;
  readonly #version: KernelVersion;
  /** Lab kernels for files of booted ones, by version and layout. */
  readonly #booted = new Map<string, Kernel>();

  constructor(chosen: EngineName | undefined, version: KernelVersion) {
    this.#chosen = chosen;
    this.#engine = chosen ?? 'interpreter';
    this.#version = version;
  }

  async *check(path: string): AsyncGenerator<CaseResult> {
    const text = new TextDecoder().decode(readInput(path));
    const json = parseJson(text);
    if (isKernelText(json)) {
      yield* this.#checkText(path, json);
      return;
    }
    if (isBootedFile(json)) {
      yield* checkBooted(basename(path), json, this.#bootedOptions(path));
      return;
    }
    if (isTraceFile(text)) {
      yield* checkTrace(basename(path), text, this.#bootedOptions(path));
      return;
    }
    const options = {
      runner: await this.#runner(),
      decompressor: {
        deflate: (bytes: Uint8Array) => new Uint8Array(inflateSync(bytes)),
        brotli: (bytes: Uint8Array) => new Uint8Array(brotliDecompressSync(bytes)),
      },
      objectEngine: await this.#objectEngine(),
      ...(await this.#imageMachines()),
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
    this.#smc ??= smcChecker(async () => (await this.#booter())({ version: this.#version }));
    const kinds = [
      ...RUN_KINDS,
      jitKind,
      rejectKind,
      fuzzKind,
      trampolineKind,
      this.#virtioKind(),
      this.#smc.kind,
    ];
    yield* checkFile(basename(path), text, options, kinds);
  }

  close(): void {
    this.#kernel?.close();
    this.#virtio?.close();
    for (const kernel of this.#booted.values()) kernel.close();
    for (const { kernel } of this.#runners.values()) kernel.close();
    this.#machines?.close();
    this.#smc?.close();
  }

  /** Against the lab kernel of the release that facts.json beside the file names, or of --kernel. */
  async *#checkText(path: string, json: object): AsyncGenerator<CaseResult> {
    const facts = readJson(join(dirname(path), 'facts.json'));
    const release = String(facts?.['uname'] ?? this.#version);
    const boot = await this.#booter();
    const kernel = boot({ version: labVersion(release) });
    try {
      yield* checkKernelText(
        kernel,
        json,
        facts?.['symbols'] as Record<string, string> | undefined,
      );
    } finally {
      kernel.close();
    }
  }

  #bootedOptions(path: string): BootedOptions {
    const engine = this.#chosen ?? 'embedded';
    return {
      engine: runEngine(engine),
      readSibling: (name) => readJson(join(dirname(path), name)),
      boot: async (version, { far, ...setting }) => {
        const key = keyOf({ version, far, ...setting });
        const kernel =
          this.#booted.get(key) ??
          // KASLR puts the kernel's text far from where BPF images are
          (await bootLab({
            engine: cpuEngine(engine),
            version,
            ...setting,
            ...(far ? { kaslrSeed: 1n } : {}),
          }));
        this.#booted.set(key, kernel);
        return kernel;
      },
    };
  }

  async #runner(): Promise<ProgramRunner> {
    if (this.#engine === 'interpreter') return new InterpreterRunner();
    if (this.#engine === 'wasm') return new WasmRunner();
    return new JitRunner(await this.#sharedKernel());
  }

  async #objectEngine(): Promise<ObjectEngine> {
    if (this.#engine === 'interpreter') return interpreterObjects;
    if (this.#engine === 'wasm') return wasmObjects;
    const boot = await this.#booter();
    return jitObjects(this.#engine, (options) => boot({ ...options, version: this.#version }));
  }

  async #imageMachines(): Promise<{ readonly imageMachines?: ExecMachines }> {
    if (!this.#machines) {
      const factories = await this.#imageCpus();
      if (factories.length === 0) return {};
      this.#machines = new ExecMachines(factories);
    }
    return { imageMachines: this.#machines };
  }

  async #imageCpus(): Promise<readonly CpuFactory[]> {
    switch (this.#chosen) {
      case 'interpreter':
      case 'wasm':
        return [];
      case 'embedded':
        return [embeddedFactory];
      case 'unicorn':
        return [embeddedFactory, await cpuFactory('unicorn')];
      case undefined: {
        const second = await cpuFactory('auto');
        return second.name === 'unicorn' ? [embeddedFactory, second] : [embeddedFactory];
      }
    }
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

  #virtioKind(): VirtioKind {
    this.#virtio ??= new VirtioKind(async () => {
      const boot = await this.#booter();
      return boot({ version: this.#version });
    }, runEngine(this.#engine));
    return this.#virtio;
  }

  async #fuzzEngine(): Promise<FuzzEngine> {
    this.#fuzz ??= await this.#makeFuzzEngine();
    return this.#fuzz;
  }

  async #makeFuzzEngine(): Promise<FuzzEngine> {
    if (this.#engine === 'interpreter') return interpreterEngine();
    if (this.#engine === 'wasm') return wasmEngine();
    return jitEngine(new KernelWorkbench(await this.#sharedKernel()));
  }

  /** For what leaves nothing behind. */
  async #sharedKernel(): Promise<Kernel> {
    const boot = await this.#booter();
    this.#kernel ??= boot({ version: this.#version });
    return this.#kernel;
  }

  async #booter(): Promise<LabBooter> {
    this.#boot ??= await labBooter(cpuEngine(this.#engine));
    return this.#boot;
  }
}

async function checkCommand(args: string[], output: Output): Promise<number> {
  const { values, positionals } = parseOptions(args, {
    engine: { type: 'string' },
    kernel: { type: 'string' },
    verbose: { type: 'boolean', short: 'v' },
    json: { type: 'boolean', short: 'j' },
  });
  const engine = choiceOption('engine', values.engine, 'interpreter', ENGINES);
  const version = choiceOption('kernel', values.kernel, '6.12', KERNEL_VERSIONS);
  if (positionals.length === 0) throw new UsageError('FILE is missing');
  const checker = new Checker(values.engine === undefined ? undefined : engine, version);
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
