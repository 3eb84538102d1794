/**
 * "Add svq copy desc mode": each element copied into memory of the VMM and mapped for itself, as proposed.
 *
 * Reference: "[RFC PATCH v8 09/21] vhost: Add svq copy desc mode" of 19 May 2022 and its review of 8 June. The
 * functions do what the patch does, what is wrong with it included: no limit on what the guest makes the VMM
 * allocate; an assertion where the device refuses a map; what was made for the readable part stays when the
 * writable part fails; one slot counted for an element that takes two; elements that wait are unmapped at stop,
 * though they were never mapped; the length of the readable copy written through an array without elements.
 */
import { ERRNO } from '../common/errno.js';
import { hex64, alignUp } from '../common/bytes.js';
import type { KernelContext } from '../kernel/function.js';
import { VmmAbort } from './abort.js';
import { noteOutstanding, publishAvail, writeDescs } from './add.js';
import { VIRTIO_NET_OK } from '../virtio/device/control/commands.js';
import { readElement } from './control-command.js';
import { elementBytes, elementRoom } from './element.js';
import type { SvqQueue } from './queue.js';
import type { VhostVdpaNet } from './vhost-vdpa.js';
import {
  IOVEC,
  SHADOW_VIRTQUEUE,
  SVQ_ELEMENT_FIELDS,
  iovFromBuf,
  iovSize,
  iovToBuf,
} from './structs.js';

const S = SHADOW_VIRTQUEUE.offset;
const E = SVQ_ELEMENT_FIELDS;

/** The proposal's own constant. */
const COPY_PAGE = 4096;

/** `vhost_svq_alloc_buffer`: a copy of the readable segments, or room for the writable ones. */
export function allocBuffer(
  { memory: { ram } }: KernelContext,
  queue: SvqQueue,
  iov: number,
  num: number,
  write: boolean,
): number {
  const length = iovSize(ram, iov, num);
  const buffer = queue.vmm.alloc(alignUp(length, COPY_PAGE));
  if (!write) queue.vmm.copied += iovToBuf(ram, iov, num, buffer, length);
  return buffer;
}

/**
 * `vhost_svq_vring_write_descs` with copy_descs: one descriptor for all segments. The IOVA goes to `sg`, the length
 * to `lengthAt`.
 */
function writeCopy(
  kernel: KernelContext,
  queue: SvqQueue,
  sg: number,
  lengthAt: number,
  iov: number,
  num: number,
  more: boolean,
  write: boolean,
): boolean {
  const { ram } = kernel.memory;
  const svq = queue.address;
  if (num === 0) return true;
  const buffer = kernel.invoke('vhost_svq_alloc_buffer', svq, iov, num, write ? 1 : 0);
  queue.stage(write ? 'copy in' : 'copy out');
  const length = iovSize(ram, iov, num);
  ram.setWord(lengthAt, length);
  const size = alignUp(length, COPY_PAGE);
  const perm = write ? 'rw' : 'ro';
  const map = queue.tree.allocMap({
    translated: ram.physToVirt(buffer),
    size: BigInt(size) - 1n,
    perm,
  });
  if (typeof map === 'string') {
    queue.log('Cannot map injected element');
    return false;
  }
  const result = queue.device.map(map.iova, size, buffer, perm);
  if (result !== 0) throw new VmmAbort("vhost_svq_vring_write_descs: Assertion `r == 0' failed");
  queue.stage(write ? 'map in' : 'map out');
  ram.set64(sg, map.iova);
  writeDescs(kernel, queue, sg, () => length, 1, more, write);
  return true;
}

/** `vhost_svq_add_split` with copy_descs, and `vhost_svq_add`: 0 or -EINVAL. */
export function addCopy(kernel: KernelContext, queue: SvqQueue, elem: number): number {
  const { ram } = kernel.memory;
  const svq = queue.address;
  const outNum = ram.u32(elem + E.out_num);
  const inNum = ram.u32(elem + E.in_num);
  if (outNum === 0 && inNum === 0) {
    queue.log('Guest provided element with no descriptors');
    return -ERRNO.EINVAL;
  }
  const head = ram.u32(svq + S.free_head);
  const outSg = ram.pointer(elem + E.out_sg);
  const inSg = ram.pointer(elem + E.in_sg);
  const more = inNum > 0;
  // `(size_t[]){}`: what lies at its address is another variable
  const noElements = svq + S.scratch_behind_array;
  const outIova = elem + E.out_iova;
  if (!writeCopy(kernel, queue, outIova, noElements, outSg, outNum, more, false)) {
    return -ERRNO.EINVAL;
  }
  const inLen = elem + E.in_len;
  if (!writeCopy(kernel, queue, elem + E.in_iova, inLen, inSg, inNum, false, true)) {
    return -ERRNO.EINVAL;
  }
  publishAvail(kernel, queue, head);
  noteOutstanding(kernel, queue, head, elem, (outNum > 0 ? 1 : 0) + (inNum > 0 ? 1 : 0));
  queue.stage('add');
  kernel.invoke('vhost_svq_kick', svq);
  return 0;
}

/**
 * `vhost_svq_unmap_iov`: takes a copy from the device, gives its bytes to the segments of the guest, and
 * frees it. `iov` 0: no bytes.
 */
export function unmapIov(
  { memory: { ram } }: KernelContext,
  queue: SvqQueue,
  iova: bigint,
  iov: number,
  count: number,
  length: number,
): boolean {
  const map = queue.tree.findIova(iova);
  if (!map || map.kind !== 'hva') {
    queue.log(`Cannot locate expected map at ${hex64(iova)}`);
    return false;
  }
  const result = queue.device.unmap(map.iova, Number(map.size + 1n));
  if (result !== 0) {
    queue.log(`Device cannot unmap: ${result}`);
    return false;
  }
  const buffer = ram.virtToPhys(map.translated);
  if (iov !== 0) queue.vmm.copied += iovFromBuf(ram, iov, count, buffer, length);
  queue.vmm.free(buffer);
  queue.tree.remove(map);
  return true;
}

/** `vhost_svq_unmap_elem`: both parts of an element, the readable one first. */
export function unmapElem(
  kernel: KernelContext,
  queue: SvqQueue,
  elem: number,
  length: number,
  copyIn: boolean,
): boolean {
  const { ram } = kernel.memory;
  if (ram.u32(elem + E.out_num) > 0) {
    if (!unmapIov(kernel, queue, ram.u64(elem + E.out_iova), 0, 0, 0)) return false;
  }
  const inNum = ram.u32(elem + E.in_num);
  if (inNum === 0) return true;
  const iov = copyIn ? ram.pointer(elem + E.in_sg) : 0;
  const ok = unmapIov(kernel, queue, ram.u64(elem + E.in_iova), iov, inNum, length);
  if (ok) queue.stage('unmap');
  return ok;
}

/**
 * `vhost_vdpa_net_handle_ctrl`, the used_elem_handler: the model follows a command that the device has answered. It
 * reads the guest's memory once more; the guest keeps what the device said.
 */
export function handleCtrl(
  kernel: KernelContext,
  net: VhostVdpaNet,
  elem: number,
  length: number,
): void {
  const { ram } = kernel.memory;
  const total = elementBytes(kernel, elem);
  if (length === 0 || total < 2 || elementRoom(kernel, elem) === 0) return;
  const ack = ram.u8(ram.pointer(ram.pointer(elem + E.in_sg) + IOVEC.offset.iov_base));
  if (ack !== VIRTIO_NET_OK) return;
  net.runModel(readElement(kernel, elem, 0, total));
  net.stage('model');
}
