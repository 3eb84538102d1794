/**
 * BPF_MAP_TYPE_LRU_HASH and BPF_MAP_TYPE_LRU_PERCPU_HASH: hash maps that evict instead of being full.
 *
 * Which entry goes is the business of `LruList`. As in the kernel an update takes a new element before
 * it looks whether the key exists, so that even an update of an existing key may evict an entry, and
 * a small map may lose entries before it is full. Reference: htab_lru_map_* in kernel/bpf/hashtab.c.
 * With BPF_F_NO_COMMON_LRU max_entries is a multiple of the number of CPUs.
 */
import { ERRNO } from '../../common/errno.js';
import type { BpfHost } from '../host.js';
import { BPF_EXIST } from './base.js';
import { HashBase } from './hash.js';
import { LruList } from './lru-list.js';
import { isPerCpu, type MapSpec } from './map.js';

export const BPF_F_NO_COMMON_LRU = 1 << 1;

export class LruHashMap extends HashBase {
  readonly #lru: LruList;

  constructor(spec: MapSpec, host: BpfHost) {
    const common = (spec.flags & BPF_F_NO_COMMON_LRU) === 0;
    const { cpuCount } = host;
    const rounded = Math.ceil(spec.maxEntries / cpuCount) * cpuCount;
    const maxEntries = common ? spec.maxEntries : rounded;
    super({ ...spec, maxEntries }, host, maxEntries);
    this.#lru = new LruList({
      nodes: maxEntries,
      cpus: cpuCount,
      common,
      marks: this.table.marks,
      evict: (node) => this.#evict(node),
    });
  }

  override locateAndMark(key: number, cpu: number): number {
    const element = this.table.find(key);
    if (element < 0) return -1;
    this.#lru.mark(element);
    return this.valueRegion(cpu).offset + element * this.stride;
  }

  protected store(key: number, value: Uint8Array, cpu: number, flags: number): number {
    const refused = this.checkFlags(flags);
    if (refused !== 0) return refused;
    return isPerCpu(this.spec.type)
      ? this.#storePerCpu(key, value, cpu, flags)
      : this.#storeNew(key, value, cpu, flags);
  }

  protected erase(key: number): number {
    const element = this.table.find(key);
    if (element < 0) return -ERRNO.ENOENT;
    this.#unlink(element);
    this.#lru.release(element);
    return 0;
  }

  #storeNew(key: number, value: Uint8Array, cpu: number, flags: number): number {
    const fresh = this.#lru.take(this.host.currentCpu());
    if (fresh < 0) return -ERRNO.ENOMEM;
    const old = this.table.find(key);
    const refused = this.checkExistence(old >= 0, flags);
    if (refused !== 0) {
      this.#lru.release(fresh);
      return refused;
    }
    this.clearValues(fresh);
    this.writeValues(fresh, value, cpu);
    this.table.link(fresh, key);
    if (old >= 0) {
      this.#lru.mark(old);
      this.#unlink(old);
      this.#lru.release(old);
    }
    return 0;
  }

  #storePerCpu(key: number, value: Uint8Array, cpu: number, flags: number): number {
    // an update that must find its key takes no new element
    const fresh = flags === BPF_EXIST ? -1 : this.#lru.take(this.host.currentCpu());
    if (flags !== BPF_EXIST && fresh < 0) return -ERRNO.ENOMEM;
    const old = this.table.find(key);
    const refused = this.checkExistence(old >= 0, flags);
    if (refused === 0 && old < 0) {
      this.clearValues(fresh);
      this.writeValues(fresh, value, cpu);
      this.table.link(fresh, key);
      return 0;
    }
    if (refused === 0) {
      this.#lru.mark(old);
      this.writeValues(old, value, cpu);
    }
    if (fresh >= 0) this.#lru.release(fresh);
    return refused;
  }

  #evict(element: number): boolean {
    if (!this.table.isLinked(element)) return false;
    this.#unlink(element);
    return true;
  }

  #unlink(element: number): void {
    this.table.unlink(element);
    this.releaseElement(element);
  }
}
