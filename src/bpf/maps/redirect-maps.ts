/**
 * The maps that packets are redirected through: devmap, devmap hash, cpumap, xskmap.
 *
 * A program that looks an entry up gets the address of its `struct bpf_devmap_val` or
 * `bpf_cpumap_val`. Reference: kernel/bpf/devmap.c, cpumap.c, net/xdp/xskmap.c. Which devices and CPUs
 * exist is the host's. Left out: programs in entries run nowhere here, their descriptor is only kept;
 * a socket map is filled with `setSocket`.
 */
import { ERRNO } from '../../common/errno.js';
import type { BpfHost } from '../host.js';
import { ArrayMap } from './array.js';
import { BPF_EXIST, BPF_NOEXIST, type MapEntry } from './base.js';
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
  readonly #filled: Uint8Array;

  constructor(spec: MapSpec, host: BpfHost) {
    super(spec, host);
    this.#filled = new Uint8Array(spec.maxEntries);
  }

  hasTarget(key: number): boolean {
    return this.#filled[key] === 1;
  }

  override locate(key: number, cpu: number): number {
    return this.hasTarget(this.memory.view.getUint32(key, true)) ? super.locate(key, cpu) : -1;
  }

  override *entries(): Iterable<MapEntry> {
    for (const entry of super.entries()) if (this.hasTarget(u32(entry.key))) yield entry;
  }

  /** Fills a slot with a value; an undefined one empties it. */
  protected fill(index: number, value: Uint8Array | undefined): void {
    this.#filled[index] = value ? 1 : 0;
    const at = this.valueRegion(0).offset + index * this.stride;
    this.memory.bytes.fill(0, at, at + this.stride);
    if (value) this.memory.bytes.set(value, at);
  }

  /** The errno of a slot number and flags, or 0. */
  protected checkSlot(index: number, flags: number): number {
    if (flags > BPF_EXIST) return -ERRNO.EINVAL;
    if (index >= this.spec.maxEntries) return -ERRNO.E2BIG;
    return flags === BPF_NOEXIST ? -ERRNO.EEXIST : 0;
  }

  protected override erase(key?: number): number {
    const index = key === undefined ? 0 : this.memory.view.getUint32(key, true);
    if (index >= this.spec.maxEntries) return -ERRNO.EINVAL;
    this.fill(index, undefined);
    return 0;
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
    this.fill(index, ifindex === 0 ? undefined : value);
    return 0;
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
    this.fill(cpu, queueSize === 0 ? undefined : value);
    return 0;
  }
}

export class Xskmap extends SlotMap {
  readonly canBroadcast = false;

  /** Puts an AF_XDP socket into a slot, by a number that stands for it; 0 or a negative errno. */
  setSocket(index: number, socket: number, flags = 0): number {
    if (flags > BPF_EXIST) return -ERRNO.EINVAL;
    if (index >= this.spec.maxEntries) return -ERRNO.E2BIG;
    if (this.hasTarget(index) && flags === BPF_NOEXIST) return -ERRNO.EEXIST;
    if (!this.hasTarget(index) && flags === BPF_EXIST) return -ERRNO.ENOENT;
    const value = new Uint8Array(4);
    new DataView(value.buffer).setUint32(0, socket, true);
    this.fill(index, value);
    return 0;
  }

  /** A value would be a file descriptor; there are none here: `setSocket` instead. */
  protected override store(key: number, _value: Uint8Array, _cpu: number, flags: number): number {
    if (flags > BPF_EXIST) return -ERRNO.EINVAL;
    const index = this.memory.view.getUint32(key, true);
    return index >= this.spec.maxEntries ? -ERRNO.E2BIG : -ERRNO.EBADF;
  }
}

export class DevmapHash extends HashMap implements RedirectMap {
  readonly canBroadcast = true;

  hasTarget(key: number): boolean {
    const bytes = new Uint8Array(4);
    new DataView(bytes.buffer).setUint32(0, key, true);
    return this.get(bytes) !== undefined;
  }

  protected override store(key: number, value: Uint8Array, cpu: number, flags: number): number {
    const ifindex = u32(value);
    if (flags > BPF_EXIST || ifindex === 0) return -ERRNO.EINVAL;
    if (!this.host.network.device(ifindex)) return -ERRNO.EINVAL;
    // the kernel does not look at BPF_EXIST here
    return super.store(key, value, cpu, flags === BPF_EXIST ? 0 : flags);
  }
}
