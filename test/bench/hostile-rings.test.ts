/** A few of the corruptions that `npm run hostile-rings` makes by the hundred thousand. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { runHostileRings } from '../../bench/hostile-rings/campaign.js';
import type { Kernel } from '../../src/kernel/kernel.js';
import { installVirtioNet } from '../../src/lab/xdp-traffic.js';
import { bootLab } from '../../src/node/boot.js';
import type { VirtioNetDriver } from '../../src/virtio/virtio-net.js';

let kernel: Kernel;
let driver: VirtioNetDriver;

beforeAll(async () => {
  kernel = await bootLab({ engine: 'embedded' });
  driver = installVirtioNet(kernel);
});
afterAll(() => kernel.close());

test.each([1, 2])('rings that the other side overwrites, seed %i', (seed) => {
  const counts = runHostileRings(kernel, driver, { corruptions: 1000, seed });
  expect(counts.corruptions).toBeGreaterThanOrEqual(1000);
  // the corruptions are felt, and not all of them at once
  expect(counts.driverBroke).toBeGreaterThan(5);
  expect(counts.deviceBroke).toBeGreaterThan(5);
  expect(counts.buffers).toBeGreaterThan(100);
});
