/**
 * BPF trampolines of kernel functions: which programs are attached, the image that calls them, and
 * the direct call that leads there.
 *
 * Reference: kernel/bpf/trampoline.c: bpf_trampoline_link_prog, bpf_trampoline_update,
 * register_fentry, modify_fentry, unregister_fentry, bpf_tramp_image_put (6.12). Attaching or detaching
 * makes a new image and lets the patch site go to it; the old image is freed at once, because
 * nothing can be running in it between two calls of this lab's single-threaded tasks; with a sleeping
 * original it stays until the task has returned. Left out: freplace, livepatch sharing, BPF programs as
 * targets.
 */
import { KernelError } from '../../common/errors.js';
import { viewOf } from '../../common/bytes.js';
import { TRAMP_FLAGS, type FunctionModel } from '../../jit/trampoline-model.js';
import { compileTrampoline, type Trampoline as TrampolineCode } from '../../jit/trampoline.js';
import type { FtraceOps } from '../ftrace/ops.js';
import type { Kernel } from '../kernel.js';
import { BPF_TRAMP_IMAGE, FTRACE_OPS, JIT_OFFSETS } from '../offsets.js';
import type { Prototype } from '../prototype.js';
import { JIT_CONFIG, type KernelProgram } from './program.js';
import type { ProgPack } from './prog-pack.js';

export const LINK_KINDS = ['fentry', 'fmod_ret', 'fexit'] as const;
export type LinkKind = (typeof LINK_KINDS)[number];

/** BPF_MAX_TRAMP_LINKS. */
const MAX_LINKS = 38;

/** One program attached to one function. */
export interface TrampolineLink {
  readonly kind: LinkKind;
  readonly program: KernelProgram;
  readonly cookie: bigint;
}

/** A generated image in its place. */
export interface PlacedImage {
  /** Address of its struct bpf_tramp_image. */
  readonly descriptor: bigint;
  readonly symbol: string;
  readonly code: TrampolineCode;
}

export interface TrampolineParts {
  readonly kernel: Kernel;
  readonly pack: ProgPack;
}

/** The trampoline of one kernel function. */
export class Trampoline {
  readonly target: { readonly name: string; readonly address: bigint };
  readonly model: Prototype;
  image: PlacedImage | undefined;
  /** The ops of its direct call. */
  readonly ops: FtraceOps;
  readonly #parts: TrampolineParts;
  readonly #key: number;
  /** Most recently attached first, as they run. */
  #links: TrampolineLink[] = [];

  constructor(
    parts: TrampolineParts,
    key: number,
    target: { readonly name: string; readonly address: bigint },
    model: Prototype,
  ) {
    const { kernel } = parts;
    this.#parts = parts;
    this.#key = key;
    this.target = target;
    this.model = model;
    this.ops = kernel.ftrace.createOps(
      `bpf_trampoline_${key}.fops`,
      kernel.kmalloc(FTRACE_OPS.size),
      0n,
    );
  }

  get links(): readonly TrampolineLink[] {
    return this.#links;
  }

  /** bpf_trampoline_link_prog. On failure nothing has changed. */
  link(link: TrampolineLink): void {
    if (this.#links.length >= MAX_LINKS) {
      throw new KernelError('E2BIG', `${this.target.name} has ${MAX_LINKS} programs attached`);
    }
    const twice = this.#links.some(
      (each) => each.kind === link.kind && each.program === link.program,
    );
    if (twice) {
      throw new KernelError(
        'EBUSY',
        `${link.program.name} is attached to ${this.target.name} already`,
      );
    }
    this.#update([link, ...this.#links]);
  }

  /** bpf_trampoline_unlink_prog. */
  unlink(link: TrampolineLink): void {
    if (!this.#links.includes(link)) {
      throw new KernelError(
        'ENOENT',
        `${link.program.name} is not attached to ${this.target.name}`,
      );
    }
    this.#update(this.#links.filter((each) => each !== link));
  }

  #update(links: TrampolineLink[]): void {
    const { directCalls } = this.#parts.kernel;
    const old = this.image;
    if (links.length === 0) {
      directCalls.unregister(this.ops);
      this.image = undefined;
    } else {
      const image = this.#generate(links);
      try {
        if (old) directCalls.modify(this.ops, image.code.base);
        else this.#registerFentry(image.code.base);
      } catch (error) {
        this.#discard(image);
        throw error;
      }
      this.image = image;
    }
    this.#links = links;
    if (old) this.#free(old);
    if (this.image) this.#name(this.image);
  }

  /** The image that calls go to has the symbol. */
  #name({ code, symbol }: PlacedImage): void {
    this.#parts.kernel.symbols.add(symbol, code.base, code.length);
  }

  #registerFentry(image: bigint): void {
    const { kernel } = this.#parts;
    const ip = kernel.ftrace.location(this.target.address);
    if (ip === undefined) {
      throw new KernelError(
        'ENOTSUPP',
        `${this.target.name} has no patch site (notrace), nothing can be attached to it`,
      );
    }
    kernel.ftrace.setFilterIp(this.ops, ip, false);
    kernel.directCalls.register(this.ops, image);
  }

  #generate(links: readonly TrampolineLink[]): PlacedImage {
    const { kernel, pack } = this.#parts;
    const descriptor = kernel.kmalloc(BPF_TRAMP_IMAGE.size);
    const symbol = `bpf_trampoline_${this.#key}`;
    const enter = kernel.symbol('__bpf_prog_enter_recur');
    const exit = kernel.symbol('__bpf_prog_exit_recur');
    const ordered = LINK_KINDS.flatMap((kind) => links.filter((link) => link.kind === kind));
    let base: bigint | undefined;
    try {
      const code = compileTrampoline(
        this.#functionModel(),
        flagsOf(links),
        ordered.map(({ kind, program, cookie }) => ({
          kind,
          program: program.address,
          entry: program.entry,
          cookie,
          enter,
          exit,
        })),
        {
          config: JIT_CONFIG,
          offsets: JIT_OFFSETS,
          functionAddress: this.target.address,
          im: descriptor,
          enter: kernel.symbol('__bpf_tramp_enter'),
          exit: kernel.symbol('__bpf_tramp_exit'),
          place: (size) => (base = pack.alloc(size)),
        },
      );
      this.#write(code, descriptor);
      return { descriptor, symbol, code };
    } catch (error) {
      if (base !== undefined) pack.free(base);
      kernel.kfree(descriptor);
      throw error;
    }
  }

  #functionModel(): FunctionModel {
    return { arguments: this.model.parameters.map(({ size }) => ({ size, struct: false })) };
  }

  #write(code: TrampolineCode, descriptor: bigint): void {
    const { kernel } = this.#parts;
    const bytes = new Uint8Array(code.length);
    const view = viewOf(bytes);
    code.words.forEach((word, i) => view.setUint32(4 * i, word, true));
    kernel.memory.pokeBytes(code.base, bytes);
    kernel.syncText(code.base, code.base + BigInt(code.allocSize));
    const at = (offset: number | undefined): bigint =>
      offset === undefined ? 0n : code.base + BigInt(offset);
    kernel.memory.write64(descriptor + BigInt(BPF_TRAMP_IMAGE.image), code.base);
    kernel.memory.write64(descriptor + BigInt(BPF_TRAMP_IMAGE.ip_after_call), at(code.ipAfterCall));
    kernel.memory.write64(descriptor + BigInt(BPF_TRAMP_IMAGE.ip_epilogue), at(code.ipEpilogue));
  }

  #free(image: PlacedImage): void {
    this.#parts.kernel.symbols.remove(image.symbol);
    this.#discard(image);
  }

  #discard(image: PlacedImage): void {
    const { kernel, pack } = this.#parts;
    kernel.kfree(image.descriptor);
    pack.free(image.code.base);
  }
}

/** BPF_TRAMP_F_* as bpf_trampoline_update chooses them. */
function flagsOf(links: readonly TrampolineLink[]): number {
  const callsOriginal = links.some((link) => link.kind !== 'fentry');
  const usesIp = links.some((link) => link.program.callsGetFuncIp);
  return (
    (callsOriginal ? TRAMP_FLAGS.CALL_ORIG | TRAMP_FLAGS.SKIP_FRAME : TRAMP_FLAGS.RESTORE_REGS) |
    (usesIp ? TRAMP_FLAGS.IP_ARG : 0)
  );
}
