/** Real BPF programs on the receive path: interpreter and XDP helpers on the driver's xdp_buff. */
import { expect, test } from 'vitest';
import { assemble } from '../../src/bpf/assemble.js';
import { helperBodies } from '../../src/bpf/helpers/table.js';
import { createInterpreter } from '../../src/bpf/interpreter.js';
import { PlainHost } from '../../src/bpf/plain-host.js';
import { rawProgram } from '../../src/bpf/raw-program.js';
import type { XdpRunner } from '../../src/stack/xdp-program.js';
import { createVirtioNet, type VirtioNet } from '../../src/virtio/virtio-net.js';
import { DirectKernel } from './helpers/direct-kernel.js';
import { makeFrame } from './helpers/programs.js';

interface Rig {
  readonly net: VirtioNet;
  /** Attaches assembly text. */
  attach(text: string): void;
}

function rig(rx: 'small' | 'mergeable'): Rig {
  const host = new PlainHost({ helpers: helperBodies() });
  const kernel = new DirectKernel(4 << 20, host.memory);
  const net = createVirtioNet(kernel, { rx, queueSize: 64 });
  return {
    net,
    attach(text) {
      const program = rawProgram('xdp', assemble(text), {
        type: 'xdp',
        helperImmediate: (id) => Number((host.helperAddress(id) ?? 0n) - host.callBase),
      });
      const interpreter = createInterpreter(program, host);
      const runner: XdpRunner = {
        run(_kernel, xdpBuff) {
          const result = interpreter.run(host.memory.ram.physToVirt(xdpBuff));
          if (result.kind !== 'return') throw new Error(JSON.stringify(result));
          return Number(result.r0);
        },
      };
      net.attachXdp(runner);
    },
  };
}

/** PASS if helper `id` accepts `delta`, else DROP. */
const adjusts = (id: number, delta: number): string => `
  r2 = ${delta}
  call ${id}
  r1 = r0
  r0 = 2
  if r1 == 0 goto +1
  r0 = 1
  exit`;

test.each([
  ['mergeable', 44, -228, true],
  ['mergeable', 44, -229, false],
  ['small', 44, -216, true],
  ['small', 44, -217, false],
  ['mergeable', 65, 3454, true],
  ['mergeable', 65, 3455, false],
  ['small', 65, 1470, true],
  ['small', 65, 1547, false],
] as const)(
  '%s: helper %i by %i accepted: %s (as measured on real guests)',
  (rx, id, delta, ok) => {
    const { net, attach } = rig(rx);
    attach(adjusts(id, delta));
    net.receive(makeFrame(54));
    net.poll();
    const grown = id === 44 ? 54 - delta : 54 + delta;
    expect(net.delivered().map(({ frame }) => frame.length)).toEqual(ok ? [grown] : []);
    expect(net.counters()).toMatchObject({ rx_xdp_packets: 1, rx_xdp_drops: ok ? 0 : 1 });
  },
);

test.each(['small', 'mergeable'] as const)('%s: swapping addresses and sending back', (rx) => {
  const { net, attach } = rig(rx);
  attach(`
    r2 = *(u64 *)(r1 + 0)
    r3 = *(u32 *)(r2 + 0)
    r4 = *(u16 *)(r2 + 4)
    r5 = *(u32 *)(r2 + 6)
    r6 = *(u16 *)(r2 + 10)
    *(u32 *)(r2 + 0) = r5
    *(u16 *)(r2 + 4) = r6
    *(u32 *)(r2 + 6) = r3
    *(u16 *)(r2 + 10) = r4
    r0 = 3
    exit`);
  const frame = makeFrame(200, 7);
  net.receive(frame);
  net.poll();
  const expected = frame.slice();
  expected.set(frame.subarray(6, 12), 0);
  expected.set(frame.subarray(0, 6), 6);
  expect(net.transmitted()).toEqual([{ queue: 0, header: new Uint8Array(12), frame: expected }]);
});

test('ingress interface and queue are where a rewritten context access reads them', () => {
  const { net, attach } = rig('mergeable');
  // xdp_buff.rxq @32; rxq.dev @0, rxq.queue_index @8; dev.ifindex @224
  attach(`
    r2 = *(u64 *)(r1 + 32)
    r3 = *(u32 *)(r2 + 8)
    r2 = *(u64 *)(r2 + 0)
    r2 = *(u32 *)(r2 + 224)
    r0 = 1
    if r2 != 2 goto +2
    if r3 != 0 goto +1
    r0 = 2
    exit`);
  net.receive(makeFrame(60));
  net.poll();
  expect(net.delivered()).toHaveLength(1);
});
