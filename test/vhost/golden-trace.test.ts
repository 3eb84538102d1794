/** The bytes of the first command on its way: promiscuous mode off, ring of 4. */
import { expect, test } from 'vitest';
import { bytesToHex } from '../../src/common/bytes.js';
import { SvqLab } from '../../src/lab/svq/rig.js';
import { SHADOW_VIRTQUEUE, SVQ_DESC_STATE, SVQ_VRING } from '../../src/vhost/structs.js';
import type { SvqMode } from '../../src/vhost/queue.js';
import { DirectKernel } from '../virtio/helpers/direct-kernel.js';

const S = SHADOW_VIRTQUEUE.offset;
const R = SVQ_VRING;

/** Where the copies lie: `landed` maps them before the rings. */
const COPIES: readonly (readonly [SvqMode, string, string])[] = [
  ['landed', '10', '20'],
  ['transactional', '30', '40'],
  ['copy-v8', '30', '40'],
];

test.each(COPIES)('%s', (mode, out, input) => {
  const kernel = new DirectKernel(4 << 20);
  const { ram } = kernel.memory;
  const rig = new SvqLab(kernel).open({
    mode,
    controlSize: 4,
    features: ['VERSION_1', 'CTRL_VQ', 'CTRL_RX'],
  });
  const head = rig.control.chain([Uint8Array.of(0, 0), Uint8Array.of(0)], [1]);
  rig.kick();
  const svq = rig.net.svq(rig.net.controlIndex)?.address ?? 0;
  const hex = (field: number, from: number, size: number): string =>
    bytesToHex(ram.slice(ram.pointer(svq + field) + from, size));
  expect(hex(R.desc, 0, 16)).toBe(`00${out}0000000000000300000001000100`);
  expect(hex(R.desc, 16, 16)).toBe(`00${input}0000000000000100000002000000`);
  expect(hex(R.avail, 0, 6)).toBe('000001000000');
  expect(hex(R.used, 0, 12)).toBe('000001000000000001000000');

  const next = ram.pointer(svq + S.desc_next);
  const state = ram.pointer(svq + S.desc_state);
  expect(ram.u32(svq + S.free_head)).toBe(0);
  expect(ram.u16(next)).toBe(1);
  expect(ram.u16(next + 2)).toBe(2);
  expect(ram.u32(svq + S.num_free)).toBe(4);
  expect(ram.u16(svq + S.last_used_idx)).toBe(1);
  expect(ram.u32(state + SVQ_DESC_STATE.offset.ndescs)).toBe(0);
  expect(rig.control.takeUsed()).toEqual([
    { id: head, len: 1, known: true, bytes: Uint8Array.of(0) },
  ]);
  expect(rig.net.control.rx.promisc).toBe(false);
  expect(rig.net.vdpa.net.control).toEqual(rig.net.control);
  expect(rig.net.leaks()).toEqual({ descriptors: 0, mappings: 0, buffers: 0 });
  rig.close();
  expect(kernel.allocated).toEqual({ slab: 0, pages: 0 });
});
