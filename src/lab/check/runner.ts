/**
 * What a run vector needs of an engine: a program, bytes that R1 points at, helpers; R0 comes back.
 *
 * Run vectors are made to run unchecked: only `validate` and the helper numbers stand between a
 * program and the engine. The runners of interpreter and wasm tier are here; others (JIT image on a
 * CPU engine) implement the same interface and may use `prepare`.
 */
import { InputError } from '../../common/errors.js';
import type { Region } from '../../cpu/memory.js';
import { readSlot, slotCount, SLOT_SIZE } from '../../bpf/instruction.js';
import { createInterpreter } from '../../bpf/interpreter.js';
import type { BpfHost, HelperBody } from '../../bpf/host.js';
import { PlainHost } from '../../bpf/plain-host.js';
import type { XlatedProgram } from '../../bpf/program.js';
import { rawProgram, type RawProgramOptions } from '../../bpf/raw-program.js';
import {
  describeResult,
  type InterpreterOptions,
  type InterpreterResult,
} from '../../bpf/result.js';
import { validate, type ValidateOptions } from '../../bpf/validate.js';
import { createWasmProgram } from '../../bpf/wasm.js';

export interface RunRequest {
  readonly name: string;
  /** Slots as assembled: helper calls by number, local calls relative. */
  readonly insns: Uint8Array;
  /** R1 points at a copy of these bytes and R2 is their number; without: both are 0. */
  readonly memory: Uint8Array | undefined;
  /** Where those bytes lie, for programs that return an address. Default: anywhere. */
  readonly address?: bigint;
  /** Bodies by helper number. A helper that throws `ProgramExit` ends the program. */
  readonly helpers: ReadonlyMap<number, HelperBody>;
  readonly validate?: ValidateOptions;
}

export type RunOutcome =
  | { readonly kind: 'return'; readonly r0: bigint }
  /** The program was not loaded. */
  | { readonly kind: 'refused'; readonly reason: string }
  /** The engine cannot run it, through no fault of the program; says which instruction. */
  | { readonly kind: 'unsupported'; readonly reason: string }
  /** The program was stopped. */
  | { readonly kind: 'fault'; readonly reason: string };

export function describeOutcome(outcome: RunOutcome): string {
  switch (outcome.kind) {
    case 'return':
      return `got 0x${outcome.r0.toString(16)}`;
    case 'unsupported':
    case 'refused':
      return `refused: ${outcome.reason}`;
    case 'fault':
      return `stopped: ${outcome.reason}`;
  }
}

export interface ProgramRunner {
  /** Engine, as `--engine` names it. */
  readonly name: string;
  /** An access outside a frame's 512 bytes of stack is a fault. A JIT image leaves that to the verifier. */
  readonly boundsStack: boolean;
  run(request: RunRequest): RunOutcome;
}

/** The program of a request in xlated form, or why it is refused. */
export function prepare(
  request: RunRequest,
  options: RawProgramOptions = {},
): XlatedProgram | { readonly kind: 'refused'; readonly reason: string } {
  try {
    const program = rawProgram(request.name, request.insns, options);
    const [problem] = validate(program.functions, request.validate);
    const reason = problem ?? unknownHelper(request);
    return reason === undefined ? program : { kind: 'refused', reason };
  } catch (error) {
    if (error instanceof InputError) return { kind: 'refused', reason: error.message };
    throw error;
  }
}

function unknownHelper({ insns, helpers }: RunRequest): string | undefined {
  const count = slotCount(insns);
  for (let index = 0; index < count; index++) {
    const code = insns[index * SLOT_SIZE];
    if (code === 0x18) index++;
    if (code !== 0x85) continue;
    const { src, imm } = readSlot(insns, index);
    if (src === 0 && !helpers.has(imm)) return `insn ${index}: call of unknown helper ${imm}`;
  }
  return undefined;
}

/** What runs a program without a kernel: interpreter and wasm tier. */
interface PlainEngine {
  run(context: bigint, options: InterpreterOptions): InterpreterResult;
  close(): void;
}

/** Runs vectors on a host without a kernel. Keeps one host per helper table. */
class PlainRunner implements ProgramRunner {
  readonly name: string;
  readonly boundsStack = true;
  readonly #create: (program: XlatedProgram, host: BpfHost) => PlainEngine;
  readonly #hosts = new Map<ReadonlyMap<number, HelperBody>, PlainHost>();

  constructor(name: string, create: (program: XlatedProgram, host: BpfHost) => PlainEngine) {
    this.name = name;
    this.#create = create;
  }

  run(request: RunRequest): RunOutcome {
    const program = prepare(request);
    if ('kind' in program) return program;
    const host = this.#hostFor(request.helpers);
    const region = placeMemory(host, request);
    if (region && request.memory) host.memory.writeBytes(region.address, request.memory);
    const engine = this.#create(program, host);
    try {
      const r2 = BigInt(request.memory?.length ?? 0);
      const result = engine.run(region?.address ?? 0n, { r2 });
      if (result.kind === 'return') return result;
      return { kind: 'fault', reason: describeResult(result) };
    } finally {
      engine.close();
      if (region) removeMemory(host, request, region);
    }
  }

  /** A host whose helper N is at address N, so that callx finds helpers by number. */
  #hostFor(helpers: ReadonlyMap<number, HelperBody>): PlainHost {
    let host = this.#hosts.get(helpers);
    if (!host) {
      host = new PlainHost({ helpers, callBase: 0n, helperStride: 1, memorySize: 4 << 20 });
      this.#hosts.set(helpers, host);
    }
    return host;
  }
}

/** The region that R1 points at. */
export function placeMemory(host: BpfHost, { memory, address }: RunRequest): Region | undefined {
  const size = memory?.length ?? 0;
  if (size === 0) return undefined;
  if (address === undefined) return host.allocate('mem', size);
  return host.memory.map({ name: 'mem', address, size, permissions: 'rw' });
}

/** Takes away what `placeMemory` gave. */
export function removeMemory(host: BpfHost, { address }: RunRequest, region: Region): void {
  if (address === undefined) host.release(region);
  else host.memory.unmap(region);
}

/** Runs vectors in the interpreter. */
export class InterpreterRunner extends PlainRunner {
  constructor() {
    super('interpreter', createInterpreter);
  }
}

/** Runs vectors in the wasm tier. */
export class WasmRunner extends PlainRunner {
  constructor() {
    super('wasm', createWasmProgram);
  }
}
