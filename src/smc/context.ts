/**
 * What all parts of SMC share: the kernel, the devices, counters, and what waits to run.
 *
 * Bodies of kernel functions get it when they are made and keep no state of their own: what Linux has in
 * memory is in kernel memory, what is outside of it here (user memory, TCP's streams, who waits for a
 * promise) hangs on this interface. Tasklets and works are queued and run when the current call has ended
 * (`smc.ts`), as softirqs and kworkers do on a CPU that is busy: a signal never runs inside `move_data`.
 */
import type { Ram } from '../cpu/ram.js';
import type { KernelContext } from '../kernel/function.js';
import type { IsmEvent } from './core/ism-events.js';
import type { EidTable } from './eid.js';
import type { SmcdDevices } from './device/devices.js';
import type { IpPrefix } from './clc/messages.js';
import type { TcpSocket, TcpStack } from './socket/tcp.js';

/** What a kernel does not count: copies and signals since boot. What it counts is in `core/statistics.ts`. */
export interface SmcStats {
  /** Payload bytes copied: from user memory, by the device, to user memory. */
  userToKernel: number;
  deviceCopied: number;
  kernelToUser: number;
  /** Bytes of CDC records that the device copied. */
  cdcCopied: number;
  cdcs: number;
  signals: number;
  /** Tasklet runs: fewer than signals when those coalesce. */
  tasklets: number;
  /** CDCs that only return space. */
  windowUpdates: number;
  handshakeBytes: number;
}

export function newStats(): SmcStats {
  return {
    userToKernel: 0,
    deviceCopied: 0,
    kernelToUser: 0,
    cdcCopied: 0,
    cdcs: 0,
    signals: 0,
    tasklets: 0,
    windowUpdates: 0,
    handshakeBytes: 0,
  };
}

/** The interface that a route leads to, as far as the handshake asks. */
export interface NetDevice {
  readonly pnetid: string;
  /** 0: untagged. */
  readonly vlan: number;
  /** The VLAN cannot be found out. */
  readonly vlanFails: boolean;
  readonly ipsec: boolean;
  /** The network of its address; undefined: it has none that a proposal of version 1 could name. */
  readonly prefix: IpPrefix | undefined;
}

/** A message of a handshake as it goes over the wire. */
export interface ClcEvent {
  /** smc_sock of the sender. */
  readonly smc: number;
  readonly bytes: Uint8Array;
}

export interface SmcContext {
  readonly kernel: KernelContext;
  readonly ram: Ram;
  readonly stats: SmcStats;
  /** Physical addresses of net->smc.smc_stats and net->smc.fback_rsn. */
  readonly smcStats: number;
  readonly fbackRsn: number;
  /** A msghdr for what the kernel itself sends and receives over TCP. */
  readonly kernelMsg: number;
  readonly devices: SmcdDevices;
  readonly eids: EidTable;
  readonly tcp: TcpStack;
  readonly netdev: NetDevice;
  /** SMC_RELEASE: 1 since 6.7, before that 0. */
  readonly release: number;
  /** Bytes that a DMB has beyond its power of two: 0. */
  readonly dmbExtra: number;
  /** Called with each CLC message that is sent. */
  readonly onClc: (event: ClcEvent) => void;
  /** Events that ISM devices have raised, since boot. */
  readonly ismEvents: IsmEvent[];
  /** User memory of the call that runs. */
  user: Uint8Array;
  /** smc_lgr_list.num: goes up by 256 for each link group. */
  lgrNumber: number;
  nextAlertToken: number;
  /** Handshakes that a server has begun and not ended. */
  handshakes: number;
  /** limit_smc_hs: from so many handshakes on a SYN is answered without the SMC option. */
  readonly handshakeLimit: number;
  /** smc_hs_ctrl that is chosen by net.smc.hs_ctrl, or 0. */
  hsCtrl: number;
  /** Milliseconds of the lab's own clock. */
  now(): number;
  /** tasklet_schedule of a connection's rx_tsklet. */
  scheduleTasklet(conn: number): void;
  /** queue_work: runs when the current call has ended. */
  defer(work: () => void): void;
  /** Runs `work` when the clock has moved on by `ms`; returns the way to cancel. */
  after(ms: number, work: () => void): () => void;
  /** sk_data_ready, sk_write_space, sk_state_change. */
  wake(smc: number): void;
  /** Starts a function in a task of its own: what a kworker runs. */
  startWork(name: string, argument: number): void;
  /** Calls text that is no atomic function, a BPF image, from a body; the value is its int. */
  callText(address: bigint, ...pointers: number[]): number;
  /** An smc_sock in state INIT on top of a TCP socket: smc_sock_alloc. */
  newSock(clcsock: TcpSocket): number;
  /** Nobody has the socket any more: its memory goes once it is closed. */
  released(smc: number): void;
}
