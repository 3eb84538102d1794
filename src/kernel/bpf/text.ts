/**
 * BPF text: which images there are, and bpf_arch_text_poke on them.
 *
 * Reference: arch/arm64/net/bpf_jit_comp.c: bpf_arch_text_poke; kernel/bpf/core.c: bpf_ksym_find. What is
 * written and when `jit/poke.ts` plans; here it is written: first the PLT's target, then the instruction,
 * which every CPU then fetches anew.
 *
 * Usage:
 *   text.add({ base: image.base, jitedLength: image.jitedLength });
 *   text.poke(image.base, 'call', 0n, trampoline); // BL at the entry's NOP
 *   text.poke(image.base, 'call', trampoline, 0n); // NOP again
 */
import { KernelError } from '../../common/errors.js';
import { errnoName } from '../../common/errno.js';
import { viewOf } from '../../common/bytes.js';
import { planTextPoke, type PokedImage, type PokeType } from '../../jit/poke.js';
import type { Kernel } from '../kernel.js';

/** An image, and of a program's function what bpf_throw asks. */
export interface BpfImage extends PokedImage {
  readonly function?: {
    readonly isMain: boolean;
    /** aux->bpf_exception_cb; undefined in a program that does not throw. */
    readonly exceptionCallback: bigint | undefined;
  };
}

export class BpfText {
  readonly #kernel: Kernel;
  readonly #bti: boolean;
  readonly #dummyTramp: bigint;
  /** By where they begin. */
  readonly #images = new Map<bigint, BpfImage>();

  constructor(kernel: Kernel, bti: boolean, dummyTramp: bigint) {
    this.#kernel = kernel;
    this.#bti = bti;
    this.#dummyTramp = dummyTramp;
  }

  add(image: BpfImage): void {
    this.#images.set(image.base, image);
  }

  remove(base: bigint): void {
    this.#images.delete(base);
  }

  /** The image that `address` lies in. */
  find(address: bigint): BpfImage | undefined {
    for (const image of this.#images.values()) {
      if (address >= image.base && address < image.base + BigInt(image.jitedLength)) return image;
    }
    return undefined;
  }

  /**
   * Makes the site at `ip` (an image's entry, or any instruction of it) branch to `to` instead of `from`; 0 is
   * nothing. Throws KernelError: ENOTSUPP (no BPF text), EFAULT (the site is not what `from` says),
   * EINVAL (out of range, and no entry).
   */
  poke(ip: bigint, type: PokeType, from: bigint, to: bigint): void {
    const { memory, symbols } = this.#kernel;
    const plan = planTextPoke({
      ip,
      type,
      oldAddress: from,
      newAddress: to,
      image: this.find(ip),
      bti: this.#bti,
      dummyTramp: this.#dummyTramp,
      read: (address) => memory.read32(address),
    });
    if (plan.pltWrite) memory.pokeBytes(plan.pltWrite.address, bytes64(plan.pltWrite.target));
    if (plan.patch) {
      memory.pokeBytes(plan.patch.address, bytes32(plan.patch.word));
      this.#kernel.syncText(plan.patch.address, plan.patch.address + 4n);
    }
    if (plan.result !== 0) {
      const state = from === 0n ? 'a NOP' : `a branch to ${symbols.format(from)}`;
      throw new KernelError(
        errnoName(plan.result) ?? 'EINVAL',
        `text poke at ${symbols.format(ip)}, expected ${state}`,
      );
    }
  }
}

function bytes64(value: bigint): Uint8Array {
  const bytes = new Uint8Array(8);
  viewOf(bytes).setBigUint64(0, value, true);
  return bytes;
}

function bytes32(value: number): Uint8Array {
  const bytes = new Uint8Array(4);
  viewOf(bytes).setUint32(0, value, true);
  return bytes;
}
