/** Makes the device's side of a queue, in the layout that its memory has. */
import type { BufferAccess } from './buffer-access.js';
import type { DeviceQueue, DeviceQueueOptions } from './device-queue.js';
import { PackedDeviceQueue } from './packed-ring-device.js';
import type { PackedRingLayout } from './packed-ring.js';
import { SplitDeviceQueue } from './split-ring-device.js';
import type { SplitRingLayout } from './split-ring.js';

/** Where the parts of a queue lie. */
export type RingLayout = SplitRingLayout | PackedRingLayout;

export function openDeviceQueue(
  memory: BufferAccess,
  layout: RingLayout,
  options: DeviceQueueOptions = {},
): DeviceQueue {
  switch (layout.kind) {
    case 'split':
      return new SplitDeviceQueue(memory, layout, options);
    case 'packed':
      return new PackedDeviceQueue(memory, layout, options);
  }
}
