/**
 * A guest's control command on its way, so that nothing leaks whatever fails.
 *
 * The shape is the proposal's, each command copied into memory of its own and mapped for the time it takes; what
 * the review asked for is there: a limit, one place that allocates and undoes, no part of it in the shadow
 * virtqueue. The bytes that the device got are those that the model gets. Replies behind the ack are
 * carried too. A full ring is told before the guest's ring is touched. A command that the device does not
 * answer keeps its buffers until it does, or until the queue stops; the guest has its ERR.
 */
import { ERRNO } from '../common/errno.js';
import { alignUp } from '../common/bytes.js';
import { PAGE_SIZE } from '../cpu/memory.js';
import type { KernelContext } from '../kernel/function.js';
import {
  VIRTIO_NET_CTRL_ANNOUNCE,
  VIRTIO_NET_ERR,
  VIRTIO_NET_OK,
} from '../virtio/device/control/commands.js';
import {
  COMMAND_LIMIT,
  PROMISC_ON,
  isTableSet,
  isWholeTable,
  readElement,
} from './control-command.js';
import { elementBytes, elementRoom } from './element.js';
import type { SvqQueue } from './queue.js';
import { overflownTable } from './restore.js';
import { IOVEC, SHADOW_VIRTQUEUE, SVQ_DESC_STATE, SVQ_ELEMENT, iovFromBuf } from './structs.js';
import type { VhostVdpaNet } from './vhost-vdpa.js';

const S = SHADOW_VIRTQUEUE.offset;
const E = SVQ_ELEMENT.offset;

/** What stands behind a command in the guest: the ack first. */
type Answer = Uint8Array | 'no room';

const REFUSED = Uint8Array.of(VIRTIO_NET_ERR);

export function handleCtrlAvailTransactional(
  kernel: KernelContext,
  net: VhostVdpaNet,
  queue: SvqQueue,
  elem: number,
): number {
  const room = elementRoom(kernel, elem);
  if (room === 0) {
    net.say('control command without room for the ack');
    return -ERRNO.EINVAL;
  }
  const answer = answerTo(kernel, net, queue, elem, room);
  if (answer === 'no room') return -ERRNO.ENOSPC;
  give(kernel, queue, elem, answer.subarray(0, room));
  return 0;
}

function answerTo(
  kernel: KernelContext,
  net: VhostVdpaNet,
  queue: SvqQueue,
  elem: number,
  room: number,
): Answer {
  const total = elementBytes(kernel, elem);
  const head = readElement(kernel, elem, 0, 2);
  if (head.length < 2) {
    net.say(`control command of ${total} bytes`);
    return REFUSED;
  }
  if (total > COMMAND_LIMIT || room > COMMAND_LIMIT) {
    if (!isTableSet(head) || room > COMMAND_LIMIT || !isWholeTable(kernel, elem)) {
      net.say(`control command of ${total} bytes, answer of ${room}: not forwarded`);
      return REFUSED;
    }
    const answer = carry(kernel, net, queue, PROMISC_ON, room);
    return settle(net, answer, overflownTable());
  }
  const request = readElement(kernel, elem, 0, total);
  if (head[0] === VIRTIO_NET_CTRL_ANNOUNCE) {
    return Uint8Array.of(net.runModel(request).ack);
  }
  return settle(net, carry(kernel, net, queue, request, room), request);
}

/** What the guest is told after the device's answer; the model follows the device. */
function settle(net: VhostVdpaNet, answer: Answer, request: Uint8Array): Answer {
  if (answer === 'no room') return answer;
  if (answer.length === 0 || answer[0] !== VIRTIO_NET_OK) return REFUSED;
  const { ack } = net.runModel(request);
  net.stage('model');
  return ack === VIRTIO_NET_OK ? answer : REFUSED;
}

/** Takes a command to the device and brings back what it wrote. */
function carry(
  kernel: KernelContext,
  net: VhostVdpaNet,
  queue: SvqQueue,
  request: Uint8Array,
  room: number,
): Answer {
  const { memory, physical } = kernel;
  const { ram } = memory;
  // what undoes the steps so far, the last one first
  const undo: (() => void)[] = [];
  const undoAll = (): void => {
    while (undo.length > 0) undo.pop()?.();
  };
  const part = (size: number, perm: 'ro' | 'rw'): number => {
    const buffer = net.vmm.alloc(size);
    const map = net.mapBuffer(buffer, alignUp(size, PAGE_SIZE), perm);
    if (!map) net.vmm.free(buffer);
    // a buffer that the device keeps mapped is freed when it lets go of it
    else undo.push(() => void (net.unmapBuffer(map) && net.vmm.free(buffer)));
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
    ram.setPointer(sg + i * IOVEC.size + IOVEC.offset.base, at);
    ram.setWord(sg + i * IOVEC.size + IOVEC.offset.len, length);
  }
  const svq = queue.address;
  const head = ram.u32(svq + S.free_head);
  const result = kernel.invoke('vhost_svq_add', svq, sg, 1, 0, sg + IOVEC.size, 1, 0, 0);
  physical.free(sg);
  if (result < 0) {
    undoAll();
    return result === -ERRNO.ENOSPC ? 'no room' : REFUSED;
  }
  const written = kernel.invoke('vhost_svq_poll', svq, 1);
  const state = ram.pointer(svq + S.desc_state) + head * SVQ_DESC_STATE.size;
  if (ram.u32(state + SVQ_DESC_STATE.offset.ndescs) !== 0) {
    queue.orphans.set(head, undoAll);
    return REFUSED;
  }
  if (written === 0) net.say('Insufficient written data');
  const answer = ram.slice(input, Math.min(written, room));
  const stuck = net.stuck;
  undoAll();
  if (net.stuck > stuck) return REFUSED;
  net.stage('unmap');
  return answer;
}

/** Writes the answer into the element and gives it to the guest. */
function give(kernel: KernelContext, queue: SvqQueue, elem: number, answer: Uint8Array): void {
  const { memory, physical } = kernel;
  const { ram } = memory;
  const scratch = physical.alloc(answer.length);
  ram.bytes.set(answer, scratch);
  const inSg = ram.pointer(elem + E.in_sg);
  queue.vmm.copied += iovFromBuf(ram, inSg, ram.u32(elem + E.in_num), scratch, answer.length);
  physical.free(scratch);
  kernel.invoke('vhost_svq_push_elem', queue.address, elem, answer.length);
  physical.free(elem);
}
