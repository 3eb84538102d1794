/**
 * A vDPA network device: a virtio-net device behind an IOMMU, driven through the vhost interface.
 *
 * Reference: Linux include/uapi/linux/vhost.h and drivers/vhost/vdpa.c (VHOST_VDPA_*, VHOST_SET_VRING_*).
 * What it does with frames and commands is `VirtioNetDevice`; this is what stands around it: address
 * spaces, groups of virtqueues, rings at IOVAs, suspend. Two groups, data queues 0 and the control queue
 * 1 (`isolated: false`: one). A kick only marks a queue; the device works when it is given a `step`, so
 * that who waits for it can be seen waiting. `faults` make it misbehave.
 *
 * Usage:
 *   const device = new VdpaNetDevice(memory, { features, config, onCall: (queue) => calls.push(queue) });
 *   device.dmaMap(0, 0x1000n, 4096, at, 'rw');
 *   device.setVring(0, { num: 4, desc, avail, used }, 0); device.setVringEnable(0, true);
 *   device.kick(0);
 *   device.step();                 // whether there was anything to do
 */
import { ERRNO } from '../common/errno.js';
import { high32, low32 } from '../common/bytes.js';
import type { Memory } from '../cpu/memory.js';
import { VIRTIO_NET_OK } from '../virtio/device/control/commands.js';
import { VirtioNetDevice, type NetDeviceOptions } from '../virtio/device/net-device.js';
import type { DeviceQueue } from '../virtio/ring/device-queue.js';
import { VRING_DESC_SIZE } from '../virtio/ring/split-ring.js';
import { VIRTIO_CONFIG_S } from '../virtio/transport.js';
import { DeviceAddressSpace } from './address-space.js';

/** What a device does wrong with the next command, once. */
export type ControlFault =
  /** A used element with an id that no descriptor has, before the right one. */
  | 'id-out-of-range'
  /** One with an id that is not outstanding, before the right one. */
  | 'id-not-outstanding'
  /** The right one twice. */
  | 'id-twice'
  | 'length-0'
  | 'length-too-long'
  /** Taken, and never given back. */
  | 'silent'
  /** Ack 7. */
  | 'ack'
  /** Ack 0, though the command is refused. */
  | 'accept'
  | 'refuse'
  /** Rewrites the links in the descriptor table, past the IOMMU. */
  | 'rewrite-next';

export interface VdpaFaults {
  /** Fails this dmaMap: 0 is the next. */
  map: number | undefined;
  unmap: number | undefined;
  control: ControlFault | undefined;
}

/** Where a ring lies, in IOVAs. */
export interface VringAddresses {
  readonly num: number;
  readonly desc: bigint;
  readonly avail: bigint;
  readonly used: bigint;
}

interface Vring {
  readonly addresses: VringAddresses;
  readonly base: number | undefined;
  enabled: boolean;
}

export interface VdpaOptions extends Omit<
  NetDeviceOptions,
  'onInterrupt' | 'access' | 'completeCommand' | 'ackOf'
> {
  /** The control queue is a group of its own. Default true. */
  readonly isolated?: boolean;
  /** The device signals a queue. */
  readonly onCall: (queue: number) => void;
}

export class VdpaNetDevice {
  readonly faults: VdpaFaults = { map: undefined, unmap: undefined, control: undefined };
  readonly counters = { kicks: 0, maps: 0, unmaps: 0 };
  readonly spaces: readonly DeviceAddressSpace[];
  /** Before the device looks at a queue that was kicked. */
  beforeWork: ((queue: number) => void) | undefined;
  /** After it has done what there was to do. */
  afterWork: ((queue: number) => void) | undefined;

  readonly #net: VirtioNetDevice;
  readonly #isolated: boolean;
  readonly #asidOfGroup = [0, 0];
  readonly #vrings = new Map<number, Vring>();
  readonly #kicked = new Set<number>();
  #suspended = false;
  #working = false;

  constructor(memory: Memory, options: VdpaOptions) {
    this.#isolated = options.isolated ?? true;
    this.spaces = [0, 1].map((asid) => new DeviceAddressSpace(memory.ram, asid));
    this.#net = new VirtioNetDevice(memory, {
      ...options,
      onInterrupt: options.onCall,
      access: (queue) => this.spaceOf(queue),
      refuses: (request) => this.#take('refuse') || (options.refuses?.(request) ?? false),
      ackOf: (ack) => {
        if (this.#take('ack')) return 7;
        return this.#take('accept') ? VIRTIO_NET_OK : ack;
      },
      completeCommand: (queue, head, written) => this.#complete(queue, head, written),
    });
  }

  /** The device proper: frames, state, counters. */
  get net(): VirtioNetDevice {
    return this.#net;
  }

  getFeatures(): bigint {
    return this.#net.offeredFeatures;
  }

  setFeatures(features: bigint): void {
    this.#net.writeFeatures(features);
  }

  getStatus(): number {
    return this.#net.status;
  }

  setStatus(status: number): void {
    this.#net.writeStatus(status);
    if (status === 0) {
      this.#vrings.clear();
      this.#kicked.clear();
      this.#suspended = false;
      this.#asidOfGroup.fill(0);
      return;
    }
    if ((status & VIRTIO_CONFIG_S.DRIVER_OK) === 0) return;
    for (const [index, vring] of this.#vrings) if (vring.enabled) this.#start(index, vring);
  }

  readConfig(): Uint8Array {
    return this.#net.readConfig();
  }

  getVqGroup(queue: number): number {
    return this.#isolated && queue === this.#net.controlIndex ? 1 : 0;
  }

  setGroupAsid(group: number, asid: number): void {
    this.#asidOfGroup[group] = asid;
  }

  /** The address space that a queue's accesses go through. */
  spaceOf(queue: number): DeviceAddressSpace {
    return this.#space(this.#asidOfGroup[this.getVqGroup(queue)] ?? 0);
  }

  /** 0, or a negative errno. */
  dmaMap(asid: number, iova: bigint, size: number, at: number, perm: 'ro' | 'rw'): number {
    this.counters.maps++;
    if (this.#failsNow('map')) return -ERRNO.ENOMEM;
    return this.#space(asid).map(iova, size, at, perm);
  }

  /** 0, or a negative errno. */
  dmaUnmap(asid: number, iova: bigint, size: number): number {
    this.counters.unmaps++;
    if (this.#failsNow('unmap')) return -ERRNO.EIO;
    return this.#space(asid).unmap(iova, size);
  }

  /** VHOST_SET_VRING_NUM, _ADDR, _BASE: before the queue is enabled. */
  setVring(index: number, addresses: VringAddresses, base: number | undefined): void {
    this.#vrings.set(index, { addresses, base, enabled: false });
  }

  setVringEnable(index: number, enabled: boolean): void {
    const vring = this.#vrings.get(index);
    if (!vring) throw new RangeError(`virtqueue ${index} has no ring`);
    const starts = enabled && !vring.enabled;
    vring.enabled = enabled;
    if (starts && this.#running) this.#start(index, vring);
  }

  isEnabled(index: number): boolean {
    return this.#vrings.get(index)?.enabled ?? false;
  }

  /** The queue goes on at an index: what a device does that is told where another one was. */
  resumeAt(index: number, base: number): void {
    const vring = this.#vrings.get(index);
    if (!vring) throw new RangeError(`virtqueue ${index} has no ring`);
    this.#start(index, { ...vring, base });
  }

  /** Where the device would go on; `undefined`: the queue was not started. */
  getVringBase(index: number): number | undefined {
    return this.#net.queuePosition(index);
  }

  /** VHOST_VDPA_SUSPEND: nothing is touched any more. */
  suspend(): void {
    this.#suspended = true;
    this.#kicked.clear();
  }

  kick(index: number): void {
    this.counters.kicks++;
    if (!this.#suspended) this.#kicked.add(index);
  }

  /** Works on the queues that were kicked; whether there were any. */
  step(): boolean {
    if (this.#kicked.size === 0 || this.#suspended) return false;
    const queues = [...this.#kicked].toSorted((a, b) => a - b);
    this.#kicked.clear();
    this.#working = true;
    try {
      for (const queue of queues) {
        this.#work(queue);
        this.afterWork?.(queue);
      }
    } finally {
      this.#working = false;
    }
    return true;
  }

  /** It works on a queue just now. */
  get isWorking(): boolean {
    return this.#working;
  }

  /** Whether the device may touch a queue: it runs, and its IOMMU still lets it at the ring. */
  reaches(index: number): boolean {
    const vring = this.#vrings.get(index);
    if (!vring?.enabled || !this.#running || this.#suspended) return false;
    const { num, desc, avail, used } = vring.addresses;
    const space = this.spaceOf(index);
    return (
      space.offsetRead(high32(desc), low32(desc), VRING_DESC_SIZE * num) >= 0 &&
      space.offsetRead(high32(avail), low32(avail), 4 + 2 * num) >= 0 &&
      space.offsetWrite(high32(used), low32(used), 4 + 8 * num) >= 0
    );
  }

  get #running(): boolean {
    return (this.#net.status & VIRTIO_CONFIG_S.DRIVER_OK) !== 0;
  }

  #space(asid: number): DeviceAddressSpace {
    const space = this.spaces[asid];
    if (!space) throw new RangeError(`ASID ${asid}`);
    return space;
  }

  #start(index: number, { addresses, base }: Vring): void {
    this.#net.startQueue(index, { kind: 'split', ...addresses }, base);
  }

  #work(queue: number): void {
    this.beforeWork?.(queue);
    if (!this.reaches(queue)) return;
    if (queue === this.#net.controlIndex) {
      this.#net.notify(queue);
    } else if (queue % 2 === 1) {
      this.#net.runTransmit();
    }
  }

  /** Counts a fault of `map` or `unmap` down. */
  #failsNow(kind: 'map' | 'unmap'): boolean {
    const left = this.faults[kind];
    if (left === undefined) return false;
    this.faults[kind] = left === 0 ? undefined : left - 1;
    return left === 0;
  }

  #take(fault: ControlFault): boolean {
    if (this.faults.control !== fault) return false;
    this.faults.control = undefined;
    return true;
  }

  #complete(queue: DeviceQueue, head: number, written: number): void {
    if (this.#take('silent')) return;
    const { num } = this.#vrings.get(this.#net.controlIndex)?.addresses ?? { num: 1 };
    if (this.#take('id-out-of-range')) queue.push(num, 1);
    if (this.#take('id-not-outstanding')) queue.push((head + 2) % num, 1);
    if (this.#take('id-twice')) queue.push(head, written);
    if (this.#take('rewrite-next')) this.#rewriteLinks(num);
    if (this.#take('length-0')) queue.push(head, 0);
    else if (this.#take('length-too-long')) queue.push(head, 0x10000);
    else queue.push(head, written);
  }

  #rewriteLinks(num: number): void {
    const index = this.#net.controlIndex;
    const desc = this.#vrings.get(index)?.addresses.desc ?? 0n;
    const space = this.spaceOf(index);
    const at = space.offsetRead(high32(desc), low32(desc), VRING_DESC_SIZE * num);
    for (let i = 0; i < num; i++) space.ram.set16(at + VRING_DESC_SIZE * i + 14, 0xffff);
  }
}
