/**
 * A devmap, a cpumap and a socket map with one entry each, for programs that are text: entry 0 is the device that
 * receives, CPU 0, an AF_XDP socket on its queue 0.
 *
 * The cpumap has no program, and its thread stays from device to device. For objects with maps of their own:
 * `redirect-setup.ts`.
 *
 * Usage:
 *   const maps = new RedirectMaps(kernel, driver.stack);
 *   const { cpumap } = maps.join(dev);       // addresses, for redirectProgram
 *   maps.received();                         // frames that the socket got
 *   maps.leave();                            // before the device goes
 */
import { createMap } from '../bpf/maps/create.js';
import type { BpfMap } from '../bpf/maps/map.js';
import { viewOf } from '../common/bytes.js';
import { errnoName } from '../common/errno.js';
import { KernelError } from '../common/errors.js';
import type { Kernel } from '../kernel/kernel.js';
import type { NetStack } from '../stack/net-stack.js';
import { ifindexOf } from '../stack/netdev.js';
import { XdpSocket } from '../stack/xsk-socket.js';

const KEY = new Uint8Array(4);
const CPUMAP_QUEUE = 192;

/** Addresses of the maps. */
export interface RedirectTargets {
  readonly cpumap: bigint;
  readonly devmap: bigint;
  readonly xskmap: bigint;
}

export class RedirectMaps {
  readonly #kernel: Kernel;
  readonly #stack: NetStack;
  readonly #cpumap: BpfMap;
  readonly #devmap: BpfMap;
  readonly #xskmap: BpfMap;
  #socket: XdpSocket | undefined;

  /** @param stack of a driver that is defined, so that it is known what entries stand for. */
  constructor(kernel: Kernel, stack: NetStack) {
    this.#kernel = kernel;
    this.#stack = stack;
    const create = (type: 'CPUMAP' | 'DEVMAP' | 'XSKMAP'): BpfMap => {
      const name = type.toLowerCase();
      const spec = { name, type, keySize: 4, valueSize: 4, maxEntries: 1, flags: 0 };
      return createMap(spec, kernel.bpf.host);
    };
    this.#cpumap = create('CPUMAP');
    this.#devmap = create('DEVMAP');
    this.#xskmap = create('XSKMAP');
    fill(this.#cpumap, CPUMAP_QUEUE);
  }

  /** The maps for programs on the device at a physical address; an entry is made when its map is asked for. */
  join(dev: number): RedirectTargets {
    const [cpumap, devmap, xskmap] = [this.#cpumap, this.#devmap, this.#xskmap];
    const ifindex = ifindexOf(this.#kernel.memory.ram, dev);
    const socket = (): XdpSocket => (this.#socket ??= this.#openSocket(dev));
    return {
      cpumap: cpumap.address,
      get devmap() {
        fill(devmap, ifindex);
        return devmap.address;
      },
      get xskmap() {
        fill(xskmap, socket().descriptor);
        return xskmap.address;
      },
    };
  }

  /** What the socket got since the last call. */
  received(): readonly Uint8Array[] {
    return this.#socket?.receive() ?? [];
  }

  leave(): void {
    this.#devmap.remove(KEY);
    this.#xskmap.remove(KEY);
    this.#socket?.close();
    this.#socket = undefined;
  }

  #openSocket(dev: number): XdpSocket {
    const socket = new XdpSocket(this.#stack);
    socket.bind(dev, 0);
    socket.fill();
    return socket;
  }
}

function fill(map: BpfMap, first: number): void {
  const value = new Uint8Array(4);
  viewOf(value).setUint32(0, first, true);
  const result = map.set(KEY, value);
  if (result !== 0) throw new KernelError(errnoName(result) ?? 'EINVAL', map.spec.name);
}
