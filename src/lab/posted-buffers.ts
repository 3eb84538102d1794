/**
 * The receive buffers that a device takes next, in either layout of rings.
 *
 * Read from ring memory, so that an experiment sees what the driver posted. A buffer is a chain of descriptors,
 * or one that names a table of them.
 *
 * Usage:
 *   postedBuffers(kernel.memory, net, 2);    // [{ address, length: 1536 }, ...]
 */
import type { Memory } from '../cpu/memory.js';
import { OFFSET } from '../virtio/ring/packed-ring.js';
import {
  VRING_DESC_F_INDIRECT,
  VRING_DESC_F_NEXT,
  VRING_DESC_SIZE,
} from '../virtio/ring/split-ring.js';
import type { VirtioNet } from '../virtio/virtio-net.js';

export interface PostedBuffer {
  /** Of its first piece. */
  readonly address: bigint;
  /** Bytes of all its pieces. */
  readonly length: number;
}

/** Those of receive queue 0. */
export function postedBuffers(memory: Memory, net: VirtioNet, count: number): PostedBuffer[] {
  const ring = net.receiveRing(0);
  // the two fields at 12 and 14 changed places: next and id, flags
  const flagsAt = ring.kind === 'packed' ? 14n : 12n;
  const flags = (desc: bigint): number => memory.read16(desc + flagsAt);
  const at = (slot: number): bigint => ring.desc + BigInt(VRING_DESC_SIZE * (slot % ring.num));
  const length = (desc: bigint): number => memory.read32(desc + 8n);
  let position = ring.kind === 'packed' ? ring.next & OFFSET : ring.next;
  return Array.from({ length: count }, (): PostedBuffer => {
    let desc = at(position);
    if (ring.kind === 'split') {
      const entry = ring.avail + BigInt(4 + 2 * (position & (ring.num - 1)));
      desc = at(memory.read16(entry));
    }
    position++;
    if ((flags(desc) & VRING_DESC_F_INDIRECT) !== 0) {
      const table = memory.read64(desc);
      const pieces = Array.from({ length: length(desc) / VRING_DESC_SIZE }, (_, i) =>
        length(table + BigInt(VRING_DESC_SIZE * i)),
      );
      return { address: memory.read64(table), length: pieces.reduce((sum, each) => sum + each, 0) };
    }
    const address = memory.read64(desc);
    let bytes = length(desc);
    while ((flags(desc) & VRING_DESC_F_NEXT) !== 0) {
      desc = ring.kind === 'packed' ? at(position++) : at(memory.read16(desc + 14n));
      bytes += length(desc);
    }
    return { address, length: bytes };
  });
}
