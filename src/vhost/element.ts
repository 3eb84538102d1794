/**
 * Elements: chains of the guest, in memory of the VMM, as VirtQueueElement and SVQElement are.
 *
 * Reference: QEMU virtqueue_pop, virtqueue_alloc_element. The segments know the guest's address and where
 * it lies for the VMM. Strict modes refuse a chain longer than the ring, which the standard forbids and QEMU takes
 * from an indirect table.
 *
 * Usage:
 *   const elem = popElement(kernel, queue);    // 0: none
 *   kernel.physical.free(elem);
 */
import type { KernelContext } from '../kernel/function.js';
import { QUEUE_EMPTY } from '../virtio/ring/device-queue.js';
import { isStrict, type SvqQueue } from './queue.js';
import {
  IOVEC,
  SHADOW_VIRTQUEUE,
  SVQ_ELEMENT,
  SVQ_ELEMENT_FIELDS,
  SVQ_VRING,
  iovSize,
} from './structs.js';

const S = SHADOW_VIRTQUEUE.offset;
const E = SVQ_ELEMENT_FIELDS;

/** Takes the next chain of the guest; 0: there is none, or the guest broke its ring. */
export function popElement(kernel: KernelContext, queue: SvqQueue): number {
  const { memory, physical } = kernel;
  const { ram } = memory;
  const { address: svq, guest, readable, writable } = queue;
  if (ram.u8(svq + S.scratch_broken) !== 0) return 0;
  readable.count = 0;
  writable.count = 0;
  const head = guest.queue.take(readable, writable);
  if (head === QUEUE_EMPTY) return 0;
  const segments = readable.count + writable.count;
  const num = ram.u32(svq + SVQ_VRING.num);
  const isTooLong = isStrict(queue) && segments > num;
  if (head < 0 || isTooLong) {
    const why = guest.queue.broken ?? `head ${head}: ${segments} segments in a ring of ${num}`;
    ram.set8(svq + S.scratch_broken, 1);
    queue.log(why);
    guest.broken(why);
    return 0;
  }
  const elem = physical.alloc(SVQ_ELEMENT.size + segments * (IOVEC.size + 8));
  const sg = elem + SVQ_ELEMENT.size;
  const addr = sg + segments * IOVEC.size;
  ram.set32(elem + E.index, head);
  ram.set32(elem + E.out_num, readable.count);
  ram.set32(elem + E.in_num, writable.count);
  ram.setPointer(elem + E.out_sg, sg);
  ram.setPointer(elem + E.in_sg, sg + readable.count * IOVEC.size);
  ram.setPointer(elem + E.out_addr, addr);
  ram.setPointer(elem + E.in_addr, addr + 8 * readable.count);
  for (let i = 0; i < segments; i++) {
    const isOut = i < readable.count;
    const at = isOut ? readable.address(i) : writable.address(i - readable.count);
    const length = isOut ? readable.length(i) : writable.length(i - readable.count);
    ram.setPointer(sg + i * IOVEC.size + IOVEC.offset.iov_base, at);
    ram.setWord(sg + i * IOVEC.size + IOVEC.offset.iov_len, length);
    ram.setPointer(addr + 8 * i, at);
  }
  const order = ram.u32(svq + S.scratch_next_order);
  ram.set32(elem + E.scratch_order, order);
  ram.set32(svq + S.scratch_next_order, order + 1);
  return elem;
}

/** Bytes that the device may write into an element. */
export function elementRoom({ memory: { ram } }: KernelContext, elem: number): number {
  return iovSize(ram, ram.pointer(elem + E.in_sg), ram.u32(elem + E.in_num));
}

/** Bytes that the guest wrote into an element. */
export function elementBytes({ memory: { ram } }: KernelContext, elem: number): number {
  return iovSize(ram, ram.pointer(elem + E.out_sg), ram.u32(elem + E.out_num));
}
