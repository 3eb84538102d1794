/** The functions of the shadow virtqueue in the text of a real kernel image: probes see them as the kernel's own. */
import { expect, test } from 'vitest';
import { attachProbes } from '../../src/lab/probes.js';
import { attachScenario } from '../../src/lab/scenario.js';
import { SvqLab } from '../../src/lab/svq/rig.js';
import { bootLab } from '../../src/node/boot.js';

test('kprobes and kretprobes on the way of a command', async () => {
  const kernel = await bootLab();
  const rig = new SvqLab(kernel).open({
    mode: 'transactional',
    features: ['VERSION_1', 'CTRL_VQ', 'CTRL_RX'],
  });
  const add = attachProbes(kernel, 'vhost_svq_add', { kprobe: 1, kretprobe: 1 });
  const poll = attachProbes(kernel, 'vhost_svq_poll', { kprobe: 1, kretprobe: 1 });
  expect(rig.send(Uint8Array.of(0, 0, 0))).toBe(0);
  expect(add.lines().map((line) => line.replace(/0xffff[0-9a-f]+/, 'svq'))).toEqual([
    'kprobe 0: vhost_svq_add+0x0, x0 svq',
    expect.stringMatching(/^kretprobe 0: .*, x0 0x0$/),
  ]);
  // one byte was written: the ack
  expect(poll.lines().join('\n')).toMatch(/vhost_svq_poll.*\n.*kretprobe 0: .*, x0 0x1$/m);
  add.detach();
  poll.detach();
  expect(rig.net.leaks()).toEqual({ descriptors: 0, mappings: 0, buffers: 0 });
  expect(rig.net.control.rx.promisc).toBe(false);
  rig.close();
});

test('programs attached to them change nothing', async () => {
  const kernel = await bootLab();
  const lab = new SvqLab(kernel);
  const plain = lab.open({ mode: 'landed' });
  expect(plain.send(Uint8Array.of(0, 0, 0))).toBe(0);
  const names = ['vhost_handle_guest_kick', 'vhost_vdpa_net_handle_ctrl_avail', 'vhost_svq_add'];
  for (const name of names) attachScenario(kernel, name, { fentry: 1, fexit: 1 });
  const traced = lab.open({ mode: 'landed' });
  expect(traced.send(Uint8Array.of(0, 0, 0))).toBe(0);
  expect(traced.net.control).toEqual(plain.net.control);
  expect(traced.net.leaks()).toEqual({ descriptors: 0, mappings: 0, buffers: 0 });
  plain.close();
  traced.close();
});
