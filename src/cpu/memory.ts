/**
 * The one backing store and the regions that make an address space of it.
 *
 * A WebAssembly.Memory is made at full size and never grown, so that every engine (TypeScript, wasm,
 * libunicorn through a pointer) sees the same bytes. A region is a window [address, address+size) of
 * exact byte bounds; it owns the whole 4 KiB pages around it, and no two regions share a page, so an
 * engine that only knows pages can map it too. To have a page-granular engine fault right behind the
 * last byte, place a region so that it ends at a page end (`Memory.mapAtPageEnd`).
 *
 * Hot loops translate with `offsetRead`/`offsetWrite` on (hi, lo) Int32 pairs: a 256-entry cache in
 * front of the region table, byte-exact. A region does not cross a 4 GiB boundary. Code that works on
 * structures goes by offset in the store (`ram`).
 *
 * Usage:
 *   const memory = new Memory(16 << 20);
 *   const stack = memory.map({ name: 'stack', address: 0xffff800010000000n, size: 4096, permissions: 'rw' });
 *   memory.write64(stack.address, 1n);
 */
import { alignUp, high32, low32, u64 } from '../common/bytes.js';
import { MemoryAccessError, type AccessFault, type AccessKind } from './fault.js';
import { Ram } from './ram.js';

export type Permissions = 'r' | 'rw' | 'rx' | 'rwx';

export const PAGE_SIZE = 4096;

export interface RegionSpec {
  readonly name: string;
  /** First byte. Any alignment. */
  readonly address: bigint;
  /** Bytes, > 0. */
  readonly size: number;
  readonly permissions: Permissions;
  /**
   * GP of the pages' table entries: an indirect branch into it has to land on an instruction made for that
   * (Arm ARM D8.4.5, FEAT_BTI). Default false.
   */
  readonly guarded?: boolean;
}

/** A mapped region. `permissions` changes only through `Memory.protect`. */
export interface Region extends RegionSpec {
  readonly guarded: boolean;
  /** Offset of `address` in the backing store. */
  readonly offset: number;
  /** Address of the first page. */
  readonly pageAddress: bigint;
  /** Offset of the first page in the backing store. */
  readonly pageOffset: number;
  /** Bytes in whole pages. */
  readonly pageBytes: number;
}

/** Told when regions come, go or change their permissions: engines keep their own maps. */
export interface MemoryListener {
  mapped(region: Region): void;
  unmapped(region: Region): void;
  /**
   * Bytes of an executable region are about to be stored to. This renews no CPU's view of them
   * (`Cpu.sync` does): an engine that must know its text before it runs looks at it again.
   */
  textStored?(region: Region, offset: number, size: number): void;
}

/** Contents and layout of an address space at one moment. */
export interface MemorySnapshot {
  readonly regions: readonly { readonly region: Region; readonly bytes: Uint8Array }[];
}

/** Told of bytes that TypeScript code is about to store at an address. */
export type StoreWatch = (address: bigint, bytes: Uint8Array) => void;

const WINDOWS = 256;

function openWindow(windows: Int32Array, at: number, hi: number, region: Region): void {
  windows[at] = hi;
  windows[at + 1] = low32(region.address);
  windows[at + 2] = region.size;
  windows[at + 3] = region.offset;
}

/** Index of the first word of the window that an address may lie in: by page and 4 GiB. */
export function windowOf(hi: number, lo: number): number {
  return (((lo >>> 12) ^ (hi << 3)) & (WINDOWS - 1)) << 2;
}

export class Memory {
  readonly wasm: WebAssembly.Memory;
  readonly bytes: Uint8Array;
  readonly halfwords: Uint16Array;
  readonly words: Int32Array;
  readonly view: DataView;
  /** The store by physical address: offset in it. */
  readonly ram: Ram;

  readonly #regions: Region[] = [];
  /** Free runs of pages, sorted by offset: [offset, bytes]. */
  readonly #free: [number, number][];
  /** Where the pages begin that no region has ever had: they are zero as they came. */
  #untouched = 0;
  readonly #listeners = new Set<MemoryListener>();
  #storeWatch: StoreWatch | undefined;

  /**
   * The regions last accessed, by `windowOf`: four words each, high and low half of the address, size, offset in
   * the store. A size of 0 never matches. Loops that cannot afford a call look here before they ask
   * `offsetRead` or `offsetWrite`.
   */
  readonly readWindows = new Int32Array(WINDOWS * 4);
  readonly writeWindows = new Int32Array(WINDOWS * 4);
  readonly #fetchWindows = new Int32Array(WINDOWS * 4);

  /** @param size bytes of backing store, at most 1 GiB; rounded up to 64 KiB. */
  constructor(size: number) {
    const pages = Math.ceil(size / 65536);
    this.wasm = new WebAssembly.Memory({ initial: pages, maximum: pages });
    this.bytes = new Uint8Array(this.wasm.buffer);
    this.halfwords = new Uint16Array(this.wasm.buffer);
    this.words = new Int32Array(this.wasm.buffer);
    this.view = new DataView(this.wasm.buffer);
    this.ram = new Ram(this.wasm.buffer, (address) => this.regionAt(address));
    this.#free = [[0, pages * 65536]];
  }

  /** Lets `watch` know of every store through `write*` and `pokeBytes`, not of those of CPUs and of `ram`. */
  watchStores(watch: StoreWatch | undefined): void {
    this.#storeWatch = watch;
  }

  /** Somebody wants to know of every store. */
  get isWatched(): boolean {
    return this.#storeWatch !== undefined;
  }

  get regions(): readonly Region[] {
    return this.#regions;
  }

  listen(listener: MemoryListener): void {
    this.#listeners.add(listener);
    for (const region of this.#regions) listener.mapped(region);
  }

  unlisten(listener: MemoryListener): void {
    this.#listeners.delete(listener);
  }

  /** Maps zeroed memory. Throws RangeError when it overlaps a region's pages or the store is full. */
  map(spec: RegionSpec): Region {
    const start = u64(spec.address);
    const within = Number(start & 0xfffn);
    const pageAddress = start - BigInt(within);
    const pageBytes = alignUp(within + spec.size, PAGE_SIZE);
    const last = start + BigInt(spec.size) - 1n;
    if (spec.size <= 0) throw new RangeError(`region ${spec.name}: size ${spec.size}`);
    if (last >> 32n !== start >> 32n) {
      throw new RangeError(`region ${spec.name} crosses a 4 GiB boundary`);
    }
    const index = this.#indexAfter(pageAddress);
    const before = this.#regions[index - 1];
    const after = this.#regions[index];
    for (const other of [before, after]) {
      if (
        other &&
        other.pageAddress < pageAddress + BigInt(pageBytes) &&
        pageAddress < other.pageAddress + BigInt(other.pageBytes)
      ) {
        throw new RangeError(`region ${spec.name} overlaps ${other.name}`);
      }
    }
    const pageOffset = this.#takePages(pageBytes, spec.name);
    this.bytes.fill(0, pageOffset, Math.min(pageOffset + pageBytes, this.#untouched));
    this.#untouched = Math.max(this.#untouched, pageOffset + pageBytes);
    const region: Region = {
      name: spec.name,
      address: start,
      size: spec.size,
      permissions: spec.permissions,
      guarded: spec.guarded ?? false,
      offset: pageOffset + within,
      pageAddress,
      pageOffset,
      pageBytes,
    };
    this.#regions.splice(index, 0, region);
    this.ram.mapped(region);
    this.#forgetCached();
    for (const listener of this.#listeners) listener.mapped(region);
    return region;
  }

  /** Maps `size` bytes that end at the end of the last of the pages starting at `pageAddress`. */
  mapAtPageEnd(spec: Omit<RegionSpec, 'address'> & { readonly pageAddress: bigint }): Region {
    const slack = alignUp(spec.size, PAGE_SIZE) - spec.size;
    const address = spec.pageAddress + BigInt(slack);
    return this.map({ name: spec.name, address, size: spec.size, permissions: spec.permissions });
  }

  unmap(region: Region): void {
    const index = this.#regions.indexOf(region);
    if (index < 0) throw new RangeError(`region ${region.name} is not mapped`);
    this.#regions.splice(index, 1);
    this.#givePages(region.pageOffset, region.pageBytes);
    this.ram.unmapped(region);
    this.#forgetCached();
    for (const listener of this.#listeners) listener.unmapped(region);
  }

  /** Changes a region's permissions; the region object is replaced by the returned one. */
  protect(region: Region, permissions: Permissions): Region {
    const index = this.#regions.indexOf(region);
    if (index < 0) throw new RangeError(`region ${region.name} is not mapped`);
    const changed: Region = { ...region, permissions };
    this.#regions[index] = changed;
    this.#forgetCached();
    for (const listener of this.#listeners) {
      listener.unmapped(region);
      listener.mapped(changed);
    }
    return changed;
  }

  /** The region that holds `address`, whatever its permissions. */
  regionAt(address: bigint): Region | undefined {
    const at = u64(address);
    const region = this.#regions[this.#indexAfter(at) - 1];
    if (!region || at < region.address) return undefined;
    return at < region.address + BigInt(region.size) ? region : undefined;
  }

  /**
   * Offset in the backing store of `size` readable bytes at (hi:lo), or -1.
   * The caller of a refused access gets the reason from `faultAt`.
   */
  offsetRead(hi: number, lo: number, size: number): number {
    const windows = this.readWindows;
    const at = windowOf(hi, lo);
    const within = (lo - (windows[at + 1] as number)) >>> 0;
    if (windows[at] === hi && within <= (windows[at + 2] as number) - size) {
      return (windows[at + 3] as number) + within;
    }
    return this.#missRead(hi, lo, size, at);
  }

  /** As `offsetRead`, for `size` writable bytes. */
  offsetWrite(hi: number, lo: number, size: number): number {
    const windows = this.writeWindows;
    const at = windowOf(hi, lo);
    const within = (lo - (windows[at + 1] as number)) >>> 0;
    if (windows[at] === hi && within <= (windows[at + 2] as number) - size) {
      return (windows[at + 3] as number) + within;
    }
    return this.#missWrite(hi, lo, size, at);
  }

  /** Offset of the instruction word at (hi:lo), or -1 when it cannot be fetched. */
  offsetFetch(hi: number, lo: number): number {
    if ((lo & 3) !== 0) return -1;
    const windows = this.#fetchWindows;
    const at = windowOf(hi, lo);
    const within = (lo - (windows[at + 1] as number)) >>> 0;
    if (windows[at] === hi && within <= (windows[at + 2] as number) - 4) {
      return (windows[at + 3] as number) + within;
    }
    return this.#missFetch(hi, lo, at);
  }

  /** Why an access of `size` bytes at `address` is refused; `undefined` when it is allowed. */
  faultAt(address: bigint, size: number, access: AccessKind): AccessFault | undefined {
    const region = this.regionAt(address);
    const start = u64(address);
    if (!region || start + BigInt(size) > region.address + BigInt(region.size)) {
      return { access, address: start, size, reason: 'unmapped' };
    }
    if (access === 'fetch' && (start & 3n) !== 0n) {
      return { access, address: start, size, reason: 'alignment' };
    }
    const letter = { read: 'r', write: 'w', fetch: 'x' }[access];
    if (region.permissions.includes(letter)) return undefined;
    return { access, address: start, size, reason: 'permission' };
  }

  read8(address: bigint): number {
    return this.view.getUint8(this.#offset(address, 1, 'read'));
  }

  read16(address: bigint): number {
    return this.view.getUint16(this.#offset(address, 2, 'read'), true);
  }

  read32(address: bigint): number {
    return this.view.getUint32(this.#offset(address, 4, 'read'), true);
  }

  read64(address: bigint): bigint {
    return this.view.getBigUint64(this.#offset(address, 8, 'read'), true);
  }

  write8(address: bigint, value: number): void {
    if (this.#storeWatch) this.#tellStore(address, BigInt(value), 1);
    this.view.setUint8(this.#offset(address, 1, 'write'), value);
  }

  write16(address: bigint, value: number): void {
    if (this.#storeWatch) this.#tellStore(address, BigInt(value), 2);
    this.view.setUint16(this.#offset(address, 2, 'write'), value, true);
  }

  write32(address: bigint, value: number): void {
    if (this.#storeWatch) this.#tellStore(address, BigInt(value), 4);
    this.view.setUint32(this.#offset(address, 4, 'write'), value, true);
  }

  write64(address: bigint, value: bigint): void {
    if (this.#storeWatch) this.#tellStore(address, value, 8);
    this.view.setBigUint64(this.#offset(address, 8, 'write'), u64(value), true);
  }

  /** A copy of `size` bytes. */
  readBytes(address: bigint, size: number): Uint8Array {
    if (size === 0) return new Uint8Array(0);
    const offset = this.#offset(address, size, 'read');
    return this.bytes.slice(offset, offset + size);
  }

  writeBytes(address: bigint, bytes: Uint8Array): void {
    if (bytes.length === 0) return;
    this.#storeWatch?.(address, bytes);
    this.bytes.set(bytes, this.#offset(address, bytes.length, 'write'));
  }

  /**
   * Stores through an alias mapping, whatever the region's permissions: what the fixmap is to the
   * kernel (arch/arm64/kernel/patching.c). CPUs see new instructions after `Cpu.sync` only.
   */
  pokeBytes(address: bigint, bytes: Uint8Array): void {
    if (bytes.length === 0) return;
    const region = this.regionAt(address);
    const within = region ? Number(u64(address) - region.address) : 0;
    if (!region || within + bytes.length > region.size) {
      throw new MemoryAccessError({
        access: 'write',
        address: u64(address),
        size: bytes.length,
        reason: 'unmapped',
      });
    }
    this.#storeWatch?.(address, bytes);
    if (region.permissions.includes('x')) this.#textStored(region, within, bytes.length);
    this.bytes.set(bytes, region.offset + within);
  }

  /** `pokeBytes` of a word at an offset of a region, for those who patch thousands of places. */
  pokeWord(region: Region, within: number, word: number): void {
    if (this.#storeWatch) this.#tellStore(region.address + BigInt(within), BigInt(word >>> 0), 4);
    if (region.permissions.includes('x')) this.#textStored(region, within, 4);
    this.view.setUint32(region.offset + within, word, true);
  }

  /** The same for a pointer. */
  pokePointer(region: Region, within: number, value: bigint): void {
    if (this.#storeWatch) this.#tellStore(region.address + BigInt(within), value, 8);
    if (region.permissions.includes('x')) this.#textStored(region, within, 8);
    this.view.setBigUint64(region.offset + within, value, true);
  }

  snapshot(): MemorySnapshot {
    return {
      regions: this.#regions.map((region) => ({
        region,
        bytes: this.bytes.slice(region.pageOffset, region.pageOffset + region.pageBytes),
      })),
    };
  }

  /** Brings layout and contents back; regions mapped since are gone, unmapped ones are back. */
  restore(snapshot: MemorySnapshot): void {
    const wanted = new Set(snapshot.regions.map(({ region }) => region));
    const gone = this.#regions.filter((region) => !wanted.has(region));
    for (const region of gone) this.unmap(region);
    for (const { region, bytes } of snapshot.regions) {
      if (!this.#regions.includes(region)) {
        this.#takePagesAt(region.pageOffset, region.pageBytes, region.name);
        this.#untouched = Math.max(this.#untouched, region.pageOffset + region.pageBytes);
        this.#regions.splice(this.#indexAfter(region.pageAddress), 0, region);
        this.ram.mapped(region);
        for (const listener of this.#listeners) listener.mapped(region);
      } else if (region.permissions.includes('x')) {
        this.#textStored(region, 0, region.size);
      }
      this.bytes.set(bytes, region.pageOffset);
    }
    this.#forgetCached();
  }

  #tellStore(address: bigint, value: bigint, size: number): void {
    const bytes = new Uint8Array(size);
    for (let i = 0; i < size; i++) bytes[i] = Number((value >> BigInt(8 * i)) & 0xffn);
    this.#storeWatch?.(address, bytes);
  }

  #textStored(region: Region, offset: number, size: number): void {
    for (const listener of this.#listeners) listener.textStored?.(region, offset, size);
  }

  #offset(address: bigint, size: number, access: 'read' | 'write'): number {
    const hi = high32(address);
    const lo = low32(address);
    const offset =
      access === 'read' ? this.offsetRead(hi, lo, size) : this.offsetWrite(hi, lo, size);
    if (offset >= 0) return offset;
    const fault = this.faultAt(address, size, access);
    throw new MemoryAccessError(
      fault ?? { access, address: u64(address), size, reason: 'unmapped' },
    );
  }

  /** As `regionAt`, without a bigint. */
  #regionAt(hi: number, lo: number): Region | undefined {
    let low = 0;
    let high = this.#regions.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      const start = (this.#regions[middle] as Region).pageAddress;
      const startHi = high32(start);
      const isBelow = startHi === hi ? low32(start) >>> 0 <= lo >>> 0 : startHi >>> 0 < hi >>> 0;
      if (isBelow) low = middle + 1;
      else high = middle;
    }
    const region = this.#regions[low - 1];
    if (!region || high32(region.address) !== hi) return undefined;
    // a region does not cross a 4 GiB boundary
    const within = (lo >>> 0) - (low32(region.address) >>> 0);
    return within >= 0 && within < region.size ? region : undefined;
  }

  #missRead(hi: number, lo: number, size: number, at: number): number {
    const region = this.#regionAt(hi, lo);
    if (!region) return -1;
    openWindow(this.readWindows, at, hi, region);
    const within = (lo - low32(region.address)) >>> 0;
    return within <= region.size - size ? region.offset + within : -1;
  }

  #missWrite(hi: number, lo: number, size: number, at: number): number {
    const region = this.#regionAt(hi, lo);
    if (!region || !region.permissions.includes('w')) return -1;
    const within = (lo - low32(region.address)) >>> 0;
    const fits = within <= region.size - size;
    if (region.permissions.includes('x')) {
      // never cached: each store to such text is told
      if (fits) this.#textStored(region, within, size);
    } else {
      openWindow(this.writeWindows, at, hi, region);
    }
    return fits ? region.offset + within : -1;
  }

  #missFetch(hi: number, lo: number, at: number): number {
    const region = this.#regionAt(hi, lo);
    if (!region || !region.permissions.includes('x')) return -1;
    openWindow(this.#fetchWindows, at, hi, region);
    const within = (lo - low32(region.address)) >>> 0;
    return within <= region.size - 4 ? region.offset + within : -1;
  }

  #forgetCached(): void {
    this.#fetchWindows.fill(0);
    this.readWindows.fill(0);
    this.writeWindows.fill(0);
  }

  /** Index of the first region that starts above `address`. */
  #indexAfter(address: bigint): number {
    let low = 0;
    let high = this.#regions.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#regions[middle] as Region).pageAddress <= address) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  #takePages(bytes: number, name: string): number {
    const index = this.#free.findIndex(([, length]) => length >= bytes);
    const run = this.#free[index];
    if (!run) throw new RangeError(`no ${bytes} bytes of memory left for region ${name}`);
    const offset = run[0];
    if (run[1] === bytes) this.#free.splice(index, 1);
    else this.#free[index] = [offset + bytes, run[1] - bytes];
    return offset;
  }

  #takePagesAt(offset: number, bytes: number, name: string): void {
    const index = this.#free.findIndex(
      ([start, length]) => start <= offset && offset + bytes <= start + length,
    );
    const run = this.#free[index];
    if (!run) throw new RangeError(`the pages of region ${name} are taken`);
    const pieces: [number, number][] = [];
    if (run[0] < offset) pieces.push([run[0], offset - run[0]]);
    const end = run[0] + run[1];
    if (offset + bytes < end) pieces.push([offset + bytes, end - offset - bytes]);
    this.#free.splice(index, 1, ...pieces);
  }

  #givePages(offset: number, bytes: number): void {
    let index = this.#free.findIndex(([start]) => start > offset);
    if (index < 0) index = this.#free.length;
    this.#free.splice(index, 0, [offset, bytes]);
    const merged: [number, number][] = [];
    for (const run of this.#free) {
      const last = merged.at(-1);
      if (last && last[0] + last[1] === run[0]) last[1] += run[1];
      else merged.push(run);
    }
    this.#free.splice(0, this.#free.length, ...merged);
  }
}
