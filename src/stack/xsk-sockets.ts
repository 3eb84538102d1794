/** The AF_XDP sockets of a stack: by descriptor, by device and queue. */
import type { Ram } from '../cpu/ram.js';
import { XDP_SOCK, XSK_BOUND } from './xsk-structs.js';

const XS = XDP_SOCK.offset;

export class XdpSockets {
  readonly #ram: Ram;
  readonly #sockets = new Map<number, number>();
  #last = 2;

  constructor(ram: Ram) {
    this.#ram = ram;
  }

  add(xs: number): number {
    this.#sockets.set(++this.#last, xs);
    return this.#last;
  }

  remove(descriptor: number): void {
    this.#sockets.delete(descriptor);
  }

  /** Physical address of its xdp_sock; 0 when there is none. */
  byDescriptor(descriptor: number): number {
    return this.#sockets.get(descriptor) ?? 0;
  }

  /** The socket that is bound to a queue; 0 when there is none. */
  at(dev: number, queue: number): number {
    const ram = this.#ram;
    for (const xs of this.#sockets.values()) {
      const isBound = ram.u32(xs + XS.state) === XSK_BOUND && ram.u32(xs + XS.queue_id) === queue;
      if (isBound && ram.pointer(xs + XS.dev) === dev) return xs;
    }
    return 0;
  }
}
