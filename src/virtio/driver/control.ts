/**
 * Sending a command over the control virtqueue and waiting for the device's answer.
 *
 * Reference: drivers/net/virtio_net.c (virtnet_send_command, virtnet_send_command_reply of 6.12, which the
 * first calls). The chain is header, data | ack, reply. A device that breaks the queue ends the wait;
 * one that does not answer would have Linux spin for ever, which here is an error. The buffers of a
 * command lie in `virtnet_info.ctrl`. Leaves out cvq_lock: commands do not overlap here.
 *
 * Usage:
 *   const data = controlData(ram, vi);
 *   ram.set8(data, 1);
 *   sendCommand(kernel, vi, VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_PROMISC, [[data, 1]]);
 */
import { KernelError } from '../../common/errors.js';
import { struct } from '../../common/struct.js';
import type { Ram } from '../../cpu/ram.js';
import { atomic, type KernelContext, type KernelFunction } from '../../kernel/function.js';
import { VIRTIO_NET_ERR, VIRTIO_NET_OK } from '../device/control/commands.js';
import { SCATTERLIST } from '../ring/vring-virtqueue.js';
import { profileOf } from './profiles.js';
import { VIRTNET_INFO } from './structs.js';

const VI = VIRTNET_INFO.offset;

/** Pieces of data a command may have. */
const CONTROL_PIECES = 6;
/** Bytes for a command's small data. */
const CONTROL_DATA_SIZE = 64;

const CONTROL_BUF = struct({
  /** struct virtio_net_ctrl_hdr: class, command. */
  hdr: 8,
  status: 'u8',
  data: CONTROL_DATA_SIZE,
  reply: CONTROL_DATA_SIZE,
  /** Lists of pieces, each with an end. */
  sg_hdr: 2 * SCATTERLIST.size,
  sg_status: 2 * SCATTERLIST.size,
  sg_out: (CONTROL_PIECES + 1) * SCATTERLIST.size,
  sg_in: 2 * SCATTERLIST.size,
  sgs: 4 * 8,
  scratch_len: 'u32',
});

export const CONTROL_BUF_SIZE = CONTROL_BUF.size;
const CTRL = CONTROL_BUF.offset;
const SG = SCATTERLIST.offset;

/** Address and length. */
export type ControlPiece = readonly [at: number, length: number];

/** Where a command's small data are put together. */
export function controlData(ram: Ram, vi: number): number {
  return ram.pointer(vi + VI.ctrl) + CTRL.data;
}

/** Where a reply arrives. */
export function controlReply(ram: Ram, vi: number): number {
  return ram.pointer(vi + VI.ctrl) + CTRL.reply;
}

/** Writes a list of pieces with its end. */
function setList(ram: Ram, list: number, pieces: readonly ControlPiece[]): number {
  for (const [i, [at, length]] of pieces.entries()) {
    ram.setPointer(list + i * SCATTERLIST.size + SG.address, at);
    ram.set32(list + i * SCATTERLIST.size + SG.length, length);
  }
  ram.setPointer(list + pieces.length * SCATTERLIST.size + SG.address, 0);
  return list;
}

/** Sends a command with `virtnet_send_command`; whether the device accepted it. */
export function sendCommand(
  kernel: KernelContext,
  vi: number,
  commandClass: number,
  command: number,
  pieces: readonly ControlPiece[],
): boolean {
  const { ram } = kernel.memory;
  const out =
    pieces.length === 0 ? 0 : setList(ram, ram.pointer(vi + VI.ctrl) + CTRL.sg_out, pieces);
  return kernel.invoke('virtnet_send_command', vi, commandClass, command, out) !== 0;
}

/** As `sendCommand`, for a command with a reply of `replySize` bytes at `controlReply`. */
export function sendCommandReply(
  kernel: KernelContext,
  vi: number,
  commandClass: number,
  command: number,
  pieces: readonly ControlPiece[],
  replySize: number,
): boolean {
  const { ram } = kernel.memory;
  const ctrl = ram.pointer(vi + VI.ctrl);
  const out = pieces.length === 0 ? 0 : setList(ram, ctrl + CTRL.sg_out, pieces);
  const into = setList(ram, ctrl + CTRL.sg_in, [[ctrl + CTRL.reply, replySize]]);
  return kernel.invoke('virtnet_send_command_reply', vi, commandClass, command, out, into) !== 0;
}

function transact(
  kernel: KernelContext,
  vi: number,
  commandClass: number,
  command: number,
  out: number,
  into: number,
): number {
  const { ram } = kernel.memory;
  const ctrl = ram.pointer(vi + VI.ctrl);
  const cvq = ram.pointer(vi + VI.cvq);
  if (ram.u8(vi + VI.has_cvq) === 0) throw new KernelError('EINVAL', 'BUG: no control virtqueue');
  ram.set8(ctrl + CTRL.hdr, commandClass);
  ram.set8(ctrl + CTRL.hdr + 1, command);
  ram.set8(ctrl + CTRL.status, VIRTIO_NET_ERR);
  const lists = [setList(ram, ctrl + CTRL.sg_hdr, [[ctrl + CTRL.hdr, 2]])];
  if (out !== 0) lists.push(out);
  const outs = lists.length;
  lists.push(setList(ram, ctrl + CTRL.sg_status, [[ctrl + CTRL.status, 1]]));
  if (into !== 0) lists.push(into);
  for (const [i, list] of lists.entries()) ram.setPointer(ctrl + CTRL.sgs + 8 * i, list);

  const ins = lists.length - outs;
  const added = kernel.invoke('virtqueue_add_sgs', cvq, ctrl + CTRL.sgs, outs, ins, vi, 0);
  if (added < 0) {
    kernel.printk(`virtio_net virtio0: Failed to add sgs for command vq: ${added}`);
    return 0;
  }
  const told =
    kernel.invoke('virtqueue_kick_prepare', cvq) === 0 ||
    kernel.invoke('virtqueue_notify', cvq) !== 0;
  if (told) {
    const answered = kernel.invoke('virtqueue_get_buf', cvq, ctrl + CTRL.scratch_len) !== 0;
    if (!answered && kernel.invoke('virtqueue_is_broken', cvq) === 0) {
      throw new KernelError(
        'EIO',
        `virtio_net: the device does not answer command ${command} of class ${commandClass}: ` +
          'the driver waits for ever',
      );
    }
  }
  return ram.u8(ctrl + CTRL.status) === VIRTIO_NET_OK ? 1 : 0;
}

export const controlFunctions: readonly KernelFunction[] = [
  atomic({
    prototype:
      'bool virtnet_send_command(struct virtnet_info *vi, u8 class, u8 cmd, struct scatterlist *out)',
    calls: true,
    body: (kernel, vi, commandClass, command, out) =>
      profileOf(kernel.memory.ram, vi).sendCommand === 'virtnet_send_command'
        ? transact(kernel, vi, commandClass, command, out, 0)
        : kernel.invoke('virtnet_send_command_reply', vi, commandClass, command, out, 0),
  }),
  atomic({
    prototype:
      'bool virtnet_send_command_reply(struct virtnet_info *vi, u8 class, u8 cmd, ' +
      'struct scatterlist *out, struct scatterlist *in)',
    calls: true,
    body: transact,
  }),
];
