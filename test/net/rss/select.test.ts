/** Which fields are hashed: every mask of types, extension headers, fragments, frames that are cut. */
import { describe, expect, it } from 'vitest';
import { parseIp } from '../../../src/net/address.js';
import {
  concatBytes,
  ethernet,
  ETHERTYPE,
  icmp,
  IPPROTO,
  ipv4,
  ipv6,
  ipv6Fragment,
  tcp,
  udp,
} from '../../../src/net/packet.js';
import { ReceiveHasher, type ReceiveHashOptions } from '../../../src/net/rss/receive-hash.js';
import { MICROSOFT_KEY } from '../../../src/net/rss/toeplitz.js';
import { VIRTIO_NET_HASH_TYPE as TYPE } from '../../../src/net/rss/types.js';
import { bitwiseToeplitz } from './bitwise.js';

const V4 = { source: '10.0.0.1', destination: '10.0.0.2' };
const V6 = { source: 'fd00::1', destination: 'fd00::2' };
const PORTS = { sourcePort: 10000, destinationPort: 80 };
const HOME = '2001:db8::aa';
const ROUTED = '2001:db8::bb';
const NOTHING = new Uint8Array(0);

type Upper = 'TCP' | 'UDP' | 'other';

function segment(ends: typeof V4, upper: Upper): Uint8Array {
  if (upper === 'TCP') return tcp(ends, PORTS, NOTHING);
  return upper === 'UDP' ? udp(ends, PORTS, NOTHING) : icmp({ type: 8 }, NOTHING);
}

const PROTOCOL = { TCP: IPPROTO.TCP, UDP: IPPROTO.UDP, other: IPPROTO.ICMPV6 } as const;

/** Extension headers by name; `next` is what follows. */
const EXTENSIONS = {
  hop: { type: 0, make: (next: number) => Uint8Array.of(next, 0, 1, 4, 0, 0, 0, 0) },
  options: { type: 60, make: (next: number) => Uint8Array.of(next, 0, 1, 4, 0, 0, 0, 0) },
  home: {
    type: 60,
    // Pad1, PadN, then the option
    make: (next: number) =>
      concatBytes(Uint8Array.of(next, 2, 0, 1, 1, 0, 0xc9, 16), parseIp(HOME)),
  },
  routed: {
    type: 43,
    make: (next: number) => concatBytes(Uint8Array.of(next, 2, 2, 1, 0, 0, 0, 0), parseIp(ROUTED)),
  },
  /** Type 0 is no type 2. */
  routing0: {
    type: 43,
    make: (next: number) => concatBytes(Uint8Array.of(next, 2, 0, 1, 0, 0, 0, 0), parseIp(ROUTED)),
  },
  /** Its address has been used up. */
  arrived: {
    type: 43,
    make: (next: number) => concatBytes(Uint8Array.of(next, 2, 2, 0, 0, 0, 0, 0), parseIp(ROUTED)),
  },
  atomic: {
    type: 44,
    make: (next: number) =>
      ipv6Fragment({ nextHeader: next, offset: 0, more: false, id: 1 }, NOTHING),
  },
  first: {
    type: 44,
    make: (next: number) =>
      ipv6Fragment({ nextHeader: next, offset: 0, more: true, id: 1 }, NOTHING),
  },
  later: {
    type: 44,
    make: (next: number) =>
      ipv6Fragment({ nextHeader: next, offset: 8, more: false, id: 1 }, NOTHING),
  },
  // next, length in 4 bytes less 2, reserved, SPI, sequence, ICV
  ah: {
    type: 51,
    make: (next: number) => concatBytes(Uint8Array.of(next, 4), new Uint8Array(22).fill(7)),
  },
} as const;

type Extension = keyof typeof EXTENSIONS;

function ipv6Frame(upper: Upper, extensions: readonly Extension[] = []): Uint8Array {
  let next: number = PROTOCOL[upper];
  let payload = segment(V6, upper);
  for (const name of extensions.toReversed()) {
    payload = concatBytes(EXTENSIONS[name].make(next), payload);
    next = EXTENSIONS[name].type;
  }
  return ethernet({ type: ETHERTYPE.IPV6 }, ipv6(V6, { nextHeader: next }, payload));
}

const ipv4Frame = (upper: Upper) =>
  ethernet(
    { type: ETHERTYPE.IPV4 },
    ipv4(V4, { protocol: upper === 'other' ? IPPROTO.ICMP : PROTOCOL[upper] }, segment(V4, upper)),
  );

const compute = (
  frame: Uint8Array,
  hashTypes: number,
  options: Partial<ReceiveHashOptions> = {},
): readonly [number, number] => {
  const { report, hash } = new ReceiveHasher({ key: MICROSOFT_KEY, hashTypes, ...options }).compute(
    frame,
  );
  return [report, hash];
};

const PORT_BYTES = Uint8Array.of(10000 >>> 8, 10000 & 0xff, 0, 80);

/** The hash of fields, by the definition. */
function fields(source: string, destination: string, ports = false): number {
  const addresses = concatBytes(parseIp(source), parseIp(destination));
  return bitwiseToeplitz(MICROSOFT_KEY, ports ? concatBytes(addresses, PORT_BYTES) : addresses);
}

describe('every mask of types', () => {
  /** The standard's text, sentence by sentence. */
  function restated(
    kind: 'v4' | 'v6' | 'v6ext',
    upper: Upper,
    mask: number,
  ): readonly [number, number] {
    const on = (type: number): boolean => (mask & type) === type;
    if (kind === 'v4') {
      const { source, destination } = V4;
      if (upper === 'TCP' && on(TYPE.TCPv4)) return [2, fields(source, destination, true)];
      if (upper === 'UDP' && on(TYPE.UDPv4)) return [3, fields(source, destination, true)];
      return on(TYPE.IPv4) ? [1, fields(source, destination)] : [0, 0];
    }
    if (kind === 'v6ext') {
      if (upper === 'TCP' && on(TYPE.TCP_EX)) return [8, fields(HOME, ROUTED, true)];
      if (upper === 'UDP' && on(TYPE.UDP_EX)) return [9, fields(HOME, ROUTED, true)];
      if (on(TYPE.IP_EX)) return [7, fields(HOME, ROUTED)];
    }
    const { source, destination } = V6;
    if (upper === 'TCP' && on(TYPE.TCPv6)) return [5, fields(source, destination, true)];
    if (upper === 'UDP' && on(TYPE.UDPv6)) return [6, fields(source, destination, true)];
    return on(TYPE.IPv6) ? [4, fields(source, destination)] : [0, 0];
  }

  const frames = {
    v4: ipv4Frame,
    v6: (upper: Upper) => ipv6Frame(upper),
    v6ext: (upper: Upper) => ipv6Frame(upper, ['home', 'routed']),
  };

  for (const kind of ['v4', 'v6', 'v6ext'] as const) {
    it.each(['TCP', 'UDP', 'other'] as const)(`${kind} %s`, (upper) => {
      const frame = frames[kind](upper);
      for (let mask = 0; mask < 512; mask++) {
        expect([mask, ...compute(frame, mask)]).toEqual([mask, ...restated(kind, upper, mask)]);
      }
    });
  }

  it('the report value is one more than the bit', () => {
    expect(Object.values(TYPE)).toEqual(Array.from({ length: 9 }, (_, i) => 1 << i));
  });
});

describe('extension headers', () => {
  const EX = TYPE.TCP_EX;
  const { source, destination } = V6;
  it.each<[Extension[], number, number]>([
    [['home'], 8, fields(HOME, destination, true)],
    [['routed'], 8, fields(source, ROUTED, true)],
    [['home', 'routed'], 8, fields(HOME, ROUTED, true)],
    [['hop', 'routed', 'home'], 8, fields(HOME, ROUTED, true)],
    [['hop'], 8, fields(source, destination, true)],
    [['options'], 8, fields(source, destination, true)],
    [['routing0'], 8, fields(source, destination, true)],
    [['arrived'], 8, fields(source, destination, true)],
    [['ah'], 8, fields(source, destination, true)],
    [['atomic'], 8, fields(source, destination, true)],
    [[], 0, 0],
    // a fragment has no TCP header
    [['first'], 0, 0],
    [['later', 'home'], 0, 0],
  ])('%o with TCP_EX', (extensions, report, hash) => {
    expect(compute(ipv6Frame('TCP', extensions), EX)).toEqual([report, hash]);
  });

  it('QEMU prefers _EX types without extension headers too', () => {
    const all = 0x1ff;
    const quirk = { qemuIpv6ExQuirk: true };
    const plain = fields(source, destination, true);
    expect(compute(ipv6Frame('TCP'), all)).toEqual([5, plain]);
    expect(compute(ipv6Frame('TCP'), all, quirk)).toEqual([8, plain]);
    expect(compute(ipv6Frame('UDP'), all, quirk)).toEqual([9, plain]);
    expect(compute(ipv6Frame('other'), all, quirk)).toEqual([7, fields(source, destination)]);
    expect(compute(ipv6Frame('TCP'), 0x3f, quirk)).toEqual([5, plain]);
    expect(compute(ipv4Frame('TCP'), all, quirk)[0]).toBe(2);
  });

  it('cut anywhere: addresses only, or no hash', () => {
    const frame = ipv6Frame('TCP', ['hop', 'home', 'routed']);
    for (let length = 0; length < frame.length; length++) {
      const [report, hash] = compute(frame.slice(0, length), 0x3f);
      // 14 + 40, then headers of 8, 24 and 24 bytes, and the ports
      const expected =
        length < 54 ? [0, 0] : length < 114 ? [4, fields(source, destination)] : undefined;
      expect([report, hash]).toEqual(expected ?? [5, fields(source, destination, true)]);
    }
  });

  it('an option that runs over its header is no home address', () => {
    const frame = ipv6Frame('TCP', ['home']);
    // the header claims 8 bytes: the option does not fit, what follows is garbage of type TCP
    frame[55] = 0;
    expect(compute(frame, TYPE.IP_EX)).toEqual([7, fields(source, destination)]);
  });
});

describe('fragments', () => {
  const fragment = (moreFragments: boolean, fragmentOffset: number) =>
    ethernet(
      { type: ETHERTYPE.IPV4 },
      ipv4(V4, { protocol: IPPROTO.UDP, moreFragments, fragmentOffset }, segment(V4, 'UDP')),
    );
  const two = fields(V4.source, V4.destination);

  it('of IPv4 have no ports, the first one neither', () => {
    expect(compute(fragment(true, 0), 0x3f)).toEqual([1, two]);
    expect(compute(fragment(false, 128), 0x3f)).toEqual([1, two]);
    expect(compute(fragment(false, 0), 0x3f)[0]).toBe(3);
    expect(compute(fragment(true, 0), TYPE.UDPv4)).toEqual([0, 0]);
  });

  it('of IPv6: an atomic one has ports, but not in QEMU', () => {
    const addresses = [4, fields(V6.source, V6.destination)];
    const atomic = ipv6Frame('TCP', ['atomic']);
    expect(compute(ipv6Frame('TCP', ['first']), 0x3f)).toEqual(addresses);
    expect(compute(ipv6Frame('TCP', ['later']), 0x3f)).toEqual(addresses);
    expect(compute(atomic, 0x3f)).toEqual([5, fields(V6.source, V6.destination, true)]);
    expect(compute(atomic, 0x3f, { qemuAtomicFragments: true })).toEqual(addresses);
  });
});

describe('frames', () => {
  it('with tags, options, or no IP', () => {
    const four = fields(V4.source, V4.destination, true);
    const packet = ipv4(V4, { protocol: IPPROTO.UDP }, segment(V4, 'UDP'));
    const tagged = (vlans: number[]) => ethernet({ type: ETHERTYPE.IPV4, vlans }, packet);
    expect(compute(tagged([5]), 0x3f)).toEqual([3, four]);
    expect(compute(tagged([6, 5]), 0x3f)).toEqual([3, four]);
    expect(compute(tagged([6, 5, 4]), 0x3f)).toEqual([0, 0]);
    const options = Uint8Array.of(1, 1, 1, 1);
    const long = ipv4(V4, { protocol: IPPROTO.UDP, options }, segment(V4, 'UDP'));
    expect(compute(ethernet({ type: ETHERTYPE.IPV4 }, long), 0x3f)).toEqual([3, four]);
    expect(compute(ethernet({ type: ETHERTYPE.ARP }, packet), 0x3f)).toEqual([0, 0]);
    // the EtherType says one version, the header another
    expect(compute(ethernet({ type: ETHERTYPE.IPV6 }, packet), 0x3f)).toEqual([0, 0]);
  });

  it('lie anywhere in their buffer, and end where they end', () => {
    const frame = ipv4Frame('TCP');
    const buffer = concatBytes(new Uint8Array(20).fill(0xff), frame, frame);
    const hasher = new ReceiveHasher({ key: MICROSOFT_KEY, hashTypes: 0x3f });
    const whole = hasher.compute(buffer, 20, 20 + frame.length);
    expect([whole.report, whole.hash]).toEqual(compute(frame, 0x3f));
    // the bytes behind the end are not the frame's
    expect(hasher.compute(buffer, 20, 20 + 14 + 20 + 3).report).toBe(1);
    expect(hasher.compute(buffer, 20, 20 + 14 + 19).report).toBe(0);
  });
});
