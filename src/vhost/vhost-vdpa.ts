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
import { ERRNO } from '../common/errno.js';
import { InputError } from '../common/errors.js';
import { PAGE_SIZE, type MemoryListener, type Region } from '../cpu/memory.js';
import type { KernelContext } from '../kernel/function.js';
import {
  VirtioNetDevice,
  type DeliverOptions,
  type DeliverResult,
  type NetDeviceOptions,
} from '../virtio/device/net-device.js';
import type { ControlResult } from '../virtio/device/control/execute.js';
import { VIRTIO_NET_OK } from '../virtio/device/control/commands.js';
import { featureMask, hasFeature } from '../virtio/net-features.js';
import type { DeviceQueue } from '../virtio/ring/device-queue.js';
import { openDeviceQueue, type RingLayout } from '../virtio/ring/open-device-queue.js';
import { PieceList } from '../virtio/ring/piece-list.js';
import { VIRTIO_CONFIG_S } from '../virtio/transport.js';
import { ControlBuffers } from './control-buffers.js';
import { svqFeatures, svqProblem } from './features.js';
import { VhostIovaTree, type DmaMap } from './iova-tree.js';
import { leaksOf, type Leaks } from './leaks.js';
import { deviceAreaSize, driverAreaSize, freeRings } from './life-cycle.js';
import { restoreCommands } from './restore.js';
import { isStrict, type SvqMode, type SvqQueue } from './queue.js';
import { SHADOW_VIRTQUEUE } from './structs.js';
import { VdpaNetDevice, type VringAddresses } from './vdpa-device.js';
import { VmmMemory } from './vmm-memory.js';

const S = SHADOW_VIRTQUEUE.offset;
const OWN_FEATURES = featureMask(['GUEST_ANNOUNCE']);
const ACCESS_PLATFORM = featureMask(['ACCESS_PLATFORM']);

export interface SvqOptions {
  /** How control commands reach the device. Default 'transactional'. */
  readonly mode?: SvqMode;
  /** Queues that are shadowed: the control queue, all, or none. Default 'cvq'. */
  readonly shadow?: 'cvq' | 'all' | 'none';
  /** The device's control queue is a group of its own. Default true. */
  readonly isolated?: boolean;
  /** IOVAs that may be used. Default 4 KiB to 256 TiB. */
  readonly iovaRange?: { readonly first: bigint; readonly last: bigint };
  /** Turns of the device that stand for ten seconds. Default 1000. */
  readonly pollBudget?: number;
  /** Sees each step of a command's way. */
  readonly onStage?: (name: string) => void;
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
  /** Maps that the device did not let go of, with their buffers. */
  readonly #stuck: { readonly asid: number; readonly map: DmaMap }[] = [];
  #shadow: 'cvq' | 'all' | 'none';
  #device: VdpaNetDevice;
  #running = false;
  #ram: MemoryListener | undefined;

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
    const { first, last } = options.iovaRange ?? { first: 0x1000n, last: 0xffff_ffff_ffffn };
    this.tree = new VhostIovaTree(first, last);
    this.vmm = new VmmMemory(kernel.physical);
    this.#device = this.#createVdpa();
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
    return this.#map(this.controlAsid, at, size, perm);
  }

  /** Undoes `mapBuffer`; false: the device keeps the map, which is tried again later. */
  unmapBuffer(map: DmaMap): boolean {
    if (this.#unmap(this.controlAsid, map)) return true;
    if (this.mode === 'transactional') this.#stuck.push({ asid: this.controlAsid, map });
    return false;
  }

  /** Buffers that the device did not let go of. */
  get stuck(): number {
    return this.#stuck.length;
  }

  /** Starts the device with what the model has. Throws KernelError when that fails, with all undone. */
  start(): void {
    if (this.#running) return;
    this.#device.setStatus(0);
    const problem = this.#shadow === 'none' ? undefined : svqProblem(this.#device.getFeatures());
    if (problem !== undefined) throw new InputError(problem);
    const ready = VIRTIO_CONFIG_S.ACKNOWLEDGE | VIRTIO_CONFIG_S.DRIVER;
    this.#device.setStatus(ready);
    this.#device.setFeatures((this.features & ~OWN_FEATURES) | ACCESS_PLATFORM);
    this.#device.setStatus(ready | VIRTIO_CONFIG_S.FEATURES_OK);
    if (this.#isolates) {
      this.#device.setGroupAsid(this.#device.getVqGroup(this.controlIndex), 1);
    }
    this.#running = true;
    try {
      this.#mapGuest();
      // before the rings: they get the first addresses
      const carries = this.mode === 'landed' && this.#layouts.has(this.controlIndex);
      if (carries && this.#isShadowed(this.controlIndex)) {
        this.buffers = new ControlBuffers(this.#kernel, this);
      }
      for (const [index, layout] of this.#layouts) this.#startVring(index, layout);
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
      if (!this.#svqs.has(index)) this.#bases.set(index, this.#device.getVringBase(index));
    }
    this.buffers?.free();
    this.buffers = undefined;
    this.#retryStuck();
    for (const svq of this.#svqs.values()) this.#unmapRings(svq);
    this.#unmapGuest();
    this.#running = false;
  }

  /** Stops, and starts with other queues shadowed: what live migration does first. */
  setShadow(shadow: 'cvq' | 'all' | 'none'): void {
    const wasRunning = this.#running;
    this.stop();
    this.#freeQueues();
    this.#shadow = shadow;
    if (wasRunning) this.start();
  }

  /** Live migration: the guest goes on with another device, which is given the state. */
  migrate(): VdpaNetDevice {
    if (!this.#isShadowed(this.controlIndex)) {
      throw new InputError('migration is blocked: commands are not seen');
    }
    if (this.#device.isWorking)
      throw new InputError('migration is refused: a command is in flight');
    const source = this.#device;
    this.stop();
    this.#device = this.#createVdpa();
    this.start();
    return source;
  }

  /** Stops and frees what belongs to the VMM. */
  close(): void {
    this.stop();
    this.#freeQueues();
  }

  get #isolates(): boolean {
    return this.#shadow === 'cvq' && (this.#options.isolated ?? true);
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
    if (this.#shadow === 'all') return true;
    return (
      this.#shadow === 'cvq' && index === this.controlIndex && (this.#options.isolated ?? true)
    );
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
    this.#device.setVring(index, this.#mapRings(svq), undefined);
  }

  #createQueue(index: number, layout: RingLayout): SvqQueue {
    const { ram } = this.#kernel.memory;
    const address = this.#kernel.physical.alloc(SHADOW_VIRTQUEUE.size);
    const isControl = index === this.controlIndex;
    const eventIdx = hasFeature(this.features, 'EVENT_IDX');
    ram.set32(address + S.num, layout.num);
    ram.set32(address + S.index, index);
    ram.set8(address + S.event, eventIdx ? 1 : 0);
    ram.set8(address + S.copy_descs, isControl && this.mode === 'copy-v8' ? 1 : 0);
    const base = this.#bases.get(index);
    const queue: DeviceQueue = openDeviceQueue(this.#kernel.memory, layout, {
      index,
      eventIdx,
      indirect: hasFeature(this.features, 'INDIRECT_DESC'),
      ...(base === undefined ? {} : { base }),
    });
    const understands = this.mode !== 'copy-v8';
    const follows = this.mode === 'copy-v8' || this.mode === 'translate';
    const asid = (): number => (isControl ? this.controlAsid : 0);
    const svq: SvqQueue = {
      address,
      mode: this.mode,
      tree: this.tree,
      vmm: this.vmm,
      guest: {
        queue,
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
      usedHandler: isControl && follows ? 'vhost_vdpa_net_handle_ctrl' : undefined,
      readable: new PieceList(),
      writable: new PieceList(),
      kept: [],
      orphans: new Map(),
      pollBudget: this.#options.pollBudget ?? 1000,
      log: (line) => this.say(line),
      stage: (name) => isControl && this.stage(name),
    };
    this.#svqs.set(index, svq);
    this.#registry.queues.set(address, svq);
    this.#registry.devices.set(address, this);
    return svq;
  }

  #freeQueues(): void {
    for (const { address, kept } of this.#svqs.values()) {
      for (const elem of kept) this.#kernel.physical.free(elem);
      this.#registry.queues.delete(address);
      this.#registry.devices.delete(address);
      this.#kernel.physical.free(address);
    }
    this.#svqs.clear();
  }

  /** `vhost_vdpa_svq_map_rings`: the device reads the driver area and writes the device area. */
  #mapRings({ address }: SvqQueue): VringAddresses {
    const { ram } = this.#kernel.memory;
    const num = ram.u32(address + S.num);
    const asid = ram.u32(address + S.index) === this.controlIndex ? this.controlAsid : 0;
    const areas = [
      [S.desc, driverAreaSize(num), 'ro'],
      [S.used, deviceAreaSize(num), 'rw'],
    ] as const;
    const iovas = areas.map(([field, size, perm]) => {
      const map = this.#map(asid, ram.pointer(address + field), size, perm);
      if (!map) throw new InputError('cannot map the shadow rings');
      return map.iova;
    });
    const [desc = 0n, used = 0n] = iovas;
    return { num, desc, avail: desc + BigInt(16 * num), used };
  }

  #unmapRings(svq: SvqQueue): void {
    const { ram } = this.#kernel.memory;
    const asid = ram.u32(svq.address + S.index) === this.controlIndex ? this.controlAsid : 0;
    for (const field of [S.used, S.desc]) {
      const area = ram.pointer(svq.address + field);
      const map = area === 0 ? undefined : this.tree.findTranslated(ram.physToVirt(area), 'hva');
      // strict modes try once more before the memory is given up
      if (map && !this.#unmap(asid, map) && isStrict(svq)) this.#unmap(asid, map);
    }
    freeRings(this.#kernel, svq);
  }

  #map(asid: number, at: number, size: number, perm: 'ro' | 'rw'): DmaMap | undefined {
    const translated = this.#kernel.memory.ram.physToVirt(at);
    const pages = Math.ceil(size / PAGE_SIZE) * PAGE_SIZE;
    const map = this.tree.allocMap({ translated, size: BigInt(pages) - 1n, perm });
    if (typeof map === 'string') {
      this.say(`IOVA ${map}: cannot map ${size} bytes`);
      return undefined;
    }
    const result = this.#device.dmaMap(asid, map.iova, pages, at, perm);
    if (result === 0) return map;
    this.say(`Cannot map to device: ${result}`);
    this.tree.remove(map);
    return undefined;
  }

  #unmap(asid: number, map: DmaMap): boolean {
    const result = this.#device.dmaUnmap(asid, map.iova, Number(map.size + 1n));
    if (result !== 0 && result !== -ERRNO.ENOENT) {
      this.say(`Device cannot unmap: ${result}`);
      return false;
    }
    this.tree.remove(map);
    return true;
  }

  /** Maps that the device kept: their buffers are freed when it lets go of them. */
  #retryStuck(): void {
    for (const { asid, map } of this.#stuck.splice(0)) {
      if (this.#unmap(asid, map)) {
        this.vmm.free(this.#kernel.memory.ram.virtToPhys(map.translated));
      } else {
        this.#stuck.push({ asid, map });
      }
    }
  }

  /** Guest memory: at IOVAs where the VMM translates, at the guest's addresses where it does not. */
  #mapGuest(): void {
    const mapped = (region: Region): void => {
      if (region.permissions === 'rw') this.#mapSection(region);
    };
    const unmapped = (region: Region): void => this.#unmapSection(region);
    this.#ram = { mapped, unmapped };
    this.#kernel.memory.listen(this.#ram);
  }

  #unmapGuest(): void {
    if (this.#ram) this.#kernel.memory.unlisten(this.#ram);
    this.#ram = undefined;
    for (const region of this.#kernel.memory.regions) this.#unmapSection(region);
  }

  /** Address spaces in which guest memory has IOVAs. */
  get #translatedAsid(): number | undefined {
    if (this.#shadow === 'all') return 0;
    return this.mode === 'translate' && this.#isolates ? 1 : undefined;
  }

  #mapSection({ address, size, offset }: Region): void {
    const asid = this.#translatedAsid;
    if (this.#shadow !== 'all') this.#device.dmaMap(0, address, size, offset, 'rw');
    if (asid === undefined) return;
    const map = this.tree.allocMap({
      translated: address,
      size: BigInt(Math.ceil(size / PAGE_SIZE) * PAGE_SIZE) - 1n,
      perm: 'rw',
      kind: 'gpa',
    });
    if (typeof map === 'string') throw new InputError(`IOVA ${map}: cannot map guest memory`);
    const result = this.#device.dmaMap(asid, map.iova, size, offset, 'rw');
    if (result === 0) return;
    this.tree.remove(map);
    throw new InputError(`cannot map guest memory: ${result}`);
  }

  #unmapSection({ address, size }: Region): void {
    if (this.#shadow !== 'all') this.#device.dmaUnmap(0, address, size);
    const map = this.tree.findTranslated(address, 'gpa');
    if (!map) return;
    const asid = this.#translatedAsid ?? 0;
    this.#device.dmaUnmap(asid, map.iova, Number(map.size + 1n));
    this.tree.remove(map);
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
