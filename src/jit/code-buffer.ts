/**
 * The words of one image while it is generated, with the address it will have and labels over it.
 *
 * Code is generated several times: first without an address, to learn sizes (the kernel's passes with
 * `ctx->image == NULL`), then at its place. `base` is `undefined` in the former. A branch whose target is
 * not known yet is emitted as a hole and patched later, as the kernel does with a NOP.
 *
 * Usage:
 *   const code = new CodeBuffer(0xffff800082000000n);
 *   code.label('frame');
 *   code.emit(stpPreIndex(29, 30, SP, -16));
 *   const hole = code.hole();
 *   code.patch(hole, cbz(1, 0, code.length - hole));
 */
import { nop } from './emit.js';

/** A named range of words: from `start` to the next label's start. */
export interface Label {
  /** Word index. */
  readonly start: number;
  readonly text: string;
}

export class CodeBuffer {
  readonly base: bigint | undefined;
  readonly words: number[] = [];
  readonly labels: Label[] = [];

  constructor(base: bigint | undefined) {
    this.base = base;
  }

  /** Words so far: the index of the next one. */
  get length(): number {
    return this.words.length;
  }

  /** Address of the next word, once the image has a place. */
  get pc(): bigint | undefined {
    return this.base === undefined ? undefined : this.base + BigInt(this.words.length * 4);
  }

  emit(word: number): void {
    this.words.push(word);
  }

  emitAll(words: readonly number[]): void {
    for (const word of words) this.words.push(word);
  }

  /** A word to be patched; gives its index. */
  hole(): number {
    this.words.push(nop());
    return this.words.length - 1;
  }

  patch(index: number, word: number): void {
    this.words[index] = word;
  }

  /** Names the words from here to the next label. */
  label(text: string): void {
    this.labels.push({ start: this.words.length, text });
  }
}
