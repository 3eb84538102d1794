/**
 * A shadow virtqueue's structure, and its two ring areas in the device's address space.
 *
 * Reference: QEMU 10.0 hw/virtio/vhost-shadow-virtqueue.c (vhost_svq_new, vhost_svq_driver_area_size,
 * vhost_svq_device_area_size), hw/virtio/vhost-vdpa.c (vhost_vdpa_svq_map_rings, vhost_vdpa_svq_unmap_rings).
 *
 *   driver area: descriptor table, available ring    read-only for the device
 *   device area: used ring                           written by it
 *
 * Usage:
 *   const svq = createShadowQueue(kernel, { index, layout, ... });
 *   kernel.invoke('vhost_svq_start', svq.address);
 *   device.setVring(index, mapRings(kernel, maps, asid, svq.address), undefined);
 */
import { InputError } from '../common/errors.js';
import { alignUp } from '../common/bytes.js';
import { PAGE_SIZE } from '../cpu/memory.js';
import type { KernelContext } from '../kernel/function.js';
import { hasFeature } from '../virtio/net-features.js';
import { openDeviceQueue } from '../virtio/ring/open-device-queue.js';
import { PieceList } from '../virtio/ring/piece-list.js';
import { VRING_DESC_SIZE, type SplitRingLayout } from '../virtio/ring/split-ring.js';
import type { DeviceMaps } from './device-maps.js';
import type { GuestEnd, SvqQueue } from './queue.js';
import { SHADOW_VIRTQUEUE, SVQ_VRING } from './structs.js';
import type { VringAddresses } from './vdpa-device.js';

const S = SHADOW_VIRTQUEUE.offset;
const R = SVQ_VRING;

/** Bytes of descriptor table and available ring, in whole pages. */
export function driverAreaSize(num: number): number {
  return alignUp(VRING_DESC_SIZE * num + 4 + 2 * num + 2, PAGE_SIZE);
}

/** Bytes of the used ring, in whole pages. */
export function deviceAreaSize(num: number): number {
  return alignUp(4 + 8 * num + 2, PAGE_SIZE);
}

type Given = Omit<
  SvqQueue,
  'address' | 'guest' | 'readable' | 'writable' | 'kept' | 'orphans' | 'log' | 'stage'
>;

export interface ShadowQueueOptions extends Given {
  readonly index: number;
  readonly layout: SplitRingLayout;
  /** Negotiated by the guest. */
  readonly features: bigint;
  readonly zeroLength: 'refuse' | 'allow';
  /** Where the guest's ring goes on. Default: at its beginning. */
  readonly base: number | undefined;
  /** VHOST_VDPA_STATE of the backend. */
  readonly state: number;
  /** Elements are copied, as proposed. */
  readonly copies: boolean;
  readonly guest: Omit<GuestEnd, 'queue'>;
  readonly log: (line: string) => void;
  readonly stage: (name: string) => void;
}

/** `vhost_svq_new`: nothing is allocated for rings yet. */
export function createShadowQueue(
  { memory, physical }: KernelContext,
  options: ShadowQueueOptions,
): SvqQueue {
  const { index, layout, features, zeroLength, base, state, copies, guest, ...given } = options;
  const { ram } = memory;
  const address = physical.alloc(SHADOW_VIRTQUEUE.size);
  const eventIdx = hasFeature(features, 'EVENT_IDX');
  ram.set32(address + R.num, layout.num);
  ram.set32(address + S.scratch_index, index);
  ram.setPointer(address + S.ops_opaque, state);
  ram.set8(address + S.scratch_event, Number(eventIdx));
  ram.set8(address + S.copy_descs, Number(copies));
  const queue = openDeviceQueue(memory, layout, {
    index,
    eventIdx,
    indirect: hasFeature(features, 'INDIRECT_DESC'),
    zeroLength,
    ...(base === undefined ? {} : { base }),
  });
  return {
    ...given,
    address,
    guest: { ...guest, queue },
    readable: new PieceList(),
    writable: new PieceList(),
    kept: [],
    orphans: new Map(),
  };
}

/** `vhost_vdpa_svq_map_rings`. Throws InputError when the device does not take them. */
export function mapRings(
  { memory: { ram } }: KernelContext,
  maps: DeviceMaps,
  asid: number,
  svq: number,
): VringAddresses {
  const num = ram.u32(svq + R.num);
  const areas = [
    [R.desc, driverAreaSize(num), 'ro'],
    [R.used, deviceAreaSize(num), 'rw'],
  ] as const;
  const iovas = areas.map(([field, size, perm]) => {
    const map = maps.map(asid, ram.pointer(svq + field), size, perm);
    if (!map) throw new InputError('cannot map the shadow rings');
    return map.iova;
  });
  const [desc = 0n, used = 0n] = iovas;
  return { num, desc, avail: desc + BigInt(VRING_DESC_SIZE * num), used };
}

/** `vhost_vdpa_svq_unmap_rings`, and their memory is freed. */
export function unmapRings(
  { memory: { ram } }: KernelContext,
  maps: DeviceMaps,
  asid: number,
  svq: number,
): void {
  for (const field of [R.used, R.desc]) {
    const area = ram.pointer(svq + field);
    if (area !== 0) maps.releaseArea(asid, area);
    ram.setPointer(svq + field, 0);
  }
}
