/** Control commands carried to the device: every one, the state they leave, and the state given to another device. */
import { describe, expect, it, test } from 'vitest';
import { bytesToHex } from '../../src/common/bytes.js';
import { Random } from '../../src/common/random.js';
import {
  controlCommand,
  CONTROL_COMMAND_NAMES,
  macTable,
  randomCommand,
} from '../../src/lab/svq/commands.js';
import { RIG_FEATURES, SvqLab, type RigOptions } from '../../src/lab/svq/rig.js';
import { asRestored, restoreCommands } from '../../src/vhost/restore.js';
import { SVQ_MODES, type SvqMode } from '../../src/vhost/queue.js';
import { negotiatedOffloads } from '../../src/virtio/device/control/state.js';
import { DirectKernel } from '../virtio/helpers/direct-kernel.js';

const NONE = { descriptors: 0, mappings: 0, buffers: 0 };
const lab = new SvqLab(new DirectKernel(16 << 20));
const open = (mode: SvqMode, options: RigOptions = {}) => lab.open({ ...options, mode });

/** What a device does with the first of the commands of a restore, and what the VMM says. */
const BAD_ANSWERS = [
  ['refuse', 'command 1 of class 1 refused'],
  ['ack', 'command 1 of class 1 refused'],
  ['silent', ' of 3 answers'],
  ['length-0', ' of 3 answers'],
  ['length-too-long', ' of 3 answers'],
] as const;

/** Commands, whether the device takes them, and their bytes in the specification. */
const COMMANDS: readonly (readonly [string, number, string])[] = [
  ['promisc=off', 0, '000000'],
  ['allmulti=on', 0, '000101'],
  ['alluni=on', 0, '000201'],
  ['nomulti=on', 0, '000301'],
  ['nouni=on', 0, '000401'],
  ['nobcast=on', 0, '000501'],
  ['mac=52:54:00:00:00:09', 0, '0101525400000009'],
  ['mac-table=1,1', 0, '01000100000002005e0000000100000001005e000000'],
  ['vlan-add=100', 0, '02006400'],
  ['vlan-del=100', 0, '02016400'],
  ['queues=4', 0, '04000400'],
  ['queues=5', 1, '04000500'],
  ['rss=0x3f,4', 0, '0401'],
  ['hash=0x3f', 0, '0402'],
  ['offloads=0', 0, '05000000000000000000'],
  ['offloads=0x182', 0, '05008201000000000000'],
  ['offloads=0x400', 1, '05000004000000000000'],
  // features that a shadowed device does not have
  ['coal-rx=15,10', 1, '06010f0000000a000000'],
  ['coal-tx=15,10', 1, '0600'],
  ['coal-vq=0,15,10', 1, '0602'],
  ['coal-get=0', 1, '0603'],
  ['hash-tunnel=0x10', 1, '070010000000'],
  ['stats', 1, '0800'],
  ['stats-get=0', 1, '0801'],
  ['rss-ctx=1', 1, '0901'],
  ['hex=6301aabb', 1, '6301aabb'],
];

describe.each(SVQ_MODES)('%s', (mode) => {
  it('carries every command, and the model has what the device has', () => {
    const rig = open(mode);
    for (const [word, ack, bytes] of COMMANDS) {
      const { request, replyBytes } = controlCommand(word);
      expect(bytesToHex(request).slice(0, bytes.length)).toBe(bytes);
      rig.deviceLog.length = 0;
      expect([word, rig.send(request, replyBytes)]).toEqual([word, ack]);
      expect(rig.deviceLog.map((entry) => bytesToHex(entry.request))).toEqual([
        bytesToHex(request),
      ]);
      expect(rig.net.control).toEqual(rig.net.vdpa.net.control);
      expect(rig.net.leaks()).toEqual(NONE);
    }
    rig.close();
  });

  it('65 addresses are forwarded as they are', () => {
    const rig = open(mode);
    const table = macTable(65, 3);
    expect(rig.send(table)).toBe(0);
    expect(rig.deviceLog.at(-1)?.request).toEqual(table);
    expect(rig.net.vdpa.net.control.macTable.uniOverflow).toBe(true);
    rig.close();
  });

  it('state of random commands is what another device gets', () => {
    for (let seed = 0; seed < 3; seed++) {
      const rig = open(mode, { controlSize: 32 });
      const random = new Random(seed);
      const mask = negotiatedOffloads(rig.net.features);
      for (let i = 0; i < 40; i++) rig.send(randomCommand(random, 4, mask));
      const wanted = asRestored(rig.net.control);
      const commands = restoreCommands(rig.net.control, rig.net.features, mode === 'landed');
      rig.deviceLog.length = 0;
      const source = rig.net.migrate();
      expect(rig.net.vdpa).not.toBe(source);
      expect(rig.deviceLog.map(({ request }) => request)).toEqual(commands);
      expect(asRestored(rig.net.vdpa.net.control)).toEqual(wanted);
      expect(rig.net.vdpa.isEnabled(rig.net.controlIndex)).toBe(true);
      rig.close();
    }
  });
});

test('every command in words is tried', () => {
  const tried = new Set(COMMANDS.map(([word]) => word.split('=')[0]));
  tried.add('announce');
  expect([...tried].toSorted()).toEqual([...CONTROL_COMMAND_NAMES].toSorted());
});

test.each(['translate', 'landed', 'transactional'] as const)(
  'announcements stay with the VMM, %s',
  (mode) => {
    const rig = open(mode);
    const { request } = controlCommand('announce');
    expect(rig.send(request)).toBe(1);
    rig.net.requestAnnounce();
    rig.deviceLog.length = 0;
    expect(rig.send(request)).toBe(0);
    expect(rig.net.control.announce).toBe(false);
    expect(rig.deviceLog).toEqual([]);
    rig.close();
  },
);

describe('restore', () => {
  const sent = (words: readonly string[], features = RIG_FEATURES, mode: SvqMode = 'landed') => {
    const rig = open(mode, { features });
    for (const word of words) expect(rig.send(controlCommand(word).request)).toBe(0);
    rig.deviceLog.length = 0;
    rig.net.migrate();
    const log = rig.deviceLog.map(({ request }) => bytesToHex(request.subarray(0, 3)));
    rig.close();
    return log;
  };

  it('sends what differs from a device after its reset, in order', () => {
    expect(sent([])).toEqual(['010152', '040001']);
    expect(
      sent([
        'vlan-add=7',
        'vlan-add=3',
        'nobcast=on',
        'allmulti=on',
        'promisc=off',
        'offloads=2',
        'rss=0x3f,2',
        'mac-table=2,1',
      ]),
    ).toEqual([
      '010152',
      '010002',
      '040002',
      '04013f',
      '050002',
      '000000',
      '000101',
      '000501',
      '020003',
      '020007',
    ]);
  });

  it('tables that overflow become flags', () => {
    expect(sent(['promisc=off', 'mac-table=65,1'])).toEqual(['010152', '010000', '040001']);
    expect(sent(['promisc=off', 'mac-table=1,64'])).toEqual([
      '010152',
      '010001',
      '040001',
      '000000',
      '000101',
    ]);
  });

  it('without MQ, RSS is left out by QEMU and not here', () => {
    const features = RIG_FEATURES.filter((name) => name !== 'MQ');
    expect(sent(['rss=0x3f,1'], features, 'landed')).toEqual(['010152']);
    expect(sent(['rss=0x3f,1'], features, 'transactional')).toEqual(['010152', '04013f']);
  });

  it('goes in batches where commands are many', () => {
    const rig = open('landed', { controlSize: 16 });
    for (let id = 0; id < 60; id++) rig.send(controlCommand(`vlan-add=${id}`).request);
    rig.deviceLog.length = 0;
    const kicks = rig.net.vdpa.counters.kicks;
    expect(kicks).toBeGreaterThan(0);
    const source = rig.net.migrate();
    expect(source).not.toBe(rig.net.vdpa);
    expect(rig.deviceLog).toHaveLength(62);
    expect(rig.net.vdpa.net.control.vlans).toEqual(rig.net.control.vlans);
    rig.close();
  });

  it.each(SVQ_MODES)('an answer that is not OK fails the start, with all undone: %s', (mode) => {
    const rig = open(mode, { pollBudget: 5 });
    for (const [fault, text] of BAD_ANSWERS) {
      rig.net.stop();
      rig.net.vdpa.faults.control = fault;
      expect(() => rig.net.start()).toThrow(new RegExp(`restore: -EIO: .*${text}`));
      expect([rig.net.tree.size, rig.net.vmm.live]).toEqual([0, 0]);
      rig.net.start();
      expect(rig.send(Uint8Array.of(0, 0, 0))).toBe(0);
    }
    rig.close();
  });
});

/** In `landed` what the device did not unmap stays. */
const FAILURES = [
  ['map', 'translate'],
  ['map', 'transactional'],
  ['map', 'landed'],
  ['unmap', 'translate'],
  ['unmap', 'transactional'],
] as const;

test.each(FAILURES)(
  '%s number k fails, for every k, at start, in commands, at stop: %s',
  (kind, mode) => {
    for (let k = 0; ; k++) {
      const kernel = new DirectKernel(2 << 20);
      const rig = new SvqLab(kernel).open({
        mode,
        dataSize: 8,
        shadow: 'all',
        prepare: (net) => (net.vdpa.faults[kind] = k),
      });
      for (const word of ['promisc=off', 'queues=2']) {
        if (rig.net.isRunning) rig.send(controlCommand(word).request);
      }
      expect([k, rig.net.leaks()]).toEqual([k, NONE]);
      rig.net.stop();
      const reached = rig.net.vdpa.faults[kind] === undefined;
      expect([k, rig.net.leaks(), rig.net.tree.size, rig.net.vmm.live]).toEqual([k, NONE, 0, 0]);
      for (const space of rig.net.vdpa.spaces) expect(space.entries).toEqual([]);
      rig.close();
      expect(kernel.allocated).toEqual({ slab: 0, pages: 0 });
      if (!reached) {
        expect(k).toBeGreaterThan(6);
        return;
      }
    }
  },
);
