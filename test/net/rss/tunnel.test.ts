/** Inner hash: golden frames, every cut of them, damaged headers, both forms, random bytes. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  concatBytes,
  ethernet,
  ETHERTYPE,
  IPPROTO,
  ipv4,
  ipv6,
  ipv6Fragment,
  tcp,
  udp,
} from '../../../src/net/packet.js';
import { bytesToHex, viewOf } from '../../../src/common/bytes.js';
import { PacketHeaders } from '../../../src/net/rss/headers.js';
import {
  ReceiveHasher,
  v7HashTypes,
  v7TunnelTypes,
  writeHashReport,
  type ReceiveHashOptions,
} from '../../../src/net/rss/receive-hash.js';
import { MICROSOFT_KEY } from '../../../src/net/rss/toeplitz.js';
import { TunnelMatch } from '../../../src/net/rss/tunnel.js';
import {
  ALL_HASH_TYPES,
  ALL_TUNNEL_TYPES,
  VIRTIO_NET_HASH_TUNNEL_TYPE as TUNNEL,
  VIRTIO_NET_HASH_TYPE as TYPE,
  VIRTIO_NET_HASH_TYPE_INNER as V7,
} from '../../../src/net/rss/types.js';
import {
  GOLDEN_FRAMES,
  INNER_ADDRESS_HASH,
  INNER_HASH,
  type GoldenFrame,
} from './golden-frames.js';

const maskOf = ({ bits }: GoldenFrame) => bits.reduce((mask, bit) => mask | (1 << bit), 0);

const hasherOf = (options: Partial<ReceiveHashOptions>) =>
  new ReceiveHasher({ key: MICROSOFT_KEY, hashTypes: ALL_HASH_TYPES, form: 'final', ...options });

const all = hasherOf({ tunnelTypes: ALL_TUNNEL_TYPES });
const none = hasherOf({ tunnelTypes: 0 });
const absent = new ReceiveHasher({ key: MICROSOFT_KEY, hashTypes: ALL_HASH_TYPES });

/** The frame with bytes from `at` on replaced. */
function changed(frame: Uint8Array, at: number, ...bytes: number[]): Uint8Array {
  const copy = frame.slice();
  copy.set(bytes, at);
  return copy;
}

function named(name: string): GoldenFrame {
  const found = GOLDEN_FRAMES.find((each) => each.name === name);
  if (!found) throw new RangeError(name);
  return found;
}

describe.each(GOLDEN_FRAMES.map((each) => [each.name, each] as const))('%s', (_, golden) => {
  const { bytes, innerAt, outerHash } = golden;

  it('is of its types and has its inner header', () => {
    const headers = new PacketHeaders();
    const match = new TunnelMatch();
    expect(headers.readFrame(bytes, 0, bytes.length)).toBe(true);
    expect(match.find(bytes, headers, bytes.length)).toBe(true);
    const { types, innerAt: at, innerVersion } = match;
    expect([types, at, innerVersion]).toEqual([maskOf(golden), innerAt, 4]);
  });

  it('is hashed over the inner header where one of its types is enabled', () => {
    for (let bit = 0; bit < 9; bit++) {
      const { hash, inner } = hasherOf({ tunnelTypes: 1 << bit }).compute(bytes);
      const matches = golden.bits.includes(bit);
      expect([bit, inner, hash]).toEqual([bit, matches, matches ? INNER_HASH : outerHash]);
    }
    expect(all.compute(bytes)).toMatchObject({ hash: INNER_HASH, report: 2, tunnelReport: 0 });
    expect(none.compute(bytes)).toMatchObject({ hash: outerHash, types: maskOf(golden) });
    expect(absent.compute(bytes)).toMatchObject({ hash: outerHash, types: 0 });
  });

  it('cut anywhere: outer or nothing, then the inner addresses, then the ports', () => {
    for (let length = 0; length <= bytes.length; length++) {
      const cut = bytes.slice(0, length);
      const { hash, report } = all.compute(cut);
      const outer = absent.compute(cut);
      const expected =
        length < innerAt + 20
          ? [outer.hash, outer.report]
          : length < innerAt + 24
            ? [INNER_ADDRESS_HASH, 1]
            : [INNER_HASH, 2];
      expect([length, hash, report]).toEqual([length, ...expected]);
    }
  });

  it('inner types that are not enabled: no hash', () => {
    const udpOnly = hasherOf({ tunnelTypes: ALL_TUNNEL_TYPES, hashTypes: TYPE.UDPv4 | TYPE.UDPv6 });
    expect(udpOnly.compute(bytes)).toMatchObject({ hash: 0, report: 0, inner: true });
  });

  it('with a bad inner header is no tunnel packet', () => {
    for (const first of [0x44, 0x65, 0x4f]) {
      const { hash, types } = all.compute(changed(bytes, innerAt, first));
      expect([first, hash, types]).toEqual([first, outerHash, 0]);
    }
  });

  it('whose inner packet is a fragment: its addresses', () => {
    for (const flags of [0x20, 0x01]) {
      const { hash, report } = all.compute(changed(bytes, innerAt + 6, flags));
      expect([hash, report]).toEqual([INNER_ADDRESS_HASH, 1]);
    }
  });

  it('that is a fragment itself is no tunnel packet', () => {
    if (bytes[12] === 0x86) return;
    const { inner, report, types } = all.compute(changed(bytes, 20, 0x20));
    expect([inner, report, types]).toEqual([false, 1, 0]);
  });

  it('never throws on random bytes behind the outer header', () => {
    const outerEnd = bytes[12] === 0x86 ? 54 : 34;
    const front = bytes.slice(0, outerEnd);
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 90 }), (rest) => {
        const frame = concatBytes(front, rest);
        const result = { ...all.compute(frame) };
        const outer = absent.compute(frame);
        if (result.inner) expect(result.types).not.toBe(0);
        else expect([result.hash, result.report]).toEqual([outer.hash, outer.report]);
      }),
    );
  });
});

describe('damaged or odd headers', () => {
  const gre = named('GRE').bytes;
  const keyed = named('GRE with key').bytes;
  const nvgre = named('NVGRE').bytes;
  const greUdp = named('GRE-in-UDP').bytes;
  const vxlan = named('VXLAN').bytes;
  const gpe = named('VXLAN-GPE').bytes;
  const geneve = named('GENEVE').bytes;
  const ipip = named('IPIP').bytes;

  it.each<[string, Uint8Array]>([
    ['GRE version 1', changed(gre, 34, 0x00, 0x01)],
    ['GRE with routing', changed(gre, 34, 0x40)],
    ['GRE with strict source route', changed(gre, 34, 0x08)],
    ['GRE with recursion control', changed(gre, 34, 0x01)],
    ['GRE whose UDP does not cover it', changed(greUdp, 38, 0, 11)],
    ['GRE over DTLS', changed(greUdp, 36, 0x12, 0x93)],
    ['VXLAN without I', changed(vxlan, 42, 0x00)],
    ['VXLAN with P', changed(vxlan, 42, 0x0c)],
    ['VXLAN-GPE of version 1', changed(gpe, 42, 0x1c)],
    ['VXLAN-GPE without I', changed(gpe, 42, 0x04)],
    ['GENEVE of version 1', changed(geneve, 42, 0x42)],
    ['GENEVE with options beyond the end', changed(geneve, 42, 0x3f)],
    ['6in4', changed(ipip, 23, 41)],
    ['ESP', changed(ipip, 23, 50)],
  ])('%s matches nothing', (_, frame) => {
    expect(all.compute(frame)).toMatchObject({ types: 0, inner: false });
    expect(all.result.hash).toBe(absent.compute(frame).hash);
    expect(all.result.report).not.toBe(0);
  });

  it.each<[string, Uint8Array, number]>([
    ['GRE of MPLS', changed(gre, 36, 0x88, 0x47), TUNNEL.GRE_2784],
    ['NVGRE of ARP', changed(nvgre, 54, 0x08, 0x06), TUNNEL.GRE_2890 | TUNNEL.NVGRE],
    ['VXLAN of ARP', changed(vxlan, 62, 0x08, 0x06), TUNNEL.VXLAN],
    ['VXLAN-GPE of NSH', changed(gpe, 45, 4), TUNNEL.VXLAN_GPE],
    ['VXLAN-GPE of nothing known', changed(gpe, 45, 0xff), TUNNEL.VXLAN_GPE],
    ['VXLAN-GPE OAM', changed(gpe, 42, 0x0d), TUNNEL.VXLAN_GPE],
    ['GENEVE control', changed(geneve, 43, 0x80), TUNNEL.GENEVE],
    ['GENEVE of something', changed(geneve, 44, 0x88, 0x99), TUNNEL.GENEVE],
  ])('%s has no inner header to hash', (_, frame, types) => {
    expect(all.compute(frame)).toMatchObject({ types, inner: true, report: 0, hash: 0 });
    expect(none.compute(frame)).toMatchObject({ inner: false, hash: absent.compute(frame).hash });
  });

  it.each<[string, Uint8Array]>([
    ['reserved GRE flags below recursion', changed(gre, 35, 0xf8)],
    ['VXLAN flags that receivers ignore', changed(vxlan, 42, 0xf8)],
    ['GENEVE critical options', changed(geneve, 43, 0x40)],
  ])('%s do not matter', (_, frame) => {
    expect(all.compute(frame)).toMatchObject({ inner: true, hash: INNER_HASH });
  });

  it('ports can be others', () => {
    const ports = { greUdp: 1, vxlan: 8472, vxlanGpe: 2, geneve: 3 };
    const linux = hasherOf({ tunnelTypes: ALL_TUNNEL_TYPES, ports });
    expect(linux.compute(vxlan).inner).toBe(false);
    expect(linux.compute(changed(vxlan, 36, 8472 >>> 8, 8472 & 0xff)).hash).toBe(INNER_HASH);
  });

  it('GRE of IPv6 counts as RFC 7676 beside its own type', () => {
    const ends = { source: 'fd00::1', destination: 'fd00::2' };
    const inner = ipv6(
      ends,
      { nextHeader: IPPROTO.TCP },
      tcp(ends, { sourcePort: 10000, destinationPort: 80 }, new Uint8Array(0)),
    );
    const frame = concatBytes(gre.slice(0, 36), Uint8Array.of(0x86, 0xdd), inner);
    const expected = { hash: 0xe22a556f, report: 5 };
    const key = concatBytes(keyed.slice(0, 36), Uint8Array.of(0x86, 0xdd, 0, 0, 0, 1), inner);
    expect(all.compute(frame)).toMatchObject({ types: TUNNEL.GRE_2784 | TUNNEL.GRE_7676 });
    expect(all.compute(key)).toMatchObject({ types: TUNNEL.GRE_2890 | TUNNEL.GRE_7676 });
    expect(hasherOf({ tunnelTypes: TUNNEL.GRE_2784 }).compute(frame)).toMatchObject(expected);
    expect(hasherOf({ tunnelTypes: TUNNEL.GRE_7676 }).compute(key)).toMatchObject(expected);
  });

  it('outer IPv6: extension headers are skipped, not fragments', () => {
    const ends = { source: '2001:db8::1', destination: '2001:db8::2' };
    const payload = named('GRE over IPv6').bytes.slice(54);
    const frame = (nextHeader: number, rest: Uint8Array) =>
      ethernet({ type: ETHERTYPE.IPV6 }, ipv6(ends, { nextHeader }, rest));
    const options = concatBytes(Uint8Array.of(47, 0, 1, 4, 0, 0, 0, 0), payload);
    const atomic = { nextHeader: 47, offset: 0, more: false, id: 1 };
    expect(all.compute(frame(60, options)).hash).toBe(INNER_HASH);
    expect(all.compute(frame(44, ipv6Fragment(atomic, payload))).inner).toBe(false);
    // IP in IPv6 is none of the types
    expect(all.compute(frame(4, payload.slice(4))).types).toBe(0);
  });

  it('tags in front of either header', () => {
    const tag = (frame: Uint8Array, at: number) =>
      concatBytes(frame.slice(0, at), Uint8Array.of(0x81, 0, 0, 5), frame.slice(at));
    const both = tag(tag(vxlan, 62), 12);
    expect(all.compute(both)).toMatchObject({ hash: INNER_HASH, types: TUNNEL.VXLAN });
  });

  it('a tunnel in a tunnel: the first inner header only', () => {
    const ends = { source: '192.0.2.8', destination: '192.0.2.9' };
    const inVxlan = udp(
      ends,
      { sourcePort: 50000, destinationPort: 4789 },
      concatBytes(Uint8Array.of(8, 0, 0, 0, 0, 0, 1, 0), gre),
    );
    const frame = ethernet(
      { type: ETHERTYPE.IPV4 },
      ipv4(ends, { protocol: IPPROTO.UDP }, inVxlan),
    );
    const outerOfGre = absent.compute(gre).hash;
    expect(all.compute(frame)).toMatchObject({ types: TUNNEL.VXLAN, report: 1, hash: outerOfGre });
    // GRE alone is enabled: the outermost tunnel is VXLAN, so the outer header counts
    const greOnly = hasherOf({ tunnelTypes: TUNNEL.GRE_2784 });
    expect(greOnly.compute(frame)).toMatchObject({ inner: false, report: 3 });
  });
});

describe('the v7 proposal', () => {
  const REPORTS: Readonly<Record<string, number>> = {
    GRE: 1,
    'GRE with key': 1,
    'GRE with checksum, key, sequence': 1,
    NVGRE: 1,
    'GRE over IPv6': 1,
    VXLAN: 2,
    GENEVE: 3,
  };
  const bits = [V7.GRE_INNER, V7.VXLAN_INNER, V7.GENEVE_INNER];

  it.each(GOLDEN_FRAMES.map((each) => [each.name, each] as const))('%s', (name, golden) => {
    const report = REPORTS[name] ?? 0;
    for (const [i, bit] of bits.entries()) {
      const hasher = hasherOf({ form: 'v7', hashTypes: ALL_HASH_TYPES | bit });
      const matches = report === i + 1;
      expect(hasher.compute(golden.bytes)).toMatchObject({
        hash: matches ? INNER_HASH : golden.outerHash,
        inner: matches,
        tunnelReport: matches ? report : 0,
      });
      // the same bits mean nothing where the feature is not negotiated, or the form is another
      const without = new ReceiveHasher({ key: MICROSOFT_KEY, hashTypes: ALL_HASH_TYPES | bit });
      expect(without.compute(golden.bytes).hash).toBe(golden.outerHash);
      const final = hasherOf({ hashTypes: ALL_HASH_TYPES | bit });
      expect(final.compute(golden.bytes).hash).toBe(golden.outerHash);
    }
  });

  it('reports the tunnel in byte 18; the final form leaves it 0', () => {
    const header = new Uint8Array(24).fill(0xee);
    const write = (hasher: ReceiveHasher) => {
      writeHashReport(viewOf(header), 2, hasher.compute(named('GENEVE').bytes));
      return bytesToHex(header);
    };
    const around = (fields: string) => `${'ee'.repeat(14)}${fields}eeee`;
    const v7 = hasherOf({ form: 'v7', hashTypes: ALL_HASH_TYPES | V7.GENEVE_INNER });
    expect(write(v7)).toBe(around('629a276802000300'));
    expect(write(all)).toBe(around('629a276802000000'));
    expect(write(hasherOf({ hashTypes: 0 }))).toBe(around('0000000000000000'));
  });

  it('no hash, no report of a tunnel', () => {
    const only = hasherOf({ form: 'v7', hashTypes: V7.GRE_INNER | TYPE.UDPv4 });
    const { bytes } = named('GRE');
    expect(only.compute(bytes)).toMatchObject({ report: 0, tunnelReport: 0, hash: 0 });
  });

  it('its bits and the standard’s types', () => {
    expect(v7TunnelTypes(0x1ff)).toBe(0);
    expect(v7TunnelTypes(V7.GRE_INNER)).toBe(0b1_0000_0111);
    expect(v7TunnelTypes(V7.VXLAN_INNER | V7.GENEVE_INNER)).toBe(TUNNEL.VXLAN | TUNNEL.GENEVE);
    expect(v7HashTypes(ALL_TUNNEL_TYPES)).toBe(0xe00);
    expect(v7HashTypes(TUNNEL.IPIP | TUNNEL.GRE_UDP | TUNNEL.VXLAN_GPE)).toBe(0);
  });
});
