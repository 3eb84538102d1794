import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { bytesToHex, hexToBytes } from '../../src/common/bytes.js';
import { InputError } from '../../src/common/errors.js';
import { formatIpv6, formatMac, parseIp, parseIpv6, parseMac } from '../../src/net/address.js';
import { describePacket } from '../../src/net/describe.js';
import {
  arp,
  ethernet,
  icmp,
  icmpv6,
  ipv4,
  ipv6,
  ipv6Fragment,
  tcp,
  udp,
  ETHERTYPE,
  IPPROTO,
  TCP_FLAG,
} from '../../src/net/packet.js';

const v4 = { source: '10.0.0.1', destination: '10.0.0.2' };
const v6 = { source: '2001:db8::1', destination: '2001:db8::2' };
const ports = { sourcePort: 1000, destinationPort: 2000 };
const twelve = new TextEncoder().encode('hello virtio');
const overV4 = (protocol: number, segment: Uint8Array): Uint8Array =>
  ethernet({ type: ETHERTYPE.IPV4 }, ipv4(v4, { protocol }, segment));
const overV6 = (nextHeader: number, segment: Uint8Array): Uint8Array =>
  ethernet({ type: ETHERTYPE.IPV6 }, ipv6(v6, { nextHeader }, segment));

describe('builders', () => {
  it('makes the frame that other tools make', () => {
    // a frame of the kernel corpus: IPv4 ICMP echo with id 0x1234, sequence 1
    const payload = new TextEncoder().encode('The quick brown fox jumps over the lazy dog');
    const frame = ethernet(
      { type: ETHERTYPE.IPV4, source: '02:00:00:00:00:02', destination: '02:00:00:00:00:01' },
      ipv4(
        v4,
        { protocol: IPPROTO.ICMP, id: 0x1234, dontFragment: true },
        icmp({ type: 8, id: 0x1234, sequence: 1 }, payload),
      ),
    );
    expect(bytesToHex(frame)).toBe(
      '02000000000102000000000208004500004712344000400114800a0000010a0000020800586f12340001' +
        '54686520717569636b2062726f776e20666f78206a756d7073206f76657220746865206c617a7920646f67',
    );
  });

  it('refuses an address of the other family', () => {
    expect(() => ipv4(v6, { protocol: 17 }, twelve)).toThrow(InputError);
    expect(() => ipv6(v4, { nextHeader: 17 }, twelve)).toThrow("'10.0.0.1' is not an IPv6 address");
  });
});

describe('describePacket', () => {
  it.each([
    [overV4(17, udp(v4, ports, twelve)), 'IPv4 10.0.0.1:1000 > 10.0.0.2:2000 UDP 12 bytes'],
    [
      overV4(6, tcp(v4, { ...ports, flags: TCP_FLAG.SYN | TCP_FLAG.ACK }, twelve)),
      'IPv4 10.0.0.1:1000 > 10.0.0.2:2000 TCP SYN,ACK 12 bytes',
    ],
    [overV4(1, icmp({ type: 8 }, twelve)), 'IPv4 10.0.0.1 > 10.0.0.2 ICMP echo request 12 bytes'],
    [
      overV6(17, udp(v6, ports, twelve)),
      'IPv6 [2001:db8::1]:1000 > [2001:db8::2]:2000 UDP 12 bytes',
    ],
    [
      overV6(58, icmpv6(v6, { type: 135 }, twelve)),
      'IPv6 2001:db8::1 > 2001:db8::2 ICMPv6 neighbour solicitation 12 bytes',
    ],
    [
      overV6(44, ipv6Fragment({ nextHeader: 17, offset: 64, more: false, id: 1 }, twelve)),
      'IPv6 2001:db8::1 > 2001:db8::2 fragment at 64, 12 bytes',
    ],
    [
      ethernet({ type: ETHERTYPE.ARP, vlans: [7, 100] }, arp(v4)),
      'VLAN 7 VLAN 100 ARP who has 10.0.0.2, tell 10.0.0.1',
    ],
    [
      overV4(4, ipv4(v4, { protocol: 17 }, udp(v4, ports, twelve))),
      'IPv4 10.0.0.1 > 10.0.0.2 carries IPv4 10.0.0.1:1000 > 10.0.0.2:2000 UDP 12 bytes',
    ],
    [
      ethernet({ type: ETHERTYPE.IPV4 }, ipv4(v4, { protocol: 17, fragmentOffset: 16 }, twelve)),
      'IPv4 10.0.0.1 > 10.0.0.2 fragment at 16, 12 bytes',
    ],
    [new Uint8Array(9), 'Ethernet cut: 9 bytes'],
    [overV4(17, twelve).subarray(0, 30), 'IPv4 cut: 16 bytes'],
  ])('%#: %2$s', (frame, expected) => {
    expect(describePacket(frame)).toBe(expected);
  });

  it('gives one line for any bytes', () => {
    const frames = fc.oneof(
      fc.uint8Array({ maxLength: 80 }),
      fc
        .tuple(fc.constantFrom(0x0800, 0x86dd, 0x0806, 0x8100), fc.uint8Array({ maxLength: 90 }))
        .map(([type, rest]) => ethernet({ type }, rest)),
    );
    fc.assert(
      fc.property(frames, (frame) => {
        expect(describePacket(frame)).toMatch(/^[^\n]+$/);
      }),
      { numRuns: 2000 },
    );
  });
});

describe('addresses', () => {
  it.each([
    ['::', '00000000000000000000000000000000'],
    ['::1', '00000000000000000000000000000001'],
    ['2001:db8::1:0:0:1', '20010db8000000000001000000000001'],
    ['fe80::', 'fe800000000000000000000000000000'],
    ['1:0:2:3:4:5:6:7', '00010000000200030004000500060007'],
  ])('%s', (text, hex) => {
    expect(bytesToHex(parseIpv6(text))).toBe(hex);
    expect(formatIpv6(hexToBytes(hex))).toBe(text);
  });

  it('round trips', () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 16, maxLength: 16 }), (bytes) => {
        expect(parseIpv6(formatIpv6(bytes))).toEqual(bytes);
        expect(parseMac(formatMac(bytes))).toEqual(bytes.subarray(0, 6));
      }),
    );
  });

  it.each(['1.2.3', '1.2.3.256', '1:2', '::1::', ':::', '1:2:3:4:5:6:7:8:9', 'x::', ''])(
    'refuses %s',
    (text) => {
      expect(() => parseIp(text)).toThrow(InputError);
    },
  );
});
