/**
 * Runs vectors as arm64 JIT images on the kernel's CPU engine: compiled, placed and called the way every
 * program here is.
 *
 * What the kernel's verifier or JIT refuses (calls through a register, shifts by too much, what 6.1 does not
 * know) is `unsupported`, with the reason. Each helper table of the vectors becomes a set of kernel functions.
 */
import type { HelperBody } from '../../bpf/host.js';
import { readSlots } from '../../bpf/instruction.js';
import { OPCODES } from '../../bpf/opcodes.js';
import type { XlatedProgram } from '../../bpf/program.js';
import { KernelError } from '../../common/errors.js';
import { PROFILES } from '../../jit/profiles.js';
import { helperFunction } from '../../kernel/bpf/host.js';
import type { KernelProgram } from '../../kernel/bpf/program.js';
import type { Kernel } from '../../kernel/kernel.js';
import { runImage } from './jit-objects.js';
import {
  placeMemory,
  prepare,
  removeMemory,
  type ProgramRunner,
  type RunOutcome,
  type RunRequest,
} from './runner.js';

export class JitRunner implements ProgramRunner {
  readonly name: string;
  readonly boundsStack = false;
  readonly #kernel: Kernel;
  /** Entry addresses by helper number, per table. */
  readonly #helpers = new Map<ReadonlyMap<number, HelperBody>, ReadonlyMap<number, bigint>>();

  constructor(kernel: Kernel) {
    this.#kernel = kernel;
    this.name = kernel.cpus[0]?.engine ?? 'jit';
  }

  run(request: RunRequest): RunOutcome {
    const { host } = this.#kernel.bpf;
    const addresses = this.#addressesOf(request.helpers);
    const program = prepare(request, {
      helperImmediate: (id) => Number((addresses.get(id) ?? host.callBase) - host.callBase),
    });
    if ('kind' in program) return program;
    const reason = this.#reservedField(program);
    if (reason !== undefined) return { kind: 'unsupported', reason };
    let loaded: KernelProgram;
    try {
      loaded = this.#kernel.bpf.load(program);
    } catch (error) {
      if (error instanceof KernelError) return { kind: 'unsupported', reason: error.message };
      throw error;
    }
    const size = request.memory?.length ?? 0;
    const region = placeMemory(host, request);
    if (region && request.memory) this.#kernel.memory.writeBytes(region.address, request.memory);
    try {
      return runImage(this.#kernel, loaded, region?.address ?? 0n, BigInt(size));
    } finally {
      if (region) removeMemory(host, request, region);
      loaded.free();
    }
  }

  /**
   * What the verifier of a kernel before ISA version 4 refuses and its JIT would compile as something else:
   * sdiv, smod and movsx differ from div, mod and mov by `off`.
   */
  #reservedField({ functions }: XlatedProgram): string | undefined {
    if (PROFILES[this.#kernel.bpf.profile.version].cpuV4) return undefined;
    for (const { name, insns } of functions) {
      const at = readSlots(insns).findIndex(({ code, off }) => {
        return off !== 0 && OPCODES[code]?.kind === 'alu';
      });
      if (at >= 0) return `-EINVAL: reserved field of an ALU instruction (insn ${at} of ${name})`;
    }
    return undefined;
  }

  #addressesOf(helpers: ReadonlyMap<number, HelperBody>): ReadonlyMap<number, bigint> {
    const known = this.#helpers.get(helpers);
    if (known) return known;
    const prefix = `vector_helpers_${this.#helpers.size}`;
    const addresses = new Map<number, bigint>();
    for (const [id, body] of helpers) {
      const name = `${prefix}_${id}`;
      this.#kernel.define(helperFunction(name, body, this.#kernel.bpf.host));
      addresses.set(id, this.#kernel.symbol(name));
    }
    this.#helpers.set(helpers, addresses);
    return addresses;
  }
}
