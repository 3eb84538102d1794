import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { viewOf } from '../../src/common/bytes.js';
import { parseIp } from '../../src/net/address.js';
import {
  checksumHolds,
  fold,
  internetChecksum,
  pseudoHeaderSum,
  sumWords,
  updateChecksum,
} from '../../src/net/checksum.js';
import { icmp, ipv4, tcp, udp, TCP_FLAG, type ChecksumState } from '../../src/net/packet.js';

const text = (value: string): Uint8Array => new TextEncoder().encode(value);
const v4 = { source: '10.0.0.1', destination: '10.0.0.2' };
const v6 = { source: 'fd00::1', destination: 'fd00::2' };
const hello = text('hello virtio');

// golden numbers calculated outside this project
describe('golden checksums', () => {
  const udpField = (ends: typeof v4, checksum: ChecksumState): number =>
    viewOf(udp(ends, { sourcePort: 1000, destinationPort: 2000, checksum }, hello)).getUint16(6);
  const tcpField = (checksum: ChecksumState): number =>
    viewOf(
      tcp(
        v4,
        {
          sourcePort: 40000,
          destinationPort: 80,
          sequence: 1,
          acknowledgement: 2,
          flags: TCP_FLAG.PSH | TCP_FLAG.ACK,
          window: 1000,
          checksum,
        },
        text('GET /\r\n'),
      ),
    ).getUint16(16);

  it.each([
    ['UDP over IPv4 partial', () => udpField(v4, 'partial'), 0x1428],
    ['UDP over IPv4 complete', () => udpField(v4, 'complete'), 0x49cc],
    ['UDP over IPv6 partial', () => udpField(v6, 'partial'), 0xfa29],
    ['UDP over IPv6 complete', () => udpField(v6, 'complete'), 0x63ca],
    ['TCP over IPv4 partial', () => tcpField('partial'), 0x1424],
    ['TCP over IPv4 complete', () => tcpField('complete'), 0x26d5],
  ])('%s', (_, compute, expected) => {
    expect(compute()).toBe(expected);
  });

  it('is 0x599b for the outer header of an IPIP tunnel', () => {
    const outer = ipv4(
      { source: '172.16.0.1', destination: '172.16.0.2' },
      { protocol: 4, ttl: 8, id: 0x0100 },
      new Uint8Array(40),
    );
    expect(viewOf(outer).getUint16(10)).toBe(0x599b);
  });

  it('folds until no carry is left', () => {
    const header = Uint8Array.from(
      '4500056c18970000080400001b0b0a5ef9e276ac'.match(/../g) ?? [],
      (byte) => parseInt(byte, 16),
    );
    expect(header).toHaveLength(20);
    expect(fold(0x1ffff)).toBe(1);
    expect(checksumHolds(internetChecksum(header), header)).toBe(true);
  });

  it('writes 0xffff where a UDP checksum would be 0', () => {
    // the payload cancels the sum of all else
    const base = udp(v4, { sourcePort: 1, destinationPort: 2 }, Uint8Array.of(0, 0));
    const field = viewOf(base).getUint16(6);
    const payload = Uint8Array.of(field >>> 8, field & 0xff);
    const segment = udp(v4, { sourcePort: 1, destinationPort: 2 }, payload);
    expect(viewOf(segment).getUint16(6)).toBe(0xffff);
  });
});

describe('checksum properties', () => {
  const address = fc.uint8Array({ minLength: 4, maxLength: 4 });

  it('verifies every segment that it completed', () => {
    fc.assert(
      fc.property(address, address, fc.uint8Array({ maxLength: 99 }), (from, to, payload) => {
        const ends = { source: from.join('.'), destination: to.join('.') };
        for (const [protocol, segment] of [
          [17, udp(ends, { sourcePort: 7, destinationPort: 8 }, payload)],
          [6, tcp(ends, { sourcePort: 7, destinationPort: 8 }, payload)],
        ] as const) {
          const pseudo = pseudoHeaderSum(
            parseIp(ends.source),
            parseIp(ends.destination),
            protocol,
            segment.length,
          );
          expect(checksumHolds(pseudo, segment)).toBe(true);
        }
        expect(checksumHolds(0, icmp({ type: 8, id: 1, sequence: 2 }, payload))).toBe(true);
      }),
    );
  });

  it('is the same over any even split, and updates incrementally', () => {
    fc.assert(
      fc.property(
        fc.uint8Array({ minLength: 4, maxLength: 60 }),
        fc.nat(),
        fc.nat(0xffff),
        (bytes, where, word) => {
          const cut = 2 * (where % (bytes.length >> 1));
          const parts = sumWords(bytes.subarray(cut), sumWords(bytes.subarray(0, cut)));
          expect(parts).toBe(sumWords(bytes));
          const before = internetChecksum(bytes);
          const view = viewOf(bytes);
          const old = view.getUint16(cut);
          view.setUint16(cut, word);
          const updated = updateChecksum(before, old, word);
          // 0 and 0xffff are the two zeros of ones-complement numbers
          expect(updated % 0xffff).toBe(internetChecksum(bytes) % 0xffff);
        },
      ),
    );
  });
});
