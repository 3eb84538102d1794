/**
 * Where a trampoline is called from: a kernel function's patch site, which ftrace owns, or the entry of a
 * BPF function, which bpf_arch_text_poke changes.
 *
 * Reference: kernel/bpf/trampoline.c: register_fentry, modify_fentry, unregister_fentry;
 * tr->func.ftrace_managed. A trampoline on a function of a module holds the module.
 */
import { reachable } from '../../a64/immediates.js';
import { KernelError } from '../../common/errors.js';
import type { JitImage } from '../../jit/program.js';
import type { FtraceOps } from '../ftrace/ops.js';
import type { Kernel } from '../kernel.js';
import type { KernelModule } from '../module/modules.js';
import { parsePrototype, type Prototype } from '../prototype.js';
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
  readonly #module: KernelModule | undefined;
  /** Of its direct call; undefined where the direct calls of all sites share one. */
  readonly ops: FtraceOps | undefined;

  constructor(kernel: Kernel, key: number, target: FunctionTarget) {
    this.#kernel = kernel;
    this.name = target.name;
    this.address = target.address;
    this.model = target.model;
    this.#module = kernel.modules.at(target.address);
    if (this.#module) this.#module.users++;
    const { profile } = kernel.ftrace;
    if (profile.direct?.api === 'ip') return;
    const address = kernel.kmalloc(profile.ops.size);
    this.ops = kernel.ftrace.createOps(`bpf_trampoline_${key}.fops`, address, 0n);
  }

  register(image: TrampolineImage): void {
    const { ftrace, directCalls, directCallsByIp } = this.#kernel;
    const ip = ftrace.location(this.address);
    if (ip === undefined) {
      throw new KernelError(
        'ENOTSUPP',
        `${this.name} has no patch site (notrace), nothing can be attached to it`,
      );
    }
    if (!ftrace.profile.direct) {
      throw new KernelError(
        'ENOTSUPP',
        `${ftrace.profile.version} has no direct calls on kernel functions (since 6.4), ${this.name} is one`,
      );
    }
    this.#checkRange(image.code.base);
    if (this.ops) {
      ftrace.setFilterIp(this.ops, ip, false, true);
      directCalls.register(this.ops, image.code.base);
    } else {
      directCallsByIp.register(ip, image.code.base);
    }
  }

  modify(from: TrampolineImage, to: TrampolineImage): void {
    this.#checkRange(to.code.base);
    const { directCalls, directCallsByIp } = this.#kernel;
    if (this.ops) directCalls.modify(this.ops, to.code.base);
    else directCallsByIp.modify(this.address, from.code.base, to.code.base);
  }

  unregister(): void {
    const { directCalls, directCallsByIp } = this.#kernel;
    if (this.ops) directCalls.unregister(this.ops);
    else directCallsByIp.unregister(this.address);
  }

  close(): void {
    const { ftrace } = this.#kernel;
    const { ops } = this;
    if (this.#module) this.#module.users--;
    if (!ops) return;
    ftrace.whenUnused(ops, () => {
      ftrace.forgetOps(ops);
      this.#kernel.kfree(ops.address);
    });
  }

  /** Where ftrace cannot reach a far image, v5 refuses it beforehand; it measures from the function's entry. */
  #checkRange(image: bigint): void {
    const { profile } = this.#kernel.ftrace;
    if (profile.direct?.far !== 'refused' || reachable(this.address, image)) return;
    throw new KernelError(
      'ENOTSUPP',
      `bpf: the trampoline image is out of BL range of ${this.name}, which ${profile.version} cannot bridge`,
    );
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
