/**
 * The BPF subsystem of the kernel: host for maps and helpers, loaded programs, attachments.
 *
 * Reference: kernel/bpf/syscall.c: bpf_tracing_prog_attach, kernel/bpf/trampoline.c:
 * bpf_trampoline_get. Usage:
 *   const object = load(parseObject(bytes), kernel.bpf.host);
 *   const program = kernel.bpf.load(object.programs[0].xlated);
 *   const attached = kernel.bpf.attach(program, 'fentry', 'bpf_fentry_test2');
 */
import type { XlatedProgram } from '../../bpf/program.js';
import { encode } from '../../a64/codec.js';
import { KernelError } from '../../common/errors.js';
import { dummyTramp } from '../../jit/plt.js';
import type { Kernel } from '../kernel.js';
import { ENTER_EXIT_FUNCTIONS } from './enter-exit.js';
import { KernelBpfHost } from './host.js';
import { ProgPack } from './prog-pack.js';
import { JIT_CONFIG, KernelProgram } from './program.js';
import { Trampoline, type LinkKind, type TrampolineLink } from './trampoline.js';

/** A program in its place; `detach` takes it away again. */
export interface Attachment {
  readonly trampoline: Trampoline;
  readonly link: TrampolineLink;
  detach(): void;
}

/** u64 __bpf_call_base(...): returns 0; what helper offsets count from. */
const CALL_BASE = [encode('MOVZ', { sf: 1, hw: 0, imm16: 0, Rd: 0 }), encode('RET', { Rn: 30 })];

export class Bpf {
  readonly host: KernelBpfHost;
  readonly pack: ProgPack;
  readonly #kernel: Kernel;
  readonly #trampolines = new Map<bigint, Trampoline>();
  #nextKey = 1;

  constructor(kernel: Kernel, seed: number) {
    this.#kernel = kernel;
    this.pack = new ProgPack(kernel.memory, kernel.vmalloc);
    kernel.text.addWords('__bpf_call_base', CALL_BASE);
    kernel.text.addWords('dummy_tramp', dummyTramp(JIT_CONFIG));
    kernel.define(...ENTER_EXIT_FUNCTIONS);
    this.host = new KernelBpfHost(kernel, seed);
  }

  /** JITs a program. Throws KernelError when the JIT refuses it. */
  load(xlated: XlatedProgram): KernelProgram {
    return new KernelProgram(
      {
        kernel: this.#kernel,
        pack: this.pack,
        callBase: this.host.callBase,
        dummyTramp: this.#kernel.symbol('dummy_tramp'),
      },
      xlated,
    );
  }

  /** Attaches a tracing program to a kernel function. On failure nothing has changed. */
  attach(program: KernelProgram, kind: LinkKind, target: string, cookie = 0n): Attachment {
    const trampoline = this.#trampolineOf(target);
    const link: TrampolineLink = { kind, program, cookie };
    trampoline.link(link);
    return { trampoline, link, detach: () => trampoline.unlink(link) };
  }

  #trampolineOf(target: string): Trampoline {
    const symbol = this.#kernel.symbols.get(target);
    const model = this.#kernel.text.prototypes.get(symbol.address);
    if (!model) throw new KernelError('EINVAL', `${target} is no function with a known prototype`);
    let trampoline = this.#trampolines.get(symbol.address);
    if (!trampoline) {
      const parts = { kernel: this.#kernel, pack: this.pack };
      trampoline = new Trampoline(parts, this.#nextKey++, symbol, model);
      this.#trampolines.set(symbol.address, trampoline);
    }
    return trampoline;
  }
}
