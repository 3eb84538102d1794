/**
 * A guest's control command that the device reads where it lies in guest memory.
 *
 * No counterpart in QEMU: a data queue's way, with what a control queue needs besides. The command is checked before
 * it is forwarded, the answer before the guest has it, and the model follows. The guest may change a command
 * while the device reads it, and one that the device does not answer cannot be given back before the queue stops:
 * these are what the copies are for.
 */
import { ERRNO } from '../common/errno.js';
import type { KernelContext } from '../kernel/function.js';
import {
  VIRTIO_NET_CTRL_ANNOUNCE,
  VIRTIO_NET_ERR,
  VIRTIO_NET_OK,
} from '../virtio/device/control/commands.js';
import { readElement } from './control-command.js';
import { elementBytes, elementRoom } from './element.js';
import type { SvqQueue } from './queue.js';
import { IOVEC, SHADOW_VIRTQUEUE, SVQ_ELEMENT } from './structs.js';
import type { VhostVdpaNet } from './vhost-vdpa.js';

const S = SHADOW_VIRTQUEUE.offset;
const E = SVQ_ELEMENT.offset;

/** Where the ack of an element with room for it lies. */
function ackAddress({ memory: { ram } }: KernelContext, elem: number): number {
  return ram.pointer(ram.pointer(elem + E.in_sg) + IOVEC.offset.base);
}

/** Checks a command and forwards it. */
export function handleCtrlAvailTranslate(
  kernel: KernelContext,
  net: VhostVdpaNet,
  queue: SvqQueue,
  elem: number,
): number {
  if (elementRoom(kernel, elem) === 0) {
    net.say('control command without room for the ack');
    return -ERRNO.EINVAL;
  }
  const head = readElement(kernel, elem, 0, 2);
  const isOwn = head[0] === VIRTIO_NET_CTRL_ANNOUNCE && head.length === 2;
  if (head.length === 2 && !isOwn)
    return kernel.invoke('vhost_svq_add_element', queue.address, elem);
  if (!isOwn) net.say(`control command of ${head.length} bytes`);
  const ack = isOwn ? net.runModel(head).ack : VIRTIO_NET_ERR;
  kernel.memory.ram.set8(ackAddress(kernel, elem), ack);
  kernel.invoke('vhost_svq_push_elem', queue.address, elem, 1);
  kernel.physical.free(elem);
  return 0;
}

/**
 * The model follows a command that the device has answered. It reads the guest's memory once more. In mode
 * `copy-v8`, the proposal's used_elem_handler, the guest keeps what the device said.
 */
export function followDevice(
  kernel: KernelContext,
  net: VhostVdpaNet,
  svq: number,
  elem: number,
): void {
  const { ram } = kernel.memory;
  if (elementRoom(kernel, elem) === 0) return;
  const at = ackAddress(kernel, elem);
  const length = elementBytes(kernel, elem);
  const isAnswered = ram.u32(svq + S.scratch_len) > 0 && ram.u8(at) === VIRTIO_NET_OK;
  let ack = VIRTIO_NET_ERR;
  if (isAnswered && length >= 2) {
    ({ ack } = net.runModel(readElement(kernel, elem, 0, length)));
    net.stage('model');
  }
  if (net.mode !== 'translate' || ack === VIRTIO_NET_OK) return;
  ram.set8(at, VIRTIO_NET_ERR);
  ram.set32(svq + S.scratch_len, 1);
}
