/** Helpers called by number with arguments, and programs that call back. */
import { helperTable, type HelperOptions } from '../../../src/bpf/helpers/table.js';
import { findKfunc } from '../../../src/bpf/kfuncs/table.js';
import { setArgument } from '../../../src/bpf/helpers/helper.js';
import { helperBodies } from '../../../src/bpf/helpers/table.js';
import { PlainHost } from '../../../src/bpf/plain-host.js';

export class HelperBench {
  readonly host: PlainHost;
  readonly #table;

  constructor(options: HelperOptions = {}, cpuCount = 1) {
    this.#table = helperTable(options);
    this.host = new PlainHost({ helpers: helperBodies(options), cpuCount, helperStride: 1 });
  }

  /** R0, signed. */
  call(id: number, ...args: readonly (bigint | number)[]): bigint {
    const registers = new Int32Array(22);
    args.forEach((value, i) => setArgument(registers, i + 1, BigInt(value)));
    const body = this.#table.get(id)?.body ?? this.host.helperAt(this.host.callBase + BigInt(id));
    if (!body) throw new Error(`no helper ${id}`);
    body(registers, this.host);
    return (BigInt(registers[1] ?? 0) << 32n) | BigInt((registers[0] ?? 0) >>> 0);
  }

  kfunc(name: string, ...args: readonly (bigint | number)[]): bigint {
    return this.call(findKfunc(name)?.id ?? 0, ...args);
  }

  /** Address of a copy of the bytes. */
  put(bytes: Uint8Array | string): bigint {
    const data = typeof bytes === 'string' ? new TextEncoder().encode(`${bytes}\0`) : bytes;
    const region = this.host.allocate('data', data.length);
    this.host.memory.writeBytes(region.address, data);
    return region.address;
  }
}
