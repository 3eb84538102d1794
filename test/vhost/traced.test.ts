/** The functions of the shadow virtqueue in the text of a real kernel image: probes see them as the kernel's own. */
import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { parseObject } from '../../src/bpf/object/parse.js';
import { findVariable } from '../../src/bpf/object/variables.js';
import { loadObject } from '../../src/kernel/bpf/object.js';
import { attachProbes } from '../../src/lab/probes.js';
import { attachScenario } from '../../src/lab/scenario.js';
import { SvqLab } from '../../src/lab/svq/rig.js';
import { bootLab } from '../../src/node/boot.js';

const kernel = await bootLab();
const lab = new SvqLab(kernel);
const features = ['VERSION_1', 'CTRL_VQ', 'CTRL_RX'] as const;

test('kprobes and kretprobes on the way of a command', () => {
  const rig = lab.open({ mode: 'transactional', features });
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

test('programs attached to them change nothing', () => {
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

test("a compiled program reads the queue's and the backend's structures", () => {
  const path = new URL('../../examples/svq/commands.o', import.meta.url);
  const spec = parseObject(readFileSync(path), { name: 'commands' });
  const object = loadObject(kernel, spec);
  object.attachAll();
  const value = (name: string): number => {
    const { map, variable } = findVariable(spec, name);
    const base = object.loaded.maps.get(map.name)?.valueAddress ?? 0n;
    return kernel.memory.read32(base + BigInt(variable.offset));
  };
  const names = ['commands', 'segments', 'address_space', 'is_isolated', 'shadows_data'];
  const seen = (): number[] => [...names, 'ring_size', 'fewest_free', 'published'].map(value);
  const rig = lab.open({ mode: 'landed', controlSize: 16, features });
  expect(rig.send(Uint8Array.of(0, 0, 0))).toBe(0);
  expect(rig.send(Uint8Array.of(0, 1, 1))).toBe(0);
  // header, data and ack; two descriptors of 16
  expect(seen()).toEqual([2, 6, 1, 1, 0, 16, 14, 2]);
  rig.net.setShadow('all');
  expect(rig.send(Uint8Array.of(0, 0, 1))).toBe(0);
  expect(seen().slice(0, 5)).toEqual([3, 9, 0, 1, 1]);
  rig.close();
});
