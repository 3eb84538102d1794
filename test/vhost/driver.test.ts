/** The guest's virtio-net driver talks through shadow virtqueues, and does not know. */
import { describe, expect, it, test } from 'vitest';
import { bytesToHex } from '../../src/common/bytes.js';
import { defineShadowVirtqueue } from '../../src/vhost/functions.js';
import { SVQ_MODES, type SvqMode } from '../../src/vhost/queue.js';
import type { SvqOptions, VhostVdpaNet } from '../../src/vhost/vhost-vdpa.js';
import { defineVirtioNet, type VirtioNetOptions } from '../../src/virtio/virtio-net.js';
import { DirectKernel } from '../virtio/helpers/direct-kernel.js';
import { VERDICT, returns } from '../virtio/helpers/programs.js';

function probe(options: VirtioNetOptions, svq: SvqOptions) {
  const kernel = new DirectKernel(8 << 20);
  const driver = defineVirtioNet(kernel);
  const vmm = defineShadowVirtqueue(kernel);
  let backend: VhostVdpaNet | undefined;
  const net = driver.probe({
    ...options,
    createDevice: (_memory, netOptions) => (backend = vmm.createDevice(netOptions, svq)),
  });
  if (!backend) throw new Error('no device');
  return { kernel, net, backend };
}

const OFFLOADS: VirtioNetOptions = {
  features: ['CTRL_VQ', 'CTRL_GUEST_OFFLOADS', 'GUEST_CSUM', 'CTRL_RX', 'STATUS'],
  deviceHonoursOffloads: true,
  queueSize: 64,
  cpus: 2,
  queuePairs: 2,
  maxQueuePairs: 4,
};

/** A UDP frame whose checksum field holds the pseudo header's sum. */
const PARTIAL = { flags: 1, csum_start: 34, csum_offset: 6 };
function udp(): Uint8Array {
  const frame = new Uint8Array(80);
  frame.set([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 8, 0, 0x45, 0, 0, 66]);
  frame.set([64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2], 22);
  frame.set([0, 7, 0, 9, 0, 46], 34);
  return frame;
}

describe.each(SVQ_MODES)('%s', (mode: SvqMode) => {
  it.each(['cvq', 'all'] as const)('XDP attach stops partial checksums, shadow %s', (shadow) => {
    const { kernel, net, backend } = probe(OFFLOADS, { mode, shadow });
    expect(backend.error).toBeUndefined();
    expect(net.controlLog().map(({ request }) => bytesToHex(request))).toContain('04000200');
    const summed = (): readonly number[] => {
      net.receive(udp(), { header: PARTIAL });
      net.poll();
      return net.delivered().map((frame) => frame.ipSummed);
    };
    expect(summed()).toEqual([3]);
    net.attachXdp(returns(VERDICT.PASS));
    const attached = net.controlLog().map(({ request }) => bytesToHex(request));
    // Linux sets the queues up first
    expect(attached).toEqual(['04000400', '05000000000000000000']);
    expect(backend.vdpa.net.control.offloads).toBe(0n);
    expect(backend.vdpa.net.activePairs).toBe(4);
    expect(backend.control).toEqual(backend.vdpa.net.control);
    expect(summed()).toEqual([0]);
    net.attachXdp(undefined);
    expect(backend.vdpa.net.control.offloads).toBe(2n);
    expect(summed()).toEqual([3]);
    expect(backend.leaks()).toEqual({ descriptors: 0, mappings: 0, buffers: 0 });
    expect(backend.log).toEqual([]);
    net.close();
    backend.close();
    expect(kernel.allocated).toEqual({ slab: 0, pages: 0 });
  });

  it('frames come and go over a live migration', () => {
    const { net, backend } = probe(OFFLOADS, { mode });
    net.setRxMode({ promisc: false, unicast: [Uint8Array.of(2, 0, 0, 0, 0, 7)] });
    net.attachXdp(returns(VERDICT.TX));
    // four times that is more than the ring has
    const bounce = (): number => {
      for (let i = 0; i < 20; i++) {
        net.receive(udp());
        net.poll();
      }
      return net.transmitted().length;
    };
    expect(bounce()).toBe(20);
    backend.setShadow('all');
    expect(bounce()).toBe(20);
    const source = backend.migrate();
    expect(source.net.counters.txFrames).toBe(40);
    expect(bounce()).toBe(20);
    backend.setShadow('cvq');
    expect(bounce()).toBe(20);
    expect(backend.vdpa.net.control.rx.promisc).toBe(false);
    expect(backend.vdpa.net.control.macTable.unicast).toHaveLength(1);
    expect(backend.vdpa.net.activePairs).toBe(4);
    expect(backend.control).toEqual(backend.vdpa.net.control);
    net.close();
    backend.close();
  });
});

test('the way of a command as calls', () => {
  const { kernel, net, backend } = probe(OFFLOADS, { mode: 'transactional' });
  const names: string[] = [];
  kernel.onCall = (name) => names.push(name);
  net.setQueuePairs(1);
  kernel.onCall = undefined;
  const way = names.filter((name) => /svq|ctrl|vdpa|send_command|guest_kick/.test(name));
  expect(way).toEqual([
    'virtnet_send_command',
    'virtnet_send_command_reply',
    'vhost_handle_guest_kick',
    'vhost_vdpa_net_handle_ctrl_avail',
    'vhost_svq_add',
    'vhost_svq_kick',
    'vhost_svq_poll',
    'vhost_svq_get_buf',
    'vhost_svq_push_elem',
    'vhost_svq_handle_call',
    'vhost_svq_flush',
    'vhost_svq_get_buf',
  ]);
  net.close();
  backend.close();
});
