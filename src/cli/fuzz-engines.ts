/**
 * `--engine` of `trampolab fuzz`: engines with variants and samples.
 *
 *   interpreter | wasm | (embedded | unicorn)[:VERSION][:nolse][:bti][:nopac][:far][:edge], each with [/N]
 */
import {
  interpreterEngine,
  jitEngine,
  KernelWorkbench,
  plainWorkbench,
  sampled,
  TrampolineRunner,
  UsageError,
  wasmEngine,
  type FuzzEngine,
  type Kernel,
  type Workbench,
} from '../index.js';
import { bootLab } from '../node/index.js';
import { ENGINES, type EngineName } from './engine.js';

const VERSIONS = ['6.1', '6.12', '7.3'] as const;
const OPTIONS = ['nolse', 'bti', 'nopac', 'far', 'edge', 'apart'] as const;
/** Those that say where images of trampolines are. */
const TRAMPOLINE_OPTIONS: readonly Option[] = ['far', 'apart'];
/** vmalloc space in use, so that images are out of BL range of the kernel. */
const FAR_BYTES = 256 << 20;

type Option = (typeof OPTIONS)[number];

export interface EngineRequest {
  /** As it was asked for, without the sample. */
  readonly text: string;
  readonly engine: EngineName;
  readonly version: (typeof VERSIONS)[number];
  readonly options: readonly Option[];
  /** Gets every N-th program. */
  readonly every: number;
}

/** Throws UsageError. */
export function parseEngines(text: string): EngineRequest[] {
  return text.split(',').map(parseEngine);
}

function parseEngine(text: string): EngineRequest {
  const [whole = '', sample] = text.split('/');
  const every = sample === undefined ? 1 : Number(sample);
  if (!Number.isSafeInteger(every) || every < 1) {
    throw new UsageError(`--engine: '${text}': /N takes a whole number from 1 on`);
  }
  const [name, ...parts] = whole.split(':');
  const engine = ENGINES.find((each) => each === name);
  if (!engine) throw new UsageError(`--engine: no engine '${name}' (${ENGINES.join(', ')})`);
  const isJit = engine === 'embedded' || engine === 'unicorn';
  let version: EngineRequest['version'] = '6.12';
  const options: Option[] = [];
  for (const part of parts) {
    const asVersion = VERSIONS.find((each) => each === part);
    const option = OPTIONS.find((each) => each === part);
    if (!isJit || (!asVersion && !option)) {
      throw new UsageError(`--engine: '${engine}' takes no '${part}'`);
    }
    if (asVersion) version = asVersion;
    if (option) options.push(option);
  }
  return { text: whole, engine, version, options, every };
}

function bootFor({ engine, version, options }: EngineRequest): Promise<Kernel> {
  return bootLab({
    engine: engine === 'unicorn' ? 'unicorn' : 'embedded',
    version,
    vmallocUsed: options.includes('far') ? FAR_BYTES : 0,
  });
}

/** Kernels for trampolines: a version, far and apart each. Throws UsageError. */
export function parseTrampolineKernels(text: string): EngineRequest[] {
  const requests = parseEngines(text);
  for (const { text: name, engine, options } of requests) {
    const isKernel = engine === 'embedded' || engine === 'unicorn';
    if (isKernel && options.every((each) => TRAMPOLINE_OPTIONS.includes(each))) continue;
    throw new UsageError(
      `--trampolines: '${name}' is no kernel (embedded or unicorn, with version, far and apart)`,
    );
  }
  return requests;
}

export async function makeTrampolineRunner(request: EngineRequest): Promise<TrampolineRunner> {
  return new TrampolineRunner(await bootFor(request), request.options.includes('apart'));
}

/** Engines without a kernel run on the first kernel's host, so that programs are linked once for them. */
export async function makeEngines(requests: readonly EngineRequest[]): Promise<FuzzEngine[]> {
  const wrong = requests.find(({ options }) => options.includes('apart'));
  if (wrong) throw new UsageError(`--engine: '${wrong.text}': apart is for --trampolines`);
  const kernels = new Map<EngineRequest, KernelWorkbench>();
  for (const request of requests) {
    const { engine } = request;
    if (engine === 'embedded' || engine === 'unicorn') {
      kernels.set(request, new KernelWorkbench(await bootFor(request)));
    }
  }
  const shared: Workbench = [...kernels.values()][0] ?? plainWorkbench();
  return requests.map((request) => {
    const engine = makeEngine(request, kernels.get(request), shared);
    return request.every === 1 ? engine : sampled(engine, request.every);
  });
}

function makeEngine(
  { engine, text, options }: EngineRequest,
  kernel: KernelWorkbench | undefined,
  shared: Workbench,
): FuzzEngine {
  if (engine === 'interpreter') return interpreterEngine(shared);
  if (engine === 'wasm') return wasmEngine(shared);
  if (!kernel) throw new RangeError(`no kernel for ${text}`);
  return jitEngine(kernel, {
    name: text,
    lse: !options.includes('nolse'),
    bti: options.includes('bti'),
    pac: !options.includes('nopac'),
    edge: options.includes('edge'),
  });
}
