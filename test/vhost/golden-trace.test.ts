/** The bytes of one command on its way: spec 9.6. */
import { expect, test } from 'vitest';
import { bytesToHex } from '../../src/common/bytes.js';
import { SvqLab } from '../../src/lab/svq/rig.js';
import { SHADOW_VIRTQUEUE } from '../../src/vhost/structs.js';
import { DirectKernel } from '../virtio/helpers/direct-kernel.js';

const S = SHADOW_VIRTQUEUE.offset;

test.each(['landed', 'transactional', 'copy-v8'] as const)('promisc off, %s', (mode) => {
  const kernel = new DirectKernel(4 << 20);
  const { ram } = kernel.memory;
  const rig = new SvqLab(kernel).open({
    mode,
    controlSize: 4,
    features: ['VERSION_1', 'CTRL_VQ', 'CTRL_RX'],
  });
  expect(rig.net.log).toEqual([]);
  expect(rig.send(Uint8Array.of(0, 0, 0))).toBe(0);
  expect(rig.net.log).toEqual([]);
  const svq = rig.net.svq(rig.net.controlIndex)?.address ?? 0;
  const desc = ram.pointer(svq + S.desc);
  const hex = (at: number, size: number): string => bytesToHex(ram.slice(at, size));
  const maps = rig.net.tree.maps.map(({ iova, perm }) => `${iova.toString(16)} ${perm}`);
  console.log(mode, maps, hex(desc, 16), hex(desc + 16, 16), rig.net.leaks());
  expect(rig.net.leaks()).toEqual({ descriptors: 0, mappings: 0, buffers: 0 });
  expect(rig.net.control.rx.promisc).toBe(false);
  expect(rig.net.vdpa.net.control.rx.promisc).toBe(false);
  rig.close();
  expect(kernel.allocated).toEqual({ slab: 0, pages: 0 });
});
