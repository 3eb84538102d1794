/** Data through a shadow virtqueue: echo, indexes over their end, notifications, address spaces, aliases. */
import { describe, expect, it, test } from 'vitest';
import { echoFrames } from '../../src/lab/svq/echo.js';
import { SvqLab } from '../../src/lab/svq/rig.js';
import { IOVEC, SHADOW_VIRTQUEUE, SVQ_VRING } from '../../src/vhost/structs.js';
import { SVQ_MODES } from '../../src/vhost/queue.js';
import { VRING_DESC_SIZE } from '../../src/virtio/ring/split-ring.js';
import { DirectKernel } from '../virtio/helpers/direct-kernel.js';

const S = SHADOW_VIRTQUEUE.offset;
const R = SVQ_VRING;

test.each(SVQ_MODES)('what is sent comes back, in any pieces: %s', (mode) => {
  const lab = new SvqLab(new DirectKernel(4 << 20));
  expect(echoFrames(lab, { mode, seed: 5, count: 60 })).toEqual([]);
});

describe('notifications', () => {
  /** Kicks of the device and interrupts of the guest for eight frames made available at once. */
  const count = (eventIdx: boolean): readonly number[] => {
    const rig = new SvqLab(new DirectKernel(4 << 20)).open({
      mode: 'translate',
      dataSize: 16,
      shadow: 'all',
      features: ['VERSION_1', 'CTRL_VQ', ...(eventIdx ? (['EVENT_IDX'] as const) : [])],
    });
    const before = rig.net.vdpa.counters.kicks;
    rig.net.paused = true;
    for (let i = 0; i < 8; i++) rig.data[1]?.chain([new Uint8Array(60)], []);
    rig.kick(1);
    rig.net.paused = false;
    rig.net.pump();
    const counts = [rig.net.vdpa.counters.kicks - before, rig.interrupts.get(1) ?? 0];
    expect(rig.data[1]?.takeUsed()).toHaveLength(8);
    rig.close();
    return counts;
  };

  it('with EVENT_IDX the device is kicked once, without for each', () => {
    expect(count(true)).toEqual([1, 1]);
    expect(count(false)).toEqual([8, 1]);
  });
});

describe('address spaces', () => {
  it('the control queue reaches nothing of the guest', () => {
    const rig = new SvqLab(new DirectKernel(4 << 20)).open({
      mode: 'landed',
      dataSize: 8,
      controlSize: 8,
    });
    const { net, kernel } = rig;
    const control = net.vdpa.spaceOf(net.controlIndex);
    const data = net.vdpa.spaceOf(1);
    expect([control.asid, data.asid]).toEqual([1, 0]);
    const region = kernel.memory.regions[0];
    const buffer = kernel.allocPages(1);
    expect(data.entries.map(({ iova }) => iova)).toEqual([region?.address]);
    expect(control.entries).toHaveLength(4);

    // a shadow descriptor that names guest memory
    const svq = net.svq(net.controlIndex)?.address ?? 0;
    const { ram } = kernel.memory;
    net.vdpa.beforeWork = () => {
      for (let i = 0; i < 8; i++) ram.set64(ram.pointer(svq + R.desc) + 16 * i, buffer);
    };
    expect(rig.send(Uint8Array.of(0, 0, 0))).toBe(1);
    expect(control.takeFaults()).toEqual([
      `ASID 1: read of 3 bytes at 0x${buffer.toString(16)}: not mapped`,
    ]);
    expect(net.vdpa.net.error).toContain('not mapped');
    rig.close();
  });

  it('a ring that is unmapped is not touched', () => {
    const rig = new SvqLab(new DirectKernel(4 << 20)).open({ mode: 'landed', pollBudget: 5 });
    const { net } = rig;
    const control = net.vdpa.spaceOf(net.controlIndex);
    expect(net.vdpa.reaches(net.controlIndex)).toBe(true);
    const ring = control.entries.at(-1);
    control.unmap(ring?.iova ?? 0n, ring?.size ?? 0);
    rig.deviceLog.length = 0;
    expect(rig.send(Uint8Array.of(0, 0, 0))).toBe(1);
    expect(rig.deviceLog).toEqual([]);
    expect(control.takeFaults()[0]).toContain('not mapped');
    rig.close();
  });

  it('without a group of its own the control queue passes the VMM by, and migration is blocked', () => {
    const rig = new SvqLab(new DirectKernel(4 << 20)).open({ mode: 'landed', isolated: false });
    expect(rig.net.svq(rig.net.controlIndex)).toBeUndefined();
    expect(rig.send(Uint8Array.of(0, 0, 0))).toBe(0);
    expect(rig.net.vdpa.net.control.rx.promisc).toBe(false);
    expect(rig.net.control.rx.promisc).toBe(true);
    expect(() => rig.net.migrate()).toThrow('migration is blocked');
    rig.close();
  });

  it('two guest addresses of one buffer have two IOVAs', () => {
    const rig = new SvqLab(new DirectKernel(4 << 20)).open({ mode: 'translate', controlSize: 8 });
    const { net, kernel } = rig;
    const { ram } = kernel.memory;
    const svq = net.svq(net.controlIndex)?.address ?? 0;
    const buffer = kernel.physical.alloc(64);
    const aliases = [0x1_0000_0000n, 0x2_0000_0000n].map((translated) =>
      net.tree.allocMap({ translated, size: 4095n, perm: 'rw', kind: 'gpa' }),
    );
    const sg = kernel.physical.alloc(2 * IOVEC.size);
    const addresses = kernel.physical.alloc(16);
    for (const i of [0, 1]) {
      ram.setPointer(sg + i * IOVEC.size + IOVEC.offset.iov_base, buffer);
      ram.setWord(sg + i * IOVEC.size + IOVEC.offset.iov_len, 3);
      ram.set64(addresses + 8 * i, i === 0 ? 0x1_0000_0010n : 0x2_0000_0010n);
    }
    net.paused = true;
    const head = ram.u32(svq + S.free_head);
    expect(kernel.invoke('vhost_svq_add', svq, sg, 2, addresses, 0, 0, 0, 0)).toBe(0);
    const desc = ram.pointer(svq + R.desc) + VRING_DESC_SIZE * head;
    const next = ram.u16(desc + 14);
    const iovas = [desc, ram.pointer(svq + R.desc) + VRING_DESC_SIZE * next].map((at) =>
      ram.u64(at),
    );
    expect(iovas).toEqual(aliases.map((map) => (typeof map === 'string' ? 0n : map.iova + 0x10n)));
    expect(new Set(iovas).size).toBe(2);
    rig.close();
  });
});

test('shadowing can be switched while the guest runs', () => {
  const rig = new SvqLab(new DirectKernel(4 << 20)).open({ mode: 'transactional', dataSize: 8 });
  const send = (): number => {
    rig.data[1]?.chain([new Uint8Array(60)], []);
    rig.kick(1);
    return rig.data[1]?.takeUsed().length ?? 0;
  };
  for (const shadow of ['cvq', 'all', 'cvq', 'none', 'all'] as const) {
    rig.net.setShadow(shadow);
    for (let i = 0; i < 11; i++) expect([shadow, send()]).toEqual([shadow, 1]);
    expect(rig.send(Uint8Array.of(0, 0, 0))).toBe(0);
  }
  expect(rig.transmitted).toHaveLength(55);
  rig.close();
});
