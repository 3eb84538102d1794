/** Control commands as a function of state and bytes: what is taken, what is refused, what it changes. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { hexToBytes } from '../../../src/common/bytes.js';
import { CONTROL_COMMANDS, describeCommand } from '../../../src/virtio/device/control/commands.js';
import { executeControl } from '../../../src/virtio/device/control/execute.js';
import { acceptsFrame } from '../../../src/virtio/device/control/rx-filter.js';
import {
  resetControlState,
  type ControlDevice,
  type ControlState,
} from '../../../src/virtio/device/control/state.js';
import { DEFAULT_NET_CONFIG } from '../../../src/virtio/net-config.js';
import { featureMask, type VirtioNetFeature } from '../../../src/virtio/net-features.js';

const ALL: readonly VirtioNetFeature[] = [
  'GUEST_CSUM',
  'GUEST_TSO4',
  'CTRL_GUEST_OFFLOADS',
  'CTRL_VQ',
  'CTRL_RX',
  'CTRL_RX_EXTRA',
  'CTRL_VLAN',
  'CTRL_MAC_ADDR',
  'GUEST_ANNOUNCE',
  'MQ',
  'RSS',
  'HASH_REPORT',
  'NOTF_COAL',
  'VQ_NOTF_COAL',
  'HASH_TUNNEL',
  'DEVICE_STATS',
  'RSS_CONTEXT',
];

const device: ControlDevice = {
  features: featureMask(ALL),
  config: { ...DEFAULT_NET_CONFIG, maxVirtqueuePairs: 4 },
};
const reset = resetControlState(device);

const run = (hex: string, state = reset) => executeControl(state, hexToBytes(hex), device);
/** States after commands that are all taken. */
function after(...commands: readonly string[]): ControlState {
  return commands.reduce((state, hex) => {
    const result = run(hex, state);
    expect([hex, result.why]).toEqual([hex, undefined]);
    return result.state;
  }, reset);
}

/** An RSS context: id, reserved, all TCPv4 to queue 1, a table of `last` + 1 entries, a key. */
function context(id: number, last = 0): string {
  const head = `${id.toString(16).padStart(2, '0')}00` + '00'.repeat(6);
  return `${head}02000000${last.toString(16).padStart(2, '0')}000000${'0100'.repeat(last + 1)}010028${'6d'.repeat(40)}`;
}

test('after a reset', () => {
  expect(reset.rx).toEqual({
    promisc: true,
    allmulti: false,
    alluni: false,
    nomulti: false,
    nouni: false,
    nobcast: false,
  });
  expect(reset.offloads).toBe(0x82n);
  expect(reset.rss.queuePairs).toBe(1);
  expect(reset.vlans).toEqual(new Set());
  expect(resetControlState({ ...device, features: 0n }).vlans).toBe('all');
});

describe('refused, and nothing changes', () => {
  const mac = 'aabbccddeeff';
  test.each([
    ['an unknown class', '6300'],
    ['an unknown command', '0009'],
    ['promisc without data', '0000'],
    ['a MAC address of 5 bytes', `0101${mac.slice(2)}`],
    ['a MAC address of 7 bytes', `0101${mac}00`],
    ['an address table without its second count', '010000000000'],
    ['unicast addresses that are not there', `010002000000${mac}`],
    ['a multicast table that is too long', `01000000000001000000${mac}00`],
    ['VLAN 4096', '02000010'],
    ['an announcement nobody asked for', '0300'],
    ['0 queue pairs', '04000000'],
    ['more queue pairs than there are', '04000500'],
    ['an offload that was not negotiated', '05000001000000000000'],
    ['an offload mask of 4 bytes', '050002000000'],
    ['coalescing cut short', '060001000000'],
    ['coalescing of the control queue', '0602080000000100000002000000'],
    ['statistics of a queue there is not', '080109000000000000000100000000000000'],
    ['an RSS context cut short', '09010100'],
    ['RSS context 0', `0901${context(0)}`],
    ['RSS context 17', `0901${context(17)}`],
    ['an RSS context whose table is no power of two', `0901${context(1, 2)}`],
    ['a change of an RSS context there is not', `0902${context(1)}`],
    ['the end of an RSS context there is not', '09030100'],
  ])('%s', (_what, hex) => {
    const { ack, why, state } = run(hex);
    expect(ack).toBe(1);
    expect(why).toBeDefined();
    expect(state).toEqual(reset);
  });

  test.each(CONTROL_COMMANDS.map((row) => [row.name, row] as const))(
    '%s without its feature',
    (_name, row) => {
      const request = new Uint8Array(64);
      request[0] = row.class;
      request[1] = row.command;
      const bare = { ...device, features: featureMask(['CTRL_VQ', 'VERSION_1']) };
      const { ack, why } = executeControl(reset, request, bare);
      expect([ack, why]).toEqual([1, expect.stringContaining('without')]);
    },
  );
});

test('commands change what they name', () => {
  const state = after(
    '000000', // promisc off
    '000101', // allmulti on
    '0101aabbccddeeff',
    '02000500',
    '02000700',
    '02010500',
    '04000300',
    '05000200000000000000',
    '06001000000020000000',
    '0602020000000300000004000000',
  );
  expect(state.rx).toMatchObject({ promisc: false, allmulti: true });
  expect(state.mac).toEqual(hexToBytes('aabbccddeeff'));
  expect(state.vlans).toEqual(new Set([7]));
  expect(state.rss.queuePairs).toBe(3);
  expect(state.offloads).toBe(2n);
  expect(state.coalescing.get(1)).toEqual({ maxPackets: 16, maxUsecs: 32 });
  expect(state.coalescing.get(2)).toEqual({ maxPackets: 3, maxUsecs: 4 });
  expect(run('060302000000', state).reply).toEqual(hexToBytes('0300000004000000'));
});

test('RSS contexts are added, changed and removed, and keep the number of queue pairs', () => {
  expect(run('0900').reply).toEqual(Uint8Array.of(16, 0));
  const two = after(`0901${context(1)}`, `0901${context(16)}`, `0902${context(1, 3)}`);
  expect([...two.rssContexts].map(([id, { table }]) => [id, table.length])).toEqual([
    [1, 4],
    [16, 1],
  ]);
  expect(run(`0901${context(1)}`, two).why).toBe('RSS_CTX_ADD: context 1 exists');
  expect(run('04000200', two).why).toBe('MQ_VQ_PAIRS_SET: 2 RSS contexts exist');
  const none = after(`0901${context(1)}`, '09030100');
  expect(run('04000200', none).ack).toBe(0);
});

test('an address table that is too long stands for all addresses', () => {
  const many = (count: number): string => {
    const head = new Uint8Array(4);
    new DataView(head.buffer).setUint32(0, count, true);
    return Buffer.from(head).toString('hex') + '020000000001'.repeat(count);
  };
  const table = (unicast: number, multicast: number) =>
    after(`0100${many(unicast)}${many(multicast)}`).macTable;
  expect(table(64, 0)).toMatchObject({ uniOverflow: false, multiOverflow: false });
  expect(table(65, 64)).toMatchObject({ uniOverflow: true, multiOverflow: false });
  expect(table(60, 5)).toMatchObject({ uniOverflow: false, multiOverflow: true });
});

test('the receive filter', () => {
  const frame = (to: string, rest = '08004500'): Uint8Array =>
    hexToBytes(`${to}525400000001${rest}`.padEnd(120, '0'));
  const own = frame('525400000002');
  const other = frame('525400000009');
  const multicast = frame('01005e000001');
  const broadcast = frame('ffffffffffff');
  const vlan5 = frame('525400000002', '81000005');
  const one = '01000100000052540000000901000000';
  const sees = (...commands: readonly string[]): string => {
    const state = after(...commands);
    const frames = [own, other, multicast, broadcast, vlan5];
    return frames.map((each) => (acceptsFrame(state, each) ? '1' : '0')).join('');
  };
  expect(sees()).toBe('11111');
  expect(sees('000000')).toBe('10010');
  expect(sees('000000', '02000500')).toBe('10011');
  expect(sees('000000', '000101')).toBe('10110');
  expect(sees('000000', '000201')).toBe('11010');
  expect(sees('000000', '000401')).toBe('00010');
  expect(sees('000000', '000501')).toBe('10000');
  expect(sees('000000', `${one}01005e000001`)).toBe('11110');
  expect(sees('000000', `${one}01005e000001`, '000301')).toBe('11010');
});

test('any bytes are answered, and a refusal leaves the state', () => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 2, maxLength: 80 }), (bytes) => {
      bytes[0] = (bytes[0] ?? 0) % 11;
      const { ack, state } = executeControl(reset, bytes, device);
      if (ack !== 0) expect(state).toEqual(reset);
      expect(describeCommand(bytes)).not.toBe('');
    }),
    { numRuns: 500 },
  );
});

test.each([
  ['0000', 'RX_PROMISC ?'],
  ['05008200000000000000', 'GUEST_OFFLOADS_SET mask=0x82'],
  ['04000200', 'MQ_VQ_PAIRS_SET 2'],
  ['0101525400000002', 'MAC_ADDR_SET 52:54:00:00:00:02'],
  ['0602020000000300000004000000', 'NOTF_COAL_VQ_SET vq=2 max_packets=3 max_usecs=4'],
  ['09030700', 'RSS_CTX_DEL context 7'],
  ['6301aa', 'class=99 cmd=1 1 bytes'],
])('%s reads %s', (hex, text) => {
  expect(describeCommand(hexToBytes(hex))).toBe(text);
});
