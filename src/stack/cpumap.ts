/**
 * Redirects to CPUs: frames wait in a ring for a kernel thread of that CPU, which makes skbs of them.
 *
 * Reference: kernel/bpf/cpumap.c of 6.12 (cpu_map_enqueue, bq_flush_to_queue, __cpu_map_flush,
 * cpu_map_kthread_run, cpu_map_bpf_prog_run), net/core/xdp.c (__xdp_build_skb_from_frame). A frame goes from a
 * bulk queue of 8 into the ring of `qsize`, where there is room, else it is lost. The thread is a task: it
 * sleeps while the ring is empty. The skb has no hash, no receive queue, and ip_summed NONE: the frame knows
 * none of them. Leaves out skbs of generic XDP in the program's loop (they go up as they are).
 */
import { XDP_BUFF, XDP_FRAME_SIZE, XDP_RXQ_INFO } from '../bpf/xdp-buff.js';
import { ERRNO } from '../common/errno.js';
import { struct } from '../common/struct.js';
import type { Ram } from '../cpu/ram.js';
import { atomic, call, type KernelContext, type KernelFunction } from '../kernel/function.js';
import { CPUMAP_BATCH, NET_CONTEXT, XDP_CPUMAP_STATS } from './net-context.js';
import { NET_DEVICE } from './net-device.js';
import type { NetStack } from './net-stack.js';
import { ETH_HLEN } from './skb-geometry.js';
import {
  SKB_SHARED_INFO,
  SK_BUFF,
  addLength,
  buildSkb,
  skbPut,
  skbPull,
  skbReserve,
  skbShinfo,
} from './skb.js';
import {
  XDP_FRAME,
  frameHasFrags,
  frameShinfo,
  frameToXdpBuff,
  returnFrame,
  updateFrame,
} from './xdp-frame.js';
import { XDP_ABORTED, XDP_PASS, XDP_REDIRECT } from './xdp-verdict.js';

const CPU_MAP_BULK_SIZE = 8;

/** `struct bpf_cpu_map_entry` with its ptr_ring. */
const BPF_CPU_MAP_ENTRY = struct({
  cpu: 'u32',
  map_id: 'u32',
  qsize: 'u32',
  /** kthread_stop was called; wake_up_process was. */
  stopping: 'u32',
  woken: 'u32',
  /** The ring: slots, next to take, how many there are. */
  head: 'u32',
  queued: 'u32',
  ring: 'u64',
  prog: 'u64',
  /** struct xdp_bulk_queue of each CPU. */
  bulkq: 'u64',
});

const XDP_BULK_QUEUE = struct({
  q: 8 * CPU_MAP_BULK_SIZE,
  flush_node: 'u64',
  obj: 'u64',
  count: 'u32',
  /** It is in the list of those to flush. */
  listed: 'u32',
});

const ENTRY = BPF_CPU_MAP_ENTRY.offset;
const BQ = XDP_BULK_QUEUE.offset;
const FRAME = XDP_FRAME.offset;
const SKB = SK_BUFF.offset;
const SHINFO = SKB_SHARED_INFO.offset;
const STATS = XDP_CPUMAP_STATS.offset;
/** Tags an entry of the ring that is an skb (`__ptr_set_bit(0)`). */
const IS_SKB = 1;

export interface CpuMapEntryOptions {
  readonly cpu: number;
  readonly mapId: number;
  readonly qsize: number;
  /** A program of attach type BPF_XDP_CPUMAP, or 0. */
  readonly prog: number;
}

/** `__cpu_map_entry_alloc`: with its thread, which is told by `stack.settle()` that it was woken. */
export class CpuMapEntry {
  readonly address: number;
  readonly #stack: NetStack;
  readonly #endWork: () => void;

  constructor(stack: NetStack, options: CpuMapEntryOptions) {
    const { kernel } = stack;
    const { ram } = kernel.memory;
    this.#stack = stack;
    const entry = kernel.physical.alloc(BPF_CPU_MAP_ENTRY.size);
    this.address = entry;
    ram.set32(entry + ENTRY.cpu, options.cpu);
    ram.set32(entry + ENTRY.map_id, options.mapId);
    ram.set32(entry + ENTRY.qsize, options.qsize);
    ram.setPointer(entry + ENTRY.prog, options.prog);
    ram.setPointer(entry + ENTRY.ring, kernel.physical.alloc(8 * options.qsize));
    const bulkq = kernel.physical.alloc(XDP_BULK_QUEUE.size * stack.cpus);
    ram.setPointer(entry + ENTRY.bulkq, bulkq);
    for (let cpu = 0; cpu < stack.cpus; cpu++) {
      ram.setPointer(bulkq + cpu * XDP_BULK_QUEUE.size + BQ.obj, entry);
    }
    const name = `cpumap/${options.cpu}/map:${options.mapId}`;
    kernel.kthreadRun(name, 'cpu_map_kthread_run', ram.physToVirt(entry), options.cpu);
    this.#endWork = stack.addWorker(() => this.#wakeUp());
  }

  /** `__cpu_map_entry_free`: the thread empties the ring and ends. */
  free(): void {
    const { kernel } = this.#stack;
    const { ram } = kernel.memory;
    ram.set32(this.address + ENTRY.stopping, 1);
    ram.set32(this.address + ENTRY.woken, 1);
    this.#wakeUp();
    this.#endWork();
    kernel.physical.free(ram.pointer(this.address + ENTRY.ring));
    kernel.physical.free(ram.pointer(this.address + ENTRY.bulkq));
    kernel.physical.free(this.address);
  }

  #wakeUp(): boolean {
    const { kernel } = this.#stack;
    const { ram } = kernel.memory;
    if (ram.u32(this.address + ENTRY.woken) === 0) return false;
    ram.set32(this.address + ENTRY.woken, 0);
    kernel.wake(ram.physToVirt(this.address), ram.u32(this.address + ENTRY.cpu));
    return true;
  }
}

/** `__ptr_ring_produce`: false when the ring is full. */
function produce(ram: Ram, entry: number, item: number): boolean {
  const size = ram.u32(entry + ENTRY.qsize);
  const queued = ram.u32(entry + ENTRY.queued);
  if (queued === size) return false;
  const slot = (ram.u32(entry + ENTRY.head) + queued) % size;
  const at = ram.pointer(entry + ENTRY.ring) + 8 * slot;
  ram.setPointer(at, item & ~IS_SKB);
  if ((item & IS_SKB) !== 0) ram.set8(at, ram.u8(at) | IS_SKB);
  ram.set32(entry + ENTRY.queued, queued + 1);
  return true;
}

/** `__ptr_ring_consume`: 0 when the ring is empty. */
function consume(ram: Ram, entry: number): number {
  const queued = ram.u32(entry + ENTRY.queued);
  if (queued === 0) return 0;
  const head = ram.u32(entry + ENTRY.head);
  const item = ram.pointer(ram.pointer(entry + ENTRY.ring) + 8 * head);
  ram.set32(entry + ENTRY.head, (head + 1) % ram.u32(entry + ENTRY.qsize));
  ram.set32(entry + ENTRY.queued, queued - 1);
  return item;
}

export function cpumapFunctions(stack: NetStack): readonly KernelFunction[] {
  function flushToQueue(kernel: KernelContext, bq: number): void {
    const { ram } = kernel.memory;
    const entry = ram.pointer(bq + BQ.obj);
    const count = ram.u32(bq + BQ.count);
    let drops = 0;
    for (let i = 0; i < count; i++) {
      const frame = ram.pointer(bq + BQ.q + 8 * i);
      if (produce(ram, entry, frame)) continue;
      drops++;
      returnFrame(kernel, stack.pages, frame);
    }
    ram.set32(bq + BQ.count, 0);
    if (!stack.events) return;
    const mapId = ram.u32(entry + ENTRY.map_id);
    const toCpu = ram.u32(entry + ENTRY.cpu);
    stack.trace({ name: 'xdp_cpumap_enqueue', mapId, toCpu, processed: count, drops });
  }

  function enqueue(kernel: KernelContext, entry: number, frame: number, from: number): number {
    const { ram } = kernel.memory;
    ram.setPointer(frame + FRAME.dev_rx, from);
    const bq = ram.pointer(entry + ENTRY.bulkq) + kernel.currentCpu * XDP_BULK_QUEUE.size;
    if (ram.u32(bq + BQ.count) === CPU_MAP_BULK_SIZE) flushToQueue(kernel, bq);
    const count = ram.u32(bq + BQ.count);
    ram.setPointer(bq + BQ.q + 8 * count, frame);
    ram.set32(bq + BQ.count, count + 1);
    if (ram.u32(bq + BQ.listed) === 0) {
      const list = stack.context + NET_CONTEXT.cpu_map_flush_list;
      ram.set32(bq + BQ.listed, 1);
      ram.setPointer(bq + BQ.flush_node, ram.pointer(list));
      ram.setPointer(list, bq);
    }
    return 0;
  }

  /** The program on one frame: true when the frame stays. */
  function runOn(kernel: KernelContext, prog: number, frame: number, stats: number): boolean {
    const { ram } = kernel.memory;
    const { context } = stack;
    const xdp = context + NET_CONTEXT.scratch_xdp;
    const rxq = context + NET_CONTEXT.scratch_rxq;
    const from = ram.pointer(frame + FRAME.dev_rx);
    ram.zero(rxq, XDP_RXQ_INFO.size);
    ram.setPointer(rxq + XDP_RXQ_INFO.dev, from);
    frameToXdpBuff(ram, frame, xdp);
    ram.setPointer(xdp + XDP_BUFF.rxq, rxq);
    ram.setPointer(xdp + XDP_BUFF.txq, 0);
    const action = stack.runXdp(prog, xdp);
    const add = (field: number): void => ram.set32(stats + field, ram.u32(stats + field) + 1);
    if (action === XDP_PASS && updateFrame(ram, frame, xdp)) {
      add(STATS.pass);
      return true;
    }
    if (action === XDP_REDIRECT && kernel.invoke('xdp_do_redirect', from, xdp, prog) === 0) {
      add(STATS.redirect);
      return false;
    }
    if (action > XDP_REDIRECT || action === XDP_ABORTED) {
      if (action > XDP_REDIRECT) kernel.invoke('bpf_warn_invalid_xdp_action', 0, prog, action);
      const ifindex = ram.u32(from + NET_DEVICE.offset.ifindex);
      stack.trace({ name: 'xdp_exception', ifindex, action });
    }
    returnFrame(kernel, stack.pages, frame);
    add(STATS.drop);
    return false;
  }

  function runProgram(
    kernel: KernelContext,
    entry: number,
    frames: number,
    count: number,
    stats: number,
  ): number {
    const { ram } = kernel.memory;
    const prog = ram.pointer(entry + ENTRY.prog);
    if (prog === 0) return count;
    let kept = 0;
    for (let i = 0; i < count; i++) {
      const frame = ram.pointer(frames + 8 * i);
      if (runOn(kernel, prog, frame, stats)) ram.setPointer(frames + 8 * kept++, frame);
    }
    if (ram.u32(stats + STATS.redirect) > 0) kernel.invoke('xdp_do_flush');
    return kept;
  }

  function buildSkbFromFrame(kernel: KernelContext, frame: number, dev: number): number {
    const { ram } = kernel.memory;
    const headroom = XDP_FRAME_SIZE + ram.u16(frame + FRAME.headroom);
    const hardStart = ram.pointer(frame + FRAME.data) - headroom;
    const frameSize = ram.u32(frame + FRAME.frame_sz);
    const hasFrags = frameHasFrags(ram, frame);
    const info = frameShinfo(ram, frame);
    const frags = hasFrags ? ram.u8(info + SHINFO.nr_frags) : 0;
    const length = ram.u16(frame + FRAME.len);
    const metasize = ram.u32(frame + FRAME.metasize);
    const skb = buildSkb(kernel, hardStart, frameSize);
    skbReserve(ram, skb, headroom);
    skbPut(kernel, skb, length);
    const shinfo = skbShinfo(ram, skb);
    ram.set8(shinfo + SHINFO.meta_len, metasize);
    if (hasFrags) {
      ram.set8(shinfo + SHINFO.nr_frags, frags);
      addLength(ram, skb, ram.u32(shinfo + SHINFO.xdp_frags_size), frags * frameSize);
    }
    const protocol = kernel.invoke('eth_type_trans', skb, dev);
    ram.set16(skb + SKB.protocol, ((protocol & 0xff) << 8) | (protocol >> 8));
    return skb;
  }

  /** The thread: sleeps, takes a batch, makes skbs, hands them up; until it is told to stop. */
  const kthread: KernelFunction = {
    name: 'cpu_map_kthread_run',
    prototype: 'int cpu_map_kthread_run(void *data)',
    parameters: 1,
    *body(kernel, data) {
      const { ram } = kernel.memory;
      const entry = ram.virtToPhys(data as bigint);
      for (;;) {
        while (ram.u32(entry + ENTRY.queued) === 0) {
          if (ram.u32(entry + ENTRY.stopping) !== 0) return 0n;
          yield { kind: 'sleep', channel: data as bigint };
        }
        const context = stack.context;
        const frames = context + NET_CONTEXT.scratch_frames;
        const list = context + NET_CONTEXT.scratch_list;
        const stats = context + NET_CONTEXT.scratch_stats;
        ram.zero(stats, XDP_CPUMAP_STATS.size);
        ram.setPointer(list, 0);
        let tail = list;
        const append = (skb: number): void => {
          ram.setPointer(tail, skb);
          tail = skb + SKB.next;
          ram.setPointer(tail, 0);
        };
        let taken = 0;
        let count = 0;
        for (; taken < CPUMAP_BATCH; taken++) {
          const item = consume(ram, entry);
          if (item === 0) break;
          if ((item & IS_SKB) !== 0) append(item & ~IS_SKB);
          else ram.setPointer(frames + 8 * count++, item);
        }
        const kept = Number(
          yield* call(
            'cpu_map_bpf_prog_run',
            data as bigint,
            ram.physToVirt(frames),
            BigInt(count),
            ram.physToVirt(stats),
          ),
        );
        for (let i = 0; i < kept; i++) {
          const frame = ram.pointer(frames + 8 * i);
          const dev = ram.pointer(frame + FRAME.dev_rx);
          const address = ram.physToVirt(frame);
          const skb = yield* call('__xdp_build_skb_from_frame', address, ram.physToVirt(dev));
          append(ram.virtToPhys(skb));
        }
        if (stack.events) {
          stack.trace({
            name: 'xdp_cpumap_kthread',
            mapId: ram.u32(entry + ENTRY.map_id),
            cpu: kernel.currentCpu,
            processed: taken,
            pass: ram.u32(stats + STATS.pass),
            drop: ram.u32(stats + STATS.drop),
            redirect: ram.u32(stats + STATS.redirect),
          });
        }
        yield* call('netif_receive_skb_list', ram.physToVirt(list));
      }
    },
  };

  return [
    kthread,
    atomic({
      prototype:
        'int cpu_map_enqueue(struct bpf_cpu_map_entry *rcpu, struct xdp_frame *xdpf, ' +
        'struct net_device *dev_rx)',
      calls: true,
      body: enqueue,
    }),
    atomic({
      prototype:
        'int cpu_map_generic_redirect(struct bpf_cpu_map_entry *rcpu, struct sk_buff *skb)',
      calls: true,
      body: (kernel, entry, skb) => {
        const { ram } = kernel.memory;
        // the thread's end of the stack takes it behind the Ethernet header, as a driver hands it over
        skbPull(ram, skb, ETH_HLEN);
        ram.set8(skb + SKB.redirected, 1);
        if (!produce(ram, entry, skb | IS_SKB)) return -ERRNO.ENOSPC;
        ram.set32(entry + ENTRY.woken, 1);
        return 0;
      },
    }),
    atomic({
      prototype:
        'int cpu_map_bpf_prog_run(struct bpf_cpu_map_entry *rcpu, void **frames, int xdp_n, ' +
        'struct xdp_cpumap_stats *stats)',
      calls: true,
      body: runProgram,
    }),
    atomic({
      prototype:
        'struct sk_buff *__xdp_build_skb_from_frame(struct xdp_frame *xdpf, ' +
        'struct net_device *dev)',
      calls: true,
      body: buildSkbFromFrame,
    }),
    atomic({
      prototype: 'void __cpu_map_flush(struct list_head *flush_list)',
      calls: true,
      body: (kernel, list) => {
        const { ram } = kernel.memory;
        for (let bq = ram.pointer(list); bq !== 0;) {
          const next = ram.pointer(bq + BQ.flush_node);
          flushToQueue(kernel, bq);
          ram.set32(bq + BQ.listed, 0);
          ram.set32(ram.pointer(bq + BQ.obj) + ENTRY.woken, 1);
          bq = next;
        }
        ram.setPointer(list, 0);
      },
    }),
  ];
}
