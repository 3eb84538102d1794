/**
 * A shadow virtqueue from start to stop, and the guest's kick in between.
 *
 * Reference: QEMU 10.0 hw/virtio/vhost-shadow-virtqueue.c (vhost_svq_start, vhost_svq_stop,
 * vhost_handle_guest_kick). At stop the device is suspended; elements in flight go back to the guest's
 * available ring by moving the index back. QEMU moves it by their number, as if the device had completed
 * everything in order; strict modes move it only over elements that are all in flight, and keep the others for the
 * next start. The proposal detaches the elements, and the tree it was written for took the base from the shadow
 * ring's used index (vhost_vdpa_get_vring_base of QEMU 7.0): the same at the first start. One element waits at most
 * (`next_guest_avail_elem`), the oldest that was not forwarded.
 *
 *   STOPPED -> start -> RUNNING <-> one element waits, guest's notifications off
 *      ^                   |
 *      +------ stop -------+---- the guest breaks its ring: BROKEN, used elements are still returned
 */
import { ERRNO } from '../common/errno.js';
import type { KernelContext } from '../kernel/function.js';
import { VRING_DESC_SIZE } from '../virtio/ring/split-ring.js';
import { popElement } from './element.js';
import { availableElements, isStrict, type SvqQueue } from './queue.js';
import {
  MAX_SEGMENTS,
  SHADOW_VIRTQUEUE,
  SVQ_DESC_STATE,
  SVQ_ELEMENT_FIELDS,
  SVQ_VRING,
} from './structs.js';
import { deviceAreaSize, driverAreaSize } from './shadow-rings.js';
import { releaseOrphan } from './used.js';

const S = SHADOW_VIRTQUEUE.offset;
const R = SVQ_VRING;
const STATE = SVQ_DESC_STATE.offset;
const E = SVQ_ELEMENT_FIELDS;

/** `vhost_svq_start`: empty rings, all descriptors free. */
export function start({ memory, physical }: KernelContext, queue: SvqQueue): void {
  const { ram } = memory;
  const svq = queue.address;
  const num = ram.u32(svq + R.num);
  const driver = queue.vmm.alloc(driverAreaSize(num));
  ram.setPointer(svq + R.desc, driver);
  ram.setPointer(svq + R.avail, driver + VRING_DESC_SIZE * num);
  ram.setPointer(svq + R.used, queue.vmm.alloc(deviceAreaSize(num)));
  ram.setPointer(svq + S.desc_state, physical.alloc(SVQ_DESC_STATE.size * num));
  const next = physical.alloc(2 * num);
  ram.setPointer(svq + S.desc_next, next);
  ram.setPointer(svq + S.scratch_sgs, physical.alloc(8 * MAX_SEGMENTS));
  for (let i = 0; i + 1 < num; i++) ram.set16(next + 2 * i, i + 1);
  ram.set32(svq + S.free_head, 0);
  ram.set32(svq + S.num_free, num);
  ram.set16(svq + S.shadow_avail_idx, 0);
  ram.set16(svq + S.shadow_used_idx, 0);
  ram.set16(svq + S.last_used_idx, 0);
  ram.set8(svq + S.scratch_running, 1);
}

/** The element to forward next: 0 when there is none. */
function nextElement(kernel: KernelContext, queue: SvqQueue): number {
  const { ram } = kernel.memory;
  const parked = ram.pointer(queue.address + S.next_guest_avail_elem);
  if (parked !== 0) {
    ram.setPointer(queue.address + S.next_guest_avail_elem, 0);
    return parked;
  }
  return queue.kept.shift() ?? popElement(kernel, queue);
}

function forward(kernel: KernelContext, queue: SvqQueue, elem: number): number {
  const { ram } = kernel.memory;
  const svq = queue.address;
  if (queue.mode === 'copy-v8') {
    const copies = ram.u8(svq + S.copy_descs) !== 0;
    const needed = copies ? 1 : ram.u32(elem + E.out_num) + ram.u32(elem + E.in_num);
    if (needed > availableElements(kernel, svq)) return -ERRNO.ENOSPC;
  }
  if (queue.availHandler === undefined) return kernel.invoke('vhost_svq_add_element', svq, elem);
  return kernel.invoke(queue.availHandler, svq, elem, ram.pointer(svq + S.ops_opaque));
}

/** `vhost_handle_guest_kick`: forwards what the guest made available, until it does not fit. */
export function handleGuestKick(kernel: KernelContext, queue: SvqQueue): void {
  const { memory, physical } = kernel;
  const { ram } = memory;
  const svq = queue.address;
  if (ram.u8(svq + S.scratch_running) === 0 || ram.u8(svq + S.scratch_broken) !== 0) return;
  const ring = queue.guest.queue;
  ring.setNotification(false);
  for (let enabled = false; ;) {
    const elem = nextElement(kernel, queue);
    if (elem === 0) {
      if (enabled) return;
      // looked at once more after this, for what came in between
      ring.setNotification(true);
      enabled = true;
      continue;
    }
    if (enabled) ring.setNotification(false);
    enabled = false;
    queue.stage('pop');
    const result = forward(kernel, queue, elem);
    if (result === -ERRNO.ENOSPC) {
      ram.setPointer(svq + S.next_guest_avail_elem, elem);
      return;
    }
    if (result < 0) {
      physical.free(elem);
      if (!isStrict(queue)) return;
      ram.set8(svq + S.scratch_broken, 1);
      queue.guest.broken('element that cannot be forwarded');
      return;
    }
  }
}

/** Elements in flight, and commands of the VMM, by the order of heads. */
function outstanding({ memory: { ram } }: KernelContext, svq: number): number[] {
  const elements: number[] = [];
  const states = ram.pointer(svq + S.desc_state);
  for (let i = 0; i < ram.u32(svq + R.num); i++) {
    const state = states + i * SVQ_DESC_STATE.size;
    const elem = ram.u32(state + STATE.ndescs) === 0 ? 0 : ram.pointer(state + STATE.elem);
    if (elem !== 0) elements.push(elem);
  }
  return elements;
}

/** `vhost_svq_stop`: the device is suspended. What it has not completed goes back to the guest. */
export function stop(kernel: KernelContext, queue: SvqQueue): void {
  const { memory, physical } = kernel;
  const { ram } = memory;
  const svq = queue.address;
  if (ram.u8(svq + S.scratch_running) === 0) return;
  kernel.invoke('vhost_svq_flush', svq, 0);
  ram.set8(svq + S.scratch_running, 0);
  const elements = outstanding(kernel, svq);
  const parked = ram.pointer(svq + S.next_guest_avail_elem);
  ram.setPointer(svq + S.next_guest_avail_elem, 0);
  if (parked !== 0) elements.push(parked);
  if (isStrict(queue)) {
    giveBack(kernel, queue, elements);
  } else {
    for (const elem of elements) {
      if (ram.u8(svq + S.copy_descs) !== 0) {
        kernel.invoke('vhost_svq_unmap_elem', svq, elem, 0, 0);
      }
      physical.free(elem);
    }
    ram.set32(svq + S.scratch_next_order, ram.u32(svq + S.scratch_next_order) - elements.length);
    queue.guest.queue.unpop(elements.length);
  }
  for (const head of queue.orphans.keys()) releaseOrphan(queue, head, false);
  for (const field of [S.desc_state, S.desc_next, S.scratch_sgs]) {
    physical.free(ram.pointer(svq + field));
    ram.setPointer(svq + field, 0);
  }
  ram.set8(svq + S.scratch_broken, 0);
}

/** Moves the guest's index back over elements that are all here; keeps what lies before a completed one. */
function giveBack(kernel: KernelContext, queue: SvqQueue, elements: readonly number[]): void {
  const { memory, physical } = kernel;
  const { ram } = memory;
  const at = queue.address + S.scratch_next_order;
  const order = (elem: number): number => ram.u32(elem + E.scratch_order);
  const held = [...elements, ...queue.kept].toSorted((a, b) => order(a) - order(b));
  let back = 0;
  for (let last = held.at(-1); last !== undefined; last = held.at(-1)) {
    if (order(last) + 1 !== ram.u32(at)) break;
    ram.set32(at, order(last));
    physical.free(last);
    held.pop();
    back++;
  }
  queue.guest.queue.unpop(back);
  queue.kept.splice(0, queue.kept.length, ...held);
}
