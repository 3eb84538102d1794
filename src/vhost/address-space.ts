/**
 * An address space of the device's IOMMU (an ASID): which IOVAs it may read and write, and where they lie.
 *
 * Reference: Linux drivers/vhost/vdpa.c (VHOST_IOTLB_UPDATE, VHOST_IOTLB_INVALIDATE), struct vhost_iotlb.
 * Every access of a device goes through one; one that is not mapped, runs over the end of its map or writes
 * what is mapped for reading is refused and noted as a fault. Ranges that follow each other are not joined: a
 * buffer lies in one.
 *
 * Usage:
 *   const space = new DeviceAddressSpace(memory.ram, 1);
 *   space.map(0x1000n, 4096, at, 'ro');       // 0 or -EEXIST
 *   space.offsetRead(0, 0x1000, 64);          // `at`
 *   space.offsetWrite(0, 0x1000, 64);         // -1, and space.faults has a line
 */
import { ERRNO } from '../common/errno.js';
import { hex64, join64, low32, high32 } from '../common/bytes.js';
import type { Ram } from '../cpu/ram.js';
import type { BufferAccess } from '../virtio/ring/buffer-access.js';

/** What the IOMMU knows of a range. */
export interface IotlbEntry {
  readonly iova: bigint;
  /** Bytes. */
  readonly size: number;
  /** Where it lies: an offset in the store. */
  readonly at: number;
  readonly perm: 'ro' | 'rw';
}

export class DeviceAddressSpace implements BufferAccess {
  readonly ram: Ram;
  readonly asid: number;
  readonly #entries: IotlbEntry[] = [];
  #faults: string[] = [];
  // the entry of the last access; a size of 0 never matches
  #hi = 0;
  #lo = 0;
  #size = 0;
  #at = 0;
  #writable = false;

  constructor(ram: Ram, asid: number) {
    this.ram = ram;
    this.asid = asid;
  }

  get entries(): readonly IotlbEntry[] {
    return this.#entries;
  }

  /** Accesses that were refused since the last call. */
  takeFaults(): readonly string[] {
    const faults = this.#faults;
    this.#faults = [];
    return faults;
  }

  /** Maps a range; 0 or -EEXIST when part of it is mapped. */
  map(iova: bigint, size: number, at: number, perm: 'ro' | 'rw'): number {
    const end = iova + BigInt(size);
    const taken = this.#entries.some((e) => iova < e.iova + BigInt(e.size) && e.iova < end);
    if (taken) return -ERRNO.EEXIST;
    this.#entries.push({ iova, size, at, perm });
    this.#size = 0;
    return 0;
  }

  /** Unmaps what lies within a range; 0 or -ENOENT when nothing does. */
  unmap(iova: bigint, size: number): number {
    const end = iova + BigInt(size);
    this.#size = 0;
    let found = -ERRNO.ENOENT;
    for (let i = this.#entries.length - 1; i >= 0; i--) {
      const entry = this.#entries[i] as IotlbEntry;
      if (entry.iova < iova || entry.iova + BigInt(entry.size) > end) continue;
      this.#entries.splice(i, 1);
      found = 0;
    }
    return found;
  }

  offsetRead(hi: number, lo: number, size: number): number {
    return this.#locate(hi, lo, size, false);
  }

  offsetWrite(hi: number, lo: number, size: number): number {
    return this.#locate(hi, lo, size, true);
  }

  #locate(hi: number, lo: number, size: number, isWritten: boolean): number {
    const within = (lo - this.#lo) >>> 0;
    if (hi === this.#hi && within + size <= this.#size && (this.#writable || !isWritten)) {
      return this.#at + within;
    }
    const iova = join64(lo, hi);
    const entry = this.#entries.find((e) => iova >= e.iova && iova < e.iova + BigInt(e.size));
    const offset = entry ? Number(iova - entry.iova) : 0;
    const kind = isWritten ? 'write' : 'read';
    if (!entry) return this.#fault(kind, iova, size, 'not mapped');
    if (offset + size > entry.size) return this.#fault(kind, iova, size, 'over the end of its map');
    if (isWritten && entry.perm === 'ro') return this.#fault(kind, iova, size, 'read-only');
    this.#hi = high32(entry.iova);
    this.#lo = low32(entry.iova);
    this.#size = entry.size;
    this.#at = entry.at;
    this.#writable = entry.perm === 'rw';
    return entry.at + offset;
  }

  #fault(kind: 'read' | 'write', iova: bigint, size: number, why: string): number {
    this.#faults.push(`ASID ${this.asid}: ${kind} of ${size} bytes at ${hex64(iova)}: ${why}`);
    return -1;
  }
}
