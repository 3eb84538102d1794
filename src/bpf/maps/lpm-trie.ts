/**
 * BPF_MAP_TYPE_LPM_TRIE: longest prefix match.
 *
 * A key is `{ u32 prefixlen; u8 data[] }`, most significant bit first. Reference:
 * kernel/bpf/lpm_trie.c with the corrections of 6.13 that the stable kernels have too: a full trie
 * still takes updates of existing prefixes, and BPF_NOEXIST and BPF_EXIST are honoured. A path-compressed binary
 * trie; nodes without a value stand where two prefixes part. Iteration order is the kernel's: children
 * before their parent, so more specific prefixes first.
 */
import { ERRNO } from '../../common/errno.js';
import type { Region } from '../../cpu/memory.js';
import type { BpfHost } from '../host.js';
import { BPF_EXIST, BPF_NOEXIST, MapBase, type MapEntry } from './base.js';
import type { MapSpec } from './map.js';

/** Bytes of prefixlen in front of the data. */
const PREFIX_BYTES = 4;
const NONE = -1;

export class LpmTrie extends MapBase {
  protected readonly cpuCount = 1;
  readonly #values: Region;
  readonly #maxPrefix: number;
  readonly #dataSize: number;
  /** Per node: two children, length of its prefix, slot of its value or NONE, its data. */
  readonly #children: Int32Array;
  readonly #lengths: Int32Array;
  readonly #slots: Int32Array;
  readonly #data: Uint8Array;
  readonly #freeNodes: number[] = [];
  readonly #freeSlots: number[] = [];
  #nodes = 0;
  #slotCount = 0;
  #entries = 0;
  #root = NONE;
  readonly #scratchKey: Uint8Array;

  constructor(spec: MapSpec, host: BpfHost) {
    super(spec, host);
    const { maxEntries, keySize } = spec;
    this.#dataSize = keySize - PREFIX_BYTES;
    this.#maxPrefix = 8 * this.#dataSize;
    // an update of an existing prefix takes a new slot before it gives the old one back
    this.#values = this.allocate('values of', this.stride * (maxEntries + 1));
    const nodes = 2 * maxEntries;
    this.#children = new Int32Array(2 * nodes);
    this.#lengths = new Int32Array(nodes);
    this.#slots = new Int32Array(nodes);
    this.#data = new Uint8Array(nodes * this.#dataSize);
    this.#scratchKey = new Uint8Array(keySize);
  }

  get valueAddress(): bigint {
    return 0n;
  }

  /** Prefixes that exist. */
  get size(): number {
    return this.#entries;
  }

  valueRegion(): Region {
    return this.#values;
  }

  locate(key: number): number {
    const length = this.memory.view.getUint32(key, true);
    if (length > this.#maxPrefix) return -1;
    let found = NONE;
    let node = this.#root;
    while (node !== NONE) {
      const match = this.#match(node, key, length);
      if (match < this.#lengths[node]) break;
      if (this.#slots[node] !== NONE) found = node;
      if (match >= length || match === this.#maxPrefix) break;
      node = this.#children[2 * node + this.#bit(key, match)];
    }
    return found === NONE ? -1 : this.#values.offset + this.#slots[found] * this.stride;
  }

  protected store(key: number, value: Uint8Array, _cpu: number, flags: number): number {
    if (flags > BPF_EXIST) return -ERRNO.EINVAL;
    const length = this.memory.view.getUint32(key, true);
    if (length > this.#maxPrefix) return -ERRNO.EINVAL;
    const { node, link, match } = this.#walk(key, length);
    const exact = node !== NONE && match === length && this.#lengths[node] === length;
    const exists = exact && this.#slots[node] !== NONE;
    if (exists && flags === BPF_NOEXIST) return -ERRNO.EEXIST;
    if (!exists && flags === BPF_EXIST) return -ERRNO.ENOENT;
    if (!exists && this.#entries === this.spec.maxEntries) return -ERRNO.ENOSPC;
    const slot = this.#freeSlots.pop() ?? this.#slotCount++;
    const at = this.#values.offset + slot * this.stride;
    this.memory.bytes.fill(0, at, at + this.stride);
    this.memory.bytes.set(value, at);
    if (exact) {
      if (exists) this.#freeSlots.push(this.#slots[node]);
      else this.#entries++;
      this.#slots[node] = slot;
      return 0;
    }
    this.#entries++;
    const fresh = this.#newNode(key, length, slot);
    if (node === NONE) {
      this.#setLink(link, fresh);
    } else if (match === length) {
      // the new prefix is a prefix of the node's
      this.#children[2 * fresh + this.#nodeBit(node, match)] = node;
      this.#setLink(link, fresh);
    } else {
      const fork = this.#newNode(key, match, NONE);
      const bit = this.#bit(key, match);
      this.#children[2 * fork + bit] = fresh;
      this.#children[2 * fork + 1 - bit] = node;
      this.#setLink(link, fork);
    }
    return 0;
  }

  protected erase(key: number): number {
    const length = this.memory.view.getUint32(key, true);
    if (length > this.#maxPrefix) return -ERRNO.EINVAL;
    const { node, link, match, parent, parentLink } = this.#walk(key, length);
    if (node === NONE || match !== length || this.#lengths[node] !== length) return -ERRNO.ENOENT;
    if (this.#slots[node] === NONE) return -ERRNO.ENOENT;
    this.#freeSlots.push(this.#slots[node]);
    this.#slots[node] = NONE;
    this.#entries--;
    const [left, right] = [this.#children[2 * node], this.#children[2 * node + 1]];
    if (left !== NONE && right !== NONE) return 0;
    if (left === NONE && right === NONE && parent !== NONE && this.#slots[parent] === NONE) {
      // the fork above has one branch left: that takes its place
      const isRight = this.#children[2 * parent + 1] === node;
      this.#setLink(parentLink, this.#children[2 * parent + (isRight ? 0 : 1)]);
      this.#freeNodes.push(parent, node);
      return 0;
    }
    this.#setLink(link, left === NONE ? right : left);
    this.#freeNodes.push(node);
    return 0;
  }

  *entries(): Iterable<MapEntry> {
    if (this.#root !== NONE) yield* this.#subtree(this.#root);
  }

  *#subtree(node: number): Iterable<MapEntry> {
    for (const side of [0, 1]) {
      const child = this.#children[2 * node + side];
      if (child !== NONE) yield* this.#subtree(child);
    }
    const slot = this.#slots[node];
    if (slot === NONE) return;
    const key = this.#scratchKey.slice();
    new DataView(key.buffer).setUint32(0, this.#lengths[node], true);
    key.set(this.#dataOf(node), PREFIX_BYTES);
    yield { key, values: [this.valueBytes(this.#values.offset + slot * this.stride)] };
  }

  /**
   * The node at which the way of a key ends: its own, the first that does not lie on it, or NONE; and
   * the links that lead there. A link is an index in `children`, or NONE for the root.
   */
  #walk(key: number, length: number) {
    let parent = NONE;
    let parentLink = NONE;
    let link = NONE;
    let node = this.#root;
    let match = 0;
    while (node !== NONE) {
      match = this.#match(node, key, length);
      if (match !== this.#lengths[node] || match === length) break;
      parent = node;
      parentLink = link;
      link = 2 * node + this.#bit(key, match);
      node = this.#children[link];
    }
    return { node, link, match, parent, parentLink };
  }

  #setLink(link: number, node: number): void {
    if (link === NONE) this.#root = node;
    else this.#children[link] = node;
  }

  #newNode(key: number, length: number, slot: number): number {
    const node = this.#freeNodes.pop() ?? this.#nodes++;
    this.#lengths[node] = length;
    this.#slots[node] = slot;
    this.#children[2 * node] = NONE;
    this.#children[2 * node + 1] = NONE;
    const from = key + PREFIX_BYTES;
    const data = this.#dataOf(node);
    data.set(this.memory.bytes.subarray(from, from + this.#dataSize));
    return node;
  }

  #dataOf(node: number): Uint8Array {
    return this.#data.subarray(node * this.#dataSize, (node + 1) * this.#dataSize);
  }

  /** Bits that the key and the node's prefix have in common. */
  #match(node: number, key: number, length: number): number {
    const most = Math.min(this.#lengths[node], length);
    const { bytes } = this.memory;
    const own = node * this.#dataSize;
    for (let i = 0; 8 * i < most; i++) {
      const differing = this.#data[own + i] ^ bytes[key + PREFIX_BYTES + i];
      if (differing !== 0) return Math.min(most, 8 * i + Math.clz32(differing) - 24);
    }
    return most;
  }

  #bit(key: number, index: number): 0 | 1 {
    const byte = this.memory.bytes[key + PREFIX_BYTES + (index >> 3)];
    return ((byte >> (7 - (index & 7))) & 1) === 1 ? 1 : 0;
  }

  #nodeBit(node: number, index: number): 0 | 1 {
    const byte = this.#data[node * this.#dataSize + (index >> 3)];
    return ((byte >> (7 - (index & 7))) & 1) === 1 ? 1 : 0;
  }
}
