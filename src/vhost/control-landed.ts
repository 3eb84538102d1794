/**
 * A guest's control command on its way, as it landed in QEMU: through two buffers that stay mapped.
 *
 * Reference: QEMU 10.0 net/vhost-vdpa.c (vhost_vdpa_net_handle_ctrl_avail). The guest gets the ack of the
 * model, not the device's. Kept as they are: a longer command is cut off without a word; class and number are read
 * from the buffer even when the command was too short to have them; where the shadow ring is full, the element is
 * given to the guest with ERR and waits besides, and is then given a second time.
 */
import { ERRNO } from '../common/errno.js';
import type { KernelContext } from '../kernel/function.js';
import {
  VIRTIO_NET_CTRL_ANNOUNCE,
  VIRTIO_NET_ERR,
  VIRTIO_NET_OK,
} from '../virtio/device/control/commands.js';
import { COMMAND_LIMIT, PROMISC_ON, isTableSet, isWholeTable } from './control-command.js';
import type { ControlBuffers } from './control-buffers.js';
import { elementBytes } from './element.js';
import type { SvqQueue } from './queue.js';
import { overflownTable } from './restore.js';
import { SVQ_ELEMENT_FIELDS, iovFromBuf, iovToBuf } from './structs.js';
import type { VhostVdpaNet } from './vhost-vdpa.js';

const E = SVQ_ELEMENT_FIELDS;

export function handleCtrlAvailLanded(
  kernel: KernelContext,
  net: VhostVdpaNet,
  queue: SvqQueue,
  elem: number,
): number {
  const { memory, physical } = kernel;
  const { ram } = memory;
  const { buffers } = net;
  if (!buffers) return -ERRNO.EINVAL;
  const outSg = ram.pointer(elem + E.out_sg);
  const length = iovToBuf(ram, outSg, ram.u32(elem + E.out_num), buffers.command, COMMAND_LIMIT);
  net.vmm.copied += length;
  net.stage('copy out');
  const head = ram.slice(buffers.command, 2);
  let request = ram.slice(buffers.command, length);
  let written: number;
  if (head[0] === VIRTIO_NET_CTRL_ANNOUNCE) {
    ram.set8(buffers.status, VIRTIO_NET_OK);
    written = 1;
  } else if (isTableSet(head) && elementBytes(kernel, elem) > COMMAND_LIMIT) {
    written = 1;
    ram.set8(buffers.status, VIRTIO_NET_ERR);
    if (isWholeTable(kernel, elem)) {
      ram.bytes.set(PROMISC_ON, buffers.command);
      written = send(kernel, buffers, queue, PROMISC_ON.length);
      request = overflownTable();
    }
  } else {
    written = send(kernel, buffers, queue, length);
  }
  let status = VIRTIO_NET_ERR;
  if (written >= 0 && written < 1) net.say('Insufficient written data');
  if (written >= 1 && ram.u8(buffers.status) === VIRTIO_NET_OK) {
    status = net.runModel(request).ack;
    net.stage('model');
  }
  const inSg = ram.pointer(elem + E.in_sg);
  ram.set8(buffers.status, status);
  const given = iovFromBuf(ram, inSg, ram.u32(elem + E.in_num), buffers.status, 1);
  net.vmm.copied += given;
  if (given !== 1) net.say('Bad device CVQ written length');
  kernel.invoke('vhost_svq_push_elem', queue.address, elem, given);
  if (written < 0) return written;
  physical.free(elem);
  return 0;
}

/** `vhost_vdpa_net_cvq_add` and the wait for its answer: bytes written, or a negative errno. */
function send(
  kernel: KernelContext,
  buffers: ControlBuffers,
  queue: SvqQueue,
  length: number,
): number {
  const result = buffers.add(queue, 0, length, 0);
  return result < 0 ? result : kernel.invoke('vhost_svq_poll', queue.address, 1);
}
