/**
 * SMC in a kernel: devices, sockets, and the clock that timeouts go by.
 *
 * `createSmc` puts the functions of net/smc into a kernel once and loads the loopback device. What tasklets and
 * kworkers do runs when the call that caused it has ended; with `softirq: 'manual'` only in `run()`.
 *
 * Usage:
 *   const smc = createSmc(kernel, { nocopy: true });
 *   smc.eids.add('SMC-LAB');
 *   const server = smc.socket();
 *   server.listen({ address: '127.0.0.1', port: 8080 });
 *   const client = smc.socket();
 *   await client.connect({ address: '127.0.0.1', port: 8080 });
 *   const peer = await server.accept();
 *   await client.send(bytes); // peer.recv(bytes.length)
 */
import { SOCK } from '../bpf/socket.js';
import { low32 } from '../common/bytes.js';
import { InputError, KernelError } from '../common/errors.js';
import { Random } from '../common/random.js';
import type { Ram } from '../cpu/ram.js';
import type { Kernel } from '../kernel/kernel.js';
import type { Task } from '../kernel/task.js';
import {
  AF_SMC,
  CDC_SIZE,
  CORE_MEM_MAX,
  IPPROTO_SMC,
  SMC_STATE,
  SMC_SYSCTL_MEM,
  SOCK_STREAM,
} from './constants.js';
import { newStats, type ClcEvent, type NetDevice, type SmcContext } from './context.js';
import { SMC_RELEASE } from './clc/values.js';
import { bufferFunctions } from './core/buffers.js';
import { cdcFunctions } from './core/cdc.js';
import { closeFunctions } from './core/close.js';
import { C, DEV, S, connOf, setSkState, skState } from './core/fields.js';
import { ismFunctionsOfCore } from './core/ism.js';
import { ismEventFunctions, raiseIsmEvent, type IsmEvent } from './core/ism-events.js';
import { lgrFunctions } from './core/lgr.js';
import { rxFunctions } from './core/rx.js';
import { SMC_STATS, SMC_STATS_RSN } from './core/statistics.js';
import { txFunctions } from './core/tx.js';
import {
  SELECTION_POLICIES,
  SmcdDevices,
  type RoceDevice,
  type SelectionPolicy,
  type SmcdDevice,
} from './device/devices.js';
import { DmbTable } from './device/dmb.js';
import { ismDevice, ismFunctions, type IsmOptions } from './device/ism.js';
import {
  RFC_SYSTEM_EID,
  loopbackDevice,
  loopbackFunctions,
  type LoopbackForm,
} from './device/loopback.js';
import { EidTable } from './eid.js';
import { clcFunctions } from './handshake/clc.js';
import { clientFunctions } from './handshake/client.js';
import { serverFunctions } from './handshake/server.js';
import { hsCtrlType } from './hs-ctrl.js';
import { socketFunctions } from './socket/af-smc.js';
import { inetFunctions } from './socket/inet.js';
import { SmcSocket } from './socket/smc-socket.js';
import { TcpStack, type TcpSocket } from './socket/tcp.js';
import { MSGHDR, SMCD_DEV, SMC_LO_DEV, SMC_SOCK } from './structs.js';
import { declareSmcTypes } from './types.js';

export interface SmcOptions {
  /** Sender's ring and receiver's buffer are one. Default true, as the loopback device has been since 6.10. */
  readonly nocopy?: boolean;
  /** Form of the loopback device, or none. Default '6.12'. */
  readonly loopback?: LoopbackForm | 'none';
  /** Slots for buffers in the loopback device. Default 5000. */
  readonly maxDmbs?: number;
  /** ISM devices. Default none. */
  readonly ism?: readonly IsmOptions[];
  /** InfiniBand devices: offered and chosen, never connected. Default none. */
  readonly roce?: readonly RoceDevice[];
  /** Order in which devices are tried. Default 'landed'. */
  readonly policy?: SelectionPolicy;
  /** What the machine has as its system EID, as on s390. Default none (the RFC's loopback brings one). */
  readonly systemEid?: string;
  /** The interface that all connections go over. Default lo: no PNETID, no VLAN, 127.0.0.0/8. */
  readonly netdev?: Partial<NetDevice>;
  /** SMC_RELEASE, what v2 proposals and first contacts name: 0 is that of 6.1. Default 1. */
  readonly release?: 0 | 1;
  /** Of GIDs and tokens. Default 1. */
  readonly seed?: number;
  /** When tasklets and works run. Default 'auto'. */
  readonly softirq?: 'auto' | 'manual';
  /** net.smc.limit_smc_hs: from so many handshakes at a time on the answer is TCP. Default: no limit. */
  readonly handshakeLimit?: number;
  /** Rings of a whole power of two, as SMC-R's: to compare with recordings of it. Default false. */
  readonly wholeRings?: boolean;
  /** net.core.rmem_max and wmem_max. Default 212992. */
  readonly memMax?: number;
}

const LOOPBACK_NETDEV: NetDevice = {
  pnetid: '',
  vlan: 0,
  vlanFails: false,
  ipsec: false,
  prefix: { subnet: 0x7f000000, length: 8, ipv6: [] },
};

interface Timer {
  readonly at: number;
  readonly work: () => void;
}

/** What is known of a socket's memory. */
interface SockEntry {
  released: boolean;
}

export class Smc implements SmcContext {
  readonly kernel: Kernel;
  readonly ram: Ram;
  readonly stats = newStats();
  readonly smcStats: number;
  readonly fbackRsn: number;
  readonly kernelMsg: number;
  readonly devices: SmcdDevices;
  readonly eids: EidTable;
  readonly tcp: TcpStack;
  readonly netdev: NetDevice;
  readonly release: number;
  readonly memMax: number;
  readonly dmbExtra: number;
  user: Uint8Array = new Uint8Array(0);
  lgrNumber = 0;
  nextAlertToken = 1;
  hsCtrl = 0;
  handshakes = 0;
  readonly handshakeLimit: number;
  readonly ismEvents: IsmEvent[] = [];
  /** All CLC messages since boot. */
  readonly messages: ClcEvent[] = [];
  readonly #softirq: 'auto' | 'manual';
  readonly #tasklets: number[] = [];
  readonly #works: (() => void)[] = [];
  #timers: Timer[] = [];
  #now = 0;
  readonly #waiters = new Map<number, (() => void)[]>();
  readonly #tasks: Task[] = [];
  readonly #socks = new Map<number, SockEntry>();
  readonly #hsCtrls = new Map<string, bigint>();
  #running = false;

  /** Use `createSmc`. */
  constructor(kernel: Kernel, options: SmcOptions) {
    const random = new Random(options.seed ?? 1);
    const form = options.loopback ?? '6.12';
    this.kernel = kernel;
    this.ram = kernel.memory.ram;
    this.smcStats = kernel.physical.alloc(SMC_STATS.size);
    this.fbackRsn = kernel.physical.alloc(SMC_STATS_RSN.size);
    this.kernelMsg = kernel.physical.alloc(MSGHDR.size);
    this.devices = new SmcdDevices(kernel, options.policy ?? SELECTION_POLICIES.landed);
    const ownSeid = form === 'rfc-attachment' ? RFC_SYSTEM_EID : undefined;
    this.eids = new EidTable(options.systemEid ?? ownSeid);
    this.tcp = new TcpStack(kernel);
    this.netdev = { ...LOOPBACK_NETDEV, ...options.netdev };
    this.release = options.release ?? SMC_RELEASE;
    this.handshakeLimit = options.handshakeLimit ?? Infinity;
    this.dmbExtra = options.wholeRings === true ? CDC_SIZE : 0;
    this.memMax = options.memMax ?? CORE_MEM_MAX;
    this.#softirq = options.softirq ?? 'auto';
    this.#define(new DmbTable(this, random));
    if (form !== 'none') {
      const { nocopy = true, maxDmbs } = options;
      const spec = loopbackDevice(random, {
        form,
        nocopy,
        ...(maxDmbs === undefined ? {} : { maxDmbs }),
      });
      this.devices.register(spec);
    }
    for (const ism of options.ism ?? []) this.devices.register(ismDevice(random, ism));
    for (const roce of options.roce ?? []) this.devices.addRoce(roce);
  }

  readonly onClc = (event: ClcEvent): void => {
    this.messages.push(event);
  };

  /** socket(AF_SMC, SOCK_STREAM, 0). Throws KernelError ESOCKTNOSUPPORT, EPROTONOSUPPORT. */
  socket(type = SOCK_STREAM, protocol = 0): SmcSocket {
    if (type !== SOCK_STREAM) throw new KernelError('ESOCKTNOSUPPORT', 'SMC has streams only');
    // SMCPROTO_SMC, SMCPROTO_SMC6
    if (protocol !== 0 && protocol !== 1) {
      throw new KernelError('EPROTONOSUPPORT', `there is no protocol ${protocol} in AF_SMC`);
    }
    return new SmcSocket(this, this.newSock(this.tcp.create()), AF_SMC, protocol);
  }

  /** socket(AF_INET, type, protocol): an SMC socket if the protocol is IPPROTO_SMC or becomes it. */
  inetSocket(type = SOCK_STREAM, protocol = 0): SmcSocket | undefined {
    const family = 2;
    const chosen = this.kernel.invoke('update_socket_protocol', family, type, protocol);
    if (chosen !== IPPROTO_SMC || type !== SOCK_STREAM) return undefined;
    return new SmcSocket(this, this.newSock(this.tcp.create()), family, chosen);
  }

  newSock(clcsock: TcpSocket): number {
    const smc = this.kernel.physical.alloc(SMC_SOCK.size);
    setSkState(this.ram, smc, SMC_STATE.INIT);
    this.ram.set16(smc + SOCK.type, SOCK_STREAM);
    this.ram.setPointer(smc + S.clcsock, clcsock.socket);
    this.ram.set32(smc + S.sk_rcvbuf, 2 * SMC_SYSCTL_MEM);
    this.ram.set32(smc + S.sk_sndbuf, 2 * SMC_SYSCTL_MEM);
    this.#socks.set(smc, { released: false });
    return smc;
  }

  /** All SMC sockets: addresses of smc_sock. */
  get socks(): Iterable<number> {
    return this.#socks.keys();
  }

  now(): number {
    return this.#now;
  }

  scheduleTasklet(conn: number): void {
    const state = conn + C.rx_tsklet;
    if (this.ram.u32(state) !== 0) return;
    this.ram.set32(state, 1);
    this.#tasklets.push(conn);
  }

  defer(work: () => void): void {
    this.#works.push(work);
  }

  after(ms: number, work: () => void): () => void {
    const timer = { at: this.#now + ms, work };
    this.#timers.push(timer);
    return () => {
      this.#timers = this.#timers.filter((each) => each !== timer);
    };
  }

  wake(smc: number): void {
    if (this.#tasks.some(({ channel }) => channel !== undefined)) {
      const channel = this.ram.physToVirt(smc);
      this.#works.push(() => this.kernel.wake(channel));
    }
    const waiters = this.#waiters.get(smc);
    if (!waiters) return;
    this.#waiters.delete(smc);
    for (const resume of waiters) resume();
  }

  /** Resolves at the next `wake` of a socket. */
  nextWake(smc: number): Promise<void> {
    return new Promise((resolve) => {
      const waiters = this.#waiters.get(smc) ?? [];
      waiters.push(resolve);
      this.#waiters.set(smc, waiters);
    });
  }

  startWork(name: string, argument: number): void {
    this.#works.push(() => {
      this.start(name, this.ram.physToVirt(argument));
    });
  }

  /** Starts a function that may sleep, in a task of its own. */
  start(name: string, ...args: readonly bigint[]): Task {
    let task = this.#tasks.find(({ state }) => state === 'ready' || state === 'done');
    if (!task) {
      task = this.kernel.createTask(`smc/${this.#tasks.length}`);
      this.#tasks.push(task);
    }
    this.kernel.start(task, name, args);
    return task;
  }

  callText(address: bigint, ...pointers: number[]): number {
    const args = pointers.map((each) => this.ram.physToVirt(each));
    return low32(this.kernel.invokeText(address, ...args));
  }

  released(smc: number): void {
    const entry = this.#socks.get(smc);
    if (entry) entry.released = true;
  }

  /** Runs tasklets and works until none is left. Returns how many tasklets ran. */
  run(): number {
    if (this.#running) return 0;
    this.#running = true;
    let ran = 0;
    try {
      for (;;) {
        const conn = this.#tasklets.shift();
        if (conn !== undefined) {
          this.ram.set32(conn + C.rx_tsklet, 0);
          this.kernel.invoke('smcd_cdc_rx_tsklet', conn + C.rx_tsklet);
          ran++;
          continue;
        }
        const work = this.#works.shift();
        if (!work) break;
        work();
        if (this.#tasklets.length === 0 && this.#works.length === 0) this.#freeSocks();
      }
    } finally {
      this.#running = false;
    }
    return ran;
  }

  /** What a call does at its end. */
  settle(): void {
    if (this.#softirq === 'auto' && (this.#tasklets.length > 0 || this.#works.length > 0)) {
      this.run();
    }
  }

  /** Moves the clock on and runs what is due. */
  advance(ms: number): void {
    const end = this.#now + ms;
    for (;;) {
      const [next] = this.#timers.toSorted((a, b) => a.at - b.at);
      if (!next || next.at > end) break;
      this.#timers = this.#timers.filter((each) => each !== next);
      this.#now = next.at;
      next.work();
      this.run();
    }
    this.#now = end;
  }

  /** Releases the memory of sockets that nobody has and that are closed. */
  #freeSocks(): void {
    for (const [smc, { released }] of this.#socks) {
      if (!released || skState(this.ram, smc) !== SMC_STATE.CLOSED) continue;
      if (this.ram.pointer(connOf(smc) + C.lgr) !== 0)
        this.kernel.invoke('smc_conn_free', connOf(smc));
      if (this.ram.pointer(smc + S.clcsock) !== 0) this.kernel.invoke('smc_clcsock_release', smc);
      this.#socks.delete(smc);
      this.kernel.physical.free(smc);
    }
  }

  /** Frees what can be freed now: after a call that queued nothing. */
  collect(): void {
    if (this.#tasklets.length === 0 && this.#works.length === 0) this.#freeSocks();
  }

  /** smcd_unregister_dev: connections are killed, the device goes when nothing of it is held. */
  removeDevice(device: SmcdDevice): void {
    this.ram.set8(device.address + DEV.going_away, 1);
    this.kernel.invoke('smc_smcd_terminate_all', device.address);
    this.run();
    this.devices.unlist(device);
    const held = this.dmbCount(device);
    const groups = this.ram.u32(device.address + DEV.lgr_cnt);
    if (held > 0 || groups > 0) {
      throw new KernelError(
        'EBUSY',
        `${device.name}: ${groups} link groups and ${held} buffers are left, rmmod waits for them`,
      );
    }
    this.devices.free(device);
  }

  /** What an ISM device tells on its own: a peer system has gone, or its software signals. */
  raiseIsmEvent(device: SmcdDevice, event: IsmEvent): void {
    raiseIsmEvent(this, device.address, event);
    this.settle();
  }

  /** Buffers that a device has registered. */
  dmbCount({ address }: SmcdDevice): number {
    const lo = this.ram.pointer(address + SMCD_DEV.offset.priv);
    return this.ram.u32(lo + SMC_LO_DEV.offset.dmb_cnt);
  }

  /** The first device of a kind. Throws InputError when there is none. */
  device(kind: 'loopback' | 'ism'): SmcdDevice {
    const found = this.devices.list.find((each) => each.kind === kind);
    if (!found) throw new InputError(`no ${kind} device`);
    return found;
  }

  /** net.smc.hs_ctrl: chooses a registered struct_ops smc_hs_ctrl by name, or none. Throws KernelError EINVAL. */
  setHsCtrl(name: string | undefined): void {
    if (name === undefined) {
      this.hsCtrl = 0;
      return;
    }
    const address = this.#hsCtrls.get(name);
    if (address === undefined) throw new KernelError('EINVAL', `no handshake policy '${name}'`);
    this.hsCtrl = this.ram.virtToPhys(address);
  }

  #define(table: DmbTable): void {
    const { kernel } = this;
    kernel.define(
      ...loopbackFunctions(this, table),
      ...ismFunctions(this, table),
      ...ismFunctionsOfCore(this),
      ...ismEventFunctions(this),
      ...lgrFunctions(this),
      ...bufferFunctions(this),
      ...cdcFunctions(this),
      ...txFunctions(this),
      ...rxFunctions(this),
      ...closeFunctions(this),
      ...clcFunctions(this),
      ...clientFunctions(this),
      ...serverFunctions(this),
      ...socketFunctions(this),
      ...inetFunctions(this),
    );
    kernel.bpf.host.types.declare(declareSmcTypes);
    kernel.bpf.structOps.define(
      hsCtrlType(kernel, this.#hsCtrls, (address) => {
        if (this.hsCtrl === this.ram.virtToPhys(address)) this.hsCtrl = 0;
      }),
    );
  }
}

/** SMC with its devices in a kernel that has no SMC yet. */
export function createSmc(kernel: Kernel, options: SmcOptions = {}): Smc {
  return new Smc(kernel, options);
}
