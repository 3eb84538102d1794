/**
 * The device's part of initialisation: status bits and the features that were agreed on.
 *
 * Reference: virtio 1.4, "Device Status Field", "Feature Bits", "Device Initialization". A device takes
 * FEATURES_OK only for a subset of what it offers in which no feature lacks what it needs; a legacy driver
 * (no VERSION_1) has no such step and is taken as it is. Bits are only added; writing 0 resets.
 *
 *   reset -> ACKNOWLEDGE -> DRIVER -> features -> FEATURES_OK -> queues -> DRIVER_OK
 *                                        |                           |
 *                                        FAILED                      NEEDS_RESET (the device's), FAILED
 *
 * Usage:
 *   const status = new DeviceStatus(offered);
 *   status.writeFeatures(features);
 *   status.write(ACKNOWLEDGE | DRIVER | FEATURES_OK);
 *   status.refusal;        // 'GUEST_TSO4 without GUEST_CSUM', and FEATURES_OK is not in `value`
 */
import { featureNames, hasFeature, violations } from '../net-features.js';
import { VIRTIO_CONFIG_S } from '../transport.js';

const S = VIRTIO_CONFIG_S;

export class DeviceStatus {
  readonly offered: bigint;
  #value = 0;
  #features = 0n;
  #refusal: string | undefined;

  constructor(offered: bigint) {
    this.offered = offered;
  }

  get value(): number {
    return this.#value;
  }

  /** What the driver accepted last. */
  get features(): bigint {
    return this.#features;
  }

  /** Why FEATURES_OK was not taken. */
  get refusal(): string | undefined {
    return this.#refusal;
  }

  /** Queues work: the driver is ready and neither side has given up. */
  get running(): boolean {
    return (this.#value & (S.DRIVER_OK | S.NEEDS_RESET | S.FAILED)) === S.DRIVER_OK;
  }

  writeFeatures(features: bigint): void {
    if ((this.#value & S.FEATURES_OK) === 0) this.#features = features;
  }

  /** The driver writes the status. Returns whether that reset the device. */
  write(value: number): boolean {
    if (value === 0) {
      this.#value = 0;
      this.#features = 0n;
      this.#refusal = undefined;
      return true;
    }
    let added = value & ~this.#value & ~S.NEEDS_RESET;
    if ((added & S.FEATURES_OK) !== 0) {
      this.#refusal = this.#refuseFeatures();
      if (this.#refusal !== undefined) added &= ~S.FEATURES_OK;
    }
    const legacy = !hasFeature(this.#features, 'VERSION_1');
    if (!legacy && ((this.#value | added) & S.FEATURES_OK) === 0) added &= ~S.DRIVER_OK;
    this.#value |= added;
    return false;
  }

  /** The device cannot go on until it is reset. */
  needsReset(): void {
    this.#value |= S.NEEDS_RESET;
  }

  #refuseFeatures(): string | undefined {
    const foreign = this.#features & ~this.offered;
    if (foreign !== 0n) return `${featureNames(foreign).join(', ')} not offered`;
    return violations(this.#features)[0];
  }
}
