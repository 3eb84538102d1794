/**
 * How a device reaches memory by the addresses in its descriptors.
 *
 * A device without an IOMMU has `Memory` itself: addresses are those of the guest. Behind an IOMMU it is an
 * address space that translates (`src/vhost/address-space.ts`). Addresses come as (hi, lo) Int32 pairs, the
 * result is an offset in `ram`, or -1 when not all `size` bytes may be accessed that way.
 *
 * Usage:
 *   const ring = locateRing(access, layout.used, 4 + 8 * num, true);
 */
import { hex64, high32, low32 } from '../../common/bytes.js';
import type { Ram } from '../../cpu/ram.js';

export interface BufferAccess {
  readonly ram: Ram;
  offsetRead(hi: number, lo: number, size: number): number;
  offsetWrite(hi: number, lo: number, size: number): number;
}

/** Where a part of a ring lies. Throws RangeError when the device cannot reach it. */
export function locateRing(
  access: BufferAccess,
  address: bigint,
  size: number,
  isWritten: boolean,
): number {
  const hi = high32(address);
  const lo = low32(address);
  const at = isWritten ? access.offsetWrite(hi, lo, size) : access.offsetRead(hi, lo, size);
  if (at < 0) throw new RangeError(`ring of ${size} bytes at ${hex64(address)} is not mapped`);
  return at;
}
