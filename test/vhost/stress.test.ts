/** Random commands, frames, faults, stops and migrations: nothing is lost, nothing comes twice. */
import { expect, test } from 'vitest';
import { SvqLab } from '../../src/lab/svq/rig.js';
import { SvqStress } from '../../src/lab/svq/stress.js';
import { DirectKernel } from '../virtio/helpers/direct-kernel.js';

test.each([
  ['transactional', 1],
  ['translate', 1],
] as const)('%s, seed %i', (mode, seed) => {
  const kernel = new DirectKernel(4 << 20);
  const stress = new SvqStress(new SvqLab(kernel), mode, seed);
  for (let i = 0; i < 400; i++) stress.step();
  expect(stress.finish().slice(0, 5)).toEqual([]);
  expect(kernel.allocated).toEqual({ slab: 0, pages: 0 });
  // in so few steps not every start meets a fault
  const { failedStarts: _, ...counts } = stress.counts;
  expect(Math.min(...Object.values(counts))).toBeGreaterThan(1);
});

test('what QEMU does with maps that cannot be undone is seen', () => {
  const kernel = new DirectKernel(8 << 20);
  const stress = new SvqStress(new SvqLab(kernel), 'landed', 3);
  for (let i = 0; i < 600; i++) stress.step();
  expect(stress.finish().join()).toContain('leaks');
});
