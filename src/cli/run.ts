/** `trampolab run`: one BPF program, one engine, in the manner of `bpftool prog run`. */
import {
  InputError,
  UsageError,
  applySetting,
  bytesToHex,
  createRunner,
  fillXdp,
  hexToBytes,
  listMap,
  mapTypes,
  type MapTypes,
  listTrace,
  tracedRun,
  xdpContext,
  type BpfMap,
  type Kernel,
  type RunResult,
  type XlatedProgram,
} from '../index.js';
import { bootLab, readInput, writeOutput } from '../node/index.js';
import { choiceOption, integerOption, parseOptions, type Command, type Output } from './command.js';
import { ENGINES, OBJECT_RAM, cpuEngine, runEngine } from './engine.js';
import { runAttached } from './run-attached.js';
import { PROGRAM_OPTIONS, PROGRAM_USAGE, programArguments, readProgram } from './program-input.js';

const USAGE = `run PROG [--program NAME] [--engine E] [--mem HEX|@FILE] [--repeat N] [--json]
${PROGRAM_USAGE}
  --engine E        interpreter (default) or wasm; embedded or unicorn (arm64 JIT image)
  --mem HEX|@FILE   XDP: the packet; tracing: the u64 arguments; else the buffer that r1 points to
  --repeat N        run N times, print the average duration
  --data-out FILE   XDP: write the packet as the program left it (- for standard output)
  --set M[K]=V      put an entry into map M first (numbers, IPv4 addresses or hex:BYTES); may be repeated
  --maps            print the maps afterwards
  --attach          tracing objects: attach all their programs where their sections say, then call what the
                    kernel's test run calls; --kernel V: 6.1, 6.12 (default) or 7.3
  --trace           print every executed instruction (embedded and unicorn)
  --json, -j        as JSON`;

function memoryBytes(text: string | undefined): Uint8Array {
  if (text === undefined) return new Uint8Array(0);
  return text.startsWith('@') ? readInput(text.slice(1)) : hexToBytes(text);
}

interface Prepared {
  /** R1 and R2. */
  readonly context: bigint;
  readonly r2: bigint;
  /** Brings an XDP packet back to what it was. */
  readonly reset: () => void;
  /** The packet as it is now. */
  readonly packet: () => Uint8Array | undefined;
}

function prepareContext(kernel: Kernel, xlated: XlatedProgram, memory: Uint8Array): Prepared {
  if (xlated.type === 'xdp') {
    const packet = memory.length > 0 ? memory : new Uint8Array(64);
    const { xdp, page } = xdpContext(kernel, packet);
    return {
      context: xdp.address,
      r2: 0n,
      reset: () => fillXdp(kernel, xdp, page, packet),
      packet: () => xdp.packet(),
    };
  }
  const none = { reset: () => undefined, packet: () => undefined };
  if (memory.length === 0) return { context: 0n, r2: 0n, ...none };
  const region = kernel.bpf.host.allocate('mem', memory.length);
  kernel.memory.writeBytes(region.address, memory);
  return { context: region.address, r2: BigInt(memory.length), ...none };
}

async function runCommand(args: string[], output: Output): Promise<number> {
  const { values, positionals } = parseOptions(args, {
    ...PROGRAM_OPTIONS,
    engine: { type: 'string' },
    mem: { type: 'string' },
    repeat: { type: 'string' },
    'data-out': { type: 'string' },
    maps: { type: 'boolean' },
    set: { type: 'string', multiple: true },
    attach: { type: 'boolean' },
    kernel: { type: 'string' },
    trace: { type: 'boolean' },
    json: { type: 'boolean', short: 'j' },
  });
  const engine = choiceOption('engine', values.engine, 'interpreter', ENGINES);
  const repeat = integerOption('repeat', values.repeat, 1, { min: 1, max: 1e9 });
  if (values.trace && runEngine(engine) !== 'jit') {
    throw new UsageError('--trace shows A64 instructions: it needs --engine embedded or unicorn');
  }
  const version = choiceOption('kernel', values.kernel, '6.12', ['6.1', '6.12', '7.3']);
  const kernel = await bootLab({ engine: cpuEngine(engine), version, vmallocRam: OBJECT_RAM });
  try {
    if (values.attach) {
      const path = positionals[0];
      if (path === undefined) throw new UsageError('PROG is missing');
      runAttached(kernel, path, output, { json: values.json ?? false, maps: values.maps ?? false });
      return 0;
    }
    const input = readProgram(kernel, programArguments(values, positionals[0]));
    const maps = new Map(input.maps.map((map) => [map.spec.name, map]));
    for (const setting of values.set ?? []) applySetting(maps, setting);
    const prepared = prepareContext(kernel, input.xlated, memoryBytes(values.mem));
    const runner = createRunner(kernel, runEngine(engine), input.xlated);
    if (values.trace) {
      const { entries } = tracedRun(kernel, () => runner.run(prepared.context, prepared.r2));
      for (const line of listTrace(kernel, entries)) output.line(line);
      prepared.reset();
    }
    let result: RunResult = { kind: 'stopped', reason: 'did not run' };
    const start = performance.now();
    for (let i = 0; i < repeat; i++) {
      if (i > 0) prepared.reset();
      result = runner.run(prepared.context, prepared.r2);
      if (result.kind !== 'return') break;
    }
    const duration = Math.round(((performance.now() - start) * 1e6) / repeat);
    if (result.kind !== 'return') throw new InputError(result.reason);
    const packet = prepared.packet();
    if (values['data-out'] !== undefined) {
      if (!packet) throw new UsageError('--data-out: only XDP programs leave a packet');
      writeOutput(values['data-out'], packet);
    }
    report(
      output,
      {
        result,
        duration,
        repeat,
        packet,
        maps: values.maps ? input.maps : [],
        types: (name) => (input.object ? mapTypes(input.object, name) : {}),
      },
      {
        json: values.json ?? false,
        xdp: input.xlated.type === 'xdp',
      },
    );
    return 0;
  } finally {
    kernel.close();
  }
}

interface Report {
  readonly result: Extract<RunResult, { kind: 'return' }>;
  readonly duration: number;
  readonly repeat: number;
  readonly packet: Uint8Array | undefined;
  readonly maps: readonly BpfMap[];
  /** Types of a map, by its name. */
  readonly types: (map: string) => MapTypes;
}

function report(
  output: Output,
  { result, duration, repeat, packet, maps, types }: Report,
  { json, xdp }: { json: boolean; xdp: boolean },
): void {
  // test_run returns a u32 for programs that have a context of the kernel's
  const value = xdp ? BigInt.asUintN(32, result.r0) : result.r0;
  if (json) {
    const retval =
      value <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(value) : `0x${value.toString(16)}`;
    const data = packet ? { data_out: bytesToHex(packet) } : {};
    const contents = maps.length > 0 ? { maps: Object.fromEntries(maps.map(mapEntries)) } : {};
    output.line(JSON.stringify({ retval, duration, ...data, ...contents }));
    return;
  }
  const average = repeat > 1 ? 'duration (average)' : 'duration';
  output.line(`Return value: ${value}, ${average}: ${duration}ns`);
  for (const map of maps) {
    output.line(`map ${map.spec.name} (${map.spec.type}):`);
    for (const line of listMap(map, types(map.spec.name))) output.line(`  ${line}`);
  }
}

function mapEntries(map: BpfMap): [string, { key: string; values: string[] }[]] {
  const entries = [...map.entries()].map(({ key, values }) => ({
    key: bytesToHex(key),
    values: values.map(bytesToHex),
  }));
  return [map.spec.name, entries];
}

export const run: Command = {
  name: 'run',
  summary: 'run a BPF program: an object, assembly text, or hex',
  usage: USAGE,
  run: runCommand,
};
