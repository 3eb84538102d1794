import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { hexToBytes } from '../../../src/common/bytes.js';
import { BPF_REDIRECT_INFO, NO_MAP } from '../../../src/bpf/redirect-info.js';
import { createMap } from '../../../src/bpf/maps/create.js';
import { PerfEventArray } from '../../../src/bpf/maps/perf-event-array.js';
import { RingBuffer } from '../../../src/bpf/maps/ringbuf.js';
import { LINEAR_SIZE, XdpTestFrame } from '../../../src/bpf/xdp-test-run.js';
import { specOf, u32, u64 } from '../maps/support.js';
import { HelperBench } from './support.js';

const [ADJUST_TAIL, BUFF_LEN, LOAD, STORE] = [65, 188, 189, 190];

const packetOf = (size: number): Uint8Array => Uint8Array.from({ length: size }, (_, i) => i * 7);

describe('packets of several buffers', () => {
  it('load and store across fragments', () => {
    const size = fc.integer({ min: 14, max: 12000 });
    const bench = new HelperBench();
    const frame = new XdpTestFrame(bench.host);
    const buffer = bench.put(new Uint8Array(12000));
    fc.assert(
      fc.property(size, fc.nat(12000), fc.nat(12000), (length, offset, count) => {
        const packet = packetOf(length);
        frame.place(packet);
        const { address } = frame.xdp;
        expect(bench.call(BUFF_LEN, address)).toBe(BigInt(length));
        const fits = offset + count <= length;
        expect(bench.call(LOAD, address, offset, buffer, count)).toBe(fits ? 0n : -22n);
        if (!fits) return;
        const loaded = bench.host.memory.readBytes(buffer, 12000).subarray(0, count);
        expect(loaded).toEqual(packet.subarray(offset, offset + count));
        bench.host.memory.writeBytes(buffer, new Uint8Array(count).fill(0xee));
        expect(bench.call(STORE, address, offset, buffer, count)).toBe(0n);
        expect(frame.xdp.packet()).toEqual(packet.fill(0xee, offset, offset + count));
      }),
      { numRuns: 60 },
    );
    expect(bench.call(LOAD, frame.xdp.address, 0x10000, buffer, 1)).toBe(-14n);
  });

  it('shrink from the end, and grow in the last page', () => {
    const bench = new HelperBench();
    const frame = new XdpTestFrame(bench.host);
    const { address } = frame.xdp;
    const packet = packetOf(LINEAR_SIZE + 4096 + 100);
    frame.place(packet);
    expect(bench.call(ADJUST_TAIL, address, 3997)).toBe(-22n);
    expect(bench.call(ADJUST_TAIL, address, 3996)).toBe(0n);
    expect(frame.xdp.length).toBe(LINEAR_SIZE + 8192);
    expect(frame.xdp.packet().subarray(-3996)).toEqual(new Uint8Array(3996));
    expect(bench.call(ADJUST_TAIL, address, -4096)).toBe(0n);
    expect(frame.xdp.fragments).toHaveLength(1);
    expect(frame.xdp.packet()).toEqual(packet.subarray(0, LINEAR_SIZE + 4096));
    expect(bench.call(ADJUST_TAIL, address, -4100)).toBe(0n);
    expect(frame.xdp.fragments).toHaveLength(0);
    expect(frame.xdp.packet()).toEqual(packet.subarray(0, LINEAR_SIZE - 4));
    frame.place(packet);
    expect(bench.call(ADJUST_TAIL, address, -packet.length + 13)).toBe(-22n);
  });
});

describe('redirects', () => {
  const [REDIRECT, REDIRECT_MAP] = [23, 51];

  it('go where they are told, or say what a miss says', () => {
    const bench = new HelperBench();
    const map = createMap(specOf({ type: 'DEVMAP' }), bench.host);
    const cpus = createMap(specOf({ type: 'CPUMAP' }), bench.host);
    expect(map.set(u32(2), u64(1))).toBe(0);
    const { ram } = bench.host.memory;
    const at = (name: keyof typeof BPF_REDIRECT_INFO.offset): number =>
      bench.host.redirectInfo() + BPF_REDIRECT_INFO.offset[name];
    /** What the helper returns, and what it leaves in bpf_redirect_info. */
    const asked = (helper: number, ...args: (number | bigint)[]): unknown[] => [
      bench.call(helper, ...args),
      ram.u32(at('map_type')),
      ram.u32(at('map_id')),
      ram.u53(at('tgt_index')),
      ram.u64(at('tgt_value')) !== 0n,
      ram.u32(at('flags')),
      ram.u64(at('map')),
    ];
    expect(asked(REDIRECT, 3, 0)).toEqual([4n, 0, NO_MAP, 3, false, 0, 0n]);
    expect(bench.call(REDIRECT, 3, 1)).toBe(0n);
    expect(asked(REDIRECT_MAP, map.address, 2, 0)).toEqual([4n, 14, map.id, 2, true, 0, 0n]);
    // a miss forgets what came before
    expect(asked(REDIRECT_MAP, map.address, 1, 2)).toEqual([2n, 0, NO_MAP, 2, false, 0, 0n]);
    expect(bench.call(REDIRECT_MAP, map.address, 0x1_0000_0002n, 1)).toBe(1n);
    const everywhere = [4n, 14, map.id, 1, false, 8 | 16, map.address];
    expect(asked(REDIRECT_MAP, map.address, 1, 8 | 16)).toEqual(everywhere);
    expect(bench.call(REDIRECT_MAP, map.address, 2, 4)).toBe(0n);
    expect(bench.call(REDIRECT_MAP, cpus.address, 2, 8 | 3)).toBe(0n);
  });
});

describe('bpf_check_mtu', () => {
  const CHECK_MTU = 163;

  it.each([
    // ifindex, length given, difference, flags, result, MTU written
    [2, 0, 0, 0, 0, 100],
    [2, 0, 50, 0, 0, 100],
    [2, 0, 51, 0, 1, 100],
    [2, 100, 0, 0, 0, 100],
    [2, 101, 0, 0, 1, 100],
    [0, 0, 0, 0, 0, 65536],
    [9, 7, 0, 0, -19, 7],
    [2, 7, 0, 1, -22, 7],
  ])(
    'ifindex %i, length %i, difference %i, flags %i',
    (ifindex, length, diff, flags, result, mtu) => {
      const bench = new HelperBench();
      bench.host.network.addDevice({ ifindex: 2, name: 'a', mtu: 100, mac: new Uint8Array(6) });
      const frame = new XdpTestFrame(bench.host);
      frame.place(packetOf(64));
      const at = bench.put(u32(length));
      expect(bench.call(CHECK_MTU, frame.xdp.address, ifindex, at, diff, flags)).toBe(
        BigInt(result),
      );
      expect(bench.host.memory.read32(at)).toBe(mtu);
    },
  );
});

describe('bpf_fib_lookup', () => {
  const FIB_LOOKUP = 69;

  it.each([
    [1, '0a000001', 0, 0, 5],
    [2, '0a000001', 0, 0, 0],
    [2, '0a000002', 0, 0, 7],
    [2, '0a000002', 0, 4, 0],
    [2, '0a010001', 0, 0, 1],
    [2, '0b000001', 0, 0, 4],
    [2, '0a000001', 1501, 0, 8],
    [2, '0a000001', 0, 16, 9],
    [9, '0a000001', 0, 0, -19],
    [2, '0a000001', 0, 64, -22],
  ])('from device %i to %s, length %i, flags %i: %i', (ifindex, to, length, flags, result) => {
    const bench = new HelperBench();
    const { network, memory } = bench.host;
    const [mac, peer] = [hexToBytes('020000000002'), hexToBytes('020000000099')];
    network.addDevice({ ifindex: 2, name: 'a', mtu: 1500, mac, forwarding: true });
    network.addRoute({ prefix: hexToBytes('0a000000'), length: 8, ifindex: 2 });
    network.addRoute({ prefix: hexToBytes('0a010000'), length: 16, ifindex: 2, kind: 'blackhole' });
    network.addNeighbour({ ifindex: 2, address: hexToBytes('0a000001'), mac: peer });
    const params = new Uint8Array(64);
    params[0] = 2;
    new DataView(params.buffer).setUint16(6, length, true);
    new DataView(params.buffer).setUint32(8, ifindex, true);
    params.set(hexToBytes(to), 32);
    const at = bench.put(params);
    expect(bench.call(FIB_LOOKUP, 0, at, 64, flags)).toBe(BigInt(result));
    if (result === 0 && flags === 0) {
      expect(memory.readBytes(at + 52n, 12)).toEqual(new Uint8Array([...mac, ...peer]));
    }
  });

  it('refuses small structs and unknown families', () => {
    const bench = new HelperBench();
    const at = bench.put(new Uint8Array(64));
    expect(bench.call(FIB_LOOKUP, 0, at, 63, 0)).toBe(-22n);
    expect(bench.call(FIB_LOOKUP, 0, at, 64, 0)).toBe(-97n);
  });
});

describe('output to user space', () => {
  it('perf events carry data and the start of the packet', () => {
    const bench = new HelperBench({}, 2);
    const { host } = bench;
    const map = createMap(specOf({ type: 'PERF_EVENT_ARRAY', valueSize: 4, maxEntries: 2 }), host);
    if (!(map instanceof PerfEventArray)) throw new Error('no perf event array');
    const frame = new XdpTestFrame(host);
    frame.place(packetOf(4000));
    const data = bench.put(new Uint8Array([9, 8]));
    const output = (flags: bigint): bigint =>
      bench.call(25, frame.xdp.address, map.address, flags, data, 2);
    const current = 0xffff_ffffn;
    expect(output(current)).toBe(-2n);
    map.openAll();
    expect(output(current | (3n << 32n))).toBe(0n);
    expect(output(0n)).toBe(0n);
    expect(output(1n)).toBe(-95n);
    expect(output(2n)).toBe(-7n);
    expect(output(current | (4001n << 32n))).toBe(-14n);
    expect(output(1n << 52n)).toBe(-22n);
    expect(map.drain().map((sample) => [...sample.data])).toEqual([
      [9, 8, 0, 7, 14],
      [9, 8],
    ]);
  });

  it('ring buffer records by reserve, submit, discard and output', () => {
    const bench = new HelperBench();
    const spec = specOf({ type: 'RINGBUF', keySize: 0, valueSize: 0, maxEntries: 4096 });
    const map = createMap(spec, bench.host);
    if (!(map instanceof RingBuffer)) throw new Error('no ring buffer');
    const [first, second] = [0, 1].map(() =>
      BigInt.asUintN(64, bench.call(131, map.address, 8, 0)),
    );
    bench.host.memory.write64(first ?? 0n, 5n);
    expect(bench.call(131, map.address, 8, 1)).toBe(0n);
    bench.call(132, first ?? 0n, 0);
    bench.call(133, second ?? 0n, 0);
    expect(bench.call(130, map.address, bench.put(new Uint8Array([1])), 1, 0)).toBe(0n);
    expect(bench.call(130, map.address, 0, 0, 4)).toBe(-22n);
    expect(bench.call(130, map.address, bench.put(new Uint8Array(4090)), 4090, 0)).toBe(-11n);
    expect(bench.call(134, map.address, 0)).toBe(48n);
    expect(map.drain()).toEqual([u64(5), new Uint8Array([1])]);
  });
});

describe('bpf_snprintf', () => {
  const SNPRINTF = 165;

  it.each([
    ['%d|%u|%x', [-1n, 7n, 255n], 64, 8n, '-1|7|ff'],
    ['%s!', [], 64, -22n, ''],
    ['%lld', [-5n], 2, 3n, '-'],
    ['plain', [], 0, 6n, ''],
  ] as const)('%s', (format, values, size, result, text) => {
    const bench = new HelperBench();
    const out = bench.put(new Uint8Array(64));
    const args = new Uint8Array(values.flatMap((value) => [...u64(BigInt.asUintN(64, value))]));
    const data = args.length > 0 ? bench.put(args) : 0n;
    expect(bench.call(SNPRINTF, out, size, bench.put(format), data, args.length)).toBe(result);
    const bytes = bench.host.memory.readBytes(out, 64);
    expect(new TextDecoder().decode(bytes.subarray(0, bytes.indexOf(0)))).toBe(text);
  });

  it('refuses odd argument sizes', () => {
    const bench = new HelperBench();
    expect(bench.call(SNPRINTF, 0, 0, bench.put('x'), bench.put(new Uint8Array(8)), 7)).toBe(-22n);
    expect(bench.call(SNPRINTF, 0, 0, bench.put('x'), 0, 8)).toBe(-22n);
  });
});

describe('metadata kfuncs', () => {
  it('give what the device knows', () => {
    const bench = new HelperBench();
    const at = bench.put(new Uint8Array(16));
    const kfunc = (name: string): bigint =>
      bench.kfunc(`bpf_xdp_metadata_rx_${name}`, 0, at, at + 8n);
    expect(['timestamp', 'hash', 'vlan_tag'].map(kfunc)).toEqual([-95n, -95n, -95n]);
    const { network, memory } = bench.host;
    network.rxMetadata = { timestamp: 7n, hash: { value: 5, type: 2 }, vlan: null };
    expect(['timestamp', 'hash', 'vlan_tag'].map(kfunc)).toEqual([0n, 0n, -61n]);
    expect([memory.read32(at), memory.read32(at + 8n)]).toEqual([5, 2]);
    network.rxMetadata = { vlan: { protocol: 0x8100, tci: 42 } };
    expect(kfunc('vlan_tag')).toBe(0n);
    expect([...memory.readBytes(at, 2), memory.read16(at + 8n)]).toEqual([0x81, 0, 42]);
  });
});
