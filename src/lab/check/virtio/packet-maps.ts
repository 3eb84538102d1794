/**
 * The redirect maps of records: entry 0 is the device that receives, or CPU 0.
 *
 * The guests' cpumap had no program, and a queue that was never full. Its thread stays from record to record.
 *
 * Usage:
 *   const maps = new RecordMaps(kernel);     // behind defineVirtioNet, which knows what entries stand for
 *   recordProgram('redirect-cpumap', maps.of(dev));
 *   maps.leave();                            // before the device goes
 */
import { createMap } from '../../../bpf/maps/create.js';
import type { BpfMap } from '../../../bpf/maps/map.js';
import { viewOf } from '../../../common/bytes.js';
import { errnoName } from '../../../common/errno.js';
import { KernelError } from '../../../common/errors.js';
import type { Kernel } from '../../../kernel/kernel.js';
import { ifindexOf } from '../../../stack/netdev.js';
import type { RecordTargets } from './packet-program.js';

const QUEUE_SIZE = 192;
const KEY = new Uint8Array(4);

export class RecordMaps {
  readonly #kernel: Kernel;
  readonly #cpus: BpfMap;
  readonly #devices: BpfMap;

  constructor(kernel: Kernel) {
    this.#kernel = kernel;
    this.#cpus = this.#create('CPUMAP');
    this.#devices = this.#create('DEVMAP');
    this.#fill(this.#cpus, QUEUE_SIZE);
  }

  /** The maps as a program on the device at a physical address needs them. */
  of(dev: number): RecordTargets {
    return {
      map: (type) => {
        if (type === 'CPUMAP') return this.#cpus.address;
        this.#fill(this.#devices, ifindexOf(this.#kernel.memory.ram, dev));
        return this.#devices.address;
      },
    };
  }

  /** Nothing is redirected to the device any more. */
  leave(): void {
    this.#devices.remove(KEY);
  }

  #create(type: 'CPUMAP' | 'DEVMAP'): BpfMap {
    const name = type.toLowerCase();
    const spec = { name, type, keySize: 4, valueSize: 4, maxEntries: 1, flags: 0 };
    return createMap(spec, this.#kernel.bpf.host);
  }

  #fill(map: BpfMap, first: number): void {
    const value = new Uint8Array(4);
    viewOf(value).setUint32(0, first, true);
    const result = map.set(KEY, value);
    if (result !== 0) throw new KernelError(errnoName(result) ?? 'EINVAL', map.spec.name);
  }
}
