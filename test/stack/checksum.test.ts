/** Checksum states of skbs: golden sums, completing, the walk of skb_checksum_setup. */
import { describe, expect, test } from 'vitest';
import { ERRNO } from '../../src/common/errno.js';
import { viewOf } from '../../src/common/bytes.js';
import { buildFrame, type L4Kind } from '../../src/lab/csum/frames.js';
import { checksumSetup } from '../../src/stack/checksum-setup.js';
import { checksumHelp, skbChecksum, skbPartialCsumSet } from '../../src/stack/checksum.js';
import { createPageTable } from '../../src/stack/pages.js';
import {
  SK_BUFF,
  allocSkbHead,
  freeSkb,
  skbBytes,
  skbHeadroom,
  skbPut,
} from '../../src/stack/skb.js';
import { DirectKernel } from '../virtio/helpers/direct-kernel.js';

const SKB = SK_BUFF.offset;

function makeSkb(kernel: DirectKernel, packet: Uint8Array, protocol: number): number {
  const { ram } = kernel.memory;
  const skb = allocSkbHead(kernel, 2048, 128);
  ram.bytes.set(packet, skbPut(kernel, skb, packet.length));
  ram.set16(skb + SKB.protocol, protocol);
  return skb;
}

/** The datagram and the segment of the golden sums, from their L3 header on. */
function golden(l4: 'udp4' | 'udp6' | 'tcp4'): Uint8Array {
  const v6 = l4 === 'udp6';
  const text = new TextEncoder().encode(l4 === 'tcp4' ? 'GET /\r\n' : 'hello virtio');
  const destination = v6 ? 'fd00::2' : '10.0.0.2';
  const { frame } = buildFrame({ l4, kind: 'P', destination, payload: text.length });
  frame.set(text, frame.length - text.length);
  if (l4 === 'tcp4') {
    viewOf(frame).setUint32(34 + 8, 2);
    frame[34 + 13] = 0x18;
  }
  return frame.subarray(14);
}

test.each<['udp4' | 'udp6' | 'tcp4', number, number, number, number]>([
  ['udp4', 20, 6, 0x1428, 0x49cc],
  ['udp6', 40, 6, 0xfa29, 0x63ca],
  ['tcp4', 20, 16, 0x1424, 0x26d5],
])('%s: partial and complete sums', (l4, start, offset, partial, complete) => {
  const kernel = new DirectKernel(2 << 20);
  const pages = createPageTable(kernel);
  const { ram } = kernel.memory;
  const skb = makeSkb(kernel, golden(l4), l4 === 'udp6' ? 0x86dd : 0x0800);
  const field = (): number => viewOf(skbBytes(ram, skb)).getUint16(start + offset);
  expect(field()).toBe(partial);
  expect(skbPartialCsumSet(ram, skb, start, offset)).toBe(true);
  expect(checksumHelp(kernel, pages, skb)).toBe(true);
  expect(field()).toBe(complete);
  expect(ram.u8(skb + SKB.ip_summed)).toBe(0);
  freeSkb(kernel, pages, skb);
});

test('a field behind the linear part cannot be PARTIAL', () => {
  const kernel = new DirectKernel(2 << 20);
  const skb = makeSkb(kernel, new Uint8Array(40), 0x0800);
  const { ram } = kernel.memory;
  expect(skbPartialCsumSet(ram, skb, 33, 6)).toBe(false);
  expect(skbPartialCsumSet(ram, skb, 32, 6)).toBe(true);
});

test('a sum over any part, at odd places too', () => {
  const kernel = new DirectKernel(2 << 20);
  const skb = makeSkb(kernel, Uint8Array.of(1, 2, 3, 4, 5), 0x0800);
  const { ram } = kernel.memory;
  expect(skbChecksum(ram, skb, 0, 5)).toBe(0x0102 + 0x0304 + 0x0500);
  expect(skbChecksum(ram, skb, 1, 3)).toBe(0x0203 + 0x0400);
});

const HOP = 0;
const ROUTING = 43;
const FRAGMENT = 44;
const AH = 51;
const DST = 60;
const UDP = 17;

/** An IPv6 packet whose extension headers are given as their numbers and bytes. */
function withExtensions(headers: readonly (readonly [number, readonly number[]])[], last = UDP) {
  const bytes: number[] = [];
  for (const [i, [, body]] of headers.entries()) bytes.push(headers[i + 1]?.[0] ?? last, ...body);
  const { frame } = buildFrame({ l4: 'udp6', kind: 'P', destination: 'fd00::2', payload: 12 });
  const packet = Uint8Array.from([...frame.subarray(14, 54), ...bytes, ...frame.subarray(54)]);
  packet[6] = headers[0]?.[0] ?? last;
  viewOf(packet).setUint16(4, packet.length - 40);
  return { packet, offset: 40 + bytes.length };
}

const options = [0, 0, 0, 0, 0, 0, 0];
const longOptions = [1, ...Array<number>(14).fill(0)];
const atomicFragment = [0, 0, 0, 0, 0, 0, 7];
const firstFragment = [0, 0, 1, 0, 0, 0, 7];
const laterFragment = [0, 0, 8, 0, 0, 0, 7];
const authentication = [4, ...Array<number>(22).fill(0)];

describe('skb_checksum_setup, IPv6', () => {
  test.each<[string, Parameters<typeof withExtensions>[0], number | undefined, boolean]>([
    ['no extension header', [], undefined, true],
    [
      'hop-by-hop, routing, destination options',
      [
        [HOP, options],
        [ROUTING, options],
        [DST, longOptions],
      ],
      undefined,
      true,
    ],
    ['authentication header', [[AH, authentication]], undefined, true],
    ['atomic fragment', [[FRAGMENT, atomicFragment]], undefined, true],
    ['first fragment', [[FRAGMENT, firstFragment]], undefined, false],
    ['later fragment', [[FRAGMENT, laterFragment]], undefined, false],
    ['ESP', [[HOP, options]], 50, false],
    ['no next header', [[DST, options]], 59, false],
  ])('%s', (_name, headers, last, found) => {
    const kernel = new DirectKernel(2 << 20);
    const { ram } = kernel.memory;
    const { packet, offset } = withExtensions(headers, last ?? UDP);
    const skb = makeSkb(kernel, packet, 0x86dd);
    const result = checksumSetup(kernel, createPageTable(kernel), skb, true);
    expect(result).toBe(found ? 0 : -ERRNO.EPROTO);
    if (!found) return;
    expect(ram.u16(skb + SKB.csum_start) - skbHeadroom(ram, skb)).toBe(offset);
    expect(ram.u16(skb + SKB.csum_offset)).toBe(6);
  });
});

describe('skb_checksum_setup, IPv4', () => {
  test.each<[string, (packet: Uint8Array) => number, L4Kind, boolean]>([
    ['UDP', () => 0x0800, 'udp4', true],
    ['TCP', () => 0x0800, 'tcp4', true],
    ['a fragment', (packet) => ((packet[6] = 0x20), 0x0800), 'udp4', false],
    ['SCTP', (packet) => ((packet[9] = 132), 0x0800), 'udp4', false],
    ['ARP', () => 0x0806, 'udp4', false],
    ['VLAN', () => 0x8100, 'udp4', false],
  ])('%s', (_name, change, l4, found) => {
    const kernel = new DirectKernel(2 << 20);
    const { frame } = buildFrame({ l4, kind: 'P', destination: '10.0.0.2', payload: 12 });
    const packet = frame.subarray(14);
    const protocol = change(packet);
    const skb = makeSkb(kernel, packet, protocol);
    const result = checksumSetup(kernel, createPageTable(kernel), skb, true);
    expect(result).toBe(found ? 0 : -ERRNO.EPROTO);
  });
});
