/**
 * What the fourth version of the patch gets wrong, each beside the version without it; and facts that the
 * discussion turns on.
 */
import { beforeAll, describe, expect, test } from 'vitest';
import { viewOf } from '../../../src/common/bytes.js';
import type { Kernel } from '../../../src/kernel/kernel.js';
import { PEER_MAC, buildFrame, ipv4Header, type CsumFrame } from '../../../src/lab/csum/frames.js';
import { CsumLab, type CsumResult } from '../../../src/lab/csum/matrix.js';
import {
  VERDICTS,
  encapProgram,
  labProgram,
  natProgram,
  returnProgram,
  type NatStrategy,
} from '../../../src/lab/csum/programs.js';
import type { CsumMode, CsumVariant } from '../../../src/lab/csum/rows.js';
import { createXdpEngine } from '../../../src/lab/xdp-engine.js';
import { parseIpv4 } from '../../../src/net/address.js';
import { bootLab } from '../../../src/node/boot.js';

let kernel: Kernel;
let lab: CsumLab;

beforeAll(async () => {
  kernel = await bootLab();
  lab = new CsumLab(kernel);
});

const PASS = returnProgram(VERDICTS.PASS);
const partial = (options: Partial<Parameters<typeof buildFrame>[0]> = {}): CsumFrame =>
  buildFrame({ l4: 'udp4', kind: 'P', destination: '10.0.0.2', payload: 12, ...options });

/** A packet through a program in a guest of its own. */
function send(
  variant: CsumVariant,
  frame: CsumFrame,
  text: string | undefined = PASS,
  mode: CsumMode = 'mergeable',
): CsumResult {
  const guest = lab.open(variant, mode);
  const engine = createXdpEngine(kernel, 'interpreter', labProgram(kernel, 'test', text));
  try {
    guest.attach(engine);
    return guest.send(frame);
  } finally {
    guest.close();
    engine.close();
  }
}

const PARTIAL = 3;

describe('defects of the fourth version', () => {
  test('1: in small mode the flags are read from the padding', () => {
    expect(send('v4-literal', partial(), PASS, 'small')).toMatchObject({
      outcome: 'L4 drop',
      skb: { ipSummed: 0 },
    });
    expect(send('v4-fixed', partial(), PASS, 'small')).toMatchObject({
      outcome: 'delivered',
      skb: { ipSummed: PARTIAL, csumStart: 366, csumOffset: 6 },
    });
  });

  test('3: a partial packet in a tunnel made by the program is a frame error', () => {
    const text = encapProgram({
      source: '172.16.0.1',
      destination: '172.16.0.2',
      nextHop: Uint8Array.of(0x52, 0x54, 0, 0, 0, 2),
      end: PASS,
    });
    expect(send('v4-literal', partial(), text).outcome).toBe('frame error');
    expect(send('v4-fixed', partial(), text).outcome).toBe('delivered');
  });

  test('4: padding counts as part of the packet, which shows where it is forwarded', () => {
    const { frame, header } = partial({ destination: '10.0.9.2', payload: 4 });
    const padded = { frame: Uint8Array.from([...frame, ...new Uint8Array(14)]), header };
    expect(send('v4-literal', padded).outcome).toBe('peer L4 drop');
    expect(send('v4-fixed', padded).outcome).toBe('delivered');
    const local = partial({ payload: 4 });
    const here = { frame: Uint8Array.from([...local.frame, ...new Uint8Array(14)]), header };
    expect(send('v4-literal', here).outcome).toBe('delivered wrong');
  });

  test('5: a checksum of an inner header is replaced by that of the outer one', () => {
    const inner = partial();
    const payload = inner.frame.subarray(14);
    const udp = new Uint8Array(8);
    viewOf(udp).setUint16(0, 4789);
    viewOf(udp).setUint16(2, 4789);
    viewOf(udp).setUint16(4, 8 + payload.length);
    const length = 8 + payload.length;
    const ip = ipv4Header(parseIpv4('10.0.0.1'), parseIpv4('10.0.0.2'), 17, length);
    const frame = Uint8Array.from([...inner.frame.subarray(0, 14), ...ip, ...udp, ...payload]);
    const start = (inner.header.csum_start ?? 0) + 28;
    const tunnelled = { frame, header: { ...inner.header, csum_start: start } };
    const place = (variant: CsumVariant): number | undefined => {
      const { skb } = send(variant, tunnelled);
      return skb && skb.csumStart - skb.headroom + 14;
    };
    expect(place('v4-literal')).toBe(34);
    expect(place('v4-fixed')).toBe(start);
  });

  test('7: a wrong checksum that the program made is hidden by DATA_VALID, upstream too', () => {
    const verified = buildFrame({ l4: 'udp4', kind: 'V', destination: '10.0.0.2', payload: 12 });
    const text = natProgram('S0', '10.0.0.9');
    for (const variant of ['v4-literal', 'v4-fixed', 'upstream'] as const) {
      expect(send(variant, verified, text).outcome).toBe('delivered wrong');
    }
    expect(send('base', verified, text).outcome).toBe('L4 drop');
  });
});

describe('an unmodified partial packet', () => {
  test.each<[CsumMode, number]>([
    ['mergeable', 302],
    ['small', 366],
  ])('%s: csum_start %i, the field rewritten to what it was', (mode, csumStart) => {
    const sent = partial();
    const { skb } = send('v4-fixed', sent, PASS, mode);
    expect(skb).toMatchObject({ ipSummed: PARTIAL, csumStart, csumOffset: 6 });
    expect(skb?.frame).toEqual(sent.frame);
  });

  test('it leaves partial by a device that completes, complete by one that does not', () => {
    const guest = lab.open('v4-fixed', 'mergeable');
    const engine = createXdpEngine(kernel, 'interpreter', labProgram(kernel, 'pass', PASS));
    guest.attach(engine);
    const frame = partial({ destination: '10.0.9.2' });
    expect(guest.send(frame).sentHeader).toMatchObject({
      flags: 1,
      csum_start: 34,
      csum_offset: 6,
    });
    guest.setTxChecksum(false);
    expect(guest.send(frame)).toMatchObject({
      outcome: 'delivered',
      sentHeader: { flags: 0, csum_start: 0, csum_offset: 0 },
    });
    guest.close();
    engine.close();
  });
});

test.each<[NatStrategy, 'P' | 'V', number]>([
  // RFC 1624 takes the field for a complement, which a partial one is not: right would be 0x142f
  ['S1', 'P', 0x1421],
  ['S3', 'P', 0x142f],
  ['S1', 'V', 0x49c5],
  ['S2', 'V', 0x49c5],
])('%s on kind %s, 10.0.0.2 to 10.0.0.9: field %i', (strategy, kind, field) => {
  const { frame, header } = buildFrame({
    l4: 'udp4',
    kind,
    destination: '10.0.0.2',
    payload: 12,
  });
  // the datagram of the golden sums
  frame.set(new TextEncoder().encode('hello virtio'), 42);
  viewOf(frame).setUint16(40, kind === 'P' ? 0x1428 : 0x49cc);
  const { skb } = send('base', { frame, header }, natProgram(strategy, '10.0.0.9'));
  expect(skb && viewOf(skb.frame).getUint16(40)).toBe(field);
});

test("the sample's outer checksum is folded once: wrong when that carries", () => {
  const complete = buildFrame({ l4: 'udp4', kind: 'U', destination: '10.0.0.2', payload: 12 });
  const total = 20 + viewOf(complete.frame).getUint16(16);
  const source = [...Array(65536).keys()]
    .map((low) => `10.255.${low >> 8}.${low & 0xff}`)
    .find((address) => carriesTwice(address, '172.16.0.2', total));
  const encap = (foldAll: boolean): string =>
    encapProgram({
      source: source ?? '',
      destination: '172.16.0.2',
      nextHop: PEER_MAC,
      end: returnProgram(VERDICTS.TX),
      foldAll,
    });
  expect(send('upstream', complete, encap(false)).outcome).toBe('stack drop');
  expect(send('upstream', complete, encap(true)).outcome).toBe('delivered');
});

/** Whether one fold of the header's sum, of words as a little-endian CPU has them, leaves a carry. */
function carriesTwice(source: string, destination: string, total: number): boolean {
  const header = ipv4Header(parseIpv4(source), parseIpv4(destination), 4, total - 20);
  const view = viewOf(header);
  view.setUint16(4, 0x0100);
  view.setUint16(6, 0);
  header[8] = 8;
  view.setUint16(10, 0);
  let sum = 0;
  for (let at = 0; at < 20; at += 2) sum += view.getUint16(at, true);
  return (sum & 0xffff) + (sum >>> 16) > 0xffff;
}
