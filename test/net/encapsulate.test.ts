/** The builders of tunnel headers make the golden frames, byte for byte. */
import { expect, it } from 'vitest';
import { bytesToHex, hexToBytes } from '../../src/common/bytes.js';
import {
  etherTypeOf,
  geneve,
  gre,
  greInUdp,
  nvgre,
  vxlan,
  vxlanGpe,
} from '../../src/net/encapsulate.js';
import { ethernet, ETHERTYPE, IPPROTO, ipv4, ipv6, tcp, TCP_FLAG } from '../../src/net/packet.js';
import { GOLDEN_FRAMES } from './rss/golden-frames.js';

const INNER = { source: '10.0.0.1', destination: '10.0.0.2' };
const OUTER = { source: '192.0.2.1', destination: '192.0.2.2' };
const OUTER6 = { source: '2001:db8::1', destination: '2001:db8::2' };
const PORTS = { sourcePort: 10000, destinationPort: 80, sequence: 1, flags: TCP_FLAG.SYN };

const packet = ipv4(
  INNER,
  { protocol: IPPROTO.TCP, id: 1, dontFragment: true },
  tcp(INNER, PORTS, new Uint8Array(0)),
);
const type = etherTypeOf(packet);
const frame = ethernet(
  { type, source: '0a:00:00:00:00:01', destination: '0a:00:00:00:00:02' },
  packet,
);
const UDP = { sourcePort: 49152 };
const options = hexToBytes('0102800100000000');

const over4 = (protocol: number, payload: Uint8Array) =>
  ethernet({ type: ETHERTYPE.IPV4 }, ipv4(OUTER, { protocol, id: 1, dontFragment: true }, payload));

const MADE: Readonly<Record<string, Uint8Array>> = {
  IPIP: over4(IPPROTO.IPIP, packet),
  GRE: over4(IPPROTO.GRE, gre({ type }, packet)),
  'GRE with key': over4(IPPROTO.GRE, gre({ type, key: 0x1234 }, packet)),
  'GRE with checksum, key, sequence': over4(
    IPPROTO.GRE,
    gre({ type, checksum: true, key: 0x1234, sequence: 7 }, packet),
  ),
  NVGRE: over4(IPPROTO.GRE, nvgre(0x1234, 1, frame)),
  'GRE-in-UDP': over4(IPPROTO.UDP, greInUdp(OUTER, UDP, { type }, packet)),
  VXLAN: over4(IPPROTO.UDP, vxlan(OUTER, UDP, frame)),
  'VXLAN-GPE': over4(IPPROTO.UDP, vxlanGpe(OUTER, UDP, 1, packet)),
  GENEVE: over4(IPPROTO.UDP, geneve(OUTER, { ...UDP, options }, frame)),
  'GRE over IPv6': ethernet(
    { type: ETHERTYPE.IPV6 },
    ipv6(OUTER6, { nextHeader: IPPROTO.GRE }, gre({ type }, packet)),
  ),
};

it.each(GOLDEN_FRAMES.map(({ name, bytes }) => [name, bytes] as const))('%s', (name, bytes) => {
  expect(bytesToHex(MADE[name] ?? new Uint8Array(0))).toBe(bytesToHex(bytes));
});
