/** Redirects of generic XDP from the program on: devmaps with programs, broadcasts, AF_XDP; and AF_XDP out of virtio-net. */
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import type { BpfMap } from '../../src/bpf/maps/map.js';
import { XDP_BUFF } from '../../src/bpf/xdp-buff.js';
import { NET_DEVICE } from '../../src/stack/net-device.js';
import { SKB_SHARED_INFO } from '../../src/stack/skb.js';
import { xdpBuffHasFrags, xdpBuffShinfo } from '../../src/stack/xdp-frame.js';
import { VethDevice } from '../../src/stack/veth.js';
import { XdpSocket } from '../../src/stack/xsk-socket.js';
import type { VirtioNet } from '../../src/virtio/virtio-net.js';
import { makeFrame, VERDICT } from '../virtio/helpers/programs.js';
import { HELPER, Rig } from './support.js';

const NR_FRAGS = SKB_SHARED_INFO.offset.nr_frags;

let rig: Rig;
let net: VirtioNet;
let veths: readonly VethDevice[];
let before: number;

beforeAll(async () => {
  rig = await Rig.boot({ network: true });
  net = rig.driver.probe({ network: rig.network, queueSize: 16 });
  veths = [3, 4].map(
    (ifindex) => new VethDevice(rig.stack, { name: `eth${ifindex - 2}`, ifindex }),
  );
});
beforeEach(() => {
  before = rig.livePages;
});
afterAll(() => {
  for (const veth of veths) veth.close();
  net.close();
  expect(rig.livePages).toBe(0);
  rig.close();
});

/** Frames redirected to a map's entry 0: what each veth got. */
function redirect(map: BpfMap, flags: number, frames = [makeFrame(90)]): Uint8Array[][] {
  net.attachGenericXdp(rig.toMap(map, 0, flags));
  for (const frame of frames) net.receive(frame);
  net.poll();
  const got = veths.map((veth) => [...veth.received()]);
  map.free();
  expect(rig.livePages).toBeLessThanOrEqual(before + 1);
  return got;
}

describe('an skb to a devmap', () => {
  test.each([
    ['to all but the ingress', 8 | 16, [1, 1], 0],
    ['to all', 8, [1, 1], 1],
  ] as const)('broadcast %s', (_name, flags, counts, back) => {
    const got = redirect(rig.map('DEVMAP', { 0: 2, 1: 3, 2: 4 }), flags);
    expect(got.map(({ length }) => length)).toEqual(counts);
    for (const frame of got.flat()) expect(frame).toEqual(makeFrame(90));
    expect(net.transmitted().map(({ frame }) => frame)).toEqual(
      Array.from({ length: back }, () => makeFrame(90)),
    );
  });

  test('broadcast to nobody frees it', () => {
    expect(redirect(rig.map('DEVMAP', {}), 8)).toEqual([[], []]);
  });

  test('the program of an entry sees both devices, rewrites, drops', () => {
    const seen: number[] = [];
    const prog = rig.stack.programs.add({
      attach: 'devmap',
      run: (kernel, xdp) => {
        const { ram } = kernel.memory;
        const ifindex = (info: number): number => ram.u32(ram.pointer(info) + 224);
        seen.push(ifindex(ram.pointer(xdp + 32)), ifindex(ram.pointer(xdp + 40)));
        ram.set8(ram.pointer(xdp) + 20, 0xee);
        return seen.length > 2 ? VERDICT.TX : VERDICT.PASS;
      },
    });
    const map = rig.map('DEVMAP', { 0: [3, rig.stack.programs.idOf(prog)] });
    const events = rig.events(() => {
      const [first] = redirect(map, 0, [makeFrame(90), makeFrame(70)]);
      const expected = makeFrame(90);
      expected[20] = 0xee;
      expect(first).toEqual([expected]);
    });
    expect(seen).toEqual([2, 3, 2, 3]);
    expect(events.filter(({ name }) => name === 'xdp_exception')).toEqual([
      { name: 'xdp_exception', ifindex: 3, action: VERDICT.TX },
    ]);
    rig.stack.programs.remove(prog);
  });
});

test('an skb to a cpumap comes up on its CPU, behind the Ethernet header', () => {
  const map = rig.map('CPUMAP', { 0: 8 });
  const { UdpNoPorts: noPorts } = rig.network.counters();
  rig.network.addAddress('10.0.0.2');
  const frame = makeFrame(60);
  // a UDP datagram without a checksum, to a port where nobody is
  frame.set([0x45, 0, 0, 46, 0, 0, 0, 0, 64, 17, 0x66, 0xbd, 10, 0, 0, 1, 10, 0, 0, 2], 14);
  frame.set([1, 1, 2, 2, 0, 26, 0, 0], 34);
  redirect(map, 0, [frame]);
  expect(rig.network.counters()).toMatchObject({ UdpNoPorts: noPorts + 1, IpInHdrErrors: 0 });
});

describe('AF_XDP', () => {
  test('an skb to a socket', () => {
    const socket = new XdpSocket(rig.stack);
    socket.bind(rig.kernel.memory.ram.virtToPhys(net.dev), 0);
    socket.fill();
    const frames = [makeFrame(90), makeFrame(300, 2)];
    const map = rig.map('XSKMAP', { 0: socket.descriptor });
    redirect(map, 0, frames);
    expect(socket.receive()).toEqual(frames);
    net.attachGenericXdp(undefined);
    socket.close();
  });

  test('sends through start_xmit of the queue it is bound to, with an empty header', () => {
    const other = rig.driver.probe({ ifindex: 5, cpus: 2, queuePairs: 2, queueSize: 16 });
    const socket = new XdpSocket(rig.stack);
    socket.bind(rig.kernel.memory.ram.virtToPhys(other.dev), 1, { queues: 2 });
    const frames = [makeFrame(60), makeFrame(1000, 3)];
    for (const frame of frames) expect(socket.send(frame)).toBe(true);
    expect(socket.sendto()).toBeUndefined();
    rig.stack.settle();
    const header = new Uint8Array(12);
    expect(other.transmitted()).toEqual(frames.map((frame) => ({ queue: 1, header, frame })));
    expect(socket.complete()).toBe(2);
    socket.close();
    other.close();
  });
});

test.each([
  ['6.12', 'its target', 0],
  ['6.1', 'nobody', 1],
] as const)('a frame of several buffers in a core of %s: to %s', (core, to, drops) => {
  const native = rig.probe({ ifindex: 5 });
  const wide = new VethDevice(rig.stack, { name: 'eth9', ifindex: 9, mtu: 9000 });
  const { ram } = rig.kernel.memory;
  // the driver of 6.1 has no such frames
  ram.set8(ram.virtToPhys(native.dev) + NET_DEVICE.offset.xdp_as_6_1, core === '6.1' ? 1 : 0);
  native.attachXdp({ ...rig.toDevice(9), hasFrags: true });
  const { rx_xdp_drops: dropped = 0 } = native.counters();
  native.receive(makeFrame(5000));
  native.poll();
  expect(wide.received()).toEqual(to === 'its target' ? [makeFrame(5000)] : []);
  expect(native.counters()['rx_xdp_drops']).toBe(dropped + drops);
  wide.close();
  native.close();
});

describe('a generic program and a packet of 9000 bytes', () => {
  const LENGTH = 9000;

  /** What a program sees of it, and what becomes of it. */
  function pass(version: '6.1' | '6.12', hasFrags: boolean, shrink = 0): readonly unknown[] {
    const { ram } = rig.kernel.memory;
    const device = rig.probe({ ifindex: 5, version });
    device.attachXdp(undefined);
    let seen: readonly number[] = [];
    device.attachGenericXdp({
      hasFrags,
      run: (_kernel, xdp) => {
        const data = ram.pointer(xdp + XDP_BUFF.data);
        const headroom = data - ram.pointer(xdp + XDP_BUFF.dataHardStart);
        const linear = ram.pointer(xdp + XDP_BUFF.dataEnd) - data;
        const frags = xdpBuffHasFrags(ram, xdp) ? ram.u8(xdpBuffShinfo(ram, xdp) + NR_FRAGS) : 0;
        seen = [linear, frags, headroom >= 256 ? 256 : headroom];
        if (shrink > 0) {
          expect(rig.help(HELPER.ADJUST_TAIL, ram.physToVirt(xdp), -shrink)).toBe(0);
        }
        return VERDICT.PASS;
      },
    });
    device.receive(makeFrame(LENGTH));
    device.poll();
    const [skb] = device.delivered();
    expect(skb?.frame).toEqual(makeFrame(LENGTH).subarray(0, LENGTH - shrink));
    device.close();
    expect(rig.livePages).toBe(before);
    return [...seen, skb?.nrFrags, skb?.dataLen];
  }

  test.each([
    // 3520 bytes beside headroom and skb_shared_info in the first page
    ['6.12', true, 0, [3520, 2, 256, 2, 5480]],
    ['6.12', true, 3000, [3520, 2, 256, 1, 2480]],
    ['6.12', true, 6000, [3520, 2, 256, 0, 0]],
    ['6.12', false, 0, [9000, 0, 256, 0, 0]],
    ['6.12', false, 3000, [9000, 0, 256, 0, 0]],
    ['6.1', true, 0, [9000, 0, 256, 0, 0]],
  ] as const)(
    '%s, frags support %s, %i bytes shorter: %o',
    (version, hasFrags, shrink, outcome) => {
      expect(pass(version, hasFrags, shrink)).toEqual(outcome);
    },
  );
});
