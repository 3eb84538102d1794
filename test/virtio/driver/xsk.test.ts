/** AF_XDP without a copy: chunks of a UMEM as receive buffers, and where they all are. */
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import type { BpfMap } from '../../../src/bpf/maps/map.js';
import { XQ } from '../../../src/stack/xsk-queue.js';
import { XDP_SOCK, XSK_POOL } from '../../../src/stack/xsk-structs.js';
import { VethDevice } from '../../../src/stack/veth.js';
import type { XdpRunner } from '../../../src/stack/xdp-program.js';
import { XdpSocket } from '../../../src/stack/xsk-socket.js';
import type { DriverBug } from '../../../src/virtio/driver/bugs.js';
import type { VirtioNet, VirtioNetOptions } from '../../../src/virtio/virtio-net.js';
import { HELPER, Rig } from '../../stack/support.js';
import { VERDICT, makeFrame } from '../helpers/programs.js';

const RESET = ['RING_RESET'] as const;
const RING = 16;
const FRAMES = 64;

let rig: Rig;
beforeAll(async () => {
  rig = await Rig.boot();
});
afterAll(() => {
  expect(rig.livePages).toBe(0);
  rig.close();
});

interface Lab {
  readonly net: VirtioNet;
  readonly socket: XdpSocket;
  readonly map: BpfMap;
  /** A program gets frames, which are then polled for. */
  send(runner: XdpRunner | undefined, ...frames: readonly Uint8Array[]): void;
}

/** A device whose queue 0 has the chunks of a socket; nothing is left of them afterwards. */
function withChunks(act: (lab: Lab) => void, options: VirtioNetOptions = {}): void {
  const net = rig.driver.probe({ queueSize: RING, features: RESET, ...options });
  const { ram } = rig.kernel.memory;
  const socket = new XdpSocket(rig.stack, { frames: FRAMES });
  socket.fill();
  socket.bind(ram.virtToPhys(net.dev), 0, { zeroCopy: true });
  const map = rig.map('XSKMAP', { 0: socket.descriptor });
  const send = (runner: XdpRunner | undefined, ...frames: readonly Uint8Array[]): void => {
    net.attachXdp(runner);
    for (const frame of frames) net.receive(frame);
    net.poll();
  };
  act({ net, socket, map, send });
  expect(net.held().rx + freeChunks(socket)).toBe(FRAMES / 2);
  map.free();
  socket.close();
  // the queue has pages again
  send(undefined, makeFrame(70));
  expect(net.delivered()).toHaveLength(1);
  net.close();
}

/** Chunks in the pool's free list and in the fill ring. */
function freeChunks(socket: XdpSocket): number {
  const { ram } = rig.kernel.memory;
  const pool = ram.pointer(socket.address + XDP_SOCK.offset.pool);
  const fq = ram.pointer(pool + XSK_POOL.offset.fq);
  const produced = ram.u32(ram.pointer(fq + XQ.ring));
  return ram.u32(pool + XSK_POOL.offset.free_list_cnt) + produced - ram.u32(fq + XQ.cached_cons);
}

const always = (verdict: number): XdpRunner => ({ run: () => verdict });

describe.each(['small', 'mergeable'] as const)('%s', (rx) => {
  test('a redirected frame is where the device wrote it', () => {
    withChunks(
      ({ net, socket, map, send }) => {
        const frames = [makeFrame(60), makeFrame(900, 1), makeFrame(1514, 2)];
        let seen = 0n;
        const { ram } = rig.kernel.memory;
        const runner = {
          run: (...[kernel, xdp]: Parameters<XdpRunner['run']>) => {
            seen = ram.u64(xdp);
            return rig.toMap(map).run(kernel, xdp);
          },
        };
        send(runner, ...frames);
        const [, , rxRing = 0n] = socket.rings;
        const last = rig.kernel.memory.read64(rxRing + 320n + 2n * 16n);
        expect(socket.umem + last).toBe(seen);
        expect(socket.receive()).toEqual(frames);
        expect(net.counters()).toMatchObject({ rx_packets: 3, rx_xdp_redirects: 3, rx_drops: 0 });
      },
      { rx },
    );
  });

  test.each([
    ['PASS', VERDICT.PASS, { rx_xdp_drops: 0, rx_drops: 0 }, 1, 0],
    ['no program', undefined, { rx_xdp_packets: 0, rx_drops: 0 }, 1, 0],
    ['DROP', VERDICT.DROP, { rx_xdp_packets: 1, rx_drops: 1 }, 0, 0],
    ['ABORTED', VERDICT.ABORTED, { rx_drops: 1 }, 0, 0],
    // the copy that is to be sent has no room for the header
    ['TX', VERDICT.TX, { rx_xdp_tx: 1, tx_xdp_tx: 1, tx_xdp_tx_drops: 1, rx_drops: 0 }, 0, 0],
  ])('%s', (_name, verdict, counters, delivered, sent) => {
    withChunks(
      ({ net, send }) => {
        send(verdict === undefined ? undefined : always(verdict), makeFrame(300));
        expect(net.counters()).toMatchObject(counters);
        expect(net.delivered().map(({ frame }) => frame)).toEqual(
          delivered === 1 ? [makeFrame(300)] : [],
        );
        expect(net.transmitted()).toHaveLength(sent);
      },
      { rx },
    );
  });

  test('a program may move the head, and metadata comes along', () => {
    withChunks(
      ({ net, send }) => {
        send(
          {
            run: (_kernel, xdp) => {
              const at = rig.kernel.memory.ram.physToVirt(xdp);
              rig.help(HELPER.ADJUST_HEAD, at, 14);
              return VERDICT.PASS;
            },
          },
          makeFrame(300),
        );
        expect(net.delivered().map(({ frame }) => frame.length)).toEqual([286]);
      },
      { rx },
    );
  });

  test('a redirect to a device sends a copy, one to nowhere leaves the chunk', () => {
    const veth = new VethDevice(rig.stack, { name: 'eth1', ifindex: 30 });
    withChunks(
      ({ net, send }) => {
        send(rig.toDevice(30), makeFrame(200), makeFrame(201));
        expect(veth.received()).toEqual([makeFrame(200), makeFrame(201)]);
        send(rig.toDevice(31), makeFrame(200));
        expect(net.counters()).toMatchObject({ rx_xdp_redirects: 3, rx_drops: 1 });
      },
      { rx },
    );
    veth.close();
  });

  test('an empty fill ring leaves the queue empty, until a poll after it was filled', () => {
    withChunks(
      ({ net, socket, map, send }) => {
        const many = Array.from({ length: FRAMES / 2 }, (_, i) => makeFrame(60 + i, i));
        for (const frame of many) send(rig.toMap(map), frame);
        expect(net.receive(makeFrame(60))).not.toBe('delivered');
        expect(net.held().rx).toBe(0);
        expect(socket.receive()).toEqual(many);
        net.poll();
        send(rig.toMap(map), makeFrame(61));
        expect(socket.receive()).toEqual([makeFrame(61)]);
      },
      { rx },
    );
  });
});

describe('a frame in several chunks', () => {
  const long = makeFrame(4000);
  test('without a program it is one packet', () => {
    withChunks(({ net, send }) => {
      send(undefined, long);
      const [skb] = net.delivered();
      expect(skb?.frame).toEqual(long);
      expect(skb?.nrFrags).toBe(2);
    });
  });

  test.each<[string, readonly DriverBug[], number, number]>([
    ['with one it is dropped', [], 0, 1],
    ['with one it went by it until 6.12.63', ['chunks pass the program'], 1, 0],
  ])('%s', (_name, bugs, delivered, drops) => {
    withChunks(
      ({ net, send }) => {
        send(always(VERDICT.DROP), long);
        expect(net.delivered()).toHaveLength(delivered);
        expect(net.counters()).toMatchObject({ rx_xdp_packets: 0, rx_drops: drops });
        send(always(VERDICT.PASS), makeFrame(80));
        expect(net.delivered().map(({ frame }) => frame)).toEqual([makeFrame(80)]);
      },
      { bugs },
    );
  });

  test('a chunk that is missing drops it', () => {
    withChunks(({ net, send }) => {
      const { ram } = rig.kernel.memory;
      net.receive(makeFrame(100));
      const ring = net.receiveRing(0);
      if (ring.kind === 'packed') throw new Error('a split ring');
      const head = rig.kernel.memory.read32(ring.used + 4n);
      const header = rig.kernel.memory.read64(ring.desc + 16n * BigInt(head));
      ram.set16(ram.virtToPhys(header) + 10, 3);
      send(undefined);
      expect(net.delivered()).toEqual([]);
      expect(net.counters()).toMatchObject({ dev_rx_length_errors: 1, rx_drops: 1 });
    });
  });
});

describe('bind refuses', () => {
  let net: VirtioNet | undefined;
  beforeEach(() => {
    net?.close();
    net = undefined;
  });
  afterAll(() => net?.close());

  test.each<[string, VirtioNetOptions, number, string]>([
    ['driver 6.1', { version: '6.1', features: RESET }, 0, 'EOPNOTSUPP'],
    ['a device that resets no queue', {}, 0, 'ENOENT'],
    ['big mode', { rx: 'big', queueSize: 64, features: RESET }, 0, 'ENOENT'],
    ['a queue there is not', { features: RESET }, 1, 'EINVAL'],
  ])('%s', (_name, options, queue, errno) => {
    net = rig.driver.probe({ queueSize: RING, ...options });
    const socket = new XdpSocket(rig.stack);
    const dev = rig.kernel.memory.ram.virtToPhys(net.dev);
    expect(() => socket.bind(dev, queue, { zeroCopy: true, queues: 2 })).toThrow(errno);
    // it may be bound with the copy
    socket.bind(dev, 0);
    socket.close();
  });
});

test('a frame that the rx ring has no room for is dropped, and its chunk free', () => {
  const net = rig.driver.probe({ queueSize: RING, features: RESET });
  const socket = new XdpSocket(rig.stack, { frames: FRAMES, ringSize: 8 });
  const chunks = Array.from({ length: 8 }, (_, i) => 2048 * i);
  for (const chunk of chunks) socket.produceFill(chunk);
  socket.bind(rig.kernel.memory.ram.virtToPhys(net.dev), 0, { zeroCopy: true });
  socket.produceFill(2048 * 8);
  net.poll();
  const map = rig.map('XSKMAP', { 0: socket.descriptor });
  net.attachXdp(rig.toMap(map));
  for (let i = 0; i < 9; i++) {
    net.receive(makeFrame(60 + i));
    net.poll();
  }
  expect(net.counters()).toMatchObject({ rx_xdp_redirects: 9, rx_drops: 1 });
  expect(socket.statistics.rx_ring_full).toBe(1);
  expect(net.held().rx + freeChunks(socket)).toBe(1);
  expect(socket.receive(false)).toHaveLength(8);
  net.attachXdp(undefined);
  map.free();
  socket.close();
  net.close();
});

test('a device that goes first gives all chunks back', () => {
  const net = rig.driver.probe({ queueSize: RING, features: RESET });
  const socket = new XdpSocket(rig.stack, { frames: FRAMES });
  socket.fill();
  socket.bind(rig.kernel.memory.ram.virtToPhys(net.dev), 0, { zeroCopy: true });
  net.reset();
  expect(net.held().rx + freeChunks(socket)).toBe(FRAMES / 2);
  net.receive(makeFrame(60));
  net.poll();
  expect(net.delivered()).toHaveLength(1);
  net.close();
  expect(freeChunks(socket)).toBe(FRAMES / 2);
  socket.close();
});
