/**
 * Where a trampoline is called from: a kernel function's patch site, which ftrace owns, or the entry of a
 * BPF function, which bpf_arch_text_poke changes.
 *
 * Reference: kernel/bpf/trampoline.c: register_fentry, modify_fentry, unregister_fentry;
 * tr->func.ftrace_managed. Left out: sites of modules.
 */
import { KernelError } from '../../common/errors.js';
import type { JitImage } from '../../jit/program.js';
import type { FtraceOps } from '../ftrace/ops.js';
import type { Kernel } from '../kernel.js';
import { FTRACE_OPS } from '../offsets.js';
import { parsePrototype, type Prototype } from '../prototype.js';
import type { BpfProfile } from './profile.js';
import type { KernelProgram } from './program.js';
import type { BpfText } from './text.js';
import type { TrampolineImage } from './trampoline-image.js';

export interface TrampolineSite {
  readonly name: string;
  /** First byte of the function. */
  readonly address: bigint;
  readonly model: Prototype;
  /** The BPF program that the function belongs to. */
  readonly program: KernelProgram | undefined;
  register(image: TrampolineImage): void;
  modify(from: TrampolineImage, to: TrampolineImage): void;
  unregister(image: TrampolineImage): void;
  /** Nothing is attached any more. */
  close(): void;
}

/** The kernel function that a trampoline is for. */
export interface FunctionTarget {
  readonly name: string;
  readonly address: bigint;
  readonly model: Prototype;
}

/** What makes the site of a kernel function: how a call of the function gets to the trampoline. */
export type FunctionSiteMaker = (
  kernel: Kernel,
  profile: BpfProfile,
  key: number,
  target: FunctionTarget,
) => TrampolineSite;

/** A kernel function, by a direct call of ftrace. */
export class FtraceSite implements TrampolineSite {
  readonly name: string;
  readonly address: bigint;
  readonly model: Prototype;
  readonly program = undefined;
  readonly #kernel: Kernel;
  readonly #profile: BpfProfile;
  /** Of its direct call. */
  readonly ops: FtraceOps;

  constructor(kernel: Kernel, profile: BpfProfile, key: number, target: FunctionTarget) {
    this.#kernel = kernel;
    this.#profile = profile;
    this.name = target.name;
    this.address = target.address;
    this.model = target.model;
    const address = kernel.kmalloc(FTRACE_OPS.size);
    this.ops = kernel.ftrace.createOps(`bpf_trampoline_${key}.fops`, address, 0n);
  }

  register(image: TrampolineImage): void {
    const ip = this.#kernel.ftrace.location(this.address);
    if (ip === undefined) {
      throw new KernelError(
        'ENOTSUPP',
        `${this.name} has no patch site (notrace), nothing can be attached to it`,
      );
    }
    if (!this.#profile.directCalls) {
      throw new KernelError(
        'ENOTSUPP',
        `${this.#profile.version} has no direct calls on kernel functions (since 6.4), ${this.name} is one`,
      );
    }
    this.#kernel.ftrace.setFilterIp(this.ops, ip, false);
    this.#kernel.directCalls.register(this.ops, image.code.base);
  }

  modify(_from: TrampolineImage, to: TrampolineImage): void {
    this.#kernel.directCalls.modify(this.ops, to.code.base);
  }

  unregister(): void {
    this.#kernel.directCalls.unregister(this.ops);
  }

  close(): void {
    this.#kernel.ftrace.forgetOps(this.ops);
    this.#kernel.kfree(this.ops.address);
  }
}

/** What stands in for a prototype that nobody knows: MAX_BPF_FUNC_REG_ARGS registers. */
function conservativeModel(name: string): Prototype {
  return parsePrototype(`u64 ${name}(u64 r1, u64 r2, u64 r3, u64 r4, u64 r5)`);
}

/** A function of a BPF program. */
export class ProgramSite implements TrampolineSite {
  readonly name: string;
  readonly address: bigint;
  readonly model: Prototype;
  readonly program: KernelProgram;
  readonly #text: BpfText;

  constructor(text: BpfText, program: KernelProgram, image: JitImage) {
    this.#text = text;
    this.program = program;
    this.name = image.name;
    this.address = image.base;
    this.model = program.prototypeOf(image.name) ?? conservativeModel(image.name);
    program.hold();
  }

  register(image: TrampolineImage): void {
    this.#text.poke(this.address, 'call', 0n, image.code.base);
  }

  modify(from: TrampolineImage, to: TrampolineImage): void {
    this.#text.poke(this.address, 'call', from.code.base, to.code.base);
  }

  unregister(image: TrampolineImage): void {
    this.#text.poke(this.address, 'call', image.code.base, 0n);
  }

  /** freplace: the entry jumps to another program. */
  replace(entry: bigint): void {
    this.#text.poke(this.address, 'jump', 0n, entry);
  }

  unreplace(entry: bigint): void {
    this.#text.poke(this.address, 'jump', entry, 0n);
  }

  close(): void {
    this.program.put();
  }
}
