/**
 * What belongs to a shadow virtqueue beside its structure in memory: both ends, mappings, hooks.
 *
 * Reference: QEMU VhostShadowVirtqueue, VhostShadowVirtqueueOps. The modes are how guest commands reach the
 * device:
 *
 * | mode          | data queues                  | control queue                                            |
 * | ------------- | ---------------------------- | -------------------------------------------------------- |
 * | translate     | addresses translated         | the same: the device is let at all guest memory          |
 * | copy-v8       | addresses translated         | each element copied and mapped, as proposed in May 2022  |
 * | landed        | addresses translated         | two buffers, mapped once; the VMM understands the command|
 * | transactional | translated before anything   | copied and mapped, everything undone when a step fails   |
 */
import type { KernelContext } from '../kernel/function.js';
import type { DeviceQueue } from '../virtio/ring/device-queue.js';
import type { PieceList } from '../virtio/ring/piece-list.js';
import type { VhostIovaTree } from './iova-tree.js';
import { SHADOW_VIRTQUEUE, SVQ_VRING } from './structs.js';
import type { VmmMemory } from './vmm-memory.js';

export const SVQ_MODES = ['translate', 'copy-v8', 'landed', 'transactional'] as const;
export type SvqMode = (typeof SVQ_MODES)[number];

/** What `vhost_svq_get_buf` found. */
export const GOT = { NONE: 0, BAD: 1, USED: 2 } as const;

/** The guest's side. */
export interface GuestEnd {
  readonly queue: DeviceQueue;
  /** Interrupts the guest. */
  signal(): void;
  /** The guest broke its ring: the device needs a reset. */
  broken(why: string): void;
}

/** The device's side. */
export interface DeviceEnd {
  kick(): void;
  /** Gives the device time; whether it had anything to do. */
  step(): boolean;
  /** 0 or a negative errno. */
  map(iova: bigint, size: number, at: number, perm: 'ro' | 'rw'): number;
  unmap(iova: bigint, size: number): number;
}

/** What a command that nobody waits for any more holds until the device answers, or the queue stops. */
export interface Orphan {
  /** Buffers of the VMM, each mapped. */
  readonly buffers: number;
  /** `answered`: the device has it no more; else the queue stopped. */
  release(answered: boolean): void;
}

export interface SvqQueue {
  /** Of SHADOW_VIRTQUEUE. */
  readonly address: number;
  readonly mode: SvqMode;
  readonly tree: VhostIovaTree;
  readonly vmm: VmmMemory;
  readonly guest: GuestEnd;
  readonly device: DeviceEnd;
  /** Pieces of the chain that is taken. */
  readonly readable: PieceList;
  readonly writable: PieceList;
  /** Name of the kernel function that takes an element in place of `vhost_svq_add_element`. */
  readonly availHandler: string | undefined;
  /** Name of one that sees used elements before the guest does. */
  readonly usedHandler: string | undefined;
  /** Stopped while in flight behind completed ones, oldest first: forwarded again before all others. */
  readonly kept: number[];
  /** Commands that the VMM no longer waits for, by head. */
  readonly orphans: Map<number, Orphan>;
  /** Turns of the device that stand for the ten seconds one waits for an answer. */
  readonly pollBudget: number;
  log(line: string): void;
  /** A step of a command's way is done. */
  stage(name: string): void;
}

const S = SHADOW_VIRTQUEUE.offset;
const R = SVQ_VRING;

/** Clamps what the device says and breaks the guest's device on errors, which QEMU does not. */
export function isStrict({ mode }: SvqQueue): boolean {
  return isStrictMode(mode);
}

export function isStrictMode(mode: SvqMode): boolean {
  return mode === 'transactional' || mode === 'translate';
}

/** `vhost_svq_available_slots` of the proposal's time: counts elements, not descriptors. */
export function availableElements({ memory: { ram } }: KernelContext, svq: number): number {
  const inFlight = ram.u16(svq + S.shadow_avail_idx) - ram.u16(svq + S.shadow_used_idx);
  return (ram.u32(svq + R.num) - inFlight) & 0xffff;
}
