/** Which driver a record's guest had. */
import { InputError } from '../../../common/errors.js';
import { VIRTIO_NET_VERSIONS, type VirtioNetVersion } from '../../../virtio/driver/profiles.js';

interface GuestRecord {
  /** `6.12.107`. */
  readonly kernel_version: string;
}

/** Throws InputError for a kernel whose driver is not modelled. */
export function guestVersion({ kernel_version: kernel }: GuestRecord): VirtioNetVersion {
  const version = modelledVersion(kernel);
  if (version === undefined) throw new InputError(`the driver of ${kernel} is not modelled`);
  return version;
}

/** Undefined: its driver is not modelled. */
export function modelledVersion(kernel: string): VirtioNetVersion | undefined {
  return VIRTIO_NET_VERSIONS.find((version) => kernel.startsWith(`${version}.`));
}
