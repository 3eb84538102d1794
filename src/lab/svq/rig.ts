/**
 * A guest with a ring written by hand, the VMM, and a vDPA device: what experiments with commands stand on.
 *
 * Usage:
 *   const lab = new SvqLab(kernel);                 // once per kernel
 *   const rig = lab.open({ mode: 'landed', controlSize: 4 });
 *   rig.send(Uint8Array.of(0, 0, 0));               // 0: the ack
 *   rig.net.leaks();
 *   rig.close();
 */
import type { KernelContext } from '../../kernel/function.js';
import type { ControlLogEntry } from '../../virtio/device/net-device.js';
import type { NetConfig } from '../../virtio/net-config.js';
import { featureMask, type VirtioNetFeature } from '../../virtio/net-features.js';
import { VIRTIO_CONFIG_S } from '../../virtio/transport.js';
import type { FunctionDefiner } from '../../stack/net-stack.js';
import { defineShadowVirtqueue, type ShadowVirtqueueVmm } from '../../vhost/functions.js';
import type { SvqOptions, VhostVdpaNet } from '../../vhost/vhost-vdpa.js';
import { GuestRing, type UsedChain } from './guest-ring.js';

const S = VIRTIO_CONFIG_S;

/** Everything that may be shadowed. */
export const RIG_FEATURES: readonly VirtioNetFeature[] = [
  'VERSION_1',
  'CSUM',
  'GUEST_CSUM',
  'GUEST_TSO4',
  'GUEST_TSO6',
  'MAC',
  'MRG_RXBUF',
  'STATUS',
  'CTRL_VQ',
  'CTRL_RX',
  'CTRL_RX_EXTRA',
  'CTRL_VLAN',
  'CTRL_MAC_ADDR',
  'CTRL_GUEST_OFFLOADS',
  'MQ',
  'RSS',
  'HASH_REPORT',
];

export interface RigOptions extends SvqOptions {
  /** Descriptors of the control queue. Default 64. */
  readonly controlSize?: number;
  /** Descriptors of data queues, of which there are none by default. */
  readonly dataSize?: number;
  /** Of the device. Default RIG_FEATURES. */
  readonly features?: readonly VirtioNetFeature[];
  readonly config?: Partial<NetConfig>;
  /** Before the device is started. */
  readonly prepare?: (net: VhostVdpaNet) => void;
}

export interface TransmittedBytes {
  readonly queue: number;
  readonly bytes: Uint8Array;
}

export class SvqLab {
  readonly kernel: KernelContext & FunctionDefiner;
  readonly #vmm: ShadowVirtqueueVmm;

  constructor(kernel: KernelContext & FunctionDefiner) {
    this.kernel = kernel;
    this.#vmm = defineShadowVirtqueue(kernel);
  }

  open(options: RigOptions): SvqRig {
    return new SvqRig(this.kernel, this.#vmm, options);
  }
}

export class SvqRig {
  readonly net: VhostVdpaNet;
  readonly control: GuestRing;
  /** By index: rx of pair i at 2i, tx at 2i+1. */
  readonly data: readonly GuestRing[];
  /** Commands that reached the device. */
  readonly deviceLog: ControlLogEntry[] = [];
  readonly transmitted: TransmittedBytes[] = [];
  /** Interrupts of the guest, by queue. */
  readonly interrupts = new Map<number, number>();
  readonly kernel: KernelContext;
  readonly #scratch: bigint[] = [];

  constructor(kernel: KernelContext, vmm: ShadowVirtqueueVmm, options: RigOptions) {
    const config = { maxVirtqueuePairs: 4, ...options.config };
    this.kernel = kernel;
    this.net = vmm.createDevice(
      {
        features: featureMask(options.features ?? RIG_FEATURES),
        config,
        onInterrupt: (queue) =>
          void this.interrupts.set(queue, (this.interrupts.get(queue) ?? 0) + 1),
        onTransmit: (bytes, start, end, queue) =>
          void this.transmitted.push({ queue, bytes: bytes.slice(start, end) }),
        onControl: (entry) => void this.deviceLog.push(entry),
      },
      options,
    );
    this.control = new GuestRing(kernel, options.controlSize ?? 64);
    const { dataSize } = options;
    this.data =
      dataSize === undefined
        ? []
        : [new GuestRing(kernel, dataSize), new GuestRing(kernel, dataSize)];
    options.prepare?.(this.net);
    this.#negotiate();
  }

  /** Sends one command as the driver does, header and data apart; the ack, or `undefined`: none came. */
  send(request: Uint8Array, replyBytes = 0): number | undefined {
    return this.exchange(request, replyBytes)?.bytes[0];
  }

  /** The same, with all that came back. */
  exchange(request: Uint8Array, replyBytes = 0): UsedChain | undefined {
    const data = request.subarray(2);
    const out = data.length > 0 ? [request.subarray(0, 2), data] : [request];
    const head = this.control.chain(out, [1, ...(replyBytes > 0 ? [replyBytes] : [])]);
    this.kick();
    return this.control.takeUsed().find(({ id }) => id === head);
  }

  kick(queue = this.net.controlIndex): void {
    this.net.notify(queue);
  }

  /** Pages of the guest that no chain owns, until the rig is closed: their address. */
  scratch(pages: number): bigint {
    const address = this.kernel.allocPages(pages);
    this.#scratch.push(address);
    return address;
  }

  close(): void {
    this.net.close();
    this.control.close();
    for (const ring of this.data) ring.close();
    for (const address of this.#scratch) this.kernel.freePages(address);
  }

  #negotiate(): void {
    const { net } = this;
    net.writeStatus(S.ACKNOWLEDGE | S.DRIVER);
    net.writeFeatures(net.offeredFeatures);
    net.writeStatus(net.status | S.FEATURES_OK);
    for (const [index, ring] of this.data.entries()) net.startQueue(index, ring.layout);
    net.startQueue(net.controlIndex, this.control.layout);
    net.writeStatus(net.status | S.DRIVER_OK);
  }
}
