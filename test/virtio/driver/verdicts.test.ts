import { describe, expect, test } from 'vitest';
import {
  VIRTIO_NET_HDR_F_DATA_VALID,
  VIRTIO_NET_HDR_F_NEEDS_CSUM,
  VIRTIO_NET_HDR_GSO_TCPV4,
  decodeNetHeader,
  describeNetHeader,
  encodeNetHeader,
} from '../../../src/virtio/net-header.js';
import { counterTable } from '../../../src/virtio/driver/counters.js';
import type { XdpRunner } from '../../../src/stack/xdp-program.js';
import {
  createVirtioNet,
  defineVirtioNet,
  type VirtioNet,
  type VirtioNetOptions,
} from '../../../src/virtio/virtio-net.js';
import { DirectKernel } from '../helpers/direct-kernel.js';
import { VERDICT, XDP, adjustHead, makeFrame, program, returns } from '../helpers/programs.js';

type Mode = 'small' | 'mergeable';
const MODES = ['small', 'mergeable'] as const;
const LAYOUTS = MODES.flatMap((rx) =>
  (['split', 'packed'] as const).map((ring) => [rx, ring] as const),
);

interface Rig {
  readonly kernel: DirectKernel;
  readonly net: VirtioNet;
}

/** A device whose posted buffers all have XDP headroom, its counters at rest. */
function rig(rx: Mode, options: VirtioNetOptions = {}, bytes = 6 << 20): Rig {
  const kernel = new DirectKernel(bytes);
  const net = createVirtioNet(kernel, { rx, queueSize: 64, ...options });
  net.attachXdp(returns(VERDICT.DROP));
  for (let i = 0; i < 80; i++) {
    net.receive(makeFrame(60));
    net.poll();
  }
  return { kernel, net };
}

/** Counters that changed, per-queue names and byte counts left out. */
function changes(net: VirtioNet, act: () => void): Record<string, number> {
  const before = net.counters();
  act();
  const after = net.counters();
  const changed: Record<string, number> = {};
  for (const [name, value] of Object.entries(after)) {
    const delta = value - (before[name] ?? 0);
    if (delta !== 0 && !/^[rt]x\d|bytes|kicks|^dev_rx_packets|^dev_tx/.test(name))
      changed[name] = delta;
  }
  return changed;
}

function one(r: Rig, runner: XdpRunner, frame = makeFrame(90)): Record<string, number> {
  r.net.attachXdp(runner);
  r.net.poll();
  return changes(r.net, () => {
    r.net.receive(frame);
    r.net.poll();
  });
}

const RUN = { rx_packets: 1, rx_xdp_packets: 1 };
const DROPPED = { ...RUN, rx_xdp_drops: 1, rx_drops: 1, dev_rx_dropped: 1 };

describe.each(LAYOUTS)('verdicts in %s mode, %s rings', (rx, ring) => {
  test.each([
    ['PASS', VERDICT.PASS, RUN, 0, 1],
    ['DROP', VERDICT.DROP, DROPPED, 0, 0],
    ['ABORTED', VERDICT.ABORTED, DROPPED, 1, 0],
    ['REDIRECT without a target', VERDICT.REDIRECT, { ...DROPPED, rx_xdp_redirects: 1 }, 0, 0],
    ['5', 5, DROPPED, 1, 0],
    ['4294967295', 0xffffffff, DROPPED, 1, 0],
  ] as const)('%s', (_name, verdict, expected, exceptions, delivered) => {
    const r = rig(rx, { ring });
    expect(one(r, returns(verdict))).toEqual(expected);
    expect(r.net.exceptions()).toHaveLength(exceptions);
    expect(r.net.delivered()).toHaveLength(delivered);
  });

  test('an unknown verdict is warned of once', () => {
    const r = rig(rx, { ring });
    one(r, returns(9));
    one(r, returns(9));
    expect(r.kernel.log.filter((line) => line.includes('Illegal XDP'))).toEqual([
      'Illegal XDP return value 9, expect packet loss!',
    ]);
  });

  test('TX sends the frame with a zero header', () => {
    const r = rig(rx, { ring });
    r.net.attachXdp(returns(VERDICT.TX));
    const header = { flags: VIRTIO_NET_HDR_F_DATA_VALID, csum_start: 34, csum_offset: 6 };
    const counters = changes(r.net, () => {
      r.net.receive(makeFrame(90), { header });
      r.net.poll();
    });
    expect(counters).toMatchObject({ ...RUN, rx_xdp_tx: 1, tx_xdp_tx: 1 });
    expect(counters['rx_drops']).toBeUndefined();
    expect(r.net.transmitted()).toEqual([
      { queue: 0, header: new Uint8Array(12), frame: makeFrame(90) },
    ]);
  });

  test('TX without room for the frame struct drops', () => {
    const r = rig(rx, { ring });
    const useHeadroom = program((xdp) => {
      const { memory } = r.kernel;
      const room = Number(memory.read64(xdp + XDP.data) - memory.read64(xdp + XDP.dataHardStart));
      // past what bpf_xdp_adjust_head allows: 39 bytes stay
      memory.write64(xdp + XDP.data, memory.read64(xdp + XDP.data) - BigInt(room - 39));
      return VERDICT.TX;
    });
    expect(one(r, useHeadroom)).toEqual({ ...DROPPED, rx_xdp_tx: 1 });
    expect(r.net.transmitted()).toEqual([]);
  });

  test('TX with the headroom used up has no room for the header: counted as a full ring', () => {
    const r = rig(rx, { ring });
    const counters = one(
      r,
      program((xdp) => {
        while (adjustHead(r.kernel.memory, xdp, -1) === 0);
        return VERDICT.TX;
      }),
    );
    expect(counters).toEqual({ ...RUN, rx_xdp_tx: 1, tx_xdp_tx: 1, tx_xdp_tx_drops: 1 });
  });

  test('TX on a full ring is counted on the send queue only', () => {
    const r = rig(rx, { ring, transmit: 'manual' });
    r.net.attachXdp(returns(VERDICT.TX));
    const counters = changes(r.net, () => {
      for (let i = 0; i < 70; i++) {
        r.net.receive(makeFrame(90, i));
        r.net.poll();
      }
    });
    expect(counters).toEqual({
      rx_packets: 70,
      rx_xdp_packets: 70,
      rx_xdp_tx: 70,
      tx_xdp_tx: 70,
      tx_xdp_tx_drops: 6,
      // each frame that finds less than 19 descriptors left behind it stops the queue
      tx_stop: 25,
    });
    expect(r.net.held().tx).toBe(64);
    r.net.device.runTransmit();
    expect(r.net.transmitted()).toHaveLength(64);
    // the next transmit reclaims what was sent
    one(r, returns(VERDICT.TX));
    expect(r.net.held().tx).toBe(1);
  });

  test('TX before the first queue has a program is an error: exception and drop', () => {
    const r = rig(rx, { ring, transmit: 'manual' });
    const vanish = program(() => VERDICT.TX);
    r.net.attachXdp(vanish);
    r.kernel.onCall = (name) => {
      // the program goes away between its run and the transmit
      if (name === 'virtnet_xdp_xmit') r.kernel.memory.write64(rqProgram(r), 0n);
    };
    const counters = changes(r.net, () => {
      r.net.receive(makeFrame(90));
      r.net.poll();
    });
    expect(counters).toEqual({ ...DROPPED, rx_xdp_tx: 1 });
    expect(r.net.exceptions()).toEqual([{ action: VERDICT.TX }]);
  });

  test('one kick per poll', () => {
    const r = rig(rx, { ring });
    r.net.attachXdp(returns(VERDICT.TX));
    r.net.poll();
    const before = r.net.counters();
    for (let i = 0; i < 10; i++) r.net.receive(makeFrame(90));
    r.net.poll();
    expect((r.net.counters()['tx_kicks'] ?? 0) - (before['tx_kicks'] ?? 0)).toBe(1);
  });

  test.each([
    ['segmentation', { gso_type: VIRTIO_NET_HDR_GSO_TCPV4, gso_size: 100 }],
    ['a partial checksum', { flags: VIRTIO_NET_HDR_F_NEEDS_CSUM, csum_start: 34, csum_offset: 6 }],
  ])('a frame with %s is dropped before the program runs', (_what, header) => {
    const r = rig(rx, { ring });
    r.net.attachXdp(returns(VERDICT.PASS));
    const counters = changes(r.net, () => {
      r.net.receive(makeFrame(90), { header });
      r.net.poll();
    });
    expect(counters).toEqual({ rx_packets: 1, rx_xdp_drops: 1, rx_drops: 1, dev_rx_dropped: 1 });
  });

  test('DATA_VALID survives a program that overwrites the header', () => {
    const r = rig(rx, { ring });
    r.net.attachXdp(
      program((xdp) => {
        const { memory } = r.kernel;
        adjustHead(memory, xdp, -20);
        memory.writeBytes(memory.read64(xdp + XDP.data), new Uint8Array(20));
        adjustHead(memory, xdp, 20);
        return VERDICT.PASS;
      }),
    );
    r.net.receive(makeFrame(90), { header: { flags: VIRTIO_NET_HDR_F_DATA_VALID } });
    r.net.poll();
    expect(r.net.delivered()).toMatchObject([{ ipSummed: 1, frame: makeFrame(90) }]);
  });

  test.each([13, 0])('%i bytes are shorter than an Ethernet header', (length) => {
    const r = rig(rx, { ring });
    expect(one(r, returns(VERDICT.PASS), makeFrame(length))).toEqual({
      rx_packets: 1,
      dev_rx_length_errors: 1,
    });
  });

  test('metadata in front of a passed frame', () => {
    const r = rig(rx, { ring });
    r.net.attachXdp(
      program((xdp) => {
        const { memory } = r.kernel;
        const data = memory.read64(xdp + XDP.data);
        memory.write64(xdp + XDP.dataMeta, data - 4n);
        memory.write32(data - 4n, 0x11223344);
        return VERDICT.PASS;
      }),
    );
    r.net.receive(makeFrame(90));
    r.net.poll();
    const [frame] = r.net.delivered();
    expect(frame?.metadata).toEqual(Uint8Array.of(0x44, 0x33, 0x22, 0x11));
    expect(frame?.frame).toEqual(makeFrame(90));
  });
});

function rqProgram(r: Rig): bigint {
  const { memory } = r.kernel;
  // virtnet_info.rq is its second word; receive_queue.xdp_prog follows vq and napi
  return memory.read64(r.net.vi + 8n) + 16n;
}

describe('receive_buf', () => {
  test.each(MODES)('%s: its seven arguments are what a tracer sees', (rx) => {
    const kernel = new DirectKernel(6 << 20);
    const net = createVirtioNet(kernel, { rx, queueSize: 64 });
    const calls: (readonly bigint[])[] = [];
    kernel.onCall = (name, args) => {
      if (name === 'receive_buf') calls.push(args);
    };
    net.receive(makeFrame(500, 9));
    net.poll();
    expect(calls).toHaveLength(1);
    const [vi, rq, buf = 0n, len, ctx] = calls[0] ?? [];
    expect(vi).toBe(net.vi);
    expect(rq).toBe(kernel.memory.read64(net.vi + 8n));
    expect(len).toBe(512n);
    expect(ctx).toBe(rx === 'small' ? 0n : 1536n);
    expect(kernel.memory.readBytes(buf + 26n, 40)).toEqual(makeFrame(500, 9).subarray(14, 54));
  });

  test('every function has as many parameters as its prototype', () => {
    const kernel = new DirectKernel();
    const seen: string[] = [];
    const define = kernel.define.bind(kernel);
    kernel.define = (fn) => {
      const inside = fn.prototype.slice(fn.prototype.indexOf('(') + 1, -1);
      const parameters = inside === 'void' ? 0 : inside.split(',').length;
      expect([fn.name, fn.parameters]).toEqual([fn.name, parameters]);
      expect(fn.prototype).toContain(`${fn.name}(`);
      seen.push(fn.name);
      define(fn);
    };
    defineVirtioNet(kernel);
    expect(seen).toContain('virtnet_poll');
    expect(new Set(seen).size).toBe(seen.length);
  });
});

describe('attaching', () => {
  test.each([
    [1500, false, undefined],
    [3506, false, undefined],
    [3507, false, '-EINVAL: virtio_net: MTU too large to enable XDP without frags'],
    [3507, true, undefined],
    [9000, true, undefined],
  ])('mtu %i, frags %s', (mtu, hasFrags, refusal) => {
    for (const rx of MODES) {
      const kernel = new DirectKernel(4 << 20);
      const net = createVirtioNet(kernel, { rx, mtu, queueSize: 64 });
      const attach = (): void => net.attachXdp(returns(VERDICT.PASS, { hasFrags }));
      if (refusal === undefined) attach();
      else expect(attach).toThrow(refusal);
      net.close();
      expect(kernel.allocated).toEqual({ slab: 0, pages: 0 });
    }
  });

  test('GUEST_CSUM without CTRL_GUEST_OFFLOADS is refused', () => {
    const net = createVirtioNet(new DirectKernel(4 << 20), { features: ['GUEST_CSUM'] });
    expect(() => net.attachXdp(returns(VERDICT.PASS))).toThrow(
      "-EOPNOTSUPP: virtio_net: Can't set XDP while host is implementing GRO_HW/CSUM",
    );
  });

  test('the MTU may be raised after attaching; detaching twice is nothing', () => {
    const net = createVirtioNet(new DirectKernel(4 << 20), { rx: 'small' });
    net.attachXdp(returns(VERDICT.DROP));
    net.setMtu(9000);
    net.attachXdp(undefined);
    net.attachXdp(undefined);
    expect(() => net.setMtu(10)).toThrow('mtu 10');
  });

  test.each([
    [{ cpus: 2, queuePairs: 2, maxQueuePairs: 4 }, 4, [2, 3], 0],
    [{ cpus: 1, queuePairs: 1, maxQueuePairs: 2 }, 2, [1], 0],
    [{ cpus: 2, queuePairs: 2, maxQueuePairs: 2 }, 2, [0, 1], 1],
    [{ cpus: 1, queuePairs: 1, maxQueuePairs: 1 }, 1, [0], 1],
  ])('transmit queues with %o', (options, pairs, queues, warnings) => {
    const r = rig('mergeable', options, 12 << 20);
    r.net.attachXdp(returns(VERDICT.TX));
    expect(r.net.device.activePairs).toBe(pairs);
    expect(r.kernel.log.filter((line) => line.includes('XDP request '))).toHaveLength(warnings);
    for (let cpu = 0; cpu < options.cpus; cpu++) {
      r.kernel.currentCpu = cpu;
      r.net.receive(makeFrame(90));
      r.net.poll();
    }
    expect(r.net.transmitted().map(({ queue }) => queue)).toEqual(queues);
  });
});

test('header bytes, back and in words', () => {
  const fields = { flags: 3, gso_type: 0x81, gso_size: 1448, csum_start: 34, csum_offset: 16 };
  const bytes = encodeNetHeader({ ...fields, hdr_len: 54, num_buffers: 2 });
  expect(Buffer.from(bytes).toString('hex')).toBe('03813600a805220010000200');
  expect(decodeNetHeader(bytes)).toEqual({ ...fields, hdr_len: 54, num_buffers: 2 });
  expect(describeNetHeader(decodeNetHeader(bytes))).toBe(
    'NEEDS_CSUM DATA_VALID csum_start 34 csum_offset 16 gso TCPV4|ECN size 1448',
  );
  expect(describeNetHeader(decodeNetHeader(new Uint8Array(12)))).toBe('none');
});

test('counter table leaves zeros out', () => {
  const r = rig('small');
  one(r, returns(VERDICT.PASS));
  const rows = counterTable(r.net.counters());
  expect(rows).toContainEqual(['rx0_xdp_packets', 81]);
  expect(rows.some(([, value]) => value === 0)).toBe(false);
});
