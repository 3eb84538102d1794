/** Maps on a plain host, with keys and values in memory. */
import { createMap } from '../../../src/bpf/maps/create.js';
import type { BpfMap, MapSpec } from '../../../src/bpf/maps/map.js';
import { PlainHost } from '../../../src/bpf/plain-host.js';

export const u32 = (value: number): Uint8Array => {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setUint32(0, value, true);
  return bytes;
};

export const u64 = (value: number | bigint): Uint8Array => {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(value), true);
  return bytes;
};

export function specOf(fields: Partial<MapSpec>): MapSpec {
  return { name: 'm', type: 'HASH', keySize: 4, valueSize: 8, maxEntries: 4, flags: 0, ...fields };
}

/** A map and what a program would do with it. */
export class Bench<T extends BpfMap = BpfMap> {
  readonly host: PlainHost;
  readonly map: T;
  readonly #key: bigint;
  readonly #value: bigint;

  constructor(fields: Partial<MapSpec>, kind: abstract new (...args: never[]) => T, cpuCount = 1) {
    // property tests make hundreds of hosts
    this.host = new PlainHost({ cpuCount, memorySize: 1 << 20 });
    const map = createMap(specOf(fields), this.host);
    if (!(map instanceof kind)) throw new Error(`${map.spec.type} is no ${kind.name}`);
    this.map = map;
    this.#key = this.host.allocate('key', 512).address;
    this.#value = this.host.allocate('value', 512).address;
  }

  update(key: Uint8Array, value: Uint8Array, flags = 0n): number {
    this.host.memory.writeBytes(this.#key, key);
    this.host.memory.writeBytes(this.#value, value);
    return this.map.update(this.#key, this.#value, flags);
  }

  delete(key: Uint8Array): number {
    this.host.memory.writeBytes(this.#key, key);
    return this.map.delete(this.#key);
  }

  /** Address of the value, 0n when absent. */
  find(key: Uint8Array): bigint {
    this.host.memory.writeBytes(this.#key, key);
    return this.map.lookup(this.#key);
  }

  /** The value as a number. */
  read(key: Uint8Array): bigint | undefined {
    const address = this.find(key);
    return address === 0n ? undefined : this.host.memory.read64(address);
  }
}
