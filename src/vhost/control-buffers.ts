/**
 * The two buffers of the control queue: one page for commands, one for acks, mapped once.
 *
 * Reference: QEMU 10.0 net/vhost-vdpa.c (vhost_vdpa_net_cvq_start, vhost_vdpa_net_cvq_add,
 * vhost_vdpa_net_load_cmd, vhost_vdpa_net_svq_flush). Mode `landed` has them while it runs and sends the guest's
 * commands through them, one at a time; all modes restore state through them, in batches: each command takes
 * two descriptors, its bytes behind those of the one before, and one byte for its ack.
 */
import { ERRNO } from '../common/errno.js';
import { InputError } from '../common/errors.js';
import { PAGE_SIZE } from '../cpu/memory.js';
import type { KernelContext } from '../kernel/function.js';
import { VIRTIO_NET_ERR, VIRTIO_NET_OK } from '../virtio/device/control/commands.js';
import type { DmaMap } from './iova-tree.js';
import type { SvqQueue } from './queue.js';
import { IOVEC, SHADOW_VIRTQUEUE } from './structs.js';
import type { VhostVdpaNet } from './vhost-vdpa.js';

const S = SHADOW_VIRTQUEUE.offset;
const DESCRIPTORS_PER_COMMAND = 2;

export class ControlBuffers {
  /** Where commands are put together. */
  readonly command: number;
  readonly status: number;
  readonly #kernel: KernelContext;
  readonly #net: VhostVdpaNet;
  readonly #maps: { readonly map: DmaMap; readonly buffer: number }[] = [];
  /** Two IOVEC. */
  readonly #sg: number;

  /** Throws InputError, with all undone, when they cannot be mapped. */
  constructor(kernel: KernelContext, net: VhostVdpaNet) {
    this.#kernel = kernel;
    this.#net = net;
    this.#sg = kernel.physical.alloc(2 * IOVEC.size);
    this.command = net.vmm.alloc(PAGE_SIZE);
    this.status = net.vmm.alloc(PAGE_SIZE);
    for (const [at, perm] of [
      [this.command, 'ro'],
      [this.status, 'rw'],
    ] as const) {
      const map = net.mapBuffer(at, PAGE_SIZE, perm);
      if (map) {
        this.#maps.push({ map, buffer: at });
        continue;
      }
      this.free();
      throw new InputError('cannot map the buffers of the control queue');
    }
  }

  free(): void {
    const mapped = new Set(this.#maps.map(({ buffer }) => buffer));
    for (const { map, buffer } of this.#maps.toReversed()) this.#net.releaseBuffer(map, buffer);
    for (const buffer of [this.command, this.status]) {
      if (!mapped.has(buffer)) this.#net.vmm.free(buffer);
    }
    this.#kernel.physical.free(this.#sg);
  }

  /** `vhost_vdpa_net_cvq_add`: bytes of the command buffer, one byte of the other. 0 or a negative errno. */
  add(queue: SvqQueue, from: number, length: number, ack: number): number {
    const { ram } = this.#kernel.memory;
    const out = this.#sg;
    const input = this.#sg + IOVEC.size;
    ram.setPointer(out + IOVEC.offset.iov_base, this.command + from);
    ram.setWord(out + IOVEC.offset.iov_len, length);
    ram.setPointer(input + IOVEC.offset.iov_base, this.status + ack);
    ram.setWord(input + IOVEC.offset.iov_len, 1);
    const result = this.#kernel.invoke('vhost_svq_add', queue.address, out, 1, 0, input, 1, 0, 0);
    if (result === -ERRNO.ENOSPC) this.#net.say('No space on device queue');
    return result;
  }

  /** Sends commands of the VMM, and waits for all of them; what went wrong. */
  load(queue: SvqQueue, commands: readonly Uint8Array[]): string | undefined {
    const { ram } = this.#kernel.memory;
    let cursor = 0;
    let waiting: Uint8Array[] = [];
    for (const bytes of commands) {
      if (bytes.length >= PAGE_SIZE) return `command of ${bytes.length} bytes`;
      const free = ram.s32(queue.address + S.num_free);
      if (free < DESCRIPTORS_PER_COMMAND || cursor + bytes.length > PAGE_SIZE) {
        const problem = this.#collect(queue, waiting);
        if (problem !== undefined) return problem;
        waiting = [];
        cursor = 0;
      }
      ram.bytes.set(bytes, this.command + cursor);
      ram.set8(this.status + waiting.length, VIRTIO_NET_ERR);
      const result = this.add(queue, cursor, bytes.length, waiting.length);
      if (result < 0) return `error ${result}`;
      waiting.push(bytes);
      cursor += bytes.length;
    }
    return this.#collect(queue, waiting);
  }

  /** `vhost_vdpa_net_svq_flush`: all answers, none of which may be ERR. */
  #collect(queue: SvqQueue, waiting: readonly Uint8Array[]): string | undefined {
    const { ram } = this.#kernel.memory;
    const written = this.#kernel.invoke('vhost_svq_poll', queue.address, waiting.length);
    if (written !== waiting.length) return `-EIO: ${written} of ${waiting.length} answers`;
    const refused = waiting.findIndex((_, i) => ram.u8(this.status + i) !== VIRTIO_NET_OK);
    if (refused < 0) return undefined;
    const [commandClass, number] = waiting[refused] ?? [];
    return `-EIO: command ${number} of class ${commandClass} refused`;
  }
}
