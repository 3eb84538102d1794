/** Redirects to CPUs and to AF_XDP sockets, and redirects of skbs. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { BpfMap } from '../../src/bpf/maps/map.js';
import { NET_DEVICE } from '../../src/stack/net-device.js';
import { SK_BUFF, allocSkb, skbPush, skbPut } from '../../src/stack/skb.js';
import { VethDevice } from '../../src/stack/veth.js';
import type { XdpRunner } from '../../src/stack/xdp-program.js';
import { XdpSocket, type XdpStatistics } from '../../src/stack/xsk-socket.js';
import type { VirtioNet } from '../../src/virtio/virtio-net.js';
import { makeFrame, VERDICT } from '../virtio/helpers/programs.js';
import { HELPER, Rig, setEntry } from './support.js';

let rig: Rig;
let net: VirtioNet;
beforeAll(async () => {
  rig = await Rig.boot();
  net = rig.probe();
});
afterAll(() => {
  net.close();
  expect(rig.livePages).toBe(0);
  rig.close();
});

function send(runner: XdpRunner, frames: readonly Uint8Array[]): void {
  net.attachXdp(runner);
  net.poll();
  for (const frame of frames) net.receive(frame);
  net.poll();
}

const some = (count: number): Uint8Array[] =>
  Array.from({ length: count }, (_, i) => makeFrame(60 + i, i));

describe('cpumap', () => {
  test('a thread of the CPU makes skbs that know nothing of the device’s offloads', () => {
    const map = rig.map('CPUMAP', { 1: 192 });
    expect(rig.kernel.tasks.map(({ name }) => name)).toContain(`cpumap/1/map:${map.id}`);
    const frames = some(20);
    const events = rig.events(() => send(rig.toMap(map, 1), frames));
    const batches = events.filter(({ name }) => name === 'xdp_cpumap_kthread');
    expect(batches.map((event) => 'cpu' in event && [event.cpu, event.processed])).toEqual([
      [1, 8],
      [1, 8],
      [1, 4],
    ]);
    const skbs = net.delivered();
    expect(skbs.map(({ frame }) => frame)).toEqual(frames);
    for (const skb of skbs) expect(skb).toMatchObject({ queue: -1, ipSummed: 0, protocol: 0x800 });
    map.free();
  });

  test('what does not fit the queue is lost', () => {
    const map = rig.map('CPUMAP', { 0: 5 });
    const events = rig.events(() => send(rig.toMap(map), some(20)));
    const enqueued = events.flatMap((event) =>
      event.name === 'xdp_cpumap_enqueue' ? [[event.processed, event.drops]] : [],
    );
    expect(enqueued).toEqual([
      [8, 3],
      [8, 8],
      [4, 4],
    ]);
    expect(net.delivered()).toHaveLength(5);
    map.free();
  });

  test('a packet in several buffers', () => {
    const map = rig.map('CPUMAP', { 1: 8 });
    send({ ...rig.toMap(map, 1), hasFrags: true }, [makeFrame(9000)]);
    const [skb] = net.delivered();
    expect(skb?.frame).toEqual(makeFrame(9000));
    expect(skb?.nrFrags).toBe(2);
    map.free();
  });

  test('its program runs there: passes, drops, redirects', () => {
    const veth = new VethDevice(rig.stack, { name: 'eth1', ifindex: 3 });
    const cpus: number[] = [];
    const prog = rig.stack.programs.add({
      attach: 'cpumap',
      run: (kernel) => {
        const verdict = [VERDICT.PASS, VERDICT.DROP, VERDICT.REDIRECT][cpus.length] ?? 0;
        cpus.push(kernel.currentCpu);
        return verdict === VERDICT.REDIRECT ? rig.help(HELPER.REDIRECT, 3, 0) : verdict;
      },
    });
    const map = rig.map('CPUMAP', { 1: [64, rig.stack.programs.idOf(prog)] });
    const frames = some(4);
    const events = rig.events(() => send(rig.toMap(map, 1), frames));
    expect(cpus).toEqual([1, 1, 1, 1]);
    const batch = { processed: 4, pass: 1, drop: 2, redirect: 1 };
    expect(events.find(({ name }) => name === 'xdp_cpumap_kthread')).toMatchObject(batch);
    expect(net.delivered().map(({ frame }) => frame)).toEqual([frames[0]]);
    expect(veth.received()).toEqual([frames[2]]);
    expect(setEntry(map, 0, [64, 999])).toBe(-12);
    map.free();
    rig.stack.programs.remove(prog);
    veth.close();
  });
});

describe('AF_XDP', () => {
  const NONE: XdpStatistics = {
    rx_dropped: 0,
    rx_invalid_descs: 0,
    tx_invalid_descs: 0,
    rx_ring_full: 0,
    rx_fill_ring_empty_descs: 0,
    tx_ring_empty_descs: 0,
  };
  const dev = (): number => rig.kernel.memory.ram.virtToPhys(net.dev);

  /** A socket in slot 0 of a map; what a program that redirects to it makes of frames. */
  function withSocket(
    act: (socket: XdpSocket, map: BpfMap) => void,
    options: ConstructorParameters<typeof XdpSocket>[1] = {},
  ): void {
    const socket = new XdpSocket(rig.stack, options);
    const map = rig.map('XSKMAP', { 0: socket.descriptor });
    act(socket, map);
    map.free();
    socket.close();
  }

  test('packets lie in the UMEM behind 256 bytes and its headroom', () => {
    withSocket(
      (socket, map) => {
        socket.bind(dev(), 0);
        socket.fill();
        const frames = [...some(3), makeFrame(1740)];
        send(rig.toMap(map), frames);
        const first = rig.kernel.memory.readBytes(socket.umem + 256n + 32n, 60);
        expect(first).toEqual(frames[0]);
        expect(socket.receive()).toEqual(frames);
        expect(socket.statistics).toEqual(NONE);
      },
      { headroom: 32 },
    );
  });

  test.each<[string, number, number, Partial<XdpStatistics>, (socket: XdpSocket) => void]>([
    ['a socket that is not bound', -6, 0, {}, () => undefined],
    ['one of another queue', -22, 0, {}, (socket) => socket.bind(dev(), 1, { queues: 2 })],
    [
      'an empty fill ring',
      -12,
      0,
      { rx_dropped: 3, rx_fill_ring_empty_descs: 3 },
      (socket) => socket.bind(dev(), 0),
    ],
    [
      'a fill ring with a wrong address',
      -12,
      1,
      { rx_dropped: 2, rx_invalid_descs: 1, rx_fill_ring_empty_descs: 2 },
      (socket) => {
        socket.bind(dev(), 0);
        socket.produceFill(1 << 20);
        socket.produceFill(2048 + 77);
      },
    ],
    [
      'a full rx ring',
      -105,
      2,
      { rx_ring_full: 1 },
      (socket) => {
        socket.bind(dev(), 0);
        for (let i = 0; i < 2; i++) socket.produceFill(i * 2048);
      },
    ],
  ])('%s: %i', (_name, err, arrive, statistics, prepare) => {
    const ringSize = 2;
    withSocket(
      (socket, map) => {
        prepare(socket);
        if (err === -105) {
          // the third chunk goes in once the kernel has taken the first two
          send(rig.toMap(map), some(2));
          socket.produceFill(4096);
        }
        const events = rig.events(() => send(rig.toMap(map), err === -105 ? some(1) : some(3)));
        expect(events.at(-1)).toMatchObject({ name: 'xdp_redirect_err', err });
        expect(socket.receive(false)).toHaveLength(arrive);
        expect(socket.statistics).toEqual({ ...NONE, ...statistics });
      },
      { ringSize },
    );
  });

  test('a packet longer than a chunk is dropped', () => {
    withSocket((socket, map) => {
      socket.bind(dev(), 0);
      socket.fill();
      const frags = { ...rig.toMap(map), hasFrags: true };
      const events = rig.events(() => send(frags, [makeFrame(1793), makeFrame(5000)]));
      expect(events).toMatchObject([{ err: -28 }, { err: -28 }]);
      expect(socket.statistics).toEqual({ ...NONE, rx_dropped: 2 });
    });
  });

  test('sends through the device, 32 at a time; the chunks come back', () => {
    const veth = new VethDevice(rig.stack, { name: 'eth1', ifindex: 3 });
    withSocket(
      (socket) => {
        expect(socket.sendto()).toBe('ENXIO');
        socket.bind(veth.address, 0, { needWakeup: true });
        expect(socket.needsWakeup).toBe(true);
        const frames = some(40);
        for (const frame of frames) expect(socket.send(frame)).toBe(true);
        socket.produceTx(2048 - 10, 11);
        expect(socket.sendto()).toBe('EAGAIN');
        expect(socket.sendto()).toBeUndefined();
        expect(veth.received()).toEqual(frames);
        expect(socket.complete()).toBe(40);
        expect(socket.statistics).toMatchObject({ tx_invalid_descs: 1 });
        veth.setUp(false);
        expect(socket.sendto()).toBe('ENETDOWN');
      },
      { frames: 128 },
    );
    veth.close();
  });

  test('bind and set-up refuse', () => {
    withSocket((socket) => {
      expect(() => socket.bind(dev(), 1)).toThrow('EINVAL');
      expect(() => socket.bind(0, 0)).toThrow('ENODEV');
      expect(() => socket.bind(dev(), 0, { zeroCopy: true })).toThrow('ENOENT');
      socket.bind(dev(), 0);
      expect(() => socket.bind(dev(), 0)).toThrow('EBUSY');
      withSocket((other) => expect(() => other.bind(dev(), 0)).toThrow('EBUSY'));
    });
    expect(() => new XdpSocket(rig.stack, { frameSize: 3000 })).toThrow('EINVAL');
    expect(() => new XdpSocket(rig.stack, { headroom: 1792 })).toThrow('EINVAL');
  });
});

test.each<[string, (veth: VethDevice) => BpfMap | undefined, number]>([
  ['a device', () => undefined, 0],
  ['a devmap', () => rig.map('DEVMAP', { 0: 3 }), 0],
  ['a cpumap', () => rig.map('CPUMAP', { 0: 8 }), 1],
])('an skb is redirected to %s', (_name, makeMap, delivered) => {
  const { kernel, stack } = rig;
  const { ram } = kernel.memory;
  const veth = new VethDevice(stack, { name: 'eth1', ifindex: 3 });
  const map = makeMap(veth);
  const skb = allocSkb(kernel);
  ram.bytes.set(makeFrame(60), skbPut(kernel, skb, 60));
  const dev = ram.virtToPhys(net.dev);
  ram.setPointer(skb + SK_BUFF.offset.dev, dev);
  if (map) rig.help(HELPER.REDIRECT_MAP, map.address, 0, 0);
  else rig.help(HELPER.REDIRECT, 3, 0);
  // as generic XDP leaves it: classified, the data at the Ethernet header again
  kernel.invoke('eth_type_trans', skb, dev);
  skbPush(ram, skb, 14);
  expect(kernel.invoke('xdp_do_generic_redirect', dev, skb, 0, 0)).toBe(0);
  stack.settle();
  expect(veth.received()).toEqual(delivered > 0 ? [] : [makeFrame(60)]);
  expect(net.delivered()).toHaveLength(delivered);
  expect(ram.u32(veth.address + NET_DEVICE.offset.ifindex)).toBe(3);
  map?.free();
  veth.close();
});
