/**
 * What both ways to carry a control command share: its bytes in the guest, address tables that are too long.
 *
 * Reference: QEMU 10.0 net/vhost-vdpa.c (vhost_vdpa_net_excessive_mac_filter_cmd_ctrl). A table of more than a
 * page is not sent to the device, which is made promiscuous instead; the model is told of a table that overflows.
 */
import type { KernelContext } from '../kernel/function.js';
import {
  VIRTIO_NET_CTRL_MAC,
  VIRTIO_NET_CTRL_MAC_TABLE_SET,
  VIRTIO_NET_CTRL_RX,
  VIRTIO_NET_CTRL_RX_PROMISC,
} from '../virtio/device/control/commands.js';
import { IOVEC, SVQ_ELEMENT_FIELDS } from './structs.js';
import { elementBytes } from './element.js';

const E = SVQ_ELEMENT_FIELDS;

/** Bytes of a command that are carried; what is longer is not. */
export const COMMAND_LIMIT = 4096;

export const PROMISC_ON = Uint8Array.of(VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_PROMISC, 1);

/** `length` bytes of an element's readable part from `offset` on, or as many as there are. */
export function readElement(
  { memory: { ram } }: KernelContext,
  elem: number,
  offset: number,
  length: number,
): Uint8Array {
  const bytes = new Uint8Array(length);
  let skip = offset;
  let done = 0;
  const sg = ram.pointer(elem + E.out_sg);
  for (let i = 0; i < ram.u32(elem + E.out_num) && done < length; i++) {
    const each = sg + i * IOVEC.size;
    const size = ram.u53(each + IOVEC.offset.iov_len);
    const part = Math.min(Math.max(0, size - skip), length - done);
    const from = ram.pointer(each + IOVEC.offset.iov_base) + skip;
    if (part > 0) bytes.set(ram.bytes.subarray(from, from + part), done);
    done += part;
    skip = Math.max(0, skip - size);
  }
  return bytes.subarray(0, done);
}

export function isTableSet(head: Uint8Array): boolean {
  return head[0] === VIRTIO_NET_CTRL_MAC && head[1] === VIRTIO_NET_CTRL_MAC_TABLE_SET;
}

/** Whether both counts of an address table agree with the length of the command. */
export function isWholeTable(kernel: KernelContext, elem: number): boolean {
  const total = elementBytes(kernel, elem);
  const count = (at: number): number | undefined => {
    const bytes = readElement(kernel, elem, at, 4);
    return bytes.length < 4 ? undefined : new DataView(bytes.buffer).getUint32(0, true);
  };
  const unicasts = count(2);
  if (unicasts === undefined) return false;
  const at = 6 + 6 * unicasts;
  if (at + 4 > total) return false;
  const multicasts = count(at);
  return multicasts !== undefined && at + 4 + 6 * multicasts === total;
}
