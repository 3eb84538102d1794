/** Redirects to devices: what is refused and how, bulk queues, broadcasts, programs on the way out. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { VethDevice, type VethOptions } from '../../src/stack/veth.js';
import type { XdpRunner } from '../../src/stack/xdp-program.js';
import type { VirtioNet } from '../../src/virtio/virtio-net.js';
import { makeFrame, VERDICT } from '../virtio/helpers/programs.js';
import { HELPER, Rig, setEntry } from './support.js';

let rig: Rig;
beforeAll(async () => {
  rig = await Rig.boot();
});
afterAll(() => rig.close());

/** eth0 and a veth; both are gone afterwards, and so is all memory. */
function withVeth(
  options: Partial<VethOptions>,
  act: (net: VirtioNet, veth: VethDevice) => void,
): void {
  const net = rig.probe();
  const veth = new VethDevice(rig.stack, { name: 'eth1', ifindex: 3, ...options });
  try {
    act(net, veth);
  } finally {
    veth.close();
    net.close();
  }
  expect(rig.livePages).toBe(0);
}

function send(net: VirtioNet, runner: XdpRunner, frames = [makeFrame(90)]): void {
  net.attachXdp(runner);
  net.poll();
  for (const frame of frames) net.receive(frame);
  net.poll();
}

describe('xdp_do_redirect refuses', () => {
  const takesHeadroom = (): XdpRunner => ({
    run: (kernel, xdp) => {
      const { ram } = kernel.memory;
      // past what bpf_xdp_adjust_head allows: 39 bytes stay
      ram.setPointer(xdp, ram.pointer(xdp + 24) + 39);
      ram.setPointer(xdp + 16, ram.pointer(xdp));
      return rig.help(HELPER.REDIRECT, 3, 0);
    },
  });
  test.each<[string, number, Partial<VethOptions>, () => XdpRunner]>([
    ['when no helper ran', -56, {}, () => ({ run: () => VERDICT.REDIRECT })],
    ['an unknown ifindex', -22, {}, () => rig.toDevice(99)],
    ['a device that takes no frames', -95, { takesFrames: false }, () => rig.toDevice(3)],
    ['a frame longer than the MTU', -90, { mtu: 68 }, () => rig.toDevice(3)],
    ['a frame without room for its struct', -75, {}, takesHeadroom],
  ])('%s: %i', (_name, err, options, runner) => {
    withVeth(options, (net) => {
      const before = net.counters();
      const events = rig.events(() => send(net, runner()));
      expect(events).toMatchObject([{ name: 'xdp_redirect_err', ifindex: 2, err }]);
      const after = net.counters();
      for (const counter of ['rx_xdp_redirects', 'rx_xdp_drops', 'rx_drops']) {
        expect([counter, (after[counter] ?? 0) - (before[counter] ?? 0)]).toEqual([counter, 1]);
      }
    });
  });

  test('a device that is down, and takes its frames when it is up again', () => {
    withVeth({}, (net, veth) => {
      veth.setUp(false);
      const events = rig.events(() => send(net, rig.toDevice(3)));
      expect(events).toMatchObject([{ name: 'xdp_redirect_err', err: -100 }]);
      veth.setUp(true);
      send(net, rig.toDevice(3));
      expect(veth.received()).toEqual([makeFrame(90)]);
    });
  });
});

describe('bulk queues', () => {
  test('40 packets of one poll leave 16, 16 and 8 at a time', () => {
    withVeth({}, (net, veth) => {
      const frames = Array.from({ length: 40 }, (_, i) => makeFrame(60 + i, i));
      const map = rig.map('DEVMAP', { 1: 3 });
      const events = rig.events(() => send(net, rig.toMap(map, 1), frames));
      const sent = events.flatMap((event) => (event.name === 'xdp_devmap_xmit' ? event.sent : []));
      expect(sent).toEqual([16, 16, 8]);
      expect(veth.received()).toEqual(frames);
      map.free();
    });
  });

  test('what the device does not take is freed', () => {
    withVeth({}, (net, veth) => {
      for (let poll = 0; poll < 9; poll++) {
        send(
          net,
          rig.toDevice(3),
          Array.from({ length: 32 }, () => makeFrame(60)),
        );
      }
      expect(veth.received()).toHaveLength(256);
      expect(veth.counters()).toMatchObject({ xdp_packets: 256, dropped: 32 });
    });
  });

  test('another virtio-net device sends with an empty header, while it has a program', () => {
    const net = rig.probe();
    const other = rig.driver.probe({ name: 'eth1', ifindex: 3 });
    const refused = rig.events(() => send(net, rig.toDevice(3)));
    expect(refused).toMatchObject([{ name: 'xdp_redirect_err', err: -95 }]);
    other.attachXdp({ run: () => VERDICT.PASS });
    send(net, rig.toDevice(3));
    const header = new Uint8Array(12);
    expect(other.transmitted()).toEqual([{ queue: 0, header, frame: makeFrame(90) }]);
    expect(other.counters()).toMatchObject({ tx_xdp_tx: 1, tx_xdp_tx_drops: 0, tx_kicks: 1 });
    // the receiver goes first: its pages are in the other's ring
    send(net, rig.toDevice(3));
    net.close();
    other.close();
    expect(rig.livePages).toBe(0);
  });
});

describe('broadcast', () => {
  test.each([
    ['to all', HELPER.REDIRECT_MAP, 8, [1, 1, 1]],
    ['but the ingress', HELPER.REDIRECT_MAP, 8 | 16, [0, 1, 1]],
  ] as const)('%s', (_name, _helper, flags, counts) => {
    withVeth({}, (net, veth) => {
      const third = new VethDevice(rig.stack, { name: 'eth2', ifindex: 4 });
      const deaf = new VethDevice(rig.stack, { name: 'eth3', ifindex: 5, takesFrames: false });
      const map = rig.map('DEVMAP_HASH', { 1: 2, 2: 3, 3: 4, 4: 5 });
      send(net, rig.toMap(map, 9, flags));
      const frames = [
        net.transmitted().map(({ frame }) => frame),
        veth.received(),
        third.received(),
      ];
      expect(frames.map((each) => each.length)).toEqual(counts);
      for (const frame of frames.flat()) expect(frame).toEqual(makeFrame(90));
      map.free();
      deaf.close();
      third.close();
    });
  });

  test('of a packet in several buffers is refused', () => {
    withVeth({}, (net, veth) => {
      const map = rig.map('DEVMAP', { 1: 3 });
      const events = rig.events(() =>
        send(net, { ...rig.toMap(map, 1, 8), hasFrags: true }, [makeFrame(5000)]),
      );
      expect(events).toMatchObject([{ name: 'xdp_redirect_err', err: -95 }]);
      expect(veth.received()).toEqual([]);
      map.free();
    });
  });
});

test('a packet in several buffers is redirected as it is; a helper shortens and reads it', () => {
  withVeth({ mtu: 9000 }, (net, veth) => {
    const frame = makeFrame(9000);
    const run: XdpRunner['run'] = (kernel, xdp) => {
      const context = kernel.memory.ram.physToVirt(xdp);
      expect(rig.help(HELPER.ADJUST_TAIL, context, 1)).toBe(-95);
      expect(rig.help(HELPER.ADJUST_TAIL, context, -2500)).toBe(0);
      return rig.help(HELPER.REDIRECT, 3, 0);
    };
    send(net, { run, hasFrags: true }, [frame]);
    expect(veth.received()).toEqual([frame.subarray(0, 6500)]);
  });
});

describe('a program of a devmap entry', () => {
  const ifindexOf = (ram: Rig['kernel']['memory']['ram'], info: number): number =>
    ram.u32(ram.pointer(info) + 224);

  test('runs as frames leave, and sees both devices', () => {
    withVeth({}, (net, veth) => {
      const seen: number[][] = [];
      const prog = rig.stack.programs.add({
        attach: 'devmap',
        run: (kernel, xdp) => {
          const { ram } = kernel.memory;
          const [rxq, txq] = [ram.pointer(xdp + 32), ram.pointer(xdp + 40)];
          seen.push([ifindexOf(ram, rxq), ifindexOf(ram, txq)]);
          return seen.length === 2 ? VERDICT.DROP : VERDICT.PASS;
        },
      });
      const map = rig.map('DEVMAP', { 1: [3, rig.stack.programs.idOf(prog)] });
      const frames = [makeFrame(60, 1), makeFrame(60, 2), makeFrame(60, 3)];
      const events = rig.events(() => send(net, rig.toMap(map, 1), frames));
      expect(seen).toEqual([2, 2, 2].map((from) => [from, 3]));
      expect(veth.received()).toEqual([frames[0], frames[2]]);
      expect(events.at(-1)).toMatchObject({ name: 'xdp_devmap_xmit', sent: 2, drops: 1 });
      map.free();
      rig.stack.programs.remove(prog);
    });
  });

  test('must be one for devmaps', () => {
    withVeth({}, () => {
      const prog = rig.stack.programs.add({ run: () => VERDICT.PASS });
      const map = rig.map('DEVMAP', {});
      expect(setEntry(map, 1, [3, rig.stack.programs.idOf(prog)])).toBe(-22);
      expect(setEntry(map, 1, [3, 999])).toBe(-22);
      map.free();
      rig.stack.programs.remove(prog);
    });
  });
});

test.each([
  ['is reset before each program', true, { name: 'xdp_redirect_err', err: -56 }],
  ['was left as it was before 6.1.137', false, { name: 'xdp_redirect', to: 3, err: 0 }],
] as const)('bpf_redirect_info %s', (_name, resets, event) => {
  withVeth({}, (net) => {
    // the first asks for a redirect and then passes the packet; the second never asks
    let asks = true;
    const run = (): number => {
      if (!asks) return VERDICT.REDIRECT;
      asks = false;
      rig.help(HELPER.REDIRECT, 3, 0);
      return VERDICT.PASS;
    };
    rig.stack.resetsRedirectInfo = resets;
    const events = rig.events(() => send(net, { run }, [makeFrame(60), makeFrame(60)]));
    rig.stack.resetsRedirectInfo = true;
    net.delivered();
    expect(events[0]).toMatchObject(event);
  });
});

test('functions on the way are traced while packets flow', () => {
  withVeth({}, (net, veth) => {
    const names = ['xdp_do_redirect', 'dev_map_enqueue', 'bq_xmit_all', 'veth_xdp_xmit'];
    const map = rig.map('DEVMAP', { 1: 3 });
    net.attachXdp(rig.toMap(map, 1));
    net.poll();
    rig.kernel.tracing.start(names);
    net.receive(makeFrame(60));
    net.poll();
    rig.kernel.tracing.stop();
    const called = rig.kernel.tracing.lines().map((line) => line.split(' ')[0]);
    expect(called).toEqual(names);
    expect(veth.received()).toEqual([makeFrame(60)]);
    map.free();
  });
});
