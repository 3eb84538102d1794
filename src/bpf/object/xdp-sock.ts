/**
 * `struct bpf_xdp_sock` of the uapi: what a program may read of the socket that a lookup in an xskmap gives.
 *
 * It has one field, the receive queue; a load of it is rewritten to where the map keeps it. Reference:
 * bpf_xdp_sock_is_valid_access, bpf_xdp_sock_convert_ctx_access in net/core/filter.c.
 */
import type { Slot } from '../instruction.js';
import { XSK_QUEUE } from '../maps/redirect-maps.js';

const QUEUE_ID = 0;
const QUEUE_ID_SIZE = 4;

/** May a program read `size` bytes at `off`? */
export function isXdpSockRead(off: number, size: number): boolean {
  return off === QUEUE_ID && size === QUEUE_ID_SIZE;
}

export function rewriteXdpSockLoad(slot: Slot): Slot {
  return { ...slot, off: slot.off - QUEUE_ID + XSK_QUEUE };
}
