/**
 * A virtio-net device with its driver, for experiments: frames in, verdicts and counters out.
 *
 * The facade over the device model (`device/`) and the driver (`driver/`). Reference:
 * drivers/net/virtio_net.c of 6.12. `defineVirtioNet` puts the driver's functions into a kernel once;
 * each `probe` makes a device. The device looks at its transmit queues after each poll, unless
 * `transmit: 'manual'`. What a user sets with ip and ethtool is in `settings.ts`.
 *
 * Usage:
 *   const net = createVirtioNet(kernel, { rx: 'mergeable' });
 *   net.attachXdp(runner);
 *   net.receive(frame);
 *   net.poll();
 *   net.delivered(); net.transmitted(); net.counters();
 */
import { hex64 } from '../common/bytes.js';
import { InputError } from '../common/errors.js';
import { connectMaps, stackFunctions } from '../stack/redirect-targets.js';
import { NetStack, type NetStackOptions, type StackKernel } from '../stack/net-stack.js';
import { VRING_VIRTQUEUE } from './ring/vring-virtqueue.js';
import { NET_DEVICE } from '../stack/net-device.js';
import type { VirtioNetHost } from './driver/common.js';
import { virtioNetFunctions } from './driver/functions.js';
import { netStackFunctions } from '../stack/functions.js';
import type { StackHost } from '../stack/host.js';
import type { VirtioNet } from './net-handle.js';
import type { VirtioNetOptions } from './net-options.js';
import { VirtioNetInstance } from './net-instance.js';

const DEV = NET_DEVICE.offset;

export type { VirtioNet } from './net-handle.js';
export type { VirtioNetOptions } from './net-options.js';

/** Called with physical addresses of sk_buff and net_device. */
export type StackTracepoints = Partial<
  Omit<StackHost, 'runXdp' | 'xdpException' | 'resetsNetworkHeader'>
>;

export interface DefineOptions extends NetStackOptions {
  readonly tracepoints?: StackTracepoints;
}

export interface VirtioNetDriver {
  /** Devices, maps' targets, sockets, tracepoints of the kernel that the driver is in. */
  readonly stack: NetStack;
  probe(options?: VirtioNetOptions): VirtioNet;
}

/** Device and driver in a kernel that has no virtio-net driver yet. */
export function createVirtioNet(kernel: StackKernel, options: VirtioNetOptions = {}): VirtioNet {
  return defineVirtioNet(kernel, { cpus: options.cpus ?? 1 }).probe(options);
}

/** Defines the driver's kernel functions; devices are then made with `probe`. */
export function defineVirtioNet(kernel: StackKernel, options: DefineOptions = {}): VirtioNetDriver {
  const { ram } = kernel.memory;
  const stack = new NetStack(kernel, options);
  // by physical address of virtnet_info
  const nets = new Map<number, VirtioNetInstance>();
  const netOf = (vi: number): VirtioNetInstance => {
    const net = nets.get(vi);
    if (!net) throw new InputError(`no virtio-net device at ${hex64(ram.physToVirt(vi))}`);
    return net;
  };
  const host: VirtioNetHost = {
    stack,
    notify: (vq) => {
      const net = netOf(ram.pointer(vq + VRING_VIRTQUEUE.offset.vdev));
      net.device.notify(ram.u32(vq + VRING_VIRTQUEUE.offset.index));
    },
    resetReceiveQueue: (vi, pair, emptied) => netOf(vi).resetQueue(2 * pair, emptied),
    xdpException: (dev, _prog, action) => {
      netOf(ram.pointer(dev + DEV.priv)).noteException(action);
    },
  };
  const { tracepoints } = options;
  const stackHost: StackHost = {
    runXdp: (_context, prog, xdp) => stack.runXdp(prog, xdp),
    resetsNetworkHeader: options.resetsNetworkHeader ?? true,
    kfreeSkb: (skb, reason, location) => tracepoints?.kfreeSkb?.(skb, reason, location),
    netDevStartXmit: (skb, dev) => tracepoints?.netDevStartXmit?.(skb, dev),
    napiGroReceiveEntry: (skb) => tracepoints?.napiGroReceiveEntry?.(skb),
    nfLocalIn: (skb) => tracepoints?.nfLocalIn?.(skb),
    xdpException: host.xdpException,
  };
  for (const fn of virtioNetFunctions(host)) kernel.define(fn);
  for (const fn of netStackFunctions(stackHost)) kernel.define(fn);
  for (const fn of stackFunctions(stack)) kernel.define(fn);
  connectMaps(stack);
  return {
    stack,
    probe: (deviceOptions = {}) => new VirtioNetInstance(stack, deviceOptions, nets),
  };
}
