/**
 * What a device refuses in a chain of descriptors, in either layout.
 *
 * Reference: virtio 1.x, "Virtqueues"; the refusals are those of QEMU's virtqueue_pop
 * (hw/virtio/virtio.c), of which "zero sized buffers" is stricter than the standard. Both layouts have
 * addr u64 @0 and len u32 @8 in a descriptor. A refusal is a text; nothing is thrown.
 *
 * Usage:
 *   const checks = new DescriptorChecks(memory, true, false);
 *   checks.begin(readable, writable);
 *   const refusal = checks.addPiece('descriptor 3', desc, length, isWritable);
 */
import { hex64, join64 } from '../../common/bytes.js';
import type { BufferAccess } from './buffer-access.js';
import { PieceList } from './piece-list.js';
import { VRING_DESC_F_NEXT, VRING_DESC_SIZE } from './split-ring.js';

/** Pieces a chain may have in all. */
const VIRTQUEUE_MAX_SEGMENTS = 1024;

export class DescriptorChecks {
  readonly #memory: BufferAccess;
  readonly #indirect: boolean;
  readonly #allowsEmpty: boolean;
  #readable = new PieceList();
  #writable = new PieceList();
  #firstReadable = 0;
  #firstWritable = 0;
  /** A writable piece was seen. */
  #isWriting = false;

  /**
   * @param indirect whether VIRTIO_F_INDIRECT_DESC was negotiated.
   * @param allowsEmpty whether buffers of no bytes are left out of a chain, not refused.
   */
  constructor(memory: BufferAccess, indirect: boolean, allowsEmpty: boolean) {
    this.#memory = memory;
    this.#indirect = indirect;
    this.#allowsEmpty = allowsEmpty;
  }

  /** A chain begins: its pieces are added to the lists. */
  begin(readable: PieceList, writable: PieceList): void {
    this.#readable = readable;
    this.#writable = writable;
    this.#firstReadable = readable.count;
    this.#firstWritable = writable.count;
    this.#isWriting = false;
  }

  /** Bytes of the chain that the device may write. */
  get writableBytes(): number {
    return this.#writable.bytes(this.#firstWritable);
  }

  /** The buffer of the descriptor at `desc`, number `index` of its table, becomes part of the chain. */
  addPiece(index: number, desc: number, isWritable: boolean): string | undefined {
    const readable = this.#readable;
    const writable = this.#writable;
    if (!isWritable && this.#isWriting) return `descriptor ${index}: readable after writable`;
    this.#isWriting = isWritable;
    const length = this.#memory.ram.u32(desc + 8);
    if (length === 0) {
      if (this.#allowsEmpty) return undefined;
      return `descriptor ${index}: zero sized buffers are not allowed`;
    }
    const at = this.#locate(desc, length, isWritable);
    if (at < 0) {
      return `descriptor ${index}: ${length} bytes at ${this.#describe(desc)} not mapped`;
    }
    const pieces =
      readable.count - this.#firstReadable + (writable.count - this.#firstWritable) + 1;
    if (pieces > VIRTQUEUE_MAX_SEGMENTS) return `more than ${VIRTQUEUE_MAX_SEGMENTS} segments`;
    (isWritable ? writable : readable).add(at, length);
    return undefined;
  }

  /** Why the table that the descriptor at `desc` names is none. */
  refuseTable(index: number, desc: number, flags: number): string | undefined {
    if (!this.#indirect) return `descriptor ${index} is indirect, which was not negotiated`;
    if ((flags & VRING_DESC_F_NEXT) !== 0) {
      return `descriptor ${index} is indirect and has a next`;
    }
    const length = this.#memory.ram.u32(desc + 8);
    if (length === 0 || length % VRING_DESC_SIZE !== 0) return `indirect table of ${length} bytes`;
    if (this.#locate(desc, length, false) < 0) {
      return `indirect table of ${length} bytes at ${this.#describe(desc)} not mapped`;
    }
    return undefined;
  }

  /** Where the table lies that `refuseTable` had nothing against. */
  tableAt(desc: number): number {
    return this.#locate(desc, this.#memory.ram.u32(desc + 8), false);
  }

  /** Physical address of the memory that a descriptor names, or -1 when it is not all there. */
  #locate(desc: number, length: number, isWritten: boolean): number {
    const memory = this.#memory;
    const hi = memory.ram.s32(desc + 4);
    const lo = memory.ram.s32(desc);
    return isWritten ? memory.offsetWrite(hi, lo, length) : memory.offsetRead(hi, lo, length);
  }

  #describe(desc: number): string {
    const { ram } = this.#memory;
    return hex64(join64(ram.s32(desc), ram.s32(desc + 4)));
  }
}
