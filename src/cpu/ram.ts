/**
 * The backing store by physical address: what code that works on kernel structures reads and writes.
 *
 * A physical address is an offset in the store. It is a small integer, which JavaScript engines keep
 * unboxed, and an access needs no translation: a driver in TypeScript holds physical addresses and
 * never makes a BigInt. Pointers in memory and in registers stay 64-bit virtual addresses; `pointer`
 * and `setPointer` cross over, as phys_to_virt and virt_to_phys do, and a pointer to unmapped memory is
 * a fault when it is loaded. 0 is NULL: the store's first byte, in a kernel its text, is not pointed to.
 * Leaves out permissions and a check of each access: an object found through its pointer is taken to be
 * whole.
 *
 * Usage:
 *   const { ram } = memory;
 *   const vq = ram.pointer(rq + RQ.vq);
 *   ram.set32(vq + VQ.num_free, ram.u32(vq + VQ.num_free) - 1);
 */
import { join64 } from '../common/bytes.js';
import { MemoryAccessError } from './fault.js';
import type { Region } from './memory.js';

export const PAGE_SHIFT = 12;

export class Ram {
  readonly bytes: Uint8Array;
  readonly view: DataView;
  readonly #regionAt: (address: bigint) => Region | undefined;
  /** Virtual address of each page, in halves; both 0 for a page that is not mapped. */
  readonly #pageHi: Int32Array;
  readonly #pageLo: Int32Array;
  // the region that the last pointer led to; a size of 0 never matches
  #hi = 0;
  #lo = 0;
  #size = 0;
  #offset = 0;

  constructor(buffer: ArrayBuffer, regionAt: (address: bigint) => Region | undefined) {
    this.bytes = new Uint8Array(buffer);
    this.view = new DataView(buffer);
    this.#regionAt = regionAt;
    this.#pageHi = new Int32Array(buffer.byteLength >>> PAGE_SHIFT);
    this.#pageLo = new Int32Array(buffer.byteLength >>> PAGE_SHIFT);
  }

  u8(at: number): number {
    return this.view.getUint8(at);
  }

  u16(at: number): number {
    return this.view.getUint16(at, true);
  }

  u32(at: number): number {
    return this.view.getUint32(at, true);
  }

  s32(at: number): number {
    return this.view.getInt32(at, true);
  }

  /** The low 53 bits of a u64 that is known to be small: a counter, a length. */
  u53(at: number): number {
    return (this.u32(at + 4) & 0x1fffff) * 0x1_0000_0000 + this.u32(at);
  }

  u64(at: number): bigint {
    return this.view.getBigUint64(at, true);
  }

  set8(at: number, value: number): void {
    this.view.setUint8(at, value);
  }

  set16(at: number, value: number): void {
    this.view.setUint16(at, value, true);
  }

  set32(at: number, value: number): void {
    this.view.setInt32(at, value, true);
  }

  /** Stores a u64 whose upper half is 0. */
  setWord(at: number, value: number): void {
    this.view.setInt32(at, value, true);
    this.view.setInt32(at + 4, 0, true);
  }

  set64(at: number, value: bigint): void {
    this.view.setBigUint64(at, value, true);
  }

  /** Adds -2^31 .. 2^31-1 to a u64. */
  add64(at: number, by: number): void {
    const before = this.u32(at);
    const lo = before + by;
    this.set32(at, lo);
    if (lo > 0xffffffff) this.set32(at + 4, this.s32(at + 4) + 1);
    else if (lo < 0) this.set32(at + 4, this.s32(at + 4) - 1);
  }

  /** The pointer stored at `at`. Throws MemoryAccessError when it points to unmapped memory. */
  pointer(at: number): number {
    const lo = this.view.getInt32(at, true);
    const hi = this.view.getInt32(at + 4, true);
    return this.physical(hi, lo);
  }

  /** Stores a pointer to `target`; 0 stores NULL. */
  setPointer(at: number, target: number): void {
    const within = target - this.#offset;
    if (within >= 0 && within < this.#size && target !== 0) {
      this.view.setInt32(at, this.#lo + within, true);
      this.view.setInt32(at + 4, this.#hi, true);
    } else {
      this.#setFar(at, target);
    }
  }

  /** Where the byte at a virtual address lies; NULL is 0. Throws MemoryAccessError when it is unmapped. */
  physical(hi: number, lo: number): number {
    const within = (lo - this.#lo) >>> 0;
    if (hi === this.#hi && within < this.#size) return this.#offset + within;
    return this.#lookUp(hi, lo);
  }

  virtToPhys(address: bigint): number {
    return this.physical(
      Number(BigInt.asIntN(32, address >> 32n)),
      Number(BigInt.asIntN(32, address)),
    );
  }

  physToVirt(at: number): bigint {
    return join64(this.addressLo(at), this.addressHi(at));
  }

  /** Halves of the virtual address of a byte; those of NULL are 0. */
  addressHi(at: number): number {
    return at === 0 ? 0 : (this.#pageHi[at >>> PAGE_SHIFT] as number);
  }

  addressLo(at: number): number {
    return at === 0 ? 0 : (this.#pageLo[at >>> PAGE_SHIFT] as number) | (at & 0xfff);
  }

  copy(to: number, from: number, size: number): void {
    this.bytes.copyWithin(to, from, from + size);
  }

  zero(at: number, size: number): void {
    this.bytes.fill(0, at, at + size);
  }

  /** A copy of `size` bytes. */
  slice(at: number, size: number): Uint8Array {
    return this.bytes.slice(at, at + size);
  }

  /** `Memory` tells what it maps. */
  mapped(region: Region): void {
    const first = region.pageOffset >>> PAGE_SHIFT;
    const pages = region.pageBytes >>> PAGE_SHIFT;
    const hi = Number(BigInt.asIntN(32, region.pageAddress >> 32n));
    const lo = Number(BigInt.asIntN(32, region.pageAddress));
    this.#pageHi.fill(hi, first, first + pages);
    for (let i = 0; i < pages; i++) this.#pageLo[first + i] = lo + (i << PAGE_SHIFT);
    this.#size = 0;
  }

  /** `Memory` tells what it unmaps. */
  unmapped(region: Region): void {
    const first = region.pageOffset >>> PAGE_SHIFT;
    const pages = region.pageBytes >>> PAGE_SHIFT;
    this.#pageHi.fill(0, first, first + pages);
    this.#pageLo.fill(0, first, first + pages);
    this.#size = 0;
  }

  #setFar(at: number, target: number): void {
    const lo = this.addressLo(target);
    const hi = this.addressHi(target);
    this.view.setInt32(at, lo, true);
    this.view.setInt32(at + 4, hi, true);
  }

  #lookUp(hi: number, lo: number): number {
    if ((hi | lo) === 0) return 0;
    const address = join64(lo, hi);
    const region = this.#regionAt(address);
    if (!region)
      throw new MemoryAccessError({ access: 'read', address, size: 1, reason: 'unmapped' });
    this.#hi = hi;
    this.#lo = Number(BigInt.asIntN(32, region.address));
    this.#size = region.size;
    this.#offset = region.offset;
    return region.offset + Number(address - region.address);
  }
}
