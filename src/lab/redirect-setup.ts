/**
 * What the redirect maps of an object need around a virtio-net device: more devices, AF_XDP sockets, programs
 * for entries, and entries.
 *
 * The receiving device is eth0 with ifindex 2, further ones follow from 3; values of maps may name devices and
 * the object's programs (`map-setting.ts`). A socket of a queue is put into every socket map under the queue's
 * number.
 *
 * Usage:
 *   const setup = new RedirectSetup(kernel, { driver, engine, object, devices: ['eth1'], queues: [0], settings });
 *   runTraffic(kernel, { driver, engine, program, capture, prepare: setup.prepare, targets: setup.targets });
 *   setup.close();
 */
import type { LoadedObject } from '../bpf/object/load.js';
import { isRedirectMap } from '../bpf/maps/map.js';
import { Xskmap } from '../bpf/maps/redirect-maps.js';
import { errnoName } from '../common/errno.js';
import { InputError, KernelError } from '../common/errors.js';
import type { Kernel } from '../kernel/kernel.js';
import type { XdpEvent } from '../stack/net-stack.js';
import { VethDevice } from '../stack/veth.js';
import { XdpSocket } from '../stack/xsk-socket.js';
import type { VirtioNet, VirtioNetDriver } from '../virtio/virtio-net.js';
import { applySetting } from './map-setting.js';
import type { RunEngine } from './run-program.js';
import { createXdpEngine, type XdpEngine } from './xdp-engine.js';
import type { RedirectTarget } from './xdp-traffic.js';

/** Name and ifindex of the receiving device. */
const INGRESS = { name: 'eth0', ifindex: 2 } as const;

export interface RedirectSetupOptions {
  readonly driver: VirtioNetDriver;
  readonly engine: RunEngine;
  readonly object: LoadedObject;
  /** Names of further devices. Default none. */
  readonly devices?: readonly string[];
  /** Receive queues that have an AF_XDP socket. Default none. */
  readonly queues?: readonly number[];
  /** The sockets receive without a copy: the device offers RING_RESET. Default false. */
  readonly zeroCopy?: boolean;
  /** Map entries as `applySetting` takes them. Default none. */
  readonly settings?: readonly string[];
}

export class RedirectSetup {
  /** The further devices, then the sockets, as `xsk0`. */
  readonly targets: readonly RedirectTarget[];
  readonly #options: RedirectSetupOptions;
  readonly #devices: readonly VethDevice[];
  readonly #sockets: readonly { readonly queue: number; readonly socket: XdpSocket }[];
  readonly #engines: XdpEngine[] = [];
  readonly #programs: number[] = [];
  /** What values of redirect maps may name. */
  readonly #names: Map<string, number>;

  /** Throws InputError for a device named twice. */
  constructor(kernel: Kernel, options: RedirectSetupOptions) {
    const { driver, engine, object, devices = [], queues = [] } = options;
    const { stack } = driver;
    this.#options = options;
    this.#names = new Map([[INGRESS.name, INGRESS.ifindex]]);
    for (const name of devices) {
      if (this.#names.has(name)) throw new InputError(`there are two devices ${name}`);
      this.#names.set(name, INGRESS.ifindex + this.#names.size);
    }
    this.#devices = devices.map(
      (name) => new VethDevice(stack, { name, ifindex: this.#names.get(name) ?? 0 }),
    );
    this.#sockets = queues.map((queue) => ({ queue, socket: new XdpSocket(stack) }));
    for (const program of object.programs) {
      if (program.spec.kind !== 'xdp' || program.spec.xdpAttach === 'device') continue;
      const { frags: hasFrags, xdpAttach: attach } = program.spec;
      const running = createXdpEngine(kernel, engine, program.xlated, { hasFrags, attach });
      const prog = stack.programs.add(running.runner);
      this.#engines.push(running);
      this.#programs.push(prog);
      this.#names.set(program.spec.name, stack.programs.idOf(prog));
    }
    this.targets = [
      ...this.#devices.map((device) => ({ name: device.name, take: () => device.received() })),
      ...this.#sockets.map(({ queue, socket }) => ({
        name: `xsk${queue}`,
        take: () => socket.receive(),
      })),
    ];
  }

  /** Binds the sockets to the device and fills the maps. */
  readonly prepare = (net: VirtioNet): void => {
    const { driver, object, settings = [], zeroCopy = false } = this.#options;
    const dev = driver.stack.kernel.memory.ram.virtToPhys(net.dev);
    for (const { queue, socket } of this.#sockets) {
      socket.fill();
      socket.bind(dev, queue, { queues: net.queuePairs, zeroCopy });
      for (const map of object.maps.values()) {
        if (!(map instanceof Xskmap)) continue;
        const result = map.setSocket(queue, socket.descriptor);
        if (result !== 0) {
          throw new KernelError(errnoName(result) ?? 'EINVAL', `map ${map.spec.name}[${queue}]`);
        }
      }
    }
    for (const setting of settings) applySetting(object.maps, setting, this.#names);
  };

  /** Empties the redirect maps; devices and sockets go. */
  close(): void {
    const { driver, object } = this.#options;
    for (const map of object.maps.values()) {
      if (!isRedirectMap(map)) continue;
      for (const { key } of map.entries()) map.remove(key);
    }
    for (const { socket } of this.#sockets) socket.close();
    for (const prog of this.#programs) driver.stack.programs.remove(prog);
    for (const engine of this.#engines) engine.close();
    for (const device of this.#devices) device.close();
  }
}

/** A tracepoint in one line, as trace_pipe has it: name and fields. */
export function describeXdpEvent(event: XdpEvent): string {
  const { name, ...fields } = event;
  const text = Object.entries(fields).map(([field, value]) => `${field}=${value}`);
  return `${name}: ${text.join(' ')}`;
}
