/**
 * What the VMM has mapped for the device: its own buffers and rings at IOVAs of the tree, guest memory.
 *
 * Reference: QEMU 10.0 hw/virtio/vhost-vdpa.c (vhost_vdpa_dma_map, vhost_vdpa_dma_unmap, the memory listener,
 * vhost_vdpa_svq_map_ring), net/vhost-vdpa.c (vhost_vdpa_cvq_map_buf, vhost_vdpa_cvq_unmap_buf). Where an unmap fails
 * QEMU says so, keeps the entry in the tree and frees the memory; strict modes keep the memory too and try again
 * later, until the device lets go of it or is closed.
 *
 * Usage:
 *   const map = maps.map(1, buffer, 4096, 'ro');       // undefined: it could not be
 *   maps.release(1, map, buffer);                      // unmapped and freed
 */
import { ERRNO } from '../common/errno.js';
import { InputError } from '../common/errors.js';
import { alignUp } from '../common/bytes.js';
import { PAGE_SIZE, type Memory, type MemoryListener, type Region } from '../cpu/memory.js';
import type { DmaMap, VhostIovaTree } from './iova-tree.js';
import type { VdpaNetDevice } from './vdpa-device.js';
import type { VmmMemory } from './vmm-memory.js';

/** Something mapped: `map` where it has an entry in the tree, `buffer` where it is memory of the VMM. */
interface Mapped {
  readonly device: VdpaNetDevice;
  readonly asid: number;
  readonly iova: bigint;
  readonly size: number;
  readonly map: DmaMap | undefined;
  readonly buffer: number | undefined;
}

interface GuestSection extends Mapped {
  /** The guest's own. */
  readonly address: bigint;
}

/** At which addresses the device finds guest memory. */
export interface GuestScheme {
  /** In ASID 0 at the guest's own addresses. */
  readonly identity: boolean;
  /** At IOVAs in this address space. */
  readonly translated: number | undefined;
}

export interface DeviceMapsOptions {
  readonly memory: Memory;
  readonly tree: VhostIovaTree;
  readonly vmm: VmmMemory;
  readonly strict: boolean;
  readonly device: () => VdpaNetDevice;
  readonly say: (line: string) => void;
}

export class DeviceMaps {
  readonly #options: DeviceMapsOptions;
  readonly #guest: GuestSection[] = [];
  /** What the device did not let go of. */
  readonly #stuck: Mapped[] = [];
  #listener: MemoryListener | undefined;

  constructor(options: DeviceMapsOptions) {
    this.#options = options;
  }

  /** Buffers of the VMM that the device did not let go of. */
  get stuckBuffers(): number {
    return this.#stuck.filter(({ buffer }) => buffer !== undefined).length;
  }

  /** Maps memory of the VMM; `undefined`: it could not be, and nothing is left of it. */
  map(asid: number, at: number, size: number, perm: 'ro' | 'rw'): DmaMap | undefined {
    const { memory, tree, say, device } = this.#options;
    const pages = alignUp(size, PAGE_SIZE);
    const translated = memory.ram.physToVirt(at);
    const map = tree.allocMap({ translated, size: BigInt(pages) - 1n, perm });
    if (typeof map === 'string') {
      say(`IOVA ${map}: cannot map ${size} bytes`);
      return undefined;
    }
    const result = device().dmaMap(asid, map.iova, pages, at, perm);
    if (result === 0) return map;
    say(`Cannot map to device: ${result}`);
    tree.remove(map);
    return undefined;
  }

  /** Unmaps memory of the VMM and frees it. False: the device keeps it. */
  release(asid: number, map: DmaMap, buffer: number): boolean {
    const size = Number(map.size + 1n);
    const isFree = this.#unmap({
      device: this.#options.device(),
      asid,
      iova: map.iova,
      size,
      map,
      buffer,
    });
    if (!isFree && !this.#options.strict) this.#options.vmm.free(buffer);
    return isFree;
  }

  /** The same for an area that may not have been mapped. */
  releaseArea(asid: number, area: number): void {
    const { memory, tree, vmm } = this.#options;
    const map = tree.findTranslated(memory.ram.physToVirt(area), 'hva');
    if (map) this.release(asid, map, area);
    else vmm.free(area);
  }

  /** Guest memory, what there is now and what comes. Throws InputError when the device does not take it. */
  mapGuest(scheme: GuestScheme): void {
    const mapped = (region: Region): void => {
      if (region.permissions === 'rw') this.#mapSection(region, scheme);
    };
    const unmapped = ({ address }: Region): void => this.#unmapGuest(address);
    this.#listener = { mapped, unmapped };
    this.#options.memory.listen(this.#listener);
  }

  unmapGuest(): void {
    if (this.#listener) this.#options.memory.unlisten(this.#listener);
    this.#listener = undefined;
    for (const section of this.#guest.splice(0)) this.#unmap(section);
  }

  /** Tries again what the device did not let go of. */
  retry(): void {
    for (const each of this.#stuck.splice(0)) this.#unmap(each);
  }

  /** A device is closed: it has nothing of ours any more. */
  forget(device: VdpaNetDevice): void {
    for (const each of this.#stuck.splice(0)) {
      if (each.device === device) this.#forgetOne(each);
      else this.#stuck.push(each);
    }
  }

  /** Entries of the device that nobody here knows of. */
  stale(): number {
    const own = this.#options.tree.maps.filter(({ kind }) => kind === 'hva');
    const known = [...this.#guest, ...this.#stuck, ...own];
    const entries = this.#options.device().spaces.flatMap((space) => space.entries);
    return entries.filter(({ iova }) => known.every((each) => each.iova !== iova)).length;
  }

  #unmap(mapped: Mapped): boolean {
    const { strict, say } = this.#options;
    const result = mapped.device.dmaUnmap(mapped.asid, mapped.iova, mapped.size);
    if (result === 0 || result === -ERRNO.ENOENT) {
      this.#forgetOne(mapped);
      return true;
    }
    say(`Device cannot unmap: ${result}`);
    if (strict) this.#stuck.push(mapped);
    return false;
  }

  #forgetOne({ map, buffer }: Mapped): void {
    if (map) this.#options.tree.remove(map);
    if (buffer !== undefined) this.#options.vmm.free(buffer);
  }

  #mapSection({ address, size, offset }: Region, { identity, translated }: GuestScheme): void {
    const { tree, strict, say } = this.#options;
    const device = this.#options.device();
    const enter = (asid: number, iova: bigint, map?: DmaMap): void => {
      const result = device.dmaMap(asid, iova, size, offset, 'rw');
      // one that could not be unmapped before serves as well
      const isLeft = result === -ERRNO.EEXIST && !strict;
      if (isLeft) say(`vhost vdpa map fail: ${result}`);
      if (result === 0 || isLeft) {
        this.#guest.push({ address, device, asid, iova, size, map, buffer: undefined });
        return;
      }
      if (map) tree.remove(map);
      throw new InputError(`cannot map guest memory: ${result}`);
    };
    if (identity) enter(0, address);
    if (translated === undefined) return;
    const pages = BigInt(alignUp(size, PAGE_SIZE));
    const map = tree.allocMap({
      translated: address,
      size: pages - 1n,
      perm: 'rw',
      kind: 'gpa',
    });
    if (typeof map === 'string') throw new InputError(`IOVA ${map}: cannot map guest memory`);
    enter(translated, map.iova, map);
  }

  #unmapGuest(address: bigint): void {
    for (const section of this.#guest.splice(0)) {
      if (section.address === address) this.#unmap(section);
      else this.#guest.push(section);
    }
  }
}
