/**
 * The network devices of a kernel: registered by ifindex, with their operations.
 *
 * Reference: net/core/dev.c (register_netdevice, dev_get_by_index, unregister_netdevice). Operations are
 * names of kernel functions, so that a call of one can be traced. A registered device is up, and known to
 * BPF helpers and maps (`Network`). Leaves out namespaces, aliases, notifier chains.
 *
 * Usage:
 *   devices.register(dev, { ndo_xdp_xmit: 'virtnet_xdp_xmit' }, 1);
 *   const dev = devices.byIndex(3);           // physical address of its net_device, or 0
 */
import type { Network } from '../bpf/network.js';
import { InputError } from '../common/errors.js';
import type { Ram } from '../cpu/ram.js';
import type { KernelContext } from '../kernel/function.js';
import { IFF_UP, NET_DEVICE, XDP_DEV_BULK_QUEUE } from './net-device.js';

/** `struct net_device_ops`: names of kernel functions. Default: the device cannot do it. */
export interface NetDeviceOps {
  readonly ndo_xdp_xmit?: string;
  readonly ndo_start_xmit?: string;
  /** XDP_SETUP_XSK_POOL: chunks of a UMEM become the buffers of a queue, or no longer. */
  readonly ndo_bpf?: string;
  /** What the hardware knows of a received packet's hash (`xmo_rx_hash`). */
  readonly xmo_rx_hash?: string;
}

const DEV = NET_DEVICE.offset;
const NO_OPS: NetDeviceOps = {};

export function ifindexOf(ram: Ram, dev: number): number {
  return ram.u32(dev + DEV.ifindex);
}

export function deviceName(ram: Ram, dev: number): string {
  const bytes = ram.slice(dev + DEV.name, 16);
  return new TextDecoder().decode(bytes.subarray(0, bytes.indexOf(0)));
}

export class NetDevices {
  readonly #kernel: KernelContext;
  readonly #network: Network | undefined;
  readonly #byIndex = new Map<number, number>();
  readonly #ops = new Map<number, NetDeviceOps>();

  constructor(kernel: KernelContext, network: Network | undefined) {
    this.#kernel = kernel;
    this.#network = network;
  }

  /** Throws InputError when the ifindex is taken. */
  register(dev: number, ops: NetDeviceOps, cpus: number): void {
    const { memory, physical } = this.#kernel;
    const { ram } = memory;
    const ifindex = ifindexOf(ram, dev);
    if (this.#byIndex.has(ifindex)) throw new InputError(`there is a device ${ifindex} already`);
    ram.setPointer(dev + DEV.xdp_bulkq, physical.alloc(XDP_DEV_BULK_QUEUE.size * cpus));
    for (let cpu = 0; cpu < cpus; cpu++) {
      const bq = ram.pointer(dev + DEV.xdp_bulkq) + cpu * XDP_DEV_BULK_QUEUE.size;
      ram.setPointer(bq + XDP_DEV_BULK_QUEUE.offset.dev, dev);
    }
    ram.set32(dev + DEV.flags, ram.u32(dev + DEV.flags) | IFF_UP);
    this.#byIndex.set(ifindex, dev);
    this.#ops.set(dev, ops);
    this.#network?.addDevice({
      ifindex,
      name: deviceName(ram, dev),
      mtu: ram.u32(dev + DEV.mtu),
      mac: ram.slice(dev + DEV.dev_addr, 6),
    });
  }

  unregister(dev: number): void {
    const { memory, physical } = this.#kernel;
    const ifindex = ifindexOf(memory.ram, dev);
    this.#byIndex.delete(ifindex);
    this.#ops.delete(dev);
    this.#network?.removeDevice(ifindex);
    physical.free(memory.ram.pointer(dev + DEV.xdp_bulkq));
  }

  /** `dev_new_index`: the lowest that no device has, behind that of the loopback device. */
  newIndex(): number {
    let ifindex = 2;
    while (this.#byIndex.has(ifindex)) ifindex++;
    return ifindex;
  }

  get count(): number {
    return this.#byIndex.size;
  }

  /** Physical address of the net_device with an ifindex; 0 when there is none. */
  byIndex(ifindex: number): number {
    return this.#byIndex.get(ifindex) ?? 0;
  }

  ops(dev: number): NetDeviceOps {
    return this.#ops.get(dev) ?? NO_OPS;
  }
}
