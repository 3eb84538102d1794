/**
 * What a case of `svq --fault` is, and what cases share.
 *
 * A case works on the control queue unless it needs elements that the VMM forwards without looking into them,
 * which are those of data queues (and of the control queue in mode `copy-v8`).
 */
import { InputError } from '../../../common/errors.js';
import type { VirtioNetFeature } from '../../../virtio/net-features.js';
import { VRING_DESC_F_NEXT, VRING_DESC_F_WRITE } from '../../../virtio/ring/split-ring.js';
import type { SvqMode } from '../../../vhost/queue.js';
import type { SvqRig, RigOptions } from '../rig.js';
import type { GuestRing, RawDescriptor } from '../guest-ring.js';

/** What else a case has to tell, by name. */
export type Notes = Record<string, string | number | boolean>;

export interface Fault {
  readonly name: string;
  readonly summary: string;
  readonly options: Omit<RigOptions, 'mode'>;
  readonly optionsOf?: (mode: SvqMode) => Partial<RigOptions>;
  readonly run: (rig: SvqRig, notes: Notes, mode: SvqMode) => void;
}

/** No command is needed to restore the state of such a device. */
export const PLAIN: readonly VirtioNetFeature[] = [
  'VERSION_1',
  'STATUS',
  'CTRL_VQ',
  'CTRL_RX',
  'CTRL_VLAN',
];
export const INDIRECT: readonly VirtioNetFeature[] = [...PLAIN, 'INDIRECT_DESC'];
export const SMALL = { features: PLAIN, controlSize: 8 };

export const PROMISC_OFF = Uint8Array.of(0, 0, 0);
export const ALLMULTI_ON = Uint8Array.of(0, 1, 1);

export const NEXT = VRING_DESC_F_NEXT;
export const WRITE = VRING_DESC_F_WRITE;

/** One command, with room for an ack. */
export function command(rig: SvqRig, request: Uint8Array): number {
  const head = rig.control.chain([request], [1]);
  rig.kick();
  return head;
}

export function bytes(...parts: readonly (readonly [count: number, value: number])[]): Uint8Array {
  return Uint8Array.from(
    parts.flatMap(([count, value]) => Array.from({ length: count }, () => value)),
  );
}

/** Readable and writable segments of memory that is the case's. */
export function rowsOf(
  readable: readonly (readonly [address: bigint, length: number])[],
  writable: readonly (readonly [address: bigint, length: number])[],
): RawDescriptor[] {
  const all = [...readable, ...writable];
  return all.map(([address, length], i) => {
    const flags = (i < readable.length ? 0 : WRITE) | (i + 1 < all.length ? NEXT : 0);
    return [address, length, flags, i + 1];
  });
}

/** Which ring elements of a mode wait on: the control queue's commands wait in `copy-v8` only. */
export function forwardedRing(
  rig: SvqRig,
  mode: SvqMode,
): { readonly ring: GuestRing; readonly queue: number } {
  if (mode === 'copy-v8') return { ring: rig.control, queue: rig.net.controlIndex };
  return { ring: dataRing(rig, 1), queue: 1 };
}

/** Receive queue 0 or transmit queue 1. */
export function dataRing(rig: SvqRig, queue: number): GuestRing {
  const ring = rig.data[queue];
  if (!ring) throw new RangeError(`no data queue ${queue}`);
  return ring;
}

/** What a start or a migration says that does not work; 'done' if it does. */
export function outcomeOf(action: () => unknown): string {
  try {
    action();
    return 'done';
  } catch (error) {
    if (!(error instanceof InputError)) throw error;
    return error.message;
  }
}

export function noteRing(rig: SvqRig, notes: Notes, queue: number): void {
  notes['position'] = rig.net.queuePosition(queue) ?? -1;
  notes['maps'] = rig.net.tree.size;
  notes['buffers'] = rig.net.vmm.live;
}
