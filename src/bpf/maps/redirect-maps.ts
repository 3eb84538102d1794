/**
 * The maps that packets are redirected through: devmap, devmap hash, cpumap, xskmap.
 *
 * A program that looks an entry up gets the address of its `struct bpf_devmap_val` or
 * `bpf_cpumap_val`; of an xskmap, what it may read of a `struct bpf_xdp_sock` (`xdp-sock.ts`). Reference: kernel/bpf/devmap.c, cpumap.c, net/xdp/xskmap.c. Which devices and CPUs
 * exist is the host's, and so are the objects behind the entries (`BpfHost.redirectTargets`): devices with
 * a program, queues with a thread, sockets. Where the host makes none, an entry is its value alone, the
 * descriptor of a program in it is only kept, and a socket map is filled with `setSocket`.
 */
import { ERRNO } from '../../common/errno.js';
import type { BpfHost } from '../host.js';
import { ArrayMap } from './array.js';
import { arrayElements, BPF_EXIST, BPF_NOEXIST, type MapEntry } from './base.js';
import { HashMap } from './hash.js';
import type { MapSpec, RedirectMap } from './map.js';

/** Most frames that a cpumap's queue may hold. */
const MAX_QUEUE = 16384;

function u32(bytes: Uint8Array, at = 0): number {
  return new DataView(bytes.buffer, bytes.byteOffset).getUint32(at, true);
}

/** The program descriptor behind ifindex or qsize, 0 when the value has none. */
function programIn(value: Uint8Array): number {
  return value.length >= 8 ? u32(value, 4) | 0 : 0;
}

/** An array of slots that are empty or filled. */
abstract class SlotMap extends ArrayMap implements RedirectMap {
  abstract readonly canBroadcast: boolean;
  /** By slot: physical address of what is there, 0 for nothing. */
  readonly #targets: Float64Array;

  constructor(spec: MapSpec, host: BpfHost, apart = false) {
    super(spec, host, apart);
    this.#targets = new Float64Array(spec.maxEntries);
  }

  hasTarget(key: number): boolean {
    return this.target(key) !== 0;
  }

  target(key: number): number {
    return this.#targets[key] ?? 0;
  }

  *targets(): Iterable<number> {
    for (const target of this.#targets) if (target !== 0) yield target;
  }

  override locate(key: number, cpu: number): number {
    return this.hasTarget(this.memory.view.getUint32(key, true)) ? super.locate(key, cpu) : -1;
  }

  override *entries(): Iterable<MapEntry> {
    for (const entry of super.entries()) if (this.hasTarget(u32(entry.key))) yield entry;
  }

  override free(): void {
    for (let index = 0; index < this.spec.maxEntries; index++) this.fill(index, undefined);
    super.free();
  }

  /** Fills a slot with a value; an undefined one empties it. Returns 0 or a negative errno. */
  protected fill(index: number, given: Uint8Array | undefined): number {
    const at = this.valueAt(index, 0);
    const old = this.target(index);
    const value = given?.slice();
    const created = value ? this.host.redirectTargets?.create(this, index, value) : 0;
    if (created !== undefined && created < 0) return created;
    this.#targets[index] = created ?? at;
    this.memory.bytes.fill(0, at, at + this.stride);
    if (value) this.memory.bytes.set(value, at);
    this.filled(index, value !== undefined);
    if (old !== 0) this.host.redirectTargets?.free(this, old);
    return 0;
  }

  /** For a type that keeps more than the value. */
  protected filled(_index: number, _filled: boolean): void {}

  /** The errno of a slot number and flags, or 0. */
  protected checkSlot(index: number, flags: number): number {
    if (flags > BPF_EXIST) return -ERRNO.EINVAL;
    if (index >= this.spec.maxEntries) return -ERRNO.E2BIG;
    return flags === BPF_NOEXIST ? -ERRNO.EEXIST : 0;
  }

  protected override erase(key?: number): number {
    const index = key === undefined ? 0 : this.memory.view.getUint32(key, true);
    if (index >= this.spec.maxEntries) return -ERRNO.EINVAL;
    return this.fill(index, undefined);
  }
}

export class Devmap extends SlotMap {
  readonly canBroadcast = true;

  protected override store(key: number, value: Uint8Array, _cpu: number, flags: number): number {
    const index = this.memory.view.getUint32(key, true);
    const refused = this.checkSlot(index, flags);
    if (refused !== 0) return refused;
    const ifindex = u32(value);
    if (ifindex === 0 && programIn(value) > 0) return -ERRNO.EINVAL;
    if (ifindex !== 0 && !this.host.network.device(ifindex)) return -ERRNO.EINVAL;
    return this.fill(index, ifindex === 0 ? undefined : value);
  }
}

export class Cpumap extends SlotMap {
  readonly canBroadcast = false;

  protected override store(key: number, value: Uint8Array, _cpu: number, flags: number): number {
    const cpu = this.memory.view.getUint32(key, true);
    const refused = this.checkSlot(cpu, flags);
    if (refused !== 0) return refused;
    const queueSize = u32(value);
    if (queueSize > MAX_QUEUE) return -ERRNO.EOVERFLOW;
    if (cpu >= this.host.cpuCount) return -ERRNO.ENODEV;
    return this.fill(cpu, queueSize === 0 ? undefined : value);
  }
}

/** offsetof(struct xsk_map, xsk_map): behind lock and count, where a `struct bpf_array` has two sizes and `aux`. */
export function xskMapElements(host: BpfHost): number {
  return arrayElements(host) - 8;
}

/** Where the receive queue of an entry's socket lies, behind the descriptor. */
export const XSK_QUEUE = 4;

/** Its values are what a program may read of a socket; `xsk_map[]` has their addresses, and NULL. */
export class Xskmap extends SlotMap {
  readonly canBroadcast = false;

  constructor(spec: MapSpec, host: BpfHost) {
    super(spec, host, true);
  }

  protected override filled(index: number, filled: boolean): void {
    const slot = this.address + BigInt(xskMapElements(this.host) + 8 * index);
    const { address } = this.firstValue(0);
    this.memory.write64(slot, filled ? address + BigInt(index * this.stride) : 0n);
  }

  /** Puts an AF_XDP socket into a slot, by its descriptor; 0 or a negative errno. */
  setSocket(index: number, socket: number, flags = 0): number {
    if (flags > BPF_EXIST) return -ERRNO.EINVAL;
    if (index >= this.spec.maxEntries) return -ERRNO.E2BIG;
    if (this.hasTarget(index) && flags === BPF_NOEXIST) return -ERRNO.EEXIST;
    if (!this.hasTarget(index) && flags === BPF_EXIST) return -ERRNO.ENOENT;
    const value = new Uint8Array(this.spec.valueSize);
    new DataView(value.buffer).setUint32(0, socket, true);
    const result = this.fill(index, value);
    if (result === 0) this.#setQueue(index);
    return result;
  }

  /** What a program reads of the socket that a lookup gives it. */
  #setQueue(index: number): void {
    const { host, memory } = this;
    const queue = host.redirectTargets?.queueOf(this.target(index)) ?? index;
    const at = this.valueAt(index, 0) + XSK_QUEUE;
    memory.view.setUint32(at, queue, true);
  }

  /** A value is a descriptor; where the host has no sockets there is none: `setSocket` instead. */
  protected override store(key: number, value: Uint8Array, _cpu: number, flags: number): number {
    const index = this.memory.view.getUint32(key, true);
    if (this.host.redirectTargets) return this.setSocket(index, u32(value), flags);
    if (flags > BPF_EXIST) return -ERRNO.EINVAL;
    return index >= this.spec.maxEntries ? -ERRNO.E2BIG : -ERRNO.EBADF;
  }
}

export class DevmapHash extends HashMap implements RedirectMap {
  readonly canBroadcast = true;
  /** By key: physical address of what is there. */
  readonly #targets = new Map<number, number>();

  hasTarget(key: number): boolean {
    return this.target(key) !== 0;
  }

  target(key: number): number {
    return this.#targets.get(key) ?? 0;
  }

  *targets(): Iterable<number> {
    for (const { key } of this.entries()) yield this.target(u32(key));
  }

  override free(): void {
    for (const key of this.#targets.keys()) this.#drop(key);
    super.free();
  }

  protected override store(key: number, given: Uint8Array, cpu: number, flags: number): number {
    const ifindex = u32(given);
    if (flags > BPF_EXIST || ifindex === 0) return -ERRNO.EINVAL;
    if (!this.host.network.device(ifindex)) return -ERRNO.EINVAL;
    const number = this.memory.view.getUint32(key, true);
    const value = given.slice();
    const created = this.host.redirectTargets?.create(this, number, value);
    if (created !== undefined && created < 0) return created;
    // the kernel does not look at BPF_EXIST here
    const result = super.store(key, value, cpu, flags === BPF_EXIST ? 0 : flags);
    if (result === 0) {
      this.#drop(number);
      this.#targets.set(number, created ?? this.locate(key, 0));
    } else if (created !== undefined) this.host.redirectTargets?.free(this, created);
    return result;
  }

  protected override erase(key: number): number {
    const result = super.erase(key);
    if (result === 0) this.#drop(this.memory.view.getUint32(key, true));
    return result;
  }

  #drop(key: number): void {
    const target = this.#targets.get(key);
    if (target === undefined) return;
    this.#targets.delete(key);
    this.host.redirectTargets?.free(this, target);
  }
}
