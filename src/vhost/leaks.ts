/**
 * What is held that no buffer in flight accounts for: descriptors, mappings, memory of the VMM.
 *
 * A running queue accounts for its two ring areas, the control queue of mode `landed` for two buffers, an
 * element in flight of mode `copy-v8` for one copy per part, a command that is no longer waited for for its copies;
 * what a device did not unmap is known, and tried again, in strict modes. A map that only the device has is one too.
 * Descriptors are lost when neither the free list, walked through the private links, nor a chain in flight
 * has them.
 */
import type { KernelContext } from '../kernel/function.js';
import type { SvqQueue } from './queue.js';
import { SHADOW_VIRTQUEUE, SVQ_DESC_STATE, SVQ_ELEMENT_FIELDS, SVQ_VRING } from './structs.js';
import type { VhostVdpaNet } from './vhost-vdpa.js';

export interface Leaks {
  readonly descriptors: number;
  readonly mappings: number;
  readonly buffers: number;
}

const S = SHADOW_VIRTQUEUE.offset;
const R = SVQ_VRING;
const STATE = SVQ_DESC_STATE.offset;
const E = SVQ_ELEMENT_FIELDS;

/** Where each descriptor of a shadow ring is. */
export interface DescriptorCensus {
  /** In the free list. */
  readonly free: number;
  /** In chains in flight; one that two chains use counts once. */
  readonly inFlight: number;
  /** Uses of a descriptor by a second chain. */
  readonly shared: number;
  /** What the queue itself counts as free. */
  readonly countedFree: number;
  readonly num: number;
}

export function census(
  { memory: { ram } }: KernelContext,
  { address }: SvqQueue,
): DescriptorCensus {
  const num = ram.u32(address + R.num);
  const states = ram.pointer(address + S.desc_state);
  const next = ram.pointer(address + S.desc_next);
  const used = new Set<number>();
  let shared = 0;
  for (let head = 0; head < num; head++) {
    const ndescs = ram.u32(states + head * SVQ_DESC_STATE.size + STATE.ndescs);
    for (let i = 0, at = head; i < ndescs; i++, at = ram.u16(next + 2 * at)) {
      if (used.has(at)) shared++;
      used.add(at);
    }
  }
  const free = new Set<number>();
  for (
    let at = ram.u32(address + S.free_head);
    at < num && !used.has(at) && !free.has(at);
    at = ram.u16(next + 2 * at)
  ) {
    free.add(at);
  }
  const countedFree = ram.s32(address + S.num_free);
  return { free: free.size, inFlight: used.size, shared, countedFree, num };
}

/** What is wrong with the descriptors of a running queue: each is free or in one chain, and counted so. */
export function ringProblem(kernel: KernelContext, queue: SvqQueue): string | undefined {
  const { num, free, inFlight, shared, countedFree } = census(kernel, queue);
  if (free + inFlight === num && countedFree === free && shared === 0) return undefined;
  return `${free} free (counted ${countedFree}), ${inFlight} in flight, ${shared} shared of ${num}`;
}

/** Copies that elements in flight of mode `copy-v8` hold. */
function copiesInFlight({ memory: { ram } }: KernelContext, { address }: SvqQueue): number {
  if (ram.u8(address + S.copy_descs) === 0) return 0;
  const states = ram.pointer(address + S.desc_state);
  let copies = 0;
  for (let head = 0; head < ram.u32(address + R.num); head++) {
    const state = states + head * SVQ_DESC_STATE.size;
    if (ram.u32(state + STATE.ndescs) === 0) continue;
    const elem = ram.pointer(state + STATE.elem);
    if (elem === 0) continue;
    copies += (ram.u32(elem + E.out_num) > 0 ? 1 : 0) + (ram.u32(elem + E.in_num) > 0 ? 1 : 0);
  }
  return copies;
}

export function leaksOf(kernel: KernelContext, net: VhostVdpaNet): Leaks {
  const { ram } = kernel.memory;
  let descriptors = 0;
  let held = net.stuck + (net.buffers ? 2 : 0);
  for (const svq of net.svqs.values()) {
    for (const orphan of svq.orphans.values()) held += orphan.buffers;
    if (ram.u8(svq.address + S.scratch_running) === 0) continue;
    held += 2 + copiesInFlight(kernel, svq);
    const { num, free, inFlight } = census(kernel, svq);
    descriptors += num - free - inFlight;
  }
  const own = net.tree.maps.filter((map) => map.kind === 'hva').length;
  const mappings = own - held + net.staleMaps;
  return { descriptors, mappings, buffers: net.vmm.live - held };
}
