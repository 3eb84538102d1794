/**
 * An AF_XDP socket as its process has it: a UMEM, four rings, bind, sendto, statistics.
 *
 * Reference: net/xdp/xsk.c, xdp_umem.c (xdp_umem_reg, xsk_bind, XDP_STATISTICS), the ring helpers of libxdp. The
 * process's side touches only memory that is shared: UMEM and rings. Zero copy is for receiving: the chunks
 * become the device's buffers. Leaves out poll(2), shared UMEM.
 *
 * Usage:
 *   const socket = new XdpSocket(stack, { frames: 64 });
 *   socket.bind(dev, 0, { needWakeup: true });
 *   socket.fill();
 *   xskmap.setSocket(0, socket.descriptor);
 *   ...traffic...
 *   socket.receive();                      // frames; their chunks are in the fill ring again
 *   socket.send(frame); socket.sendto();
 */
import { KernelError } from '../common/errors.js';
import { XDP_PACKET_HEADROOM } from '../bpf/xdp-buff.js';
import { ERRNO, errnoName, type ErrnoName } from '../common/errno.js';
import type { NetStack } from './net-stack.js';
import { PAGE_SIZE } from './pages.js';
import {
  XDP_DESC,
  XDP_RING,
  XDP_RING_NEED_WAKEUP,
  XQ,
  createQueue,
  destroyQueue,
  entryAt,
} from './xsk-queue.js';
import { NETDEV_BPF, XDP_SOCK, XSK_BOUND, XSK_POOL } from './xsk-structs.js';

export interface XdpSocketOptions {
  /** Chunks of the UMEM, half of them for receiving. Default 64. */
  readonly frames?: number;
  /** Bytes of a chunk: a power of two, 2048 to 4096. Default 2048. */
  readonly frameSize?: number;
  /** Bytes that stay free at the start of a chunk, beside the kernel's 256. Default 0. */
  readonly headroom?: number;
  /** Entries of each ring: a power of two. Default 64. */
  readonly ringSize?: number;
}

export interface XdpBindOptions {
  /** XDP_USE_NEED_WAKEUP. Default false. */
  readonly needWakeup?: boolean;
  /** XDP_ZEROCOPY: packets arrive in the UMEM, or bind fails. What is sent is copied still. Default false. */
  readonly zeroCopy?: boolean;
  /** Receive queues that the device has. Default 1. */
  readonly queues?: number;
}

/** `struct xdp_statistics`. */
export interface XdpStatistics {
  readonly rx_dropped: number;
  readonly rx_invalid_descs: number;
  readonly tx_invalid_descs: number;
  readonly rx_ring_full: number;
  readonly rx_fill_ring_empty_descs: number;
  readonly tx_ring_empty_descs: number;
}

const XS = XDP_SOCK.offset;
const POOL = XSK_POOL.offset;
const DESC = XDP_DESC.offset;
const isPowerOfTwo = (n: number): boolean => n > 0 && (n & (n - 1)) === 0;

export class XdpSocket {
  /** Physical address of its xdp_sock. */
  readonly address: number;
  /** What stands for it in the value of a socket map. */
  readonly descriptor: number;
  readonly #stack: NetStack;
  readonly #pool: number;
  readonly #frames: number;
  readonly #frameSize: number;
  /** Chunks that the process may send from. */
  readonly #free: number[] = [];

  /** Throws KernelError EINVAL for sizes that the kernel refuses. */
  constructor(stack: NetStack, options: XdpSocketOptions = {}) {
    const { frames = 64, frameSize = 2048, headroom = 0, ringSize = 64 } = options;
    if (!isPowerOfTwo(frameSize) || frameSize < 2048 || frameSize > PAGE_SIZE) {
      throw new KernelError('EINVAL', `AF_XDP: chunks of ${frameSize} bytes`);
    }
    if (headroom < 0 || headroom >= frameSize - XDP_PACKET_HEADROOM || frames < 1) {
      throw new KernelError('EINVAL', `AF_XDP: ${frames} chunks with headroom ${headroom}`);
    }
    if (!isPowerOfTwo(ringSize)) {
      throw new KernelError('EINVAL', `AF_XDP: a ring of ${ringSize} entries`);
    }
    const { kernel } = stack;
    const { ram } = kernel.memory;
    const { physical } = kernel;
    this.#stack = stack;
    this.#frames = frames;
    this.#frameSize = frameSize;
    const pool = physical.alloc(XSK_POOL.size);
    this.#pool = pool;
    const size = frames * frameSize;
    ram.setPointer(pool + POOL.addrs, physical.allocPages(Math.ceil(size / PAGE_SIZE)));
    ram.set32(pool + POOL.addrs_cnt, size);
    ram.set32(pool + POOL.chunk_size, frameSize);
    ram.set32(pool + POOL.headroom, headroom);
    ram.setPointer(pool + POOL.fq, createQueue(kernel, ringSize, 8));
    ram.setPointer(pool + POOL.cq, createQueue(kernel, ringSize, 8));
    ram.setPointer(pool + POOL.free_list, physical.alloc(8 * frames));
    this.address = physical.alloc(XDP_SOCK.size);
    ram.setPointer(this.address + XS.pool, pool);
    ram.setPointer(this.address + XS.rx, createQueue(kernel, ringSize, XDP_DESC.size));
    ram.setPointer(this.address + XS.tx, createQueue(kernel, ringSize, XDP_DESC.size));
    for (let i = frames >> 1; i < frames; i++) this.#free.push(i * frameSize);
    this.descriptor = stack.sockets.add(this.address);
  }

  /** Where the UMEM lies. */
  get umem(): bigint {
    const { ram } = this.#stack.kernel.memory;
    return ram.physToVirt(ram.pointer(this.#pool + POOL.addrs));
  }

  /** Where the rings lie: fill, completion, rx, tx. */
  get rings(): readonly bigint[] {
    const { ram } = this.#stack.kernel.memory;
    return this.#queues.map((queue) => ram.physToVirt(ram.pointer(queue + XQ.ring)));
  }

  /** Throws KernelError: EINVAL, EBUSY, ENODEV, EOPNOTSUPP. `dev` is a net_device's physical address. */
  bind(dev: number, queue: number, options: XdpBindOptions = {}): void {
    const { ram } = this.#stack.kernel.memory;
    const refuse = (errno: ErrnoName, why: string): never => {
      throw new KernelError(errno, `AF_XDP bind: ${why}`);
    };
    if (ram.u32(this.address + XS.state) !== 0) refuse('EBUSY', 'the socket is bound');
    if (dev === 0) refuse('ENODEV', 'no such device');
    if (queue < 0 || queue >= (options.queues ?? 1)) refuse('EINVAL', `no queue ${queue}`);
    if (this.#stack.sockets.at(dev, queue) !== 0) {
      refuse('EBUSY', `queue ${queue} has another socket's memory`);
    }
    if (options.zeroCopy ?? false) {
      const result = this.#setupPool(dev, queue, this.#pool);
      if (result < 0) refuse(errnoName(result) ?? 'EINVAL', 'the driver refuses zero copy');
      ram.set32(this.address + XS.zc, 1);
    }
    ram.setPointer(this.address + XS.dev, dev);
    ram.set32(this.address + XS.queue_id, queue);
    ram.set32(this.address + XS.state, XSK_BOUND);
    if (options.needWakeup ?? false) {
      // in copy mode nobody looks at the tx ring by itself
      ram.set32(this.#ring(this.#tx) + XDP_RING.flags, XDP_RING_NEED_WAKEUP);
    }
  }

  /** Gives the kernel the chunks for receiving. */
  fill(): void {
    for (let i = 0; i < this.#frames >> 1; i++) this.produceFill(i * this.#frameSize);
  }

  /** One address into the fill ring; false when it is full. */
  produceFill(address: number): boolean {
    const entry = this.#produce(this.#fq);
    if (entry === 0) return false;
    const { ram } = this.#stack.kernel.memory;
    ram.set64(entry, BigInt(address));
    this.#publish(this.#fq);
    return true;
  }

  /** Descriptors and frames that arrived; with `refill`, their chunks go to the fill ring again. */
  receive(refill = true): Uint8Array[] {
    const { ram } = this.#stack.kernel.memory;
    const frames: Uint8Array[] = [];
    for (let desc = this.#consume(this.#rx); desc !== 0; desc = this.#consume(this.#rx)) {
      const address = ram.u53(desc + DESC.addr);
      const at = ram.pointer(this.#pool + POOL.addrs) + address;
      frames.push(ram.slice(at, ram.u32(desc + DESC.len)));
      if (refill) this.produceFill(address);
    }
    return frames;
  }

  /** A frame into a free chunk and the tx ring; false when there is no chunk or no slot. */
  send(frame: Uint8Array): boolean {
    if (frame.length > this.#frameSize) return false;
    const address = this.#free.pop();
    if (address === undefined) return false;
    const { ram } = this.#stack.kernel.memory;
    ram.bytes.set(frame, ram.pointer(this.#pool + POOL.addrs) + address);
    if (this.produceTx(address, frame.length)) return true;
    this.#free.push(address);
    return false;
  }

  /** One descriptor into the tx ring; false when it is full. */
  produceTx(address: number, length: number): boolean {
    const { ram } = this.#stack.kernel.memory;
    const desc = this.#produce(this.#tx);
    if (desc === 0) return false;
    ram.set64(desc + DESC.addr, BigInt(address));
    ram.set32(desc + DESC.len, length);
    ram.set32(desc + DESC.options, 0);
    this.#publish(this.#tx);
    return true;
  }

  /** `sendto(2)`: the kernel sends what is in the tx ring; the errno's name, or undefined. */
  sendto(): string | undefined {
    const result = this.#stack.kernel.invoke('xsk_generic_xmit', this.address);
    return result === 0 ? undefined : errnoName(result);
  }

  /** Takes completions; their chunks may be sent from again. Returns how many. */
  complete(): number {
    const { ram } = this.#stack.kernel.memory;
    let count = 0;
    for (let entry = this.#consume(this.#cq); entry !== 0; entry = this.#consume(this.#cq)) {
      this.#free.push(ram.u53(entry));
      count++;
    }
    return count;
  }

  /** XDP_RING_NEED_WAKEUP of the tx ring. */
  get needsWakeup(): boolean {
    const { ram } = this.#stack.kernel.memory;
    return (ram.u32(this.#ring(this.#tx) + XDP_RING.flags) & XDP_RING_NEED_WAKEUP) !== 0;
  }

  get statistics(): XdpStatistics {
    const { ram } = this.#stack.kernel.memory;
    return {
      rx_dropped: ram.u53(this.address + XS.rx_dropped),
      rx_invalid_descs: ram.u53(this.#fq + XQ.invalid_descs),
      tx_invalid_descs: ram.u53(this.#tx + XQ.invalid_descs),
      rx_ring_full: ram.u53(this.address + XS.rx_queue_full),
      rx_fill_ring_empty_descs: ram.u53(this.#fq + XQ.queue_empty_descs),
      tx_ring_empty_descs: ram.u53(this.#tx + XQ.queue_empty_descs),
    };
  }

  /** No map may hold it any more. */
  close(): void {
    const { kernel } = this.#stack;
    const { ram } = kernel.memory;
    if (ram.u32(this.address + XS.zc) !== 0) {
      // a device that is gone has let go of the pool
      this.#setupPool(ram.pointer(this.address + XS.dev), ram.u32(this.address + XS.queue_id), 0);
    }
    this.#stack.sockets.remove(this.descriptor);
    for (const queue of this.#queues) destroyQueue(kernel, queue);
    kernel.physical.freePages(ram.pointer(this.#pool + POOL.addrs));
    kernel.physical.free(ram.pointer(this.#pool + POOL.free_list));
    kernel.physical.free(this.#pool);
    kernel.physical.free(this.address);
  }

  /** XDP_SETUP_XSK_POOL; pool 0: none. 0 or a negative errno. */
  #setupPool(dev: number, queue: number, pool: number): number {
    const { kernel, devices } = this.#stack;
    const { ram } = kernel.memory;
    const op = devices.ops(dev).ndo_bpf;
    if (op === undefined) return -ERRNO.EOPNOTSUPP;
    const command = kernel.physical.alloc(NETDEV_BPF.size);
    ram.setPointer(command + NETDEV_BPF.offset.pool, pool);
    ram.set16(command + NETDEV_BPF.offset.queue_id, queue);
    const result = kernel.invoke(op, dev, command);
    kernel.physical.free(command);
    return result;
  }

  get #fq(): number {
    return this.#stack.kernel.memory.ram.pointer(this.#pool + POOL.fq);
  }

  get #cq(): number {
    return this.#stack.kernel.memory.ram.pointer(this.#pool + POOL.cq);
  }

  get #rx(): number {
    return this.#stack.kernel.memory.ram.pointer(this.address + XS.rx);
  }

  get #tx(): number {
    return this.#stack.kernel.memory.ram.pointer(this.address + XS.tx);
  }

  get #queues(): readonly number[] {
    return [this.#fq, this.#cq, this.#rx, this.#tx];
  }

  #ring(queue: number): number {
    return this.#stack.kernel.memory.ram.pointer(queue + XQ.ring);
  }

  /** The process's side of a ring it produces into: the next slot, or 0. */
  #produce(queue: number): number {
    const { ram } = this.#stack.kernel.memory;
    const ring = this.#ring(queue);
    const produced = ram.u32(ring + XDP_RING.producer);
    const used = (produced - ram.u32(ring + XDP_RING.consumer)) >>> 0;
    return used === ram.u32(queue + XQ.nentries) ? 0 : entryAt(ram, queue, produced);
  }

  #publish(queue: number): void {
    const { ram } = this.#stack.kernel.memory;
    const ring = this.#ring(queue);
    ram.set32(ring + XDP_RING.producer, ram.u32(ring + XDP_RING.producer) + 1);
  }

  /** Takes the next entry of a ring that the kernel produces into; 0 when there is none. */
  #consume(queue: number): number {
    const { ram } = this.#stack.kernel.memory;
    const ring = this.#ring(queue);
    const consumed = ram.u32(ring + XDP_RING.consumer);
    if (consumed === ram.u32(ring + XDP_RING.producer)) return 0;
    ram.set32(ring + XDP_RING.consumer, consumed + 1);
    return entryAt(ram, queue, consumed);
  }
}
