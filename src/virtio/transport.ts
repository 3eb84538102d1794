/**
 * What a driver sees of a virtio device beside its queues: status, features, configuration.
 *
 * Reference: virtio 1.4, "Basic Facilities of a Virtio Device"; which registers carry it (PCI, MMIO) makes
 * no difference here. `device/status.ts` is the device's part, `driver/negotiate.ts` the driver's.
 */
import type { RingLayout } from './ring/open-device-queue.js';

/** Bits of the device status. */
export const VIRTIO_CONFIG_S = {
  ACKNOWLEDGE: 1,
  DRIVER: 2,
  DRIVER_OK: 4,
  FEATURES_OK: 8,
  NEEDS_RESET: 0x40,
  FAILED: 0x80,
} as const;

export interface VirtioTransport {
  readonly offeredFeatures: bigint;
  readonly status: number;
  /** 0 resets the device. FEATURES_OK does not stay when the device refuses the features. */
  writeStatus(status: number): void;
  /** The features that the driver accepts; before FEATURES_OK. */
  writeFeatures(features: bigint): void;
  readConfig(): Uint8Array;
  /** Where a queue's rings lie; before DRIVER_OK. */
  startQueue(index: number, layout: RingLayout): void;
}

/** `ACKNOWLEDGE DRIVER`; `reset` for 0. */
export function describeStatus(status: number): string {
  const names = Object.entries(VIRTIO_CONFIG_S).filter(([, bit]) => (status & bit) !== 0);
  return names.length === 0 ? 'reset' : names.map(([name]) => name).join(' ');
}
