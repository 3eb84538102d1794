/**
 * Where BPF images live: packs of 2 MiB in vmalloc space, handed out in 64-byte chunks.
 *
 * Reference: kernel/bpf/core.c: bpf_prog_pack_alloc, bpf_prog_pack_free,
 * bpf_jit_binary_pack_alloc (arm64 since 6.9). What is not in use holds AARCH64_BREAK_FAULT. Left
 * out: the random start inside the first chunk (an image starts right behind its header), so the same
 * run gives the same addresses; and giving an empty pack back, unless it was made for one large image.
 */
import { PAGE_SIZE, type Memory, type Region } from '../../cpu/memory.js';
import { MAPPABLE, type RangeAllocator } from '../range-allocator.js';
import { breakFill, type ImageMemory } from './image-memory.js';

const BPF_PROG_PACK_SIZE = 2 << 20;
const BPF_PROG_CHUNK_SIZE = 64;
const CHUNKS = BPF_PROG_PACK_SIZE / BPF_PROG_CHUNK_SIZE;

interface Pack {
  readonly address: bigint;
  /** One byte per chunk: 1 = in use. */
  readonly used: Uint8Array;
  /** All chunks below this one are in use. */
  full: number;
  readonly region: Region;
}

export class ProgPack implements ImageMemory {
  readonly #memory: Memory;
  readonly #space: RangeAllocator;
  readonly #guarded: boolean;
  readonly #packs: Pack[] = [];
  /** Live allocations: address to chunks. */
  readonly #live = new Map<bigint, number>();

  constructor(memory: Memory, space: RangeAllocator, guarded = false) {
    this.#memory = memory;
    this.#space = space;
    this.#guarded = guarded;
  }

  /** Room for `size` bytes in the lowest free chunks; at most one pack. */
  alloc(size: number): bigint {
    const chunks = Math.ceil(size / BPF_PROG_CHUNK_SIZE);
    if (chunks > CHUNKS) return this.#allocLarge(size);
    for (const pack of this.#packs) {
      const start = findRun(pack.used, pack.full, chunks);
      if (start >= 0) return this.#take(pack, start, chunks);
    }
    return this.#take(this.#newPack(BPF_PROG_PACK_SIZE), 0, chunks);
  }

  /** Fills the image with AARCH64_BREAK_FAULT and gives its chunks back. */
  free(address: bigint): void {
    const chunks = this.#live.get(address);
    const pack = this.#packs.find(
      (each) =>
        address >= each.address &&
        address < each.address + BigInt(each.used.length * BPF_PROG_CHUNK_SIZE),
    );
    if (chunks === undefined || !pack) {
      throw new RangeError(`0x${address.toString(16)} is no BPF image`);
    }
    this.#live.delete(address);
    const start = Number(address - pack.address) / BPF_PROG_CHUNK_SIZE;
    if (pack.used.length > CHUNKS) {
      this.#memory.unmap(pack.region);
      this.#space.release(pack.address);
      this.#packs.splice(this.#packs.indexOf(pack), 1);
      return;
    }
    pack.used.fill(0, start, start + chunks);
    pack.full = Math.min(pack.full, start);
    this.#memory.pokeBytes(address, breakFill(chunks * BPF_PROG_CHUNK_SIZE));
  }

  get liveImages(): number {
    return this.#live.size;
  }

  #take(pack: Pack, start: number, chunks: number): bigint {
    pack.used.fill(1, start, start + chunks);
    if (start === pack.full) pack.full += chunks;
    const address = pack.address + BigInt(start * BPF_PROG_CHUNK_SIZE);
    this.#live.set(address, chunks);
    return address;
  }

  #allocLarge(size: number): bigint {
    const bytes = Math.ceil(size / PAGE_SIZE) * PAGE_SIZE;
    return this.#take(this.#newPack(bytes), 0, bytes / BPF_PROG_CHUNK_SIZE);
  }

  #newPack(size: number): Pack {
    const address = this.#space.take(BigInt(size), BigInt(PAGE_SIZE), MAPPABLE);
    const region = this.#memory.map({
      name: 'bpf_prog_pack',
      address,
      size,
      permissions: 'rx',
      guarded: this.#guarded,
    });
    this.#memory.pokeBytes(address, breakFill(size));
    const pack = { address, used: new Uint8Array(size / BPF_PROG_CHUNK_SIZE), full: 0, region };
    this.#packs.push(pack);
    return pack;
  }
}

/** Index of the first run of `count` zero bytes from `start` on, or -1. */
function findRun(used: Uint8Array, start: number, count: number): number {
  let run = 0;
  for (let i = start; i < used.length; i++) {
    run = used[i] === 0 ? run + 1 : 0;
    if (run === count) return i - count + 1;
  }
  return -1;
}
