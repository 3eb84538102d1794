/**
 * Two ways to bring a control command to the device and its answer back.
 *
 * `carryCopies`, mode `transactional`: the shape is the proposal's, each command copied into memory of its own and
 * mapped for the time it takes; whatever step fails, those before it are undone, the last one first. The bytes that
 * the device got are those that the model gets. A command that is not answered keeps its copies until it is, and the
 * model follows then, or until the queue stops.
 *
 * `carryInPlace`, mode `translate`: the device reads and writes guest memory. No counterpart in QEMU; a data queue's
 * way. The guest may change a command while the device reads it, and a device that answers too late writes into
 * memory that is the guest's again: these are what copies are for.
 */
import { alignUp } from '../common/bytes.js';
import { PAGE_SIZE } from '../cpu/memory.js';
import type { KernelContext } from '../kernel/function.js';
import { VIRTIO_NET_OK } from '../virtio/device/control/commands.js';
import { elementRoom } from './element.js';
import type { Orphan, SvqQueue } from './queue.js';
import {
  IOVEC,
  SHADOW_VIRTQUEUE,
  SVQ_DESC_STATE,
  SVQ_ELEMENT_FIELDS,
  iovToBuf,
} from './structs.js';
import type { VhostVdpaNet } from './vhost-vdpa.js';

const S = SHADOW_VIRTQUEUE.offset;
const E = SVQ_ELEMENT_FIELDS;

export type Carried =
  /** What the device wrote, at least one byte. */
  | { readonly kind: 'answered'; readonly answer: Uint8Array }
  /** The command did not reach the device, or no answer came. */
  | { readonly kind: 'refused' }
  /** The shadow queue did not take it: -ENOSPC, nothing was done; -EINVAL, the guest's fault. */
  | { readonly kind: 'error'; readonly errno: number };

const REFUSED: Carried = { kind: 'refused' };
const NO_BUFFERS: Orphan = { buffers: 0, release: () => undefined };

/** Bytes that came back; 'refused' where none did, which `orphan` is then left for. */
function waitForAnswer(
  kernel: KernelContext,
  net: VhostVdpaNet,
  queue: SvqQueue,
  head: number,
  orphan: Orphan,
): number | 'refused' {
  const { ram } = kernel.memory;
  const svq = queue.address;
  const written = kernel.invoke('vhost_svq_poll', svq, 1);
  const state = ram.pointer(svq + S.desc_state) + head * SVQ_DESC_STATE.size;
  if (ram.u32(state + SVQ_DESC_STATE.offset.ndescs) !== 0) {
    queue.orphans.set(head, orphan);
    return 'refused';
  }
  if (written === 0) net.say('Insufficient written data');
  return written;
}

/** `model`: what the model is told when the device accepts the request. */
export function carryCopies(
  kernel: KernelContext,
  net: VhostVdpaNet,
  queue: SvqQueue,
  request: Uint8Array,
  room: number,
  model: Uint8Array,
): Carried {
  const { memory, physical } = kernel;
  const { ram } = memory;
  // what undoes the steps so far
  const undo: (() => boolean)[] = [];
  /** Whether all of it could be undone at once. */
  const undoAll = (): boolean =>
    undo
      .splice(0)
      .toReversed()
      .map((step) => step())
      .every(Boolean);
  const part = (size: number, perm: 'ro' | 'rw'): number => {
    const buffer = net.vmm.alloc(size);
    const map = net.mapBuffer(buffer, alignUp(size, PAGE_SIZE), perm);
    if (map) undo.push(() => net.releaseBuffer(map, buffer));
    else net.vmm.free(buffer);
    return map ? buffer : 0;
  };
  const out = part(request.length, 'ro');
  if (out === 0) return REFUSED;
  ram.bytes.set(request, out);
  net.vmm.copied += request.length;
  net.stage('copy out');
  const input = part(room, 'rw');
  if (input === 0) {
    undoAll();
    return REFUSED;
  }
  net.stage('map in');
  const sg = physical.alloc(2 * IOVEC.size);
  for (const [i, [at, length]] of [
    [out, request.length] as const,
    [input, room] as const,
  ].entries()) {
    ram.setPointer(sg + i * IOVEC.size + IOVEC.offset.iov_base, at);
    ram.setWord(sg + i * IOVEC.size + IOVEC.offset.iov_len, length);
  }
  const svq = queue.address;
  const head = ram.u32(svq + S.free_head);
  const errno = kernel.invoke('vhost_svq_add', svq, sg, 1, 0, sg + IOVEC.size, 1, 0, 0);
  physical.free(sg);
  if (errno < 0) {
    undoAll();
    return { kind: 'error', errno };
  }
  const orphan: Orphan = {
    buffers: 2,
    release: (answered) => {
      // the guest was told ERR, but this is what the device has now
      if (answered && ram.u8(input) === VIRTIO_NET_OK) net.runModel(model);
      undoAll();
    },
  };
  const written = waitForAnswer(kernel, net, queue, head, orphan);
  if (written === 'refused') return REFUSED;
  const answer = ram.slice(input, Math.min(written, room));
  if (!undoAll()) return REFUSED;
  net.stage('unmap');
  return written === 0 ? REFUSED : { kind: 'answered', answer };
}

export function carryInPlace(
  kernel: KernelContext,
  net: VhostVdpaNet,
  queue: SvqQueue,
  elem: number,
): Carried {
  const { memory, physical } = kernel;
  const { ram } = memory;
  const svq = queue.address;
  const head = ram.u32(svq + S.free_head);
  const inSg = ram.pointer(elem + E.in_sg);
  const inNum = ram.u32(elem + E.in_num);
  const errno = kernel.invoke(
    'vhost_svq_add',
    svq,
    ram.pointer(elem + E.out_sg),
    ram.u32(elem + E.out_num),
    ram.pointer(elem + E.out_addr),
    inSg,
    inNum,
    ram.pointer(elem + E.in_addr),
    0,
  );
  if (errno < 0) return { kind: 'error', errno };
  const written = waitForAnswer(kernel, net, queue, head, NO_BUFFERS);
  if (written === 'refused' || written === 0) return REFUSED;
  const scratch = physical.alloc(Math.min(written, elementRoom(kernel, elem)));
  const size = iovToBuf(ram, inSg, inNum, scratch, Math.min(written, elementRoom(kernel, elem)));
  const answer = ram.slice(scratch, size);
  physical.free(scratch);
  return { kind: 'answered', answer };
}
