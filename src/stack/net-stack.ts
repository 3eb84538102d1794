/**
 * What the network side of a kernel has once: page table, devices, programs, a context per CPU, kernel
 * threads that wait to run, and the tracepoints of XDP redirects.
 *
 * Reference: struct bpf_net_context of include/linux/filter.h (6.12: the lists of bulk queues to flush; here
 * one per CPU, in Linux one per NAPI poll), include/trace/events/xdp.h. Kernel functions of this folder are
 * made for one stack and hold nothing else. Memory is taken when the first device is registered, and given
 * back with the last.
 *
 * Usage:
 *   const stack = new NetStack(kernel, { bpf: kernel.bpf.host });
 *   stack.events = [];                       // from here on tracepoints are kept
 *   ...traffic...
 *   stack.settle();                          // kernel threads and devices do what is left
 */
import { BPF_REDIRECT_INFO, NO_MAP, type RedirectTargets } from '../bpf/redirect-info.js';
import type { BpfMap } from '../bpf/maps/map.js';
import type { Network } from '../bpf/network.js';
import type { KernelContext, KernelFunction } from '../kernel/function.js';
import { BPF_NET_CONTEXT, NET_CONTEXT } from './net-context.js';
import { NetDevices, type NetDeviceOps } from './netdev.js';
import { createPageTable, headPage, putPage } from './pages.js';
import { XDP_REDIRECT } from './xdp-verdict.js';
import { XdpPrograms } from './xdp-program.js';
import { XdpSockets } from './xsk-sockets.js';

/** How TypeScript code defines kernel functions. The kernel implements it. */
export interface FunctionDefiner {
  define(fn: KernelFunction): void;
}

/** How kernel threads are made and woken, from outside of functions that run. The kernel implements it. */
export interface ThreadHost {
  /** kthread_create, kthread_bind and wake_up_process: it runs `target(argument)` until it sleeps. */
  kthreadRun(name: string, target: string, argument: bigint, cpu: number): void;
  /** Runs what sleeps on `channel` until it sleeps again. */
  wake(channel: bigint, cpu: number): void;
}

export type StackKernel = KernelContext & FunctionDefiner & ThreadHost;

/** The BPF side of a kernel: where helpers leave redirects, maps by address. */
export interface BpfSide {
  readonly network: Network;
  redirectTargets: RedirectTargets | undefined;
  returnFragment: ((page: number) => void) | undefined;
  redirectInfo(): number;
  mapAt(address: bigint): BpfMap | undefined;
}

export interface NetStackOptions {
  /** Default: none, programs are TypeScript and write the stack's own bpf_redirect_info. */
  readonly bpf?: BpfSide;
  /** Default 1. */
  readonly cpus?: number;
  /**
   * Each run of a program begins with an empty bpf_redirect_info; before 6.1.137 and its like what another
   * program asked for and did not use was left. Default true.
   */
  readonly resetsRedirectInfo?: boolean;
  /**
   * Behind a generic XDP program an skb's network header is where its data is; in 5.2 before 5.2.9 it stayed
   * where it had been. Default true.
   */
  readonly resetsNetworkHeader?: boolean;
}

const INFO = BPF_REDIRECT_INFO.offset;

/** A tracepoint of include/trace/events/xdp.h. */
export type XdpEvent =
  | {
      readonly name: 'xdp_redirect' | 'xdp_redirect_err';
      /** Device that received the packet. */
      readonly ifindex: number;
      /** Target device of a devmap or of bpf_redirect; 0 for others. */
      readonly to: number;
      readonly mapId: number;
      readonly mapIndex: number;
      /** Negative errno, or 0. */
      readonly err: number;
    }
  | {
      readonly name: 'xdp_devmap_xmit';
      readonly from: number;
      readonly to: number;
      readonly sent: number;
      readonly drops: number;
      readonly err: number;
    }
  | {
      readonly name: 'xdp_cpumap_enqueue';
      readonly mapId: number;
      readonly toCpu: number;
      readonly processed: number;
      readonly drops: number;
    }
  | {
      readonly name: 'xdp_cpumap_kthread';
      readonly mapId: number;
      readonly cpu: number;
      readonly processed: number;
      readonly pass: number;
      readonly drop: number;
      readonly redirect: number;
    }
  | { readonly name: 'xdp_exception'; readonly ifindex: number; readonly action: number };

export class NetStack {
  readonly kernel: StackKernel;
  readonly devices: NetDevices;
  readonly programs: XdpPrograms;
  readonly sockets: XdpSockets;
  readonly cpus: number;
  readonly bpf: BpfSide | undefined;
  resetsRedirectInfo: boolean;
  /** Tracepoints are kept here while it is an array. */
  events: XdpEvent[] | undefined;
  #warned = false;
  #pages = 0;
  #ownsPages = true;
  readonly #contexts: number[] = [];
  /** Called by `settle`; each says whether it did anything. */
  readonly #workers = new Set<() => boolean>();

  constructor(kernel: StackKernel, options: NetStackOptions = {}) {
    this.kernel = kernel;
    this.bpf = options.bpf;
    this.cpus = options.cpus ?? 1;
    this.resetsRedirectInfo = options.resetsRedirectInfo ?? true;
    this.devices = new NetDevices(kernel, options.bpf?.network);
    this.programs = new XdpPrograms(kernel);
    this.sockets = new XdpSockets(kernel.memory.ram);
  }

  /** Root of the table of page chunks that all buffers, frames and skbs are counted in. */
  get pages(): number {
    if (this.#pages === 0) this.#pages = createPageTable(this.kernel);
    return this.#pages;
  }

  /** Counts page chunks in the table of a `struct net` from here on, unless there is one already. */
  usePages(pages: number): number {
    if (this.#pages === 0) {
      this.#pages = pages;
      this.#ownsPages = false;
    }
    return pages;
  }

  /** The `bpf_net_context` of the CPU that runs. */
  get context(): number {
    const cpu = this.kernel.currentCpu;
    return (this.#contexts[cpu] ??= this.kernel.physical.alloc(BPF_NET_CONTEXT.size));
  }

  /** The `bpf_redirect_info` of the CPU that runs. */
  get redirectInfo(): number {
    return this.bpf?.redirectInfo() ?? this.context + NET_CONTEXT.ri;
  }

  registerNetdevice(dev: number, ops: NetDeviceOps, cpus = this.cpus): void {
    this.devices.register(dev, ops, cpus);
  }

  /** @param teardown frees what the driver has: page chunks are counted until it is done. */
  unregisterNetdevice(dev: number, teardown: () => void): void {
    this.devices.unregister(dev);
    teardown();
    if (this.devices.count > 0) return;
    const { physical } = this.kernel;
    for (const context of this.#contexts.splice(0)) if (context) physical.free(context);
    if (this.#pages !== 0 && this.#ownsPages) physical.free(this.#pages);
    this.#pages = 0;
    this.#ownsPages = true;
  }

  /** `__xdp_return`: the chunk that holds `address` loses a reference. */
  putPageAt(address: number): void {
    const page = headPage(this.kernel.memory.ram, this.pages, address);
    putPage(this.kernel, this.pages, page);
  }

  /** `bpf_prog_run_xdp`. */
  runXdp(prog: number, xdp: number): number {
    if (this.resetsRedirectInfo) this.resetRedirectInfo();
    return this.programs.runner(prog).run(this.kernel, xdp);
  }

  resetRedirectInfo(): void {
    const { ram } = this.kernel.memory;
    const info = this.redirectInfo;
    ram.set32(info + INFO.map_id, 0);
    ram.set32(info + INFO.map_type, 0);
    ram.set32(info + INFO.flags, 0);
    ram.setPointer(info + INFO.tgt_value, 0);
  }

  /** What `bpf_redirect` does, for programs that are TypeScript. */
  askRedirect(ifindex: number): void {
    const { ram } = this.kernel.memory;
    const info = this.redirectInfo;
    ram.setWord(info + INFO.tgt_index, ifindex);
    ram.set32(info + INFO.map_id, NO_MAP);
    ram.set32(info + INFO.map_type, 0);
  }

  /** `bpf_warn_invalid_xdp_action`: it speaks once. */
  warnInvalidAction(action: number): void {
    if (this.#warned) return;
    this.#warned = true;
    const legal = action > XDP_REDIRECT ? 'Illegal' : 'Driver unsupported';
    this.kernel.printk(`${legal} XDP return value ${action}, expect packet loss!`);
  }

  trace(event: XdpEvent): void {
    this.events?.push(event);
  }

  /** Makes `work` a part of `settle`; returns the way to end it. */
  addWorker(work: () => boolean): () => void {
    this.#workers.add(work);
    return () => void this.#workers.delete(work);
  }

  /** Lets woken kernel threads and devices go on until none has anything to do. */
  settle(): void {
    for (let busy = true; busy;) {
      busy = false;
      for (const work of this.#workers) if (work()) busy = true;
    }
  }
}
