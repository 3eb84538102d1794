/**
 * Who has which kernel addresses: one allocator for all of vmalloc space and the module region, as vmap_area's
 * tree is one, and the ways in which BPF images and modules take from it.
 *
 * Reference: mm/vmalloc.c: __vmalloc_node_range (lowest address that fits, a guard page behind each area);
 * module_alloc, later execmem_alloc with its fallback; bpf_jit_alloc_exec. Vmalloc space that others use is
 * one block from the lowest free address on, with holes on request.
 *
 * Usage:
 *   const space = kernelSpace(layout, { used: 3 << 30, holes: [{ at: 64 << 20, size: 8192 }] });
 *   const page = takeBpfPages(layout, space, 4096);
 *   const text = takeModule(layout, space, 16384);
 */
import { alignUp } from '../../common/bytes.js';
import { InputError, KernelError } from '../../common/errors.js';
import { RangeAllocator, type Placement } from '../range-allocator.js';
import type { Layout } from './layout.js';

const PAGE_SIZE = 4096;
/** Behind each area of vmalloc space, unmapped. */
const GUARD_SIZE = PAGE_SIZE;
/** BPF_PROG_PACK_SIZE of one NUMA node. */
const PACK_SIZE = 2 << 20;

export interface VmallocUse {
  /** Bytes in use from the lowest free address on. Default 0. */
  readonly used?: number;
  /** What of them was given back: offset in the block and size. Default none. */
  readonly holes?: readonly { readonly at: number; readonly size: number }[];
  /** Bytes of the module windows in use, from the first one's lowest free address on. Default 0. */
  readonly modulesUsed?: number;
}

export function kernelSpace(layout: Layout, use: VmallocUse = {}): RangeAllocator {
  const space = new RangeAllocator('vmalloc', layout.vmallocStart, layout.vmallocEnd);
  space.reserve(layout.text, layout.end);
  const { used = 0, holes = [] } = use;
  const outside = holes.find(({ at, size }) => at + size > used);
  if (outside) throw new InputError(`a hole at ${outside.at} is not in ${used} bytes of use`);
  if (used > 0) {
    const block = space.take(BigInt(used), BigInt(PAGE_SIZE));
    for (const { at, size } of holes) {
      space.cut(block + BigInt(at), block + BigInt(at + size));
    }
  }
  let modules = BigInt(use.modulesUsed ?? 0);
  for (const window of layout.moduleWindows) modules -= space.fill(modules, window);
  return space;
}

/** Pages of one image, or of a pack; 6.1's JIT and trampolines take no less than a page. */
export function takeBpfPages(layout: Layout, space: RangeAllocator, size: number): bigint {
  const bytes = layout.profile.bpf === 'packs' ? PACK_SIZE : alignUp(size, PAGE_SIZE) + GUARD_SIZE;
  return space.take(BigInt(bytes), BigInt(PAGE_SIZE), { window: layout.bpfWindow });
}

/** Text of a module. Throws KernelError -ENOMEM. */
export function takeModule(
  layout: Layout,
  space: RangeAllocator,
  size: number,
  placement: Omit<Placement, 'window'> = {},
): bigint {
  const bytes = BigInt(alignUp(size, PAGE_SIZE) + GUARD_SIZE);
  for (const window of layout.moduleWindows) {
    const address = space.find(bytes, BigInt(PAGE_SIZE), { ...placement, window });
    if (address === undefined) continue;
    space.reserve(address, address + bytes);
    return address;
  }
  throw new KernelError('ENOMEM', `no ${bytes} bytes left where modules may be`);
}
