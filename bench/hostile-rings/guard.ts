/**
 * Watches where code that works on kernel structures reads and writes.
 *
 * `Ram` reads and writes through one DataView: a view put in its place refuses what lies outside the
 * ranges that are allowed at the moment. Allocations are ranges while they live.
 *
 * Usage:
 *   const guard = new Guard(kernel);
 *   const vq = createVirtqueue(guard.kernel, ...);
 *   guard.driver(() => virtqueueGetBuf(guard.kernel, vq, result));
 */
import type { Ram } from '../../src/cpu/ram.js';
import type { KernelContext, PhysicalAllocator } from '../../src/kernel/function.js';

export class Guard {
  /** The kernel, with an allocator whose blocks are watched. */
  readonly kernel: KernelContext;
  readonly #ram: Ram;
  readonly #plain: DataView;
  readonly #guarded: GuardedView;
  readonly #blocks = new Map<number, number>();

  constructor(kernel: KernelContext) {
    this.#ram = kernel.memory.ram;
    this.#plain = this.#ram.view;
    this.#guarded = new GuardedView(this.#plain, this.#blocks);
    const { physical } = kernel;
    const take = (at: number, size: number): number => {
      this.#blocks.set(at, size);
      return at;
    };
    const watched: PhysicalAllocator = {
      alloc: (size) => take(physical.alloc(size), size),
      allocPages: (count) => take(physical.allocPages(count), 4096 * count),
      allocDirtyPages: (count) => take(physical.allocDirtyPages(count), 4096 * count),
      free: (at) => {
        this.#blocks.delete(at);
        physical.free(at);
      },
      freePages: (at) => {
        this.#blocks.delete(at);
        physical.freePages(at);
      },
      freeDirtyPages: (at) => {
        this.#blocks.delete(at);
        physical.freeDirtyPages(at);
      },
    };
    this.kernel = Object.create(kernel, { physical: { value: watched } }) as KernelContext;
  }

  /** Blocks that were not freed. */
  get live(): number {
    return this.#blocks.size;
  }

  /** Runs what belongs to the driver: an access outside all live blocks throws. */
  driver<T>(act: () => T): T {
    this.#guarded.readsAnywhere = false;
    return this.#run(act);
  }

  /** Runs what belongs to the device, which reads tables wherever the driver says: a write throws. */
  device<T>(act: () => T): T {
    this.#guarded.readsAnywhere = true;
    return this.#run(act);
  }

  #run<T>(act: () => T): T {
    setView(this.#ram, this.#guarded);
    try {
      return act();
    } finally {
      setView(this.#ram, this.#plain);
    }
  }
}

function setView(ram: Ram, view: DataView | GuardedView): void {
  Object.defineProperty(ram, 'view', { value: view, configurable: true });
}

/** What `Ram` uses of a DataView. */
class GuardedView {
  readsAnywhere = false;
  readonly #view: DataView;
  readonly #blocks: ReadonlyMap<number, number>;

  constructor(view: DataView, blocks: ReadonlyMap<number, number>) {
    this.#view = view;
    this.#blocks = blocks;
  }

  #read(at: number, size: number): number {
    return this.readsAnywhere ? at : this.#check(at, size);
  }

  #check(at: number, size: number): number {
    for (const [start, length] of this.#blocks) {
      if (at >= start && at + size <= start + length) return at;
    }
    throw new RangeError(`access of ${size} bytes outside of the queue, at 0x${at.toString(16)}`);
  }

  getUint8(at: number): number {
    return this.#view.getUint8(this.#read(at, 1));
  }

  getUint16(at: number, little?: boolean): number {
    return this.#view.getUint16(this.#read(at, 2), little);
  }

  getUint32(at: number, little?: boolean): number {
    return this.#view.getUint32(this.#read(at, 4), little);
  }

  getInt32(at: number, little?: boolean): number {
    return this.#view.getInt32(this.#read(at, 4), little);
  }

  setUint8(at: number, value: number): void {
    this.#view.setUint8(this.#check(at, 1), value);
  }

  setUint16(at: number, value: number, little?: boolean): void {
    this.#view.setUint16(this.#check(at, 2), value, little);
  }

  setInt32(at: number, value: number, little?: boolean): void {
    this.#view.setInt32(this.#check(at, 4), value, little);
  }
}
