/** What lies in the rings of a device under test, in either layout. */
import type { Memory } from '../../../src/cpu/memory.js';
import type { VirtioNet } from '../../../src/virtio/virtio-net.js';

/** Overwrites what the device returned last on receive queue 0; one buffer has one descriptor there. */
export function rewriteLastUsed(
  memory: Memory,
  net: VirtioNet,
  change: { readonly id?: number; readonly length?: number },
): void {
  const ring = net.receiveRing(0);
  if (ring.kind === 'packed') {
    const slot = ((ring.next & 0x7fff) + ring.num - 1) % ring.num;
    const desc = ring.desc + BigInt(16 * slot);
    if (change.id !== undefined) memory.write16(desc + 12n, change.id);
    if (change.length !== undefined) memory.write32(desc + 8n, change.length);
    return;
  }
  const slot = (memory.read16(ring.used + 2n) - 1) & (ring.num - 1);
  const element = ring.used + BigInt(4 + 8 * slot);
  if (change.id !== undefined) memory.write32(element, change.id);
  if (change.length !== undefined) memory.write32(element + 4n, change.length);
}

/** What a driver would not do: the next receive buffer of queue 0 is no good. */
export function spoilNextBuffer(memory: Memory, net: VirtioNet): void {
  const ring = net.receiveRing(0);
  if (ring.kind === 'split') memory.write16(ring.avail + 4n, 2 * ring.num);
  else memory.write32(ring.desc + 8n, 0);
}
