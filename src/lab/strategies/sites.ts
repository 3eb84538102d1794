/**
 * Sites that reach their trampoline by other ways than a direct call: what is put in the place of
 * `FtraceSite` when a kernel boots.
 *
 * `OpsSite` registers an ordinary ftrace ops whose callback does the rest; `OpsTrampolineSite` gives it an
 * ftrace trampoline of its own. The texts are in `asm/strategies`.
 */
import { reachable, branchWord } from '../../a64/immediates.js';
import { viewOf } from '../../common/bytes.js';
import { KernelError } from '../../common/errors.js';
import { TRAMP_FLAGS } from '../../jit/trampoline-model.js';
import type { FunctionTarget, TrampolineSite } from '../../kernel/bpf/site.js';
import type { PlacedImage } from '../../kernel/bpf/trampoline.js';
import type { FtraceOps } from '../../kernel/ftrace/ops.js';
import type { Kernel } from '../../kernel/kernel.js';
import { FTRACE_OPS } from '../../kernel/offsets.js';
import type { Prototype } from '../../kernel/prototype.js';

/** What an ops is made of. */
export interface OpsRecipe {
  /** Symbol of ops->func. */
  readonly callback: string;
  /** FTRACE_OPS_FL_*. Default none. */
  readonly flags?: number;
  /** The callback returns before the function begins: nothing can run at its exit or in its place. Default false. */
  readonly entryOnly?: boolean;
  /** What ops->private is for an image. Default: where its code is. */
  readonly private?: (kernel: Kernel, image: PlacedImage) => PrivateData;
}

interface PrivateData {
  readonly value: bigint;
  /** Frees what it points at. */
  free(): void;
}

export class OpsSite implements TrampolineSite {
  readonly name: string;
  readonly address: bigint;
  readonly model: Prototype;
  readonly program = undefined;
  protected readonly kernel: Kernel;
  protected readonly ops: FtraceOps;
  /** Bytes of text that were made for it. */
  generatedText = 0;
  readonly #recipe: OpsRecipe;
  #private: PrivateData | undefined;

  constructor(kernel: Kernel, key: number, target: FunctionTarget, recipe: OpsRecipe) {
    this.kernel = kernel;
    this.name = target.name;
    this.address = target.address;
    this.model = target.model;
    this.#recipe = recipe;
    const address = kernel.kmalloc(FTRACE_OPS.size);
    const callback = kernel.symbol(recipe.callback);
    this.ops = kernel.ftrace.createOps(`bpf_trampoline_${key}.fops`, address, callback);
  }

  register(image: PlacedImage): void {
    const { ftrace } = this.kernel;
    const ip = ftrace.location(this.address);
    if (ip === undefined) throw ftrace.noSite(this.name);
    this.#checkKinds(image);
    ftrace.setFilterIp(this.ops, ip, false);
    this.ops.flags |= this.#recipe.flags ?? 0;
    this.#point(image);
    ftrace.register(this.ops);
  }

  modify(_from: PlacedImage, to: PlacedImage): void {
    this.#checkKinds(to);
    this.#point(to);
  }

  unregister(): void {
    this.kernel.ftrace.unregister(this.ops);
  }

  close(): void {
    this.kernel.ftrace.whenUnused(this.ops, () => {
      this.#private?.free();
      this.kernel.ftrace.forgetOps(this.ops);
      this.kernel.kfree(this.ops.address);
    });
  }

  #checkKinds({ request }: PlacedImage): void {
    if (!this.#recipe.entryOnly || !(request.flags & TRAMP_FLAGS.CALL_ORIG)) return;
    throw new KernelError(
      'ENOTSUPP',
      `${this.name}: ${this.#recipe.callback} is back before the function begins, it serves fentry programs only`,
    );
  }

  #point(image: PlacedImage): void {
    const old = this.#private;
    this.#private = this.#recipe.private?.(this.kernel, image) ?? {
      value: image.code.base,
      free: () => undefined,
    };
    this.kernel.memory.write64(this.ops.address + BigInt(FTRACE_OPS.private), this.#private.value);
    old?.free();
  }
}

/** The table that `lab_ops_loop` reads: number of arguments, number of programs, programs. */
export function programTable(kernel: Kernel, image: PlacedImage): PrivateData {
  const { model, links } = image.request;
  const value = kernel.kmalloc(8 + 16 * links.length);
  kernel.memory.write32(value, model.arguments.length);
  kernel.memory.write32(value + 4n, links.length);
  links.forEach(({ program, entry }, i) => {
    const at = value + BigInt(8 + 16 * i);
    kernel.memory.write64(at, program);
    kernel.memory.write64(at + 8n, entry);
  });
  return { value, free: () => kernel.kfree(value) };
}

/** Where the text of `lab_ops_trampoline` is filled in. */
const TEMPLATE = 'lab_ops_trampoline';
const TEMPLATE_CALL = 'lab_ops_trampoline_call';
const TEMPLATE_OPS = 'lab_ops_trampoline_op';

/** An ops that has a copy of the ftrace trampoline for itself (arch_ftrace_update_trampoline). */
export class OpsTrampolineSite extends OpsSite {
  /** Where the copy is; undefined where its BL cannot get to ops->func: then the site calls ftrace_caller. */
  #copy: bigint | undefined;

  override register(image: PlacedImage): void {
    this.#copy = this.#generate();
    if (this.#copy !== undefined) this.ops.trampoline = this.#copy;
    super.register(image);
  }

  override unregister(): void {
    super.unregister();
    if (this.#copy !== undefined) this.kernel.bpf.images.free(this.#copy);
    this.ops.trampoline = 0n;
    this.generatedText = 0;
    this.#copy = undefined;
  }

  #generate(): bigint | undefined {
    const { kernel, ops } = this;
    const start = kernel.symbol(TEMPLATE);
    const call = kernel.symbol(TEMPLATE_CALL) - start;
    const literal = kernel.symbol(TEMPLATE_OPS) - start;
    const size = Number(literal) + 8;
    const at = kernel.bpf.images.alloc(size);
    if (!reachable(at + call, ops.func)) {
      kernel.bpf.images.free(at);
      return undefined;
    }
    const bytes = kernel.memory.readBytes(start, size).slice();
    const view = viewOf(bytes);
    view.setUint32(Number(call), branchWord(at + call, ops.func, true), true);
    view.setBigUint64(Number(literal), ops.address, true);
    kernel.memory.pokeBytes(at, bytes);
    kernel.syncText(at, at + BigInt(size));
    this.generatedText = size;
    return at;
  }
}
