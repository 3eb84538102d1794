/** A shadow virtqueue's states, and what a kick, a call, a stop and a reset do in each; starts that are refused. */
import { expect, it, test } from 'vitest';
import { SvqLab, type RigOptions } from '../../src/lab/svq/rig.js';
import { SHADOW_VIRTQUEUE, SVQ_VRING } from '../../src/vhost/structs.js';
import { SVQ_MODES } from '../../src/vhost/queue.js';
import { VRING_USED_F_NO_NOTIFY } from '../../src/virtio/ring/split-ring.js';
import { DirectKernel } from '../virtio/helpers/direct-kernel.js';

const S = SHADOW_VIRTQUEUE.offset;
const TX = 1;
const FRAME = new Uint8Array(60);
const PROMISC_OFF = Uint8Array.of(0, 0, 0);
const kernel = new DirectKernel(4 << 20);
const lab = new SvqLab(kernel);

/** A transmit queue of four shadow descriptors, and what can be seen of it. */
function open(options: RigOptions = {}) {
  const rig = lab.open({
    features: ['VERSION_1', 'CTRL_VQ', 'CTRL_RX', 'INDIRECT_DESC'],
    shadow: 'all',
    dataSize: 4,
    ...options,
  });
  const [, tx] = rig.data;
  if (!tx) throw new Error('no transmit queue');
  const { ram } = kernel.memory;
  const svq = rig.net.svq(TX)?.address ?? 0;
  return {
    rig,
    tx,
    send: (pieces = 1) =>
      tx.chain(
        Array.from({ length: pieces }, () => FRAME),
        [],
        pieces > 1,
      ),
    kick: () => rig.kick(TX),
    call: () => void kernel.invoke('vhost_svq_handle_call', svq),
    isWaiting: () => ram.pointer(svq + S.next_guest_avail_elem) !== 0,
    isQuiet: () => (ram.u16(tx.used) & VRING_USED_F_NO_NOTIFY) !== 0,
    sent: () => rig.transmitted.length,
    position: () => rig.net.queuePosition(TX),
  };
}

it.each(SVQ_MODES)('stopped: nothing happens until the start, %s', (mode) => {
  const { rig, send, kick, call, sent, position } = open({ mode });
  rig.net.stop();
  send();
  kick();
  call();
  rig.net.stop();
  expect([sent(), position(), rig.net.tree.size, rig.net.vmm.live]).toEqual([0, 0, 0, 0]);
  rig.net.start();
  expect([sent(), position()]).toEqual([1, 1]);
  rig.close();
});

it.each(['translate', 'landed', 'transactional'] as const)(
  'one element waits: kicks are ignored, what is used makes room, %s',
  (mode) => {
    const { rig, tx, send, kick, isWaiting, isQuiet, sent, position } = open({ mode });
    rig.net.paused = true;
    for (let i = 0; i < 3; i++) send(2);
    kick();
    expect([isWaiting(), isQuiet(), position()]).toEqual([true, true, 3]);
    send(2);
    kick();
    expect([isWaiting(), position()]).toEqual([true, 3]);
    rig.net.paused = false;
    rig.net.pump();
    expect([isWaiting(), isQuiet(), position(), sent()]).toEqual([false, false, 4, 4]);
    expect(tx.takeUsed()).toHaveLength(4);
    expect(rig.net.leaks()).toEqual({ descriptors: 0, mappings: 0, buffers: 0 });
    rig.close();
  },
);

it.each(SVQ_MODES)('broken: used elements come back, a stop takes the others back, %s', (mode) => {
  const { rig, tx, send, kick, sent, position } = open({ mode });
  rig.net.paused = true;
  send();
  kick();
  tx.publish(200);
  kick();
  expect(rig.net.error).toContain('head 200');
  expect(position()).toBe(1);
  send();
  kick();
  rig.net.paused = false;
  rig.net.pump();
  expect([sent(), position()]).toEqual([1, 1]);
  expect(tx.takeUsed()).toHaveLength(1);
  rig.net.stop();
  expect([position(), rig.net.tree.size, rig.net.vmm.live]).toEqual([1, 0, 0]);
  rig.close();
});

it.each(SVQ_MODES)('a reset is a stop after which nothing is known, %s', (mode) => {
  const { rig, send, kick, position } = open({ mode });
  rig.net.paused = true;
  send();
  kick();
  rig.net.writeStatus(0);
  expect([rig.net.isRunning, rig.net.svqs.size, position()]).toEqual([false, 0, undefined]);
  expect([rig.net.tree.size, rig.net.vmm.live]).toEqual([0, 0]);
  for (const space of rig.net.vdpa.spaces) expect(space.entries).toEqual([]);
  rig.close();
});

it('an element behind which another was completed is kept for the next start', () => {
  const { rig, tx, send, kick, sent, position } = open({ mode: 'transactional' });
  const { ram } = kernel.memory;
  rig.net.paused = true;
  for (let i = 0; i < 3; i++) send();
  kick();
  // the device has completed the second of three when it is stopped
  const used = ram.pointer((rig.net.svq(TX)?.address ?? 0) + SVQ_VRING.used);
  ram.set32(used + 4, 1);
  ram.set16(used + 2, 1);
  rig.net.stop();
  expect([position(), tx.takeUsed().map(({ id }) => id)]).toEqual([2, [1]]);
  // a position in the guest's ring cannot say that
  expect(() => rig.net.setShadow('cvq')).toThrow('queue 1: elements were completed out of order');
  rig.net.paused = false;
  rig.net.start();
  expect([sent(), position(), tx.takeUsed().map(({ id }) => id)]).toEqual([2, 3, [0, 2]]);
  rig.close();
});

test.each<[string, RigOptions, string]>([
  ['a feature of the transport', { features: ['VERSION_1', 'CTRL_VQ', 'IN_ORDER'] }, 'IN_ORDER'],
  ['no VERSION_1', { features: ['CTRL_VQ'] }, 'VERSION_1'],
  ['an IOMMU of the guest', { guestIommu: true }, 'IOMMU'],
  ['no IOVAs for the rings', { iovaRange: { first: 0x1000n, last: 0x1fffn } }, 'shadow rings'],
])('a start is refused: %s', (_what, options, text) => {
  const rig = lab.open(options);
  expect(rig.net.isRunning).toBe(false);
  expect(rig.net.error).toContain(text);
  expect(rig.net.log.join()).toContain('unable to start vhost net');
  expect([rig.net.tree.size, rig.net.vmm.live]).toEqual([0, 0]);
  expect(rig.send(PROMISC_OFF)).toBeUndefined();
  rig.close();
});

test('nothing leaks in all of these', () => {
  expect(kernel.allocated).toEqual({ slab: 0, pages: 0 });
});
