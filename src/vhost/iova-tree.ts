/**
 * The IOVA tree: which IO virtual addresses the VMM handed out, and for what.
 *
 * Reference: QEMU hw/virtio/vhost-iova-tree.c and util/iova-tree.c. There are three trees, as in
 * QEMU 10: one of all ranges in use, from which free ones follow; one from IOVA to memory of the VMM;
 * one from guest memory to IOVA, because several guest addresses may stand for one piece of host memory.
 * Ranges are inclusive and carry their size less one. QEMU takes a false hole when a range straddles the
 * first address that may be used, and stumbles over the overlap; here the hole is measured without wrap.
 *
 * Usage:
 *   const tree = new VhostIovaTree(0x1000n, 0xffff_ffffn);
 *   const map = tree.allocMap({ translated: hva, size: 4095n, perm: 'ro' });
 *   if (typeof map === 'string') return;      // 'INVALID', 'NOMEM' or 'OVERLAP'
 *   tree.remove(map);
 */
import { PAGE_SIZE } from '../cpu/memory.js';

export type IommuPermission = 'none' | 'ro' | 'rw';

/** What the translated address is: memory of the VMM, or of the guest. */
export type AddressKind = 'hva' | 'gpa';

export interface DmaMap {
  readonly iova: bigint;
  /** Bytes less one. */
  readonly size: bigint;
  readonly translated: bigint;
  readonly perm: IommuPermission;
  readonly kind: AddressKind;
}

export type IovaError = 'INVALID' | 'NOMEM' | 'OVERLAP';

const LAST_ADDRESS = 0xffff_ffff_ffff_ffffn;

/** Where `address` is in a map, which holds it. */
export function translateWithin(map: DmaMap, address: bigint): bigint {
  return map.iova + (address - map.translated);
}

export class VhostIovaTree {
  readonly #first: bigint;
  readonly #last: bigint;
  /** By IOVA. */
  readonly #maps: DmaMap[] = [];

  /** IOVAs from `first` to `last` may be handed out, the first page never. */
  constructor(first: bigint, last: bigint) {
    const page = BigInt(PAGE_SIZE);
    this.#first = first > page ? first : page;
    this.#last = last;
  }

  /** In the order of their IOVAs. */
  get maps(): readonly DmaMap[] {
    return this.#maps;
  }

  get size(): number {
    return this.#maps.length;
  }

  /** Finds room for a map and enters it: first fit. */
  allocMap(
    request: Omit<DmaMap, 'iova' | 'kind'> & { readonly kind?: AddressKind },
  ): DmaMap | IovaError {
    const { size, translated, perm, kind = 'hva' } = request;
    if (translated + size > LAST_ADDRESS || size < 0n || perm === 'none') return 'INVALID';
    const iova = this.#hole(size);
    if (iova === undefined) return 'NOMEM';
    return this.insert({ iova, size, translated, perm, kind });
  }

  /** Enters a map at an address of the caller's choice. */
  insert(map: DmaMap): DmaMap | IovaError {
    if (map.iova + map.size > LAST_ADDRESS || map.perm === 'none') return 'INVALID';
    if (this.#maps.some((other) => overlap(other, map))) return 'OVERLAP';
    const index = this.#maps.findIndex((other) => other.iova > map.iova);
    this.#maps.splice(index < 0 ? this.#maps.length : index, 0, map);
    return map;
  }

  /** The map that holds an IOVA. */
  findIova(iova: bigint): DmaMap | undefined {
    return this.#maps.find((map) => iova >= map.iova && iova <= map.iova + map.size);
  }

  /** The map whose memory holds an address. */
  findTranslated(address: bigint, kind: AddressKind): DmaMap | undefined {
    for (const map of this.#maps) {
      if (map.kind !== kind || address < map.translated) continue;
      if (address <= map.translated + map.size) return map;
    }
    return undefined;
  }

  /** Removes every map that a range touches. Returns how many there were. */
  remove(range: Pick<DmaMap, 'iova' | 'size'>): number {
    let removed = 0;
    for (let i = this.#maps.length - 1; i >= 0; i--) {
      if (!overlap(this.#maps[i] as DmaMap, range)) continue;
      this.#maps.splice(i, 1);
      removed++;
    }
    return removed;
  }

  #hole(size: bigint): bigint | undefined {
    let start = this.#first;
    for (const map of this.#maps) {
      if (map.iova > start && map.iova - start > size) break;
      const next = map.iova + map.size + 1n;
      if (next > start) start = next;
    }
    return start + size > this.#last ? undefined : start;
  }
}

function overlap(a: Pick<DmaMap, 'iova' | 'size'>, b: Pick<DmaMap, 'iova' | 'size'>): boolean {
  return a.iova <= b.iova + b.size && b.iova <= a.iova + a.size;
}
