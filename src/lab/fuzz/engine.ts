/**
 * Engines that a case runs on, and what is compared: R0, the memory behind R1, and the maps afterwards.
 *
 * Each case gets fresh maps. A code generator from outside takes part as a `Jit`: a function from the xlated
 * program to A64 words for the address they will be at.
 */
import { createInterpreter, type Interpreter } from '../../bpf/interpreter.js';
import { readSlots, encodeSlots } from '../../bpf/instruction.js';
import type { BpfHost } from '../../bpf/host.js';
import { createMap } from '../../bpf/maps/create.js';
import type { BpfMap, MapSpec } from '../../bpf/maps/map.js';
import { PSEUDO } from '../../bpf/opcodes.js';
import type { XlatedProgram } from '../../bpf/program.js';
import { rawProgram } from '../../bpf/raw-program.js';
import { describeResult } from '../../bpf/result.js';
import { createWasmProgram } from '../../bpf/wasm.js';
import { bytesToHex, high32, low32, viewOf } from '../../common/bytes.js';
import { InputError, KernelError } from '../../common/errors.js';
import type { Kernel } from '../../kernel/kernel.js';
import { KernelOops } from '../../kernel/executor.js';

/** A case as it is saved: slots with calls relative, maps by index. */
export interface FuzzCase {
  readonly insns: Uint8Array;
  readonly memory: Uint8Array;
  readonly maps: readonly MapSpec[];
}

/** What a run left behind, as text that can be compared and shown. */
export interface FuzzOutcome {
  /** `return 0x..`, or what stopped it. */
  readonly end: string;
  readonly memory: string;
  /** `map[key]=value` lines. */
  readonly maps: readonly string[];
}

export interface FuzzEngine {
  readonly name: string;
  run(fuzzCase: FuzzCase): FuzzOutcome;
  close(): void;
}

/** A code generator under test. */
export interface Jit {
  readonly name: string;
  /**
   * A64 words for the program, to be placed at `base`: called with the context in x0, result in x0. Helper
   * calls hold target - callBase.
   */
  readonly compile: (
    program: XlatedProgram,
    place: { readonly base: bigint; readonly callBase: bigint },
  ) => Uint32Array;
}

/** Who runs an xlated program with R1 = `context`: the text of how it ended. */
type Execute = (program: XlatedProgram, context: bigint) => string;

const LD_IMM64 = 0x18;
/** Bytes in front of an image from outside, as in front of the kernel's own. */
const IMAGE_ROOM = 1 << 16;

function link(fuzzCase: FuzzCase, host: BpfHost, maps: readonly BpfMap[]): XlatedProgram {
  const slots = readSlots(fuzzCase.insns);
  for (const [index, slot] of slots.entries()) {
    if (slot.code !== LD_IMM64 || slot.src !== PSEUDO.MAP_IDX) continue;
    const address = maps[slot.imm]?.address;
    const second = slots[index + 1];
    if (address === undefined || !second) throw new InputError(`insn ${index}: no map ${slot.imm}`);
    slots[index] = { ...slot, src: 0, imm: low32(address) };
    slots[index + 1] = { ...second, imm: high32(address) };
  }
  const helperImmediate = (id: number): number => {
    const address = host.helperAddress(id);
    if (address === undefined) throw new InputError(`no helper ${id}`);
    return Number(address - host.callBase);
  };
  return rawProgram('case', encodeSlots(slots), { helperImmediate, stackDepth: 512 });
}

/** Runs a case with everything it allocates freed again. */
function runCase(fuzzCase: FuzzCase, host: BpfHost, execute: Execute): FuzzOutcome {
  const maps = fuzzCase.maps.map((spec) => createMap(spec, host));
  const region = host.allocate('case', fuzzCase.memory.length);
  host.memory.writeBytes(region.address, fuzzCase.memory);
  try {
    const end = execute(link(fuzzCase, host, maps), region.address);
    return {
      end,
      memory: bytesToHex(host.memory.readBytes(region.address, fuzzCase.memory.length)),
      maps: maps.flatMap(describeMap),
    };
  } finally {
    host.release(region);
    for (const map of maps) map.free();
  }
}

function describeMap(map: BpfMap): string[] {
  return [...map.entries()]
    .map(
      ({ key, values }) =>
        `${map.spec.name}[${bytesToHex(key)}]=${values.map(bytesToHex).join(' ')}`,
    )
    .sort();
}

const ended = (r0: bigint): string => `return 0x${r0.toString(16)}`;

export function interpreterEngine(host: BpfHost): FuzzEngine {
  return plainEngine('interpreter', host, createInterpreter);
}

export function wasmEngine(host: BpfHost): FuzzEngine {
  return plainEngine('wasm', host, createWasmProgram);
}

/** An engine that runs on a host without a kernel. */
function plainEngine(
  name: string,
  host: BpfHost,
  create: (program: XlatedProgram, host: BpfHost) => Pick<Interpreter, 'run' | 'close'>,
): FuzzEngine {
  const execute: Execute = (program, context) => {
    const loaded = create(program, host);
    try {
      const result = loaded.run(context, { budget: 1e7 });
      return result.kind === 'return' ? ended(result.r0) : describeResult(result);
    } finally {
      loaded.close();
    }
  };
  return { name, run: (fuzzCase) => runCase(fuzzCase, host, execute), close: () => undefined };
}

/** The lab's own JIT on the kernel's CPU engine. */
export function jitEngine(kernel: Kernel): FuzzEngine {
  return kernelEngine(kernel.cpus[0]?.engine ?? 'jit', kernel, (program, context) => {
    const loaded = kernel.bpf.load(program);
    try {
      return ended(kernel.call(loaded.entry, context));
    } finally {
      loaded.free();
    }
  });
}

/** A code generator from outside, on the kernel's CPU engine. */
export function foreignEngine(kernel: Kernel, jit: Jit): FuzzEngine {
  return kernelEngine(jit.name, kernel, (program, context) => {
    const base = kernel.bpf.images.alloc(IMAGE_ROOM);
    try {
      const words = jit.compile(program, { base, callBase: kernel.bpf.host.callBase });
      if (4 * words.length > IMAGE_ROOM) throw new InputError(`image of ${words.length} words`);
      const bytes = new Uint8Array(4 * words.length);
      const view = viewOf(bytes);
      words.forEach((word, i) => view.setUint32(4 * i, word, true));
      kernel.memory.pokeBytes(base, bytes);
      kernel.syncText(base, base + BigInt(bytes.length));
      return ended(kernel.call(base, context));
    } finally {
      kernel.bpf.images.free(base);
    }
  });
}

function kernelEngine(name: string, kernel: Kernel, execute: Execute): FuzzEngine {
  const guarded: Execute = (program, context) => {
    try {
      return execute(program, context);
    } catch (error) {
      if (error instanceof KernelOops || error instanceof KernelError) return error.message;
      throw error;
    }
  };
  kernel.executor.budget = 10_000_000;
  return {
    name,
    run: (fuzzCase) => runCase(fuzzCase, kernel.bpf.host, guarded),
    close: () => kernel.close(),
  };
}
