/**
 * A foreign image in a lab kernel's memory, at its own addresses, with the helpers that it calls at theirs.
 *
 * A helper's place gets the entry of a function with a TypeScript body (`kernel/text.ts`): a frame record,
 * and a BRK where the lab's own body of that helper runs.
 */
import { encode } from '../../a64/codec.js';
import { hex64, viewOf } from '../../common/bytes.js';
import { InputError } from '../../common/errors.js';
import { PAGE_SIZE, type Region } from '../../cpu/memory.js';
import type { KernelFunction } from '../../kernel/function.js';
import type { Kernel } from '../../kernel/kernel.js';
import { KERNEL_BODY_BRK } from '../../kernel/text.js';
import { FP, ldpPostIndex, LR, ret, SP, stpPreIndex, addImmediate } from '../../jit/emit.js';

/** stp x29, x30, [sp, #-16]!; mov x29, sp; brk; ldp x29, x30, [sp], #16; ret */
const STUB = [
  stpPreIndex(FP, LR, SP, -16),
  addImmediate(1, FP, SP, 0),
  encode('BRK', { imm16: KERNEL_BODY_BRK }),
  ldpPostIndex(FP, LR, SP, 16),
  ret(LR),
];
const BRK_AT = 8n;

export interface TextPiece {
  readonly address: bigint;
  readonly words: readonly number[];
}

export class ForeignText {
  readonly #kernel: Kernel;
  readonly #regions: Region[] = [];
  readonly #bodies: bigint[] = [];

  /** Throws InputError when something is there already. */
  constructor(
    kernel: Kernel,
    pieces: readonly TextPiece[],
    helpers: ReadonlyMap<bigint, KernelFunction>,
  ) {
    this.#kernel = kernel;
    const stubs = [...helpers.keys()].map((address) => ({ address, words: STUB }));
    const all = [...pieces, ...stubs].toSorted((a, b) => (a.address < b.address ? -1 : 1));
    checkApart(all);
    try {
      for (const pages of pagesOf(all)) {
        this.#regions.push(
          kernel.memory.map({ name: 'foreign text', permissions: 'rx', ...pages }),
        );
      }
    } catch (error) {
      this.close();
      if (error instanceof RangeError) {
        throw new InputError(`no room for the image where it was: ${error.message}`);
      }
      throw error;
    }
    for (const { address, words } of all) {
      const bytes = new Uint8Array(4 * words.length);
      words.forEach((word, i) => viewOf(bytes).setUint32(4 * i, word, true));
      kernel.memory.pokeBytes(address, bytes);
    }
    for (const [address, fn] of helpers) {
      kernel.text.bodies.set(address + BRK_AT, fn);
      this.#bodies.push(address + BRK_AT);
    }
    for (const { address, size } of this.#regions) {
      kernel.syncText(address, address + BigInt(size));
    }
  }

  close(): void {
    for (const address of this.#bodies.splice(0)) this.#kernel.text.bodies.delete(address);
    for (const region of this.#regions.splice(0)) this.#kernel.memory.unmap(region);
  }
}

function checkApart(pieces: readonly TextPiece[]): void {
  for (const [i, { address, words }] of pieces.entries()) {
    const next = pieces[i + 1]?.address;
    if (next !== undefined && next < address + BigInt(4 * words.length)) {
      throw new InputError(`code at ${hex64(address)} reaches what is at ${hex64(next)}`);
    }
  }
}

const PAGE = BigInt(PAGE_SIZE);

/** Runs of whole pages that hold all pieces, none over a 4 GiB boundary. */
function pagesOf(pieces: readonly TextPiece[]): { address: bigint; size: number }[] {
  const pages = new Set<bigint>();
  for (const { address, words } of pieces) {
    const end = address + BigInt(4 * words.length);
    for (let page = address - (address % PAGE); page < end; page += PAGE) pages.add(page);
  }
  const runs: { address: bigint; size: number }[] = [];
  for (const page of [...pages].sort((a, b) => (a < b ? -1 : 1))) {
    const last = runs.at(-1);
    const follows = last && last.address + BigInt(last.size) === page;
    if (follows && page >> 32n === last.address >> 32n) last.size += PAGE_SIZE;
    else runs.push({ address: page, size: PAGE_SIZE });
  }
  return runs;
}
