/**
 * A guest's control command on its way in modes `translate` and `transactional`: checked before it is forwarded,
 * the answer checked before the guest has it, and the model follows the device.
 *
 * What the review of the proposal asked for is here: a limit on what a guest may send, one place that decides, no
 * part of it in the shadow virtqueue. A command that is too long is refused, an address table that is too long
 * becomes promiscuous mode. A full ring is told before the guest's ring is touched. A command that the device does
 * not answer gets ERR. How the bytes reach the device is `control-carry.ts`.
 */
import { ERRNO } from '../common/errno.js';
import type { KernelContext } from '../kernel/function.js';
import {
  VIRTIO_NET_CTRL_ANNOUNCE,
  VIRTIO_NET_ERR,
  VIRTIO_NET_OK,
} from '../virtio/device/control/commands.js';
import { carryCopies, carryInPlace, type Carried } from './control-carry.js';
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
import { SVQ_ELEMENT_FIELDS, iovFromBuf } from './structs.js';
import type { VhostVdpaNet } from './vhost-vdpa.js';

const E = SVQ_ELEMENT_FIELDS;

const REFUSED = Uint8Array.of(VIRTIO_NET_ERR);

/** What stands behind a command in the guest, the ack first. `inPlace`: the device wrote it there. */
type Answer = { readonly bytes: Uint8Array; readonly inPlace: boolean };

export function handleCtrlAvailStrict(
  kernel: KernelContext,
  net: VhostVdpaNet,
  queue: SvqQueue,
  elem: number,
): number {
  if (elementRoom(kernel, elem) === 0) {
    net.say('control command without room for the ack');
    return -ERRNO.EINVAL;
  }
  net.retryUnmaps();
  const answer = answerTo(kernel, net, queue, elem);
  if (typeof answer === 'number') return answer;
  give(kernel, queue, elem, answer);
  return 0;
}

function answerTo(
  kernel: KernelContext,
  net: VhostVdpaNet,
  queue: SvqQueue,
  elem: number,
): Answer | number {
  const total = elementBytes(kernel, elem);
  const room = elementRoom(kernel, elem);
  const request = (): Uint8Array => readElement(kernel, elem, 0, total);
  const head = readElement(kernel, elem, 0, 2);
  const refused = (why: string): Answer => {
    net.say(`control command (length ${total}, room ${room}): ${why}`);
    return { bytes: REFUSED, inPlace: false };
  };
  if (head.length < 2) return refused('not a whole header');
  if (room > COMMAND_LIMIT) return refused('not forwarded');
  if (total > COMMAND_LIMIT) {
    if (!isTableSet(head) || !isWholeTable(kernel, elem)) return refused('not forwarded');
    const table = overflownTable();
    const carried = carryCopies(kernel, net, queue, PROMISC_ON, room, table);
    return settle(net, carried, () => table, false);
  }
  if (head[0] === VIRTIO_NET_CTRL_ANNOUNCE) {
    return { bytes: Uint8Array.of(net.runModel(request()).ack), inPlace: false };
  }
  if (queue.mode === 'translate') {
    return settle(net, carryInPlace(kernel, net, queue, elem), request, true);
  }
  const bytes = request();
  const carried = carryCopies(kernel, net, queue, bytes, room, bytes);
  return settle(net, carried, () => bytes, false);
}

/** What the guest is told after the device's answer; the model follows a device that accepted. */
function settle(
  net: VhostVdpaNet,
  carried: Carried,
  request: () => Uint8Array,
  inPlace: boolean,
): Answer | number {
  if (carried.kind === 'error') return carried.errno;
  const refused = { bytes: REFUSED, inPlace: false };
  if (carried.kind === 'refused' || carried.answer[0] !== VIRTIO_NET_OK) return refused;
  const { ack } = net.runModel(request());
  net.stage('model');
  return ack === VIRTIO_NET_OK ? { bytes: carried.answer, inPlace } : refused;
}

/** Writes the answer into the element and gives it to the guest. */
function give(
  kernel: KernelContext,
  queue: SvqQueue,
  elem: number,
  { bytes, inPlace }: Answer,
): void {
  const { memory, physical } = kernel;
  const { ram } = memory;
  if (!inPlace) {
    const scratch = physical.alloc(bytes.length);
    ram.bytes.set(bytes, scratch);
    const inSg = ram.pointer(elem + E.in_sg);
    queue.vmm.copied += iovFromBuf(ram, inSg, ram.u32(elem + E.in_num), scratch, bytes.length);
    physical.free(scratch);
  }
  kernel.invoke('vhost_svq_push_elem', queue.address, elem, bytes.length);
  physical.free(elem);
}
