/**
 * Making a buffer available to the device: translation, descriptors, kick.
 *
 * Reference: QEMU 10.0 hw/virtio/vhost-shadow-virtqueue.c (vhost_svq_translate_addr,
 * vhost_svq_vring_write_descs, vhost_svq_add_split, vhost_svq_add, vhost_svq_kick). In QEMU the readable part is
 * written before the writable part is translated: when the latter fails, descriptors are gone from the free list
 * and still counted. Modes that are strict translate everything first. The free list and the
 * chains are read from the private copy `desc_next`, never from the table the device sees.
 */
import { ERRNO } from '../common/errno.js';
import { hex64 } from '../common/bytes.js';
import type { KernelContext } from '../kernel/function.js';
import {
  VRING_DESC_F_NEXT,
  VRING_DESC_F_WRITE,
  VRING_DESC_SIZE,
  VRING_USED_F_NO_NOTIFY,
  needEvent,
} from '../virtio/ring/split-ring.js';
import { translateWithin } from './iova-tree.js';
import { isStrict, type SvqQueue } from './queue.js';
import { IOVEC, SHADOW_VIRTQUEUE, SVQ_DESC_STATE, SVQ_VRING } from './structs.js';

const S = SHADOW_VIRTQUEUE.offset;
const R = SVQ_VRING;
const STATE = SVQ_DESC_STATE.offset;

/** A part of a buffer: IOVEC array, its count, guest addresses or 0 for memory of the VMM. */
export interface BufferPart {
  readonly sg: number;
  readonly num: number;
  readonly addr: number;
}

/** IOVAs of segments into `to`; false, with a line in the log, when one has none. */
export function translateAddr(
  { memory: { ram } }: KernelContext,
  queue: SvqQueue,
  to: number,
  { sg, num, addr }: BufferPart,
): boolean {
  for (let i = 0; i < num; i++) {
    const isGuest = addr !== 0;
    const address = ram.u64(isGuest ? addr + 8 * i : sg + i * IOVEC.size + IOVEC.offset.iov_base);
    const map = queue.tree.findTranslated(address, isGuest ? 'gpa' : 'hva');
    if (!map) {
      queue.log(`Invalid address ${hex64(address)} given by guest`);
      return false;
    }
    const length = BigInt(ram.u53(sg + i * IOVEC.size + IOVEC.offset.iov_len));
    if (address + length - 1n > map.translated + map.size) {
      queue.log('Guest buffer expands over iova range');
      return false;
    }
    ram.set64(to + 8 * i, translateWithin(map, address));
  }
  return true;
}

/** Writes descriptors from the free list on, addresses from `from`. */
export function writeDescs(
  { memory: { ram } }: KernelContext,
  queue: SvqQueue,
  from: number,
  lengthOf: (segment: number) => number,
  num: number,
  more: boolean,
  write: boolean,
): void {
  const svq = queue.address;
  const table = ram.pointer(svq + R.desc);
  const next = ram.pointer(svq + S.desc_next);
  const flags = write ? VRING_DESC_F_WRITE : 0;
  let i = ram.u32(svq + S.free_head);
  for (let n = 0; n < num; n++) {
    const desc = table + VRING_DESC_SIZE * i;
    ram.set64(desc, ram.u64(from + 8 * n));
    ram.set32(desc + 8, lengthOf(n));
    const follower = ram.u16(next + 2 * i);
    const chained = more || n + 1 < num;
    ram.set16(desc + 12, chained ? flags | VRING_DESC_F_NEXT : flags);
    ram.set16(desc + 14, chained ? follower : 0);
    i = follower;
  }
  ram.set32(svq + S.free_head, i);
}

/** Puts a chain into the available ring. */
export function publishAvail(
  { memory: { ram } }: KernelContext,
  queue: SvqQueue,
  head: number,
): void {
  const svq = queue.address;
  const avail = ram.pointer(svq + R.avail);
  const idx = ram.u16(svq + S.shadow_avail_idx);
  ram.set16(avail + 4 + 2 * (idx & (ram.u32(svq + R.num) - 1)), head);
  ram.set16(svq + S.shadow_avail_idx, idx + 1);
  // a write barrier stands here: the element is visible before the index that covers it
  ram.set16(avail + 2, idx + 1);
}

/** Notes a chain as outstanding. */
export function noteOutstanding(
  { memory: { ram } }: KernelContext,
  queue: SvqQueue,
  head: number,
  elem: number,
  ndescs: number,
): void {
  const svq = queue.address;
  const state = ram.pointer(svq + S.desc_state) + head * SVQ_DESC_STATE.size;
  ram.set32(svq + S.num_free, ram.s32(svq + S.num_free) - ndescs);
  ram.setPointer(state + STATE.elem, elem);
  ram.set32(state + STATE.ndescs, ndescs);
}

/** `vhost_svq_add`: 0, -ENOSPC or -EINVAL. `elem` 0: a command of the VMM. */
export function add(
  kernel: KernelContext,
  queue: SvqQueue,
  out: BufferPart,
  input: BufferPart,
  elem: number,
): number {
  const { ram } = kernel.memory;
  const svq = queue.address;
  const n = out.num + input.num;
  // at the time of the proposal only the caller looked, and counted elements
  if (n > ram.s32(svq + S.num_free) && queue.mode !== 'copy-v8') return -ERRNO.ENOSPC;
  if (n === 0) {
    queue.log('Guest provided element with no descriptors');
    return -ERRNO.EINVAL;
  }
  const head = ram.u32(svq + S.free_head);
  const sgs = ram.pointer(svq + S.scratch_sgs);
  const lengths =
    ({ sg }: BufferPart) =>
    (i: number): number =>
      ram.u53(sg + i * IOVEC.size + IOVEC.offset.iov_len);
  if (isStrict(queue)) {
    const inSgs = sgs + 8 * out.num;
    if (!translateAddr(kernel, queue, sgs, out)) return -ERRNO.EINVAL;
    if (!translateAddr(kernel, queue, inSgs, input)) return -ERRNO.EINVAL;
    writeDescs(kernel, queue, sgs, lengths(out), out.num, input.num > 0, false);
    writeDescs(kernel, queue, inSgs, lengths(input), input.num, false, true);
  } else {
    if (!translateAddr(kernel, queue, sgs, out)) return -ERRNO.EINVAL;
    writeDescs(kernel, queue, sgs, lengths(out), out.num, input.num > 0, false);
    if (!translateAddr(kernel, queue, sgs, input)) return -ERRNO.EINVAL;
    writeDescs(kernel, queue, sgs, lengths(input), input.num, false, true);
  }
  publishAvail(kernel, queue, head);
  noteOutstanding(kernel, queue, head, elem, n);
  queue.stage('add');
  kernel.invoke('vhost_svq_kick', svq);
  return 0;
}

/** `vhost_svq_kick`: tells the device, if it wants to know. */
export function kick({ memory: { ram } }: KernelContext, queue: SvqQueue): void {
  const svq = queue.address;
  const used = ram.pointer(svq + R.used);
  const idx = ram.u16(svq + S.shadow_avail_idx);
  // a full barrier stands here: the index is visible before the device's wish is read
  const wanted =
    ram.u8(svq + S.scratch_event) !== 0
      ? needEvent(ram.u16(used + 4 + 8 * ram.u32(svq + R.num)), idx, (idx - 1) & 0xffff)
      : (ram.u16(used) & VRING_USED_F_NO_NOTIFY) === 0;
  if (wanted) queue.device.kick();
}
