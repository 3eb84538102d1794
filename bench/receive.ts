/**
 * The receive path of virtio-net by itself, with frames of 64 bytes: each kind of receive buffer and each ring,
 * without a program and with the smallest one on the wasm tier, which drops.
 *
 * A packet is written into the ring by the device, taken off by the driver's poll, made an skb that the stack
 * takes or handed to the program, and its buffer is posted anew. In big mode no program runs. The last row
 * is the embedded engine on its loop (`bench engines`) in the same run: it makes figures of different
 * machines comparable.
 */
import { assemble } from '../src/bpf/assemble.js';
import { rawProgram } from '../src/bpf/raw-program.js';
import { embeddedFactory } from '../src/cpu/engines.js';
import { createXdpEngine } from '../src/lab/xdp-engine.js';
import { NAPI_POLL_WEIGHT, installVirtioNet } from '../src/lab/xdp-traffic.js';
import { ETHERTYPE, IPPROTO, ethernet, ipv4, udp } from '../src/net/packet.js';
import { bootLab } from '../src/node/boot.js';
import type { VirtioNet } from '../src/virtio/virtio-net.js';
import { RINGS, RX_MODES, measureApart, type ReceiveSetting } from './packet-job.js';
import { measureRate, type PacketRate } from './packet-rate.js';
import { benchMemory, runProgram } from './reference-programs.js';
import type { BenchRow } from './row.js';

const FRAME_BYTES = 64;
const WINDOW = 16 * NAPI_POLL_WEIGHT;
/** Instructions of a run. */
const LOOP = 100_000;

export async function receiveRows(collect: () => void): Promise<BenchRow[]> {
  const rows: BenchRow[] = [];
  const add = (name: string, { speed, allocated }: PacketRate): void => {
    rows.push({ name, value: speed, unit: 'packets/s' });
    rows.push({ name: `${name} allocated`, value: allocated, unit: 'bytes/packet' });
  };
  for (const drops of [false, true]) {
    for (const rx of RX_MODES) {
      if (rx === 'big' && drops) continue;
      for (const ring of RINGS) {
        const name = `${drops ? 'smallest drop wasm' : 'no program'} ${rx} ${ring}`;
        add(name, await measureApart({ kind: 'receive', rx, ring, drops }));
      }
    }
  }
  const cpu = embeddedFactory.create(benchMemory());
  const loop = measureRate(() => void runProgram(cpu, 'loop', LOOP), LOOP, collect);
  cpu.close();
  const unit = 'M instructions/s';
  rows.push({ name: 'embedded engine loop in the same run', value: loop.speed / 1e6, unit });
  return rows;
}

export async function measureReceive(
  { rx, ring, drops }: ReceiveSetting,
  collect: () => void,
): Promise<PacketRate> {
  const kernel = await bootLab({ engine: 'embedded' });
  const net = installVirtioNet(kernel).probe({ rx, ring });
  const program = rawProgram('drop', assemble('r0 = 1\nexit'));
  const engine = createXdpEngine(kernel, 'wasm', program);
  if (drops) net.attachXdp(engine.runner);
  const frame = smallFrame();
  const rate = measureRate(() => sendWindow(net, frame, drops ? 0 : WINDOW), WINDOW, collect);
  net.close();
  engine.close();
  kernel.close();
  return rate;
}

/** Throws when not exactly `expected` of the frames reach the stack. */
function sendWindow(net: VirtioNet, frame: Uint8Array, expected: number): void {
  let delivered = 0;
  let waiting = 0;
  const poll = (): void => {
    net.poll();
    delivered += net.drain();
    waiting = 0;
  };
  for (let sent = 0; sent < WINDOW; sent++) {
    // the ring of big mode holds fewer than one poll may take
    if (net.receive(frame) !== 'delivered') {
      poll();
      if (net.receive(frame) !== 'delivered') throw new Error('the device refuses a frame');
    }
    if (++waiting === NAPI_POLL_WEIGHT) poll();
  }
  poll();
  if (delivered !== expected) throw new Error(`${delivered} of ${WINDOW} delivered`);
}

/** A UDP datagram in 64 bytes. */
function smallFrame(): Uint8Array {
  const ends = { source: '10.0.0.1', destination: '10.0.0.2' };
  const payload = new Uint8Array(FRAME_BYTES - 14 - 20 - 8);
  const datagram = udp(ends, { sourcePort: 4660, destinationPort: 53 }, payload);
  const packet = ipv4(ends, { protocol: IPPROTO.UDP }, datagram);
  return ethernet({ type: ETHERTYPE.IPV4 }, packet);
}
