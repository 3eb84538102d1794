import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { hexToBytes, viewOf } from '../../../src/common/bytes.js';
import { siphash } from '../../../src/common/siphash.js';
import type { Socket } from '../../../src/bpf/socket.js';
import { HelperBench } from './support.js';

const MINUTE = 60_000_000_000n;
const [EINVAL, ENOENT, EACCES, EPROTONOSUPPORT] = [-22n, -2n, -13n, -93n];
const [FIN, SYN, RST, ACK] = [1, 2, 4, 16];

/** From the paper: key 00..0f, input 00, 01, 02, ... of 15, of 0 and of 8 bytes. */
it.each([
  [15, 0xa129ca6149be45e5n],
  [0, 0x726fdb47dd0e0e31n],
  [8, 0x93f5f5799a932462n],
])('SipHash-2-4 of %i bytes', (size, expected) => {
  const data = Uint8Array.from({ length: size }, (_, i) => i);
  expect(siphash(data, [0x0706050403020100n, 0x0f0e0d0c0b0a0908n])).toBe(expected);
});

const tcpHeader = (
  flags: number,
  sequence: number,
  acknowledgement = 0,
  options = '',
): Uint8Array => {
  const header = hexToBytes(`30390050${'00'.repeat(16)}${options}`);
  const view = viewOf(header);
  view.setUint32(4, sequence);
  view.setUint32(8, acknowledgement);
  view.setUint8(12, (header.length / 4) << 4);
  view.setUint8(13, flags);
  return header;
};

const VERSIONS = [
  { name: 'ipv4', gen: 204, check: 206, ip: hexToBytes(`45${'00'.repeat(11)}0a0000020a000001`) },
  {
    name: 'ipv6',
    gen: 205,
    check: 207,
    ip: hexToBytes(`60${'00'.repeat(7)}${'fe'.repeat(16)}${'fd'.repeat(16)}`),
  },
] as const;

describe.each(VERSIONS)('raw cookies of $name', ({ name, gen, check, ip }) => {
  it('are known again for two minutes, and others are not', () => {
    const bench = new HelperBench();
    const at = bench.put(ip);
    const u32 = fc.integer({ min: 0, max: 0xffff_ffff });
    fc.assert(
      fc.property(u32, fc.nat(1_000_000), fc.nat(4), u32, (sequence, start, later, other) => {
        const now = BigInt(start) * MINUTE;
        bench.host.setClock(now, 0n);
        const cookie = bench.call(gen, at, bench.put(tcpHeader(SYN, sequence)), 20) & 0xffff_ffffn;
        const answer = (value: number): bigint =>
          bench.put(tcpHeader(ACK, (sequence + 1) >>> 0, (value + 1) >>> 0));
        bench.host.setClock(now + BigInt(later) * MINUTE);
        expect(bench.call(check, at, answer(Number(cookie)))).toBe(later < 2 ? 0n : EACCES);
        // the index of the MSS leaves 4 good values of 2^24 for each minute
        fc.pre(Math.abs(other - Number(cookie)) > 3);
        expect([0n, EACCES]).toContain(bench.call(check, at, answer(other)));
        expect(bench.call(check, at, answer(Number(cookie) ^ 0x10_0000))).toBe(EACCES);
      }),
      { numRuns: 40 },
    );
  });

  it.each([
    ['', { ipv4: 536, ipv6: 1220 }],
    ['02040218', { ipv4: 536, ipv6: 1220 }],
    ['020405b4', { ipv4: 1460, ipv6: 1440 }],
    ['01010101020405b3', { ipv4: 1440, ipv6: 1440 }],
    ['0402010102042328', { ipv4: 1460, ipv6: 8940 }],
    ['0402000002042328', { ipv4: 536, ipv6: 1220 }],
    ['0501000002042328', { ipv4: 536, ipv6: 1220 }],
  ])('remember the MSS of options %s', (options, mss) => {
    const bench = new HelperBench();
    const syn = tcpHeader(SYN, 7, 0, options);
    const made = bench.call(gen, bench.put(ip), bench.put(syn), syn.length);
    expect(made >> 32n).toBe(BigInt(mss[name]));
  });

  it.each([
    ['too short', 19, 20],
    ['none', 0, 20],
    ['longer than the header says', 24, 20],
    ['shorter than the header says', 20, 24],
  ])('are not made for a length that is %s', (_what, size, real) => {
    const bench = new HelperBench();
    const syn = bench.put(tcpHeader(SYN, 7, 0, '00'.repeat(real - 20)));
    const room = bench.put(new Uint8Array(24));
    bench.host.memory.writeBytes(room, bench.host.memory.readBytes(syn, real));
    expect(bench.call(gen, bench.put(ip), room, size)).toBe(EINVAL);
  });
});

describe('with a listening socket', () => {
  const [V4, V6] = VERSIONS.map(({ ip }) => ip);
  const [CHECK, GENERATE] = [100, 110];
  const v4: Socket = { protocol: 'tcp', local: { address: new Uint8Array(4), port: 80 } };
  const v6: Socket = { protocol: 'tcp', local: { address: new Uint8Array(16), port: 80 } };
  const other: Socket = { ...v4, state: 'CLOSE' };
  const udp: Socket = { ...v4, protocol: 'udp' };

  function call(
    helper: number,
    socket: Socket,
    ip: Uint8Array | undefined,
    tcp: Uint8Array,
    given: { mode?: 0 | 1 | 2; overflow?: boolean; ipSize?: number; tcpSize?: number } = {},
  ): bigint {
    const bench = new HelperBench();
    const { network } = bench.host;
    network.synCookies = given.mode ?? 2;
    if (given.overflow ?? true) network.sockets.noteOverflow(socket, bench.host.clock());
    const bytes = ip ?? new Uint8Array(40);
    return bench.call(
      helper,
      network.sockets.addressOf(socket, bench.host),
      bench.put(bytes),
      given.ipSize ?? bytes.length,
      bench.put(tcp),
      given.tcpSize ?? tcp.length,
    );
  }

  const syn = tcpHeader(SYN, 7);
  const ack = tcpHeader(ACK, 8, 1);

  it.each([
    ['a wrong cookie', v4, V4, ack, {}, ENOENT],
    ['no overflow', v4, V4, ack, { overflow: false }, ENOENT],
    ['no cookies', v4, V4, ack, { mode: 0 }, EINVAL],
    ['another state', other, V4, ack, {}, EINVAL],
    ['UDP', udp, V4, ack, {}, EINVAL],
    ['no ACK', v4, V4, tcpHeader(0, 8, 1), {}, ENOENT],
    ['a RST', v4, V4, tcpHeader(ACK | RST, 8, 1), {}, ENOENT],
    ['a SYN', v4, V4, tcpHeader(ACK | SYN, 8, 1), {}, ENOENT],
    ['a short TCP header', v4, V4, ack, { tcpSize: 19 }, EINVAL],
    ['a short IP header', v4, V4, ack, { ipSize: 19 }, EINVAL],
    ['a short IPv6 header', v6, V6, ack, { ipSize: 39 }, EINVAL],
    ['IPv6 for a socket of IPv4', v4, V6, ack, {}, EINVAL],
    ['IPv4 for one of IPv6 only', { ...v6, ipv6Only: true }, V4, ack, {}, EINVAL],
    ['IPv4 for one of both', v6, V4, ack, {}, ENOENT],
    ['no IP', v4, undefined, ack, {}, EPROTONOSUPPORT],
  ])('check refuses %s', (_what, socket, ip, tcp, given, expected) => {
    expect(call(CHECK, socket, ip, tcp, given as Parameters<typeof call>[4])).toBe(expected);
  });

  it.each([
    ['no need', v4, V4, syn, { mode: 1 }, ENOENT],
    ['no cookies', v4, V4, syn, { mode: 0 }, ENOENT],
    ['another state', other, V4, syn, {}, EINVAL],
    ['an ACK', v4, V4, ack, {}, EINVAL],
    ['a FIN', v4, V4, tcpHeader(SYN | FIN, 7), {}, EINVAL],
    ['a length of its own', v4, V4, tcpHeader(SYN, 7, 0, '01010101'), { tcpSize: 20 }, EINVAL],
    ['no IP', v4, undefined, syn, {}, EPROTONOSUPPORT],
    ['IPv6 for a socket of IPv4', v4, V6, syn, {}, EINVAL],
  ])('generate refuses %s', (_what, socket, ip, tcp, given, expected) => {
    expect(call(GENERATE, socket, ip, tcp, given as Parameters<typeof call>[4])).toBe(expected);
  });

  it('generate makes one when the queue is full', () => {
    const made = call(GENERATE, { ...v4, requestQueueFull: true }, V4, syn, { mode: 1 });
    expect(made >> 32n).toBe(536n);
  });
});
