/**
 * The VMM's virtio-net device with a vDPA device behind it: what the guest's driver talks to.
 *
 * Reference: QEMU 10.0 hw/virtio/vhost-vdpa.c (vhost_vdpa_dev_start, vhost_vdpa_svqs_start, vhost_vdpa_svq_map_rings,
 * vhost_vdpa_reset_device), net/vhost-vdpa.c (vhost_vdpa_net_cvq_start, vhost_vdpa_net_cvq_load). Status, features,
 * configuration and the model of what control commands left are `VirtioNetDevice`'s; queues are the device's, shadowed
 * or not. With `shadow: 'cvq'` and a device whose control queue is a group of its own, that queue
 * gets ASID 1 and its commands pass the VMM, while the device reaches data buffers by the guest's addresses in
 * ASID 0. With 'all' guest memory gets IOVAs and every buffer passes the VMM. Leaves out vIOMMU, notifier fds
 * and dirty logging.
 *
 * Usage:
 *   const vmm = defineShadowVirtqueue(kernel);
 *   const net = driver.probe({ createDevice: (_, options) => vmm.createDevice(options, { mode: 'landed' }) });
 */
import { InputError } from '../common/errors.js';
import type { KernelContext } from '../kernel/function.js';
import {
  VirtioNetDevice,
  type DeliverOptions,
  type DeliverResult,
  type NetDeviceOptions,
} from '../virtio/device/net-device.js';
import type { ControlResult } from '../virtio/device/control/execute.js';
import { VIRTIO_NET_OK } from '../virtio/device/control/commands.js';
import { featureMask } from '../virtio/net-features.js';
import type { RingLayout } from '../virtio/ring/open-device-queue.js';
import type { SplitRingLayout } from '../virtio/ring/split-ring.js';
import { VIRTIO_CONFIG_S } from '../virtio/transport.js';
import { BackendState } from './backend-state.js';
import { ControlBuffers } from './control-buffers.js';
import { DeviceMaps } from './device-maps.js';
import { svqFeatures, svqProblem } from './features.js';
import { VhostIovaTree, type DmaMap } from './iova-tree.js';
import { leaksOf, type Leaks } from './leaks.js';
import { restoreCommands } from './restore.js';
import { isStrictMode, type SvqMode, type SvqQueue } from './queue.js';
import { createShadowQueue, mapRings, unmapRings } from './shadow-rings.js';
import { VdpaNetDevice } from './vdpa-device.js';
import { VmmMemory } from './vmm-memory.js';

const OWN_FEATURES = featureMask(['GUEST_ANNOUNCE']);
const ACCESS_PLATFORM = featureMask(['ACCESS_PLATFORM']);

/** Queues that are shadowed: the control queue, all, or none. */
export type ShadowedQueues = 'cvq' | 'all' | 'none';

export interface SvqOptions {
  /** How control commands reach the device. Default 'transactional'. */
  readonly mode?: SvqMode;
  /** Default 'cvq'. */
  readonly shadow?: ShadowedQueues;
  /** The device's control queue is a group of its own. Default true. */
  readonly isolated?: boolean;
  /** The guest has an IOMMU of its own, behind which nothing can be shadowed. Default false. */
  readonly guestIommu?: boolean;
  /** Descriptors of no bytes: QEMU refuses them, the standard does not. Default 'refuse'. */
  readonly zeroLength?: 'refuse' | 'allow';
  /** IOVAs that may be used. Default 4 KiB to 256 TiB. */
  readonly iovaRange?: { readonly first: bigint; readonly last: bigint };
  /** Turns of the device that stand for ten seconds. Default 1000. */
  readonly pollBudget?: number;
  /** Sees each step of a command's way. */
  readonly onStage?: (name: string) => void;
}

export interface MigrateOptions {
  /** Queues that are shadowed at the destination. Default: the same. */
  readonly shadow?: ShadowedQueues;
  /** Sees the destination's device before it is started. */
  readonly prepare?: (destination: VdpaNetDevice) => void;
}

/** What the kernel functions find a queue and its device by. */
export interface SvqRegistry {
  readonly kernel: KernelContext;
  /** By address of SHADOW_VIRTQUEUE. */
  readonly queues: Map<number, SvqQueue>;
  readonly devices: Map<number, VhostVdpaNet>;
}

export class VhostVdpaNet extends VirtioNetDevice {
  readonly mode: SvqMode;
  readonly tree: VhostIovaTree;
  readonly vmm: VmmMemory;
  /** Lines for the VMM's log. */
  readonly log: string[] = [];
  /** The command that the model ran last. */
  lastModelled: Uint8Array | undefined;
  /** Buffers of the control queue that stay mapped; only while it runs, and only in mode `landed`. */
  buffers: ControlBuffers | undefined;
  /** The device gets no time: what is kicked stays undone. */
  paused = false;
  readonly #registry: SvqRegistry;
  readonly #kernel: KernelContext;
  readonly #options: SvqOptions;
  readonly #netOptions: NetDeviceOptions;
  readonly #layouts = new Map<number, RingLayout>();
  readonly #bases = new Map<number, number>();
  readonly #svqs = new Map<number, SvqQueue>();
  readonly #calls = new Set<number>();
  readonly #maps: DeviceMaps;
  readonly #state: BackendState;
  #shadow: ShadowedQueues;
  #device: VdpaNetDevice;
  #running = false;

  constructor(registry: SvqRegistry, netOptions: NetDeviceOptions, options: SvqOptions) {
    const { kernel } = registry;
    const offered = svqFeatures(netOptions.features | ACCESS_PLATFORM) & ~ACCESS_PLATFORM;
    super(kernel.memory, {
      features: offered,
      ...(netOptions.config ? { config: netOptions.config } : {}),
      onInterrupt: netOptions.onInterrupt,
      onTransmit: netOptions.onTransmit,
      ...(netOptions.onConfigChange ? { onConfigChange: netOptions.onConfigChange } : {}),
    });
    this.#registry = registry;
    this.#kernel = kernel;
    this.#options = options;
    this.#netOptions = netOptions;
    this.mode = options.mode ?? 'transactional';
    this.#shadow = options.shadow ?? 'cvq';
    const range = options.iovaRange ?? { first: 0x1000n, last: 0xffff_ffff_ffffn };
    this.tree = new VhostIovaTree(range.first, range.last);
    this.vmm = new VmmMemory(kernel.physical);
    this.#device = this.#createVdpa();
    this.#maps = new DeviceMaps({
      memory: kernel.memory,
      tree: this.tree,
      vmm: this.vmm,
      strict: isStrictMode(this.mode),
      device: () => this.#device,
      say: (line) => this.say(line),
    });
    this.#state = new BackendState(kernel, this.controlIndex, range);
    this.#writeState();
  }

  /** The device behind. */
  get vdpa(): VdpaNetDevice {
    return this.#device;
  }

  get isRunning(): boolean {
    return this.#running;
  }

  /** The shadow of a queue, if it has one. */
  svq(index: number): SvqQueue | undefined {
    return this.#svqs.get(index);
  }

  get svqs(): ReadonlyMap<number, SvqQueue> {
    return this.#svqs;
  }

  /** Address spaces that the control queue's and the data queues' buffers are mapped in. */
  get controlAsid(): number {
    return this.#isolates ? 1 : 0;
  }

  override writeStatus(status: number): void {
    const wasReady = (this.status & VIRTIO_CONFIG_S.DRIVER_OK) !== 0;
    super.writeStatus(status);
    if (status === 0) {
      this.stop();
      this.#layouts.clear();
      this.#bases.clear();
      this.#freeQueues();
    } else if (!wasReady && (this.status & VIRTIO_CONFIG_S.DRIVER_OK) !== 0) {
      this.#startOrFail();
    }
  }

  override startQueue(index: number, layout: RingLayout): void {
    this.#layouts.set(index, layout);
  }

  override resetQueue(index: number): void {
    throw new InputError(`queue ${index}: a shadowed device has no RING_RESET`);
  }

  override queuePosition(index: number): number | undefined {
    const shadowed = this.#svqs.get(index);
    if (shadowed) return shadowed.guest.queue.position;
    return this.#running ? this.#device.getVringBase(index) : this.#bases.get(index);
  }

  override notify(index: number): void {
    this.counters.notifications++;
    const svq = this.#svqs.get(index);
    if (svq) this.#kernel.invoke('vhost_handle_guest_kick', svq.address);
    else if (this.#running) this.#device.kick(index);
    this.pump();
  }

  override deliver(frame: Uint8Array, options?: DeliverOptions): DeliverResult {
    const result = this.#device.net.deliver(frame, options);
    this.pump();
    return result;
  }

  override deliverRaw(bytes: Uint8Array, options?: Omit<DeliverOptions, 'header'>): DeliverResult {
    const result = this.#device.net.deliverRaw(bytes, options);
    this.pump();
    return result;
  }

  override runTransmit(budget?: number): number {
    const taken = this.#running ? this.#device.net.runTransmit(budget) : 0;
    this.pump();
    return taken;
  }

  override get activePairs(): number {
    return this.#running ? this.#device.net.activePairs : super.activePairs;
  }

  /** Gives the device time until it has nothing to do, and handles its signals. */
  pump(): void {
    if (this.paused) return;
    while (this.#device.step() || this.#calls.size > 0) {
      const calls = [...this.#calls];
      this.#calls.clear();
      for (const index of calls) this.#handleCall(index);
    }
  }

  /** Runs a command on the model of the device's state. */
  runModel(request: Uint8Array): ControlResult {
    this.lastModelled = request;
    const result = this.executeCommand(request);
    if (result.ack !== VIRTIO_NET_OK) this.say(`Bad CVQ processing in model: ${result.why ?? ''}`);
    return result;
  }

  /** A line for the log. */
  say(line: string): void {
    this.log.push(line);
  }

  stage(name: string): void {
    this.#options.onStage?.(name);
  }

  /** What no command in flight accounts for. */
  leaks(): Leaks {
    return leaksOf(this.#kernel, this);
  }

  /** Maps memory of the VMM for the control queue; `undefined`: it could not be. */
  mapBuffer(at: number, size: number, perm: 'ro' | 'rw'): DmaMap | undefined {
    return this.#maps.map(this.controlAsid, at, size, perm);
  }

  /** Undoes `mapBuffer` and frees the buffer. False: the device keeps it, which strict modes wait for. */
  releaseBuffer(map: DmaMap, buffer: number): boolean {
    return this.#maps.release(this.controlAsid, map, buffer);
  }

  /** Tries again to take back what the device did not let go of. */
  retryUnmaps(): void {
    this.#maps.retry();
  }

  /** Buffers that the device did not let go of. */
  get stuck(): number {
    return this.#maps.stuckBuffers;
  }

  /** Maps of the device that the VMM does not know of. */
  get staleMaps(): number {
    return this.#maps.stale();
  }

  /** Starts the device with what the model has. Throws InputError when that fails, with all undone. */
  start(): void {
    if (this.#running) return;
    this.#device.setStatus(0);
    if (this.#shadow !== 'none') {
      const problem = svqProblem(this.#device.getFeatures());
      if (problem !== undefined) throw new InputError(problem);
      if (this.#options.guestIommu ?? false) {
        throw new InputError('SVQ cannot work while the guest has an IOMMU');
      }
    }
    const ready = VIRTIO_CONFIG_S.ACKNOWLEDGE | VIRTIO_CONFIG_S.DRIVER;
    this.#device.setStatus(ready);
    this.#device.setFeatures((this.features & ~OWN_FEATURES) | ACCESS_PLATFORM);
    this.#device.setStatus(ready | VIRTIO_CONFIG_S.FEATURES_OK);
    if (this.#isolates) {
      this.#device.setGroupAsid(this.#device.getVqGroup(this.controlIndex), 1);
    }
    this.#running = true;
    try {
      this.#maps.retry();
      // before the rings: they get the first addresses
      const carries = this.mode === 'landed' && this.#layouts.has(this.controlIndex);
      if (carries && this.#isShadowed(this.controlIndex)) {
        this.buffers = new ControlBuffers(this.#kernel, this);
      }
      for (const [index, layout] of this.#layouts) this.#startVring(index, layout);
      this.#maps.mapGuest({
        identity: this.#shadow !== 'all',
        translated: this.#translatedAsid,
      });
      this.#device.setStatus(this.#device.getStatus() | VIRTIO_CONFIG_S.DRIVER_OK);
      const control = this.#svqs.get(this.controlIndex);
      if (control) this.#loadState(control);
      else if (this.#layouts.has(this.controlIndex)) this.#enable(this.controlIndex);
      for (const index of this.#layouts.keys()) {
        if (index !== this.controlIndex) this.#enable(index);
      }
    } catch (error) {
      this.stop();
      throw error;
    }
    this.#writeState();
    // what the guest made available before
    for (const index of this.#layouts.keys()) {
      const svq = this.#svqs.get(index);
      if (svq) this.#kernel.invoke('vhost_handle_guest_kick', svq.address);
      else this.#device.kick(index);
    }
    this.pump();
  }

  /** Suspends the device and takes everything back from it. */
  stop(): void {
    if (!this.#running) return;
    this.#device.suspend();
    this.#calls.clear();
    for (const [index, svq] of this.#svqs) {
      this.#kernel.invoke('vhost_svq_stop', svq.address);
      this.#bases.set(index, svq.guest.queue.position);
    }
    for (const index of this.#layouts.keys()) {
      const base = this.#svqs.has(index) ? undefined : this.#device.getVringBase(index);
      if (base !== undefined) this.#bases.set(index, base);
    }
    this.buffers?.free();
    this.buffers = undefined;
    for (const [index, svq] of this.#svqs) {
      unmapRings(this.#kernel, this.#maps, this.#asidOf(index), svq.address);
    }
    this.#maps.unmapGuest();
    this.#maps.retry();
    this.#running = false;
    this.#writeState();
  }

  /**
   * Stops, and starts with other queues shadowed: what live migration does first. When that fails the device
   * goes on as before, and InputError says why.
   */
  setShadow(shadow: ShadowedQueues): void {
    const before = this.#shadow;
    this.#restart(
      () => this.#shadowOthers(shadow),
      () => this.#shadowOthers(before),
    );
  }

  /**
   * Live migration: the guest goes on with another device, which is given the state. When that fails it goes on
   * with the one it has, and InputError says why.
   */
  migrate({ prepare, shadow = this.#shadow }: MigrateOptions = {}): VdpaNetDevice {
    if (!this.#isShadowed(this.controlIndex)) {
      throw new InputError('migration is blocked: commands are not seen');
    }
    if (this.#device.isWorking) {
      throw new InputError('migration is refused: a command is in flight');
    }
    const source = this.#device;
    const before = this.#shadow;
    this.#restart(
      () => {
        this.#device = this.#createVdpa();
        prepare?.(this.#device);
        this.#shadowOthers(shadow);
      },
      () => {
        this.#device = source;
        this.#shadowOthers(before);
      },
    );
    this.#maps.forget(source);
    return source;
  }

  /** Stops, changes something, and starts again if it ran; undoes the change when the start fails. */
  #restart(change: () => void, undo: () => void): void {
    const wasRunning = this.#running;
    this.stop();
    try {
      change();
      if (wasRunning) this.start();
    } catch (error) {
      if (!(error instanceof InputError)) throw error;
      undo();
      if (wasRunning) this.start();
      throw error;
    }
  }

  /** Stops and frees what belongs to the VMM. */
  close(): void {
    this.stop();
    this.#freeQueues();
    this.#maps.forget(this.#device);
    this.#state.free();
  }

  /** The device's control queue is a group of its own. */
  get #hasOwnGroup(): boolean {
    const group = this.#device.getVqGroup(this.controlIndex);
    for (let i = 0; i < this.controlIndex; i++) {
      if (this.#device.getVqGroup(i) === group) return false;
    }
    return true;
  }

  get #isolates(): boolean {
    return this.#shadow === 'cvq' && this.#hasOwnGroup;
  }

  #createVdpa(): VdpaNetDevice {
    const { features } = this.#netOptions;
    const device = new VdpaNetDevice(this.#kernel.memory, {
      ...this.#netOptions,
      features: (features & ~OWN_FEATURES) | ACCESS_PLATFORM,
      isolated: this.#options.isolated ?? true,
      onCall: (queue) => this.#calls.add(queue),
    });
    device.afterWork = (queue) => {
      if (queue === this.controlIndex) this.stage('device');
    };
    return device;
  }

  #startOrFail(): void {
    try {
      this.start();
    } catch (error) {
      if (!(error instanceof InputError)) throw error;
      this.say(`unable to start vhost net: ${error.message}`);
      this.fail(error.message);
    }
  }

  #isShadowed(index: number): boolean {
    return this.#shadow === 'all' || (index === this.controlIndex && this.#isolates);
  }

  #enable(index: number): void {
    this.#device.setVringEnable(index, true);
  }

  #handleCall(index: number): void {
    const svq = this.#svqs.get(index);
    if (svq) this.#kernel.invoke('vhost_svq_handle_call', svq.address);
    else this.#netOptions.onInterrupt(index);
  }

  #startVring(index: number, layout: RingLayout): void {
    if (layout.kind !== 'split') throw new InputError('a vDPA device has split rings here');
    if (!this.#isShadowed(index)) {
      const { num, desc, avail, used } = layout;
      this.#device.setVring(index, { num, desc, avail, used }, this.#bases.get(index));
      return;
    }
    const svq = this.#svqs.get(index) ?? this.#createQueue(index, layout);
    this.#kernel.invoke('vhost_svq_start', svq.address);
    const rings = mapRings(this.#kernel, this.#maps, this.#asidOf(index), svq.address);
    this.#device.setVring(index, rings, undefined);
  }

  #createQueue(index: number, layout: SplitRingLayout): SvqQueue {
    const isControl = index === this.controlIndex;
    const understands = this.mode !== 'copy-v8';
    const asid = (): number => this.#asidOf(index);
    const svq = createShadowQueue(this.#kernel, {
      index,
      layout,
      mode: this.mode,
      features: this.features,
      zeroLength: this.#options.zeroLength ?? 'refuse',
      base: this.#bases.get(index),
      state: this.#state.address,
      copies: isControl && this.mode === 'copy-v8',
      tree: this.tree,
      vmm: this.vmm,
      guest: {
        signal: () => this.#netOptions.onInterrupt(index),
        broken: (why) => void this.fail(why),
      },
      device: {
        kick: () => this.#device.kick(index),
        step: () => !this.paused && this.#device.step(),
        map: (iova, size, at, perm) => this.#device.dmaMap(asid(), iova, size, at, perm),
        unmap: (iova, size) => this.#device.dmaUnmap(asid(), iova, size),
      },
      availHandler: isControl && understands ? 'vhost_vdpa_net_handle_ctrl_avail' : undefined,
      usedHandler: isControl && !understands ? 'vhost_vdpa_net_handle_ctrl' : undefined,
      pollBudget: this.#options.pollBudget ?? 1000,
      log: (line) => this.say(line),
      stage: (name) => isControl && this.stage(name),
    });
    this.#svqs.set(index, svq);
    this.#registry.queues.set(svq.address, svq);
    this.#registry.devices.set(svq.address, this);
    return svq;
  }

  /** Queues that stay shadowed keep their place in the guest's ring. */
  #shadowOthers(shadow: ShadowedQueues): void {
    this.#shadow = shadow;
    for (const [index, { kept }] of this.#svqs) {
      if (kept.length > 0 && !this.#isShadowed(index)) {
        throw new InputError(`queue ${index}: elements were completed out of order`);
      }
    }
    this.#freeQueues((index) => !this.#isShadowed(index));
  }

  #freeQueues(isMeant: (index: number) => boolean = () => true): void {
    for (const [index, { address, kept }] of this.#svqs) {
      if (!isMeant(index)) continue;
      for (const elem of kept) this.#kernel.physical.free(elem);
      this.#registry.queues.delete(address);
      this.#registry.devices.delete(address);
      this.#kernel.physical.free(address);
      this.#svqs.delete(index);
    }
  }

  #writeState(): void {
    this.#state.write({
      asid: this.controlAsid,
      shadowed: this.#isShadowed(this.controlIndex),
      shadowsData: this.#shadow === 'all',
      isolated: this.#hasOwnGroup,
      always: this.#options.shadow === 'all',
      started: this.#running,
      buffers: this.buffers,
    });
  }

  /** Address space in which guest memory has IOVAs. */
  get #translatedAsid(): number | undefined {
    if (this.#shadow === 'all') return 0;
    return this.mode === 'translate' && this.#isolates ? 1 : undefined;
  }

  /** Address space of what the VMM maps for a queue. */
  #asidOf(index: number): number {
    return index === this.controlIndex ? this.controlAsid : 0;
  }

  /** Only the control queue runs: the device gets the model's state. */
  #loadState(control: SvqQueue): void {
    this.#enable(this.controlIndex);
    const needsMq = this.mode === 'landed';
    const commands = restoreCommands(this.control, this.features, needsMq);
    if (commands.length === 0) return;
    const buffers = this.buffers ?? new ControlBuffers(this.#kernel, this);
    try {
      const problem = buffers.load(control, commands);
      if (problem !== undefined) throw new InputError(`restore: ${problem}`);
    } finally {
      if (this.buffers !== buffers) buffers.free();
    }
  }
}
