/**
 * What maps without keys share (queue, stack, bloom filter, ring buffer): lookup, update and delete by
 * key are refused; values go through push, pop and peek. Reference: struct bpf_map_ops.
 */
import type { ErrnoName } from '../../common/errno.js';
import { ERRNO } from '../../common/errno.js';
import { InputError, KernelError } from '../../common/errors.js';
import type { Region } from '../../cpu/memory.js';
import { MapBase, flagNumber, type MapEntry } from './base.js';
import type { PushPopMap } from './map.js';

export abstract class KeylessMap extends MapBase {
  protected readonly cpuCount = 1;
  /** What lookup, update and delete answer. */
  protected abstract readonly refusal: ErrnoName;

  get valueAddress(): bigint {
    return 0n;
  }

  valueRegion(): Region {
    throw new KernelError(this.refusal, `map ${this.spec.name}: a ${this.spec.type} has no keys`);
  }

  locate(): number {
    return -1;
  }

  protected store(): number {
    return -ERRNO[this.refusal];
  }

  protected erase(): number {
    return -ERRNO[this.refusal];
  }

  *entries(): Iterable<MapEntry> {}
}

/** The part of a keyless map that takes values; subclasses see offsets in the backing store. */
export abstract class ValueBag extends KeylessMap implements PushPopMap {
  #scratchValue: Region | undefined;

  protected abstract pushAt(value: number, flags: number): number;
  protected abstract popAt(value: number): number;
  protected abstract peekAt(value: number): number;

  push(valueAddress: bigint, flags: bigint): number {
    return this.pushAt(this.#valueAt(valueAddress, 'read'), flagNumber(flags));
  }

  pop(valueAddress: bigint): number {
    return this.popAt(this.#valueAt(valueAddress, 'write'));
  }

  /** A bloom filter reads the value here, the others write it. */
  peek(valueAddress: bigint): number {
    const access = this.spec.type === 'BLOOM_FILTER' ? 'read' : 'write';
    return this.peekAt(this.#valueAt(valueAddress, access));
  }

  pushBytes(value: Uint8Array, flags = 0n): number {
    return this.pushAt(this.#scratch(value), flagNumber(flags));
  }

  popBytes(): Uint8Array | undefined {
    const { valueSize } = this.spec;
    const at = this.#scratch(new Uint8Array(valueSize));
    return this.popAt(at) === 0 ? this.memory.bytes.slice(at, at + valueSize) : undefined;
  }

  /** User side of peek: 0 or a negative errno. For a queue or stack see `entries`. */
  peekBytes(value: Uint8Array): number {
    return this.peekAt(this.#scratch(value));
  }

  /** User-side update without a key is a push. */
  override set(_key: Uint8Array, value: Uint8Array, flags = 0n): number {
    return this.pushBytes(value, flags);
  }

  override get(): readonly Uint8Array[] | undefined {
    return undefined;
  }

  #valueAt(address: bigint, access: 'read' | 'write'): number {
    return this.offsetOf(address, this.spec.valueSize, access);
  }

  #scratch(value: Uint8Array): number {
    const { name, valueSize } = this.spec;
    if (value.length !== valueSize) {
      throw new InputError(`map ${name}: value of ${value.length} bytes, needs ${valueSize}`);
    }
    this.#scratchValue ??= this.allocate('value of', valueSize);
    this.memory.bytes.set(value, this.#scratchValue.offset);
    return this.#scratchValue.offset;
  }
}
