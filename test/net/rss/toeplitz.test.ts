/** The hash against published values and against the definition, bit by bit. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { hexToBytes } from '../../../src/common/bytes.js';
import { Random } from '../../../src/common/random.js';
import { parseIp } from '../../../src/net/address.js';
import { concatBytes } from '../../../src/net/packet.js';
import {
  MICROSOFT_KEY,
  parseKey,
  SYMMETRIC_KEY,
  ToeplitzKey,
} from '../../../src/net/rss/toeplitz.js';
import { bitwiseToeplitz } from './bitwise.js';

const microsoft = new ToeplitzKey(MICROSOFT_KEY);
const symmetric = new ToeplitzKey(SYMMETRIC_KEY);

const port = (value: number) => Uint8Array.of(value >>> 8, value & 0xff);

/** Addresses, and ports where both ends have one. */
function input(source: string, destination: string, ports?: readonly [number, number]): Uint8Array {
  const addresses = concatBytes(parseIp(source), parseIp(destination));
  return ports ? concatBytes(addresses, port(ports[0]), port(ports[1])) : addresses;
}

// destination first, as "Verifying the RSS hash calculation" prints them
const PUBLISHED = [
  ['161.142.100.80', 1766, '66.9.149.187', 2794, 0x323e8fc2, 0x51ccc178],
  ['65.69.140.83', 4739, '199.92.111.2', 14230, 0xd718262a, 0xc626b0ea],
  ['12.22.207.184', 38024, '24.19.198.95', 12898, 0xd2d0a5de, 0x5c2b394a],
  ['209.142.163.6', 2217, '38.27.205.30', 48228, 0x82989176, 0xafc7327f],
  ['202.188.127.2', 1303, '153.39.163.191', 44251, 0x5d1809c5, 0x10e828a2],
  ['3ffe:2501:200:3::1', 1766, '3ffe:2501:200:1fff::7', 2794, 0x2cc18cd5, 0x40207d3d],
  ['ff02::1', 4739, '3ffe:501:8::260:97ff:fe40:efab', 14230, 0x0f0c461c, 0xdde51bbf],
  [
    'fe80::200:f8ff:fe21:67cf',
    38024,
    '3ffe:1900:4545:3:200:f8ff:fe21:67cf',
    44251,
    0x4b61e985,
    0x02d1feef,
  ],
] as const;

describe('published values', () => {
  it.each(PUBLISHED)('%s:%i from %s:%i', (destination, to, source, from, two, four) => {
    expect(microsoft.hash(input(source, destination))).toBe(two);
    expect(microsoft.hash(input(source, destination, [from, to]))).toBe(four);
  });

  it('destination and source mixed up give something else', () => {
    const [destination, to, source, from] = PUBLISHED[0];
    expect(microsoft.hash(input(destination, source))).toBe(0xba45587e);
    expect(microsoft.hash(input(destination, source, [to, from]))).toBe(0xfde799b2);
  });

  it.each([
    ['10.0.0.1', '10.0.0.2', [10000, 80], 0x68279a62],
    ['10.0.0.1', '10.0.0.2', [10001, 80], 0xfab93bb3],
    ['10.0.0.1', '10.0.0.2', [10002, 80], 0xa168ca8a],
    ['10.0.0.1', '10.0.0.2', [10003, 80], 0x33f66b5b],
    ['10.0.0.2', '10.0.0.1', [80, 10000], 0xd674198d],
    ['10.0.0.1', '10.0.0.2', undefined, 0x02b7c9b1],
    ['fd00::1', 'fd00::2', [10000, 80], 0xe22a556f],
    ['fd00::1', 'fd00::2', undefined, 0x0db1d83f],
    ['192.0.2.1', '192.0.2.2', undefined, 0x5ceea90c],
    ['2001:db8::1', '2001:db8::2', undefined, 0x829c6d35],
  ] as const)('%s to %s %o', (source, destination, ports, expected) => {
    expect(microsoft.hash(input(source, destination, ports))).toBe(expected);
  });

  it('both directions under the symmetric key', () => {
    expect(symmetric.hash(input('10.0.0.1', '10.0.0.2', [10000, 80]))).toBe(0xfca8fca8);
    expect(symmetric.hash(input('10.0.0.2', '10.0.0.1', [80, 10000]))).toBe(0xfca8fca8);
  });

  it('eight 0xff bytes, zeros, nothing', () => {
    expect(microsoft.hash(new Uint8Array(8).fill(0xff))).toBe(0x1beb2ea2);
    expect(microsoft.hash(new Uint8Array(36))).toBe(0);
    expect(microsoft.hash(new Uint8Array(0))).toBe(0);
    // the first byte of 66.9.149.187 alone
    expect(microsoft.hash(Uint8Array.of(0x42))).toBe(0x8c211b3d);
  });
});

describe('properties', () => {
  it('is the definition, for 100,000 random inputs', () => {
    const random = new Random(1);
    const keyBytes = Uint8Array.from({ length: 40 }, () => random.below(256));
    const key = new ToeplitzKey(keyBytes);
    const data = new Uint8Array(36);
    let wrong = 0;
    for (let i = 0; i < 100_000; i++) {
      for (let at = 0; at < 36; at += 4) {
        const word = random.u32();
        data[at] = word;
        data[at + 1] = word >>> 8;
        data[at + 2] = word >>> 16;
        data[at + 3] = word >>> 24;
      }
      const length = [8, 12, 32, 36][i & 3] ?? 0;
      const bytes = data.subarray(0, length);
      if (key.hash(bytes) !== bitwiseToeplitz(keyBytes, bytes)) wrong++;
    }
    expect(wrong).toBe(0);
  });

  it('holds for keys and inputs of any length', () => {
    const bytes = fc.uint8Array({ maxLength: 90 });
    fc.assert(
      fc.property(bytes, bytes, (keyBytes, data) => {
        expect(new ToeplitzKey(keyBytes).hash(data)).toBe(bitwiseToeplitz(keyBytes, data));
      }),
    );
  });

  it('is linear, and the same in pieces', () => {
    const pair = fc
      .nat(60)
      .chain((length) =>
        fc.tuple(
          fc.uint8Array({ minLength: length, maxLength: length }),
          fc.uint8Array({ minLength: length, maxLength: length }),
          fc.nat(length),
        ),
      );
    fc.assert(
      fc.property(pair, ([a, b, cut]) => {
        const sum = a.map((byte, i) => byte ^ (b[i] ?? 0));
        expect((microsoft.hash(a) ^ microsoft.hash(b)) >>> 0).toBe(microsoft.hash(sum));
        const front = microsoft.mix(0, 0, a, 0, cut);
        const whole = microsoft.mix(front, cut, a, cut, a.length - cut) >>> 0;
        expect(whole).toBe(microsoft.hash(a));
      }),
    );
  });
});

it('keys have names or digits', () => {
  expect(parseKey('microsoft')).toEqual(MICROSOFT_KEY);
  expect(parseKey('symmetric')).toEqual(hexToBytes('6d5a'.repeat(20)));
  expect(parseKey('6d:5a:56')).toEqual(Uint8Array.of(0x6d, 0x5a, 0x56));
  expect(() => parseKey('6d5')).toThrow('key: odd number of hex digits (3)');
  expect(() => parseKey('secret')).toThrow(/^key: 's' at position 0 is not a hex digit/);
  expect(() => parseKey('')).toThrow('key: no bytes');
});
