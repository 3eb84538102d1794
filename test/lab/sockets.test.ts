/** Socket look-ups and SYN cookies of programs compiled by clang: the same on every engine. */
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { hexToBytes, viewOf } from '../../src/common/bytes.js';
import { load } from '../../src/bpf/object/load.js';
import { parseObject } from '../../src/bpf/object/parse.js';
import { readVariable } from '../../src/bpf/object/variables.js';
import { SOCK, type Socket } from '../../src/bpf/socket.js';
import { embeddedFactory, type CpuFactory } from '../../src/cpu/engines.js';
import { bootKernel, type Kernel } from '../../src/kernel/kernel.js';
import { createRunner, xdpContext, type RunEngine } from '../../src/lab/run-program.js';
import { kernelAsm } from '../../src/node/files.js';
import { unicorn } from '../helpers/cpus.js';

const ENGINES: readonly (readonly [string, RunEngine, CpuFactory])[] = [
  ['interpreter', 'interpreter', embeddedFactory],
  ['wasm', 'wasm', embeddedFactory],
  ['embedded', 'jit', embeddedFactory],
  ...(unicorn ? [['unicorn', 'jit', unicorn] as const] : []),
];

const SPEC = parseObject(
  Uint8Array.from(readFileSync(new URL('../vectors/objects/sockets.o', import.meta.url))),
  { name: 'sockets' },
);

const CLIENT = { address: hexToBytes('0a000002'), port: 0x3039 };
const SERVER = { address: hexToBytes('0a000001'), port: 80 };
const ANY = { address: new Uint8Array(4), port: 80 };

const [SYN, ACK] = [2, 16];
const [XDP_DROP, XDP_PASS, XDP_TX] = [1, 2, 3];
const [ENOENT, EACCES] = [-2n, -13n];

/** A segment from CLIENT to SERVER with an MSS option of 1460. */
function segment(flags: number, sequence: number, acknowledgement = 0): Uint8Array {
  const packet = hexToBytes(
    '020000000001020000000002080045000028000000004006000000000000000000000000' +
      '0000000000000000000060000000000000000204' +
      '05b4',
  );
  const view = viewOf(packet);
  packet.set(CLIENT.address, 26);
  packet.set(SERVER.address, 30);
  view.setUint16(34, CLIENT.port);
  view.setUint16(36, SERVER.port);
  view.setUint32(38, sequence);
  view.setUint32(42, acknowledgement);
  packet[47] = flags;
  return packet;
}

describe.each(ENGINES)('on %s', (_, engine, cpu) => {
  /** Runs a program over a packet: its result and the numbers it left. */
  function run(kernel: Kernel, program: string, packet: Uint8Array): [number, bigint[]] {
    const programs = SPEC.programs.filter(({ name }) => name === program);
    const object = load(SPEC, kernel.bpf.host, { programs });
    const { xdp } = xdpContext(kernel, packet);
    const runner = createRunner(kernel, engine, object.program(program).xlated);
    const ran = runner.run(xdp.address);
    if (ran.kind !== 'return') throw new Error(ran.reason);
    const view = viewOf(readVariable(object, kernel.memory, 'seen'));
    const seen = Array.from({ length: 16 }, (_each, i) => view.getBigInt64(8 * i, true));
    runner.close();
    object.free();
    return [Number(ran.r0 & 0xffff_ffffn), seen];
  }

  const booted = bootKernel({ asm: kernelAsm(), cpu });
  let open: readonly Socket[] = [];

  /** The kernel with these sockets alone. */
  async function withSockets(...sockets: readonly Socket[]): Promise<Kernel> {
    const kernel = await booted;
    const { network } = kernel.bpf.host;
    network.synCookies = 1;
    for (const socket of open) network.sockets.remove(socket);
    for (const socket of sockets) network.sockets.add(socket);
    open = sockets.flatMap((socket) => (socket.listener ? [socket, socket.listener] : [socket]));
    return kernel;
  }

  it('reads every field of a socket, and gives it back', async () => {
    const socket: Socket = {
      protocol: 'tcp',
      local: SERVER,
      remote: CLIENT,
      boundDevice: 1,
      mark: 0x1234,
      priority: 6,
      state: 'FIN_WAIT2',
    };
    const kernel = await withSockets(socket);
    const { host } = kernel.bpf;
    const [result, seen] = run(kernel, 'fields', segment(ACK, 1));
    expect(result).toBe(XDP_PASS);
    expect(seen).toEqual(
      // prettier-ignore
      [
        1n, 2n, 1n, 6n, 0x1234n, 6n, 0x0100000an, 80n, 0x3930n, 0x0200000an, 5n,
        // what no queue is known of is -1 in all 64 bits, as the kernel's rewriting has it
        -1n, 1n, 0x0100n, 0x39n, 5n,
      ],
    );
    const refcnt = host.network.sockets.addressOf(socket, host) + BigInt(SOCK.refcnt);
    expect(kernel.memory.read32(refcnt)).toBe(1);
  });

  const REQUEST: Socket = {
    protocol: 'tcp',
    local: SERVER,
    remote: CLIENT,
    state: 'NEW_SYN_RECV',
    listener: { protocol: 'tcp', local: ANY },
  };
  it.each<[string, readonly Socket[], readonly number[]]>([
    ['nothing', [], [0, 0, 0]],
    ['a connection', [{ protocol: 'tcp', local: SERVER, remote: CLIENT }], [1, 1, 0]],
    ['a listener on any address', [{ protocol: 'tcp', local: ANY }], [10, 10, 0]],
    ['a request, of which the listener is the full socket', [REQUEST], [10, 12, 0]],
    [
      'a timewait socket, which is no full one',
      [{ protocol: 'tcp', local: SERVER, remote: CLIENT, state: 'TIME_WAIT' }],
      [0, 6, 0],
    ],
    ['a UDP socket', [{ protocol: 'udp', local: SERVER }], [0, 0, 7]],
    ['one of another namespace', [{ protocol: 'tcp', local: ANY, namespace: 7 }], [0, 0, 0, 10]],
  ])('finds %s', async (_what, sockets, states) => {
    const kernel = await withSockets(...sockets);
    const expected = [...states, 0, 0, 0].slice(0, 6).map(BigInt);
    const [result, seen] = run(kernel, 'found', segment(SYN, 1));
    expect(result).toBe(XDP_PASS);
    expect(seen.slice(0, 6)).toEqual(expected);
  });

  it('makes cookies and knows them again', async () => {
    const listener: Socket = { protocol: 'tcp', local: ANY, requestQueueFull: true };
    const kernel = await withSockets(listener);
    const before = run(kernel, 'check', segment(ACK, 1001, 1));
    // no overflow yet; and no cookie
    expect([before[0], ...before[1].slice(0, 2)]).toEqual([XDP_PASS, ENOENT, EACCES]);
    const [verdict, [withSocket, raw = 0n]] = run(kernel, 'make', segment(SYN, 1000));
    expect(verdict).toBe(XDP_TX);
    expect(withSocket).toBe(raw);
    expect(raw >> 32n).toBe(1460n);
    const cookie = Number(raw & 0xffff_ffffn);
    const answer = run(kernel, 'check', segment(ACK, 1001, (cookie + 1) >>> 0));
    expect([answer[0], ...answer[1].slice(0, 2)]).toEqual([XDP_PASS, 0n, 0n]);
    const wrong = run(kernel, 'check', segment(ACK, 1001, (cookie + 0x1000) >>> 0));
    expect([wrong[0], ...wrong[1].slice(0, 2)]).toEqual([XDP_PASS, ENOENT, EACCES]);
  });

  it('makes none where no listener is, or none is needed', async () => {
    const kernel = await withSockets({ protocol: 'tcp', local: ANY });
    expect(run(kernel, 'make', segment(SYN, 1000))[1][0]).toBe(ENOENT);
    kernel.bpf.host.network.synCookies = 2;
    expect(run(kernel, 'make', segment(SYN, 1000))[1][0]).toBeGreaterThan(0n);
    await withSockets();
    expect(run(kernel, 'make', segment(SYN, 1000))[0]).toBe(XDP_DROP);
  });
});

it('asks for the verifier', async () => {
  const kernel = await bootKernel({ asm: kernelAsm(), cpu: embeddedFactory });
  expect(() => load(SPEC, kernel.bpf.host, { check: false })).toThrow(
    /looks up sockets: it does not run without the verifier/,
  );
  kernel.close();
});
