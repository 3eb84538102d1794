/** bpf_xdp_metadata_rx_hash on virtio-net: what the device reported, on every engine; who may ask. */
import { describe, expect, it } from 'vitest';
import { load } from '../../src/bpf/object/load.js';
import { parseObject } from '../../src/bpf/object/parse.js';
import { hexToBytes, viewOf } from '../../src/common/bytes.js';
import { createXdpEngine } from '../../src/lab/xdp-engine.js';
import { installVirtioNet } from '../../src/lab/xdp-traffic.js';
import { MICROSOFT_KEY } from '../../src/net/rss/toeplitz.js';
import { bootLab } from '../../src/node/boot.js';
import { PACKAGE_ROOT, readInput } from '../../src/node/files.js';
import type { VirtioNetOptions } from '../../src/virtio/virtio-net.js';
import { unicorn } from '../helpers/cpus.js';

type Engine = 'interpreter' | 'wasm' | 'embedded' | 'unicorn';

const ENGINES: readonly Engine[] = [
  'interpreter',
  'wasm',
  'embedded',
  ...(unicorn ? (['unicorn'] as const) : []),
];

const spec = parseObject(readInput(`${PACKAGE_ROOT}/examples/xdp/rx_hash.o`));
const NO_HASH = 255;
const ETHERNET = '525400000002020000000001';
const PORTS = '271000500000000100000000';
const V4 = '0a0000010a000002';
const V6 = 'fd000000000000000000000000000001fd000000000000000000000000000002';
const FRAMES = {
  tcp4: `${ETHERNET}08004500002800014000400626cd${V4}${PORTS}5002ffff747f0000`,
  udp4: `${ETHERNET}08004500002800014000401126c2${V4}${PORTS}5002ffff747f0000`,
  icmp: `${ETHERNET}08004500002800014000400126d2${V4}${PORTS}5002ffff747f0000`,
  tcp6: `${ETHERNET}86dd6000000000140640${V6}${PORTS}5002ffff747f0000`,
  ip6: `${ETHERNET}86dd6000000000143b40${V6}${PORTS}5002ffff747f0000`,
  arp: `${ETHERNET}0806${'00'.repeat(46)}`,
} as const;

interface Hashed {
  readonly type: number;
  readonly hash: number;
  readonly error: number;
}

/** What the program counted for each frame. */
async function ask(
  engine: Engine,
  options: VirtioNetOptions = {},
  { program = 'rx_hash', rxHashing = true } = {},
): Promise<Readonly<Record<string, Hashed>>> {
  const kernel = await bootLab({ engine: engine === 'unicorn' ? 'unicorn' : 'embedded' });
  try {
    const driver = installVirtioNet(kernel);
    const net = driver.probe({
      version: '6.18',
      rssKey: MICROSOFT_KEY.slice(),
      features: ['CTRL_VQ', 'RSS', 'HASH_REPORT'],
      queueSize: 16,
      ...options,
    });
    if (rxHashing) expect(net.setFeature('rx-hashing', true)).toBe(0);
    const object = load(spec, kernel.bpf.host, { deviceBound: 2 });
    const { xlated, boundTo } = object.program(program);
    const run = engine === 'interpreter' || engine === 'wasm' ? engine : 'jit';
    const running = createXdpEngine(kernel, run, xlated, { boundTo });
    net.attachXdp(running.runner);
    const seen: Record<string, Hashed> = {};
    const counted = new Map<number, bigint>();
    for (const [name, frame] of Object.entries(FRAMES)) {
      net.receive(hexToBytes(frame));
      net.poll();
      for (const { key, values } of object.maps.get('by_type')?.entries() ?? []) {
        const type = viewOf(key).getUint32(0, true);
        const view = viewOf(values[0] ?? key);
        const packets = view.getBigUint64(0, true);
        if (packets === (counted.get(type) ?? 0n)) continue;
        counted.set(type, packets);
        seen[name] = { type, hash: view.getUint32(8, true), error: view.getInt32(12, true) };
      }
    }
    // nothing of the header is left for the skb
    expect(net.delivered().every(({ skbHash }) => skbHash === 0)).toBe(true);
    net.close();
    running.close();
    return seen;
  } finally {
    kernel.close();
  }
}

/** T(key, addresses and ports), from the specification's table. */
const REPORTED: Readonly<Record<keyof typeof FRAMES, Hashed>> = {
  tcp4: { type: 25, hash: 0x68279a62, error: 0 },
  udp4: { type: 41, hash: 0x68279a62, error: 0 },
  icmp: { type: 1, hash: 0x02b7c9b1, error: 0 },
  tcp6: { type: 26, hash: 0xe22a556f, error: 0 },
  ip6: { type: 2, hash: 0x0db1d83f, error: 0 },
  arp: { type: 0, hash: 0, error: 0 },
};
const all = (hashed: Hashed): Readonly<Record<string, Hashed>> =>
  Object.fromEntries(Object.keys(FRAMES).map((name) => [name, hashed]));

describe.each(ENGINES)('on %s', (engine) => {
  it('gives what the header reports', async () => {
    expect(await ask(engine)).toEqual(REPORTED);
  });

  it('reads the wrong place behind bpf_xdp_adjust_head', async () => {
    // the packet is 14 bytes on, its header 20 below that: hash_value is at byte 6 of the frame
    const garbage = all({ type: 0, hash: 0x00000002, error: 0 });
    expect(await ask(engine, {}, { program: 'rx_hash_late' })).toEqual(garbage);
  });
});

describe('a device that does not tell', () => {
  const engine = 'interpreter';

  it.each<[string, VirtioNetOptions, boolean, number]>([
    ['rx-hashing off', {}, false, -61],
    ['no HASH_REPORT', { features: ['CTRL_VQ', 'RSS'] }, false, -61],
    ['neither RSS nor HASH_REPORT', { features: ['CTRL_VQ'] }, false, -95],
    ['a driver without metadata', { version: '6.1' }, true, -95],
  ])('%s', async (_, options, rxHashing, error) => {
    const refused = all({ type: NO_HASH, hash: 0, error });
    expect(await ask(engine, options, { rxHashing })).toEqual(refused);
  });

  it('RSS without HASH_REPORT: the packet itself is read', async () => {
    const { tcp4 } = await ask(engine, { features: ['CTRL_VQ', 'RSS'] });
    expect(tcp4).toEqual({ type: 0, hash: 0x00005452, error: 0 });
  });

  it('the small mode is as the mergeable one', async () => {
    expect(await ask(engine, { rx: 'small' })).toEqual(REPORTED);
  });

  it('its own table set: the attach ends hashing', async () => {
    const kernel = await bootLab();
    const net = installVirtioNet(kernel).probe({
      features: ['CTRL_VQ', 'MQ', 'RSS', 'HASH_REPORT'],
      queueSize: 16,
    });
    net.setRss({ table: Array.from({ length: 128 }, () => 0) });
    expect(net.device.control.rss.mode).toBe('rss');
    net.attachXdp({ run: () => 2 });
    expect(net.device.control.rss.mode).toBe('automatic');
    kernel.close();
  });
});

describe('binding', () => {
  it('to a device that is not there, to another, in generic mode', async () => {
    const kernel = await bootLab();
    const driver = installVirtioNet(kernel);
    const bind = (deviceBound: boolean | number) =>
      load(spec, kernel.bpf.host, { deviceBound }).program('rx_hash');
    expect(() => bind(2)).toThrow("-EINVAL: program 'rx_hash' cannot be bound: no device 2");
    const net = driver.probe();
    const other = driver.probe({ ifindex: 3, name: 'eth1' });
    expect(() => bind(false)).toThrow('-EINVAL: metadata kfuncs require device-bound program');
    const runner = { boundTo: bind(2).boundTo ?? 0, run: () => 2 };
    expect(() => other.attachXdp(runner)).toThrow('-EINVAL: Program bound to different device');
    expect(() => net.attachGenericXdp(runner)).toThrow(
      "-EINVAL: Can't attach device-bound programs in generic mode",
    );
    net.attachXdp(runner);
    expect(bind(true).boundTo).toBe('any');
    kernel.close();
  });
});
