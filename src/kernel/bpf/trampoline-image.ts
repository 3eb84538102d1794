/**
 * A trampoline image from its generation to its end: struct bpf_tramp_image, its code, its references.
 *
 * Reference: kernel/bpf/trampoline.c: bpf_tramp_image_alloc, bpf_tramp_image_put, __bpf_tramp_image_release.
 *
 *   put, no original called:  RCU tasks trace -> RCU tasks -> freed
 *   put, original called:     NOP behind the original becomes B to the epilogue, so that calls which are in
 *                             it now skip the fexit programs (these may be freed meanwhile)
 *                             -> RCU tasks -> percpu_ref_kill -> last __bpf_tramp_exit -> RCU tasks -> freed
 *
 * The reference count covers everything between __bpf_tramp_enter and __bpf_tramp_exit, the original's sleep
 * included; RCU tasks covers the instructions before and after. pcref is kept as two words, the count and
 * whether it was killed, rather than per CPU. Left out: the work queue that frees.
 */
import { viewOf } from '../../common/bytes.js';
import { KernelError } from '../../common/errors.js';
import {
  TRAMP_FLAGS,
  type FunctionModel,
  type TrampolineLink,
} from '../../jit/trampoline-model.js';
import { TRAMPOLINE_PROFILES } from '../../jit/trampoline-profile.js';
import { compileTrampoline, type Trampoline as TrampolineCode } from '../../jit/trampoline.js';
import type { Kernel } from '../kernel.js';
import { PERCPU_REF } from './enter-exit.js';
import type { ImageMemory } from './image-memory.js';
import type { BpfProfile } from './profile.js';
import type { BpfText } from './text.js';

/** How far below the top of the stack the copy is: a few frames, any number does. */
const COPY_DEPTH = 0x4e0;

/** What the images of a kernel share. */
export interface ImageParts {
  readonly kernel: Kernel;
  readonly profile: BpfProfile;
  readonly images: ImageMemory;
  readonly text: BpfText;
  /** Images that exist, by descriptor: whom __bpf_tramp_exit tells of the last reference. */
  readonly live: Map<bigint, TrampolineImage>;
}

/** What an image is made of: arguments of arch_prepare_bpf_trampoline. */
export interface ImageRequest {
  readonly model: FunctionModel;
  /** BPF_TRAMP_F_*. */
  readonly flags: number;
  /** In the order in which they run, kind after kind. */
  readonly links: readonly TrampolineLink[];
  readonly functionAddress: bigint;
}

export class TrampolineImage {
  readonly request: ImageRequest;
  readonly code: TrampolineCode;
  /** Address of its struct bpf_tramp_image. */
  readonly descriptor: bigint;
  readonly #parts: ImageParts;
  #symbol: string | undefined;
  #freed = false;

  /** Generates and places it. Throws what compileTrampoline throws; nothing then is left of it. */
  constructor(parts: ImageParts, request: ImageRequest) {
    const { kernel, profile, images } = parts;
    this.#parts = parts;
    this.request = request;
    this.descriptor = kernel.kmalloc(profile.trampImage.size);
    let base: bigint | undefined;
    try {
      this.code = compileTrampoline(request.model, request.flags, request.links, {
        kernel: profile.version,
        profile: { ...TRAMPOLINE_PROFILES[profile.version], ...profile.codegen.trampoline },
        config: profile.codegen.config,
        offsets: profile.offsets,
        functionAddress: request.functionAddress,
        im: this.descriptor,
        imCopy: this.#copyOnStack(),
        enter: kernel.symbol('__bpf_tramp_enter'),
        exit: kernel.symbol('__bpf_tramp_exit'),
        place: (size) => (base = images.alloc(size)),
      });
    } catch (error) {
      if (base !== undefined) images.free(base);
      kernel.kfree(this.descriptor);
      throw error;
    }
    this.#write();
    parts.text.add({ base: this.code.base, jitedLength: this.code.length });
    parts.live.set(this.descriptor, this);
  }

  get freed(): boolean {
    return this.#freed;
  }

  /** References that running calls hold, and one until it is killed. */
  get references(): bigint {
    return this.#freed ? 0n : this.#ref(PERCPU_REF.count);
  }

  /** The name it has in the symbol table, if it is there. */
  get symbol(): string | undefined {
    return this.#symbol;
  }

  name(symbol: string): void {
    this.#unname();
    this.#parts.kernel.symbols.add(symbol, this.code.base, this.code.length);
    this.#symbol = symbol;
  }

  /** Never was reachable: freed at once. */
  discard(): void {
    this.#free();
  }

  /** Can be reached no more. Its name is free for another; what still runs in it has a numbered one. */
  put(): void {
    const { kernel, text } = this.#parts;
    const { rcu, symbols } = kernel;
    const name = this.#symbol;
    this.#unname();
    const { ipAfterCall, ipEpilogue, base } = this.code;
    if (this.request.flags & TRAMP_FLAGS.CALL_ORIG) {
      if (ipAfterCall !== undefined && ipEpilogue !== undefined) {
        text.poke(base + BigInt(ipAfterCall), 'jump', 0n, base + BigInt(ipEpilogue));
      }
      rcu.call('tasks', () => this.#kill());
    } else {
      rcu.call('tasks_trace', () => rcu.call('tasks', () => this.#free()));
    }
    if (!this.#freed && name !== undefined) this.name(symbols.unique(`${name}.old`));
  }

  /** The last __bpf_tramp_exit was in it. */
  released(): void {
    if (this.#ref(PERCPU_REF.killed) === 0n) {
      throw new KernelError('EINVAL', `${this.#symbol ?? 'trampoline'}: reference underflow`);
    }
    this.#parts.kernel.rcu.call('tasks', () => this.#free());
  }

  /** bpf_trampoline_update's own copy, on the stack of who attaches. */
  #copyOnStack(): bigint {
    const { kernel, profile } = this.#parts;
    // asking for the current task may create one
    if (profile.codegen.trampoline.imageAddressEstimate !== 'of the copy') return 0n;
    return kernel.stackOf(kernel.current) - BigInt(COPY_DEPTH);
  }

  #kill(): void {
    this.#setRef(PERCPU_REF.killed, 1n);
    this.#setRef(PERCPU_REF.count, this.#ref(PERCPU_REF.count) - 1n);
    this.#parts.kernel.waitForZero(this.#refAddress(PERCPU_REF.count));
    if (this.#ref(PERCPU_REF.count) === 0n) this.released();
  }

  #free(): void {
    const { kernel, images, text, live } = this.#parts;
    this.#freed = true;
    this.#unname();
    live.delete(this.descriptor);
    text.remove(this.code.base);
    kernel.kfree(this.descriptor);
    images.free(this.code.base);
  }

  #unname(): void {
    if (this.#symbol !== undefined) this.#parts.kernel.symbols.remove(this.#symbol);
    this.#symbol = undefined;
  }

  #write(): void {
    const { kernel, profile } = this.#parts;
    const { code } = this;
    const bytes = new Uint8Array(code.length);
    const view = viewOf(bytes);
    code.words.forEach((word, i) => view.setUint32(4 * i, word, true));
    kernel.memory.pokeBytes(code.base, bytes);
    kernel.flushText(code.base, code.base + BigInt(Math.max(code.allocSize, code.length)));
    const fields = profile.trampImage;
    const store = (field: number | undefined, value: bigint): void => {
      if (field !== undefined) kernel.memory.write64(this.descriptor + BigInt(field), value);
    };
    const at = (offset: number | undefined): bigint =>
      offset === undefined ? 0n : code.base + BigInt(offset);
    store(fields.image, code.base);
    store(fields.ip_after_call, at(code.ipAfterCall));
    store(fields.ip_epilogue, at(code.ipEpilogue));
    if (this.request.flags & TRAMP_FLAGS.CALL_ORIG) store(fields.call_orig, 1n);
    this.#setRef(PERCPU_REF.count, 1n);
  }

  #ref(word: number): bigint {
    return this.#parts.kernel.memory.read64(this.#refAddress(word));
  }

  #setRef(word: number, value: bigint): void {
    this.#parts.kernel.memory.write64(this.#refAddress(word), value);
  }

  #refAddress(word: number): bigint {
    return this.descriptor + BigInt(this.#parts.profile.trampImage.pcref + word);
  }
}
