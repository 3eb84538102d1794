/**
 * The private stack of a function (7.3): memory per CPU that R10 means instead of the kernel stack, with
 * guards at both ends.
 *
 * Reference: arch/arm64/net/bpf_jit_comp.c: bpf_int_jit_compile, priv_stack_init_guard,
 * priv_stack_check_guard (7.3). A guard that has changed is told in the kernel log when the program is
 * freed.
 */
import { PRIVATE_STACK_GUARD } from '../../jit/frame.js';
import type { Kernel } from '../kernel.js';

/** PRIV_STACK_GUARD_VAL. */
const GUARD = 0xeb9f_1234_5678_eb9fn;

export class PrivateStack {
  /** Per-CPU pointer of the lower guard. */
  readonly pointer: bigint;
  readonly #kernel: Kernel;
  readonly #name: string;
  /** Bytes from the lower guard to the upper one. */
  readonly #top: bigint;

  constructor(kernel: Kernel, name: string, stackDepth: number) {
    this.#kernel = kernel;
    this.#name = name;
    this.#top = PRIVATE_STACK_GUARD + BigInt(Math.ceil(stackDepth / 16) * 16);
    this.pointer = kernel.allocPercpu(Number(this.#top + PRIVATE_STACK_GUARD));
    for (const address of this.#guardWords()) kernel.memory.write64(address, GUARD);
  }

  free(): void {
    const { memory } = this.#kernel;
    if (this.#guardWords().some((address) => memory.read64(address) !== GUARD)) {
      this.#kernel.printk(`BPF private stack overflow/underflow detected for prog ${this.#name}`);
    }
    this.#kernel.freePercpu(this.pointer);
  }

  #guardWords(): bigint[] {
    const { cpus } = this.#kernel;
    return cpus.flatMap((_, cpu) => {
      const lower = this.#kernel.perCpuAddress(this.pointer, cpu);
      return [lower, lower + 8n, lower + this.#top, lower + this.#top + 8n];
    });
  }
}
