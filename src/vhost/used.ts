/**
 * Taking back what the device used, and giving it to the guest.
 *
 * Reference: QEMU 10.0 hw/virtio/vhost-shadow-virtqueue.c (vhost_svq_get_buf, vhost_svq_flush,
 * vhost_svq_poll, vhost_svq_push_elem, vhost_svq_enable_notification). An id that is out of range or not
 * outstanding is logged, and the flush looks on behind it. The length that the device gives reaches the guest as
 * it is in QEMU; strict modes cut it to the room there was. Waiting has a budget of turns of the device in place
 * of ten seconds, for each element. QEMU's bound of a ring of elements for one round is not needed: nothing is added
 * meanwhile.
 */
import type { KernelContext } from '../kernel/function.js';
import { VRING_AVAIL_F_NO_INTERRUPT } from '../virtio/ring/split-ring.js';
import { elementRoom } from './element.js';
import { GOT, isStrict, type SvqQueue } from './queue.js';
import { SHADOW_VIRTQUEUE, SVQ_DESC_STATE, SVQ_ELEMENT_FIELDS, SVQ_VRING } from './structs.js';

const S = SHADOW_VIRTQUEUE.offset;
const R = SVQ_VRING;
const STATE = SVQ_DESC_STATE.offset;
const E = SVQ_ELEMENT_FIELDS;

/** `vhost_svq_more_used` */
export function moreUsed({ memory: { ram } }: KernelContext, svq: number): boolean {
  const last = ram.u16(svq + S.last_used_idx);
  if (last === ram.u16(svq + S.shadow_used_idx)) {
    ram.set16(svq + S.shadow_used_idx, ram.u16(ram.pointer(svq + R.used) + 2));
  }
  return last !== ram.u16(svq + S.shadow_used_idx);
}

/** What `getBuf` found: a kind of GOT. */
export interface Got {
  kind: number;
  head: number;
  /** 0: a command of the VMM. */
  elem: number;
  len: number;
}

/** Takes the next used element; its descriptors are free again. */
export function getBuf(kernel: KernelContext, queue: SvqQueue, got: Got): void {
  const { ram } = kernel.memory;
  const svq = queue.address;
  const num = ram.u32(svq + R.num);
  got.kind = GOT.NONE;
  got.elem = 0;
  if (!moreUsed(kernel, svq)) return;
  // a read barrier stands here: the element is read after the index that covers it
  const last = ram.u16(svq + S.last_used_idx);
  const entry = ram.pointer(svq + R.used) + 4 + 8 * (last & (num - 1));
  const id = ram.u32(entry);
  got.head = id;
  got.len = ram.u32(entry + 4);
  got.kind = GOT.BAD;
  ram.set16(svq + S.last_used_idx, last + 1);
  if (id >= num) {
    queue.log(`Device index ${id} out of range`);
    return;
  }
  const state = ram.pointer(svq + S.desc_state) + id * SVQ_DESC_STATE.size;
  const ndescs = ram.u32(state + STATE.ndescs);
  if (ndescs === 0) {
    queue.log(`Device says index ${id} is used, but it was not available`);
    return;
  }
  got.kind = GOT.USED;
  got.elem = ram.pointer(state + STATE.elem);
  ram.set32(state + STATE.ndescs, 0);
  ram.setPointer(state + STATE.elem, 0);
  const next = ram.pointer(svq + S.desc_next);
  let end = id;
  for (let i = 1; i < ndescs; i++) end = ram.u16(next + 2 * end);
  ram.set16(next + 2 * end, ram.u32(svq + S.free_head));
  ram.set32(svq + S.free_head, id);
  ram.set32(svq + S.num_free, ram.s32(svq + S.num_free) + ndescs);
  queue.stage('get_buf');
}

/** The next used element that is one of the guest's: 0 none; bad ones end the search unless skipped. */
function nextGuestElement(kernel: KernelContext, queue: SvqQueue, got: Got): boolean {
  for (;;) {
    const elem = kernel.invoke('vhost_svq_get_buf', queue.address, queue.address + S.scratch_len);
    got.kind = kernel.memory.ram.u8(queue.address + S.scratch_kind);
    got.head = kernel.memory.ram.u32(queue.address + S.scratch_head);
    got.len = kernel.memory.ram.u32(queue.address + S.scratch_len);
    got.elem = elem;
    if (got.kind === GOT.NONE) return false;
    if (got.kind === GOT.USED && elem !== 0) return true;
    if (got.kind === GOT.USED) {
      releaseOrphan(queue, got.head, got.len > 0);
      continue;
    }
    if (!isStrict(queue)) return false;
  }
}

/** Nobody waits for a command any more: what it holds is given back. */
export function releaseOrphan(queue: SvqQueue, head: number, answered: boolean): void {
  queue.orphans.get(head)?.release(answered);
  queue.orphans.delete(head);
}

/** Asks to be signalled for what comes; false: something came already. */
function enableNotification(kernel: KernelContext, svq: number): boolean {
  const { ram } = kernel.memory;
  const avail = ram.pointer(svq + R.avail);
  if (ram.u8(svq + S.scratch_event) !== 0) {
    ram.set16(avail + 4 + 2 * ram.u32(svq + R.num), ram.u16(svq + S.shadow_used_idx));
  } else {
    ram.set16(avail, ram.u16(avail) & ~VRING_AVAIL_F_NO_INTERRUPT);
  }
  // a full barrier stands here: the wish is visible before the index is read
  return !moreUsed(kernel, svq);
}

/** With EVENT_IDX nothing is to be done: the event index lies behind already. */
function disableNotification(kernel: KernelContext, svq: number): void {
  const { ram } = kernel.memory;
  if (ram.u8(svq + S.scratch_event) !== 0) return;
  const avail = ram.pointer(svq + R.avail);
  ram.set16(avail, ram.u16(avail) | VRING_AVAIL_F_NO_INTERRUPT);
}

/** The length that the guest is told. */
function guestLength(kernel: KernelContext, queue: SvqQueue, elem: number, len: number): number {
  return isStrict(queue) ? Math.min(len, elementRoom(kernel, elem)) : len;
}

/** `vhost_svq_flush`: gives everything that was used to the guest. */
export function flush(kernel: KernelContext, queue: SvqQueue, checkAvail: boolean): void {
  const { memory, physical } = kernel;
  const { ram } = memory;
  const svq = queue.address;
  const { guest } = queue;
  if (ram.u8(svq + S.scratch_running) === 0) return;
  const got: Got = { kind: GOT.NONE, head: 0, elem: 0, len: 0 };
  do {
    disableNotification(kernel, svq);
    let count = 0;
    while (nextGuestElement(kernel, queue, got)) {
      const { elem, len } = got;
      if (ram.u8(svq + S.copy_descs) !== 0) {
        // an element that cannot be unmapped is lost: neither the guest's nor freed
        if (kernel.invoke('vhost_svq_unmap_elem', svq, elem, len, 1) === 0) return;
      }
      if (queue.usedHandler !== undefined) kernel.invoke(queue.usedHandler, svq, elem, len);
      guest.queue.push(ram.u32(elem + E.index), guestLength(kernel, queue, elem, len));
      physical.free(elem);
      count++;
    }
    guest.queue.flush();
    if (count > 0) queue.stage('used');
    guest.signal();
    if (checkAvail && isWaiting(kernel, queue)) kernel.invoke('vhost_handle_guest_kick', svq);
  } while (!enableNotification(kernel, svq));
}

/** Whether an element waits for room. */
export function isWaiting({ memory: { ram } }: KernelContext, queue: SvqQueue): boolean {
  return ram.pointer(queue.address + S.next_guest_avail_elem) !== 0 || queue.kept.length > 0;
}

/**
 * `vhost_svq_poll`: waits for `count` used elements; bytes written in all. Strict modes wait on when an element
 * is none.
 */
export function poll(kernel: KernelContext, queue: SvqQueue, count: number): number {
  const { ram } = kernel.memory;
  const svq = queue.address;
  let written = 0;
  let budget = queue.pollBudget;
  for (let left = count; left > 0;) {
    while (!moreUsed(kernel, svq)) {
      if (budget-- === 0) {
        queue.log('no answer within ten seconds');
        return written;
      }
      queue.device.step();
    }
    kernel.invoke('vhost_svq_get_buf', svq, svq + S.scratch_len);
    const isUsed = ram.u8(svq + S.scratch_kind) === GOT.USED;
    const head = ram.u32(svq + S.scratch_head);
    if (isUsed && queue.orphans.has(head)) {
      releaseOrphan(queue, head, ram.u32(svq + S.scratch_len) > 0);
      continue;
    }
    if (isUsed) written += ram.u32(svq + S.scratch_len);
    if (!isUsed && isStrict(queue)) continue;
    left--;
    budget = queue.pollBudget;
  }
  return written;
}

/** `vhost_svq_push_elem`: gives one element to the guest, without a signal. */
export function pushElem(kernel: KernelContext, queue: SvqQueue, elem: number, len: number): void {
  const { guest } = queue;
  guest.queue.push(kernel.memory.ram.u32(elem + E.index), len);
  guest.queue.flush();
  queue.stage('push_elem');
  if (isWaiting(kernel, queue)) kernel.invoke('vhost_handle_guest_kick', queue.address);
}
