/**
 * Frames with a partial checksum in which it cannot be found by looking for TCP or UDP: VLAN tag, fragment,
 * other protocols. The header keeps naming its place.
 */
import { viewOf } from '../../common/bytes.js';
import { internetChecksum } from '../../net/checksum.js';
import type { CsumFrame } from './frames.js';
import type { OddFrame } from './rows.js';

const PROTOCOL = { 'udp-lite': 136, sctp: 132 } as const;
const IPV6_ESP = 50;
const ARP = 0x0806;

/** A partial frame over IPv4 (for `esp` IPv6) made odd. */
export function oddFrame(odd: OddFrame, { frame, header }: CsumFrame): CsumFrame {
  const changed = frame.slice();
  switch (odd) {
    case 'vlan': {
      // VLAN 0: a priority tag
      const tag = [0x81, 0x00, 0x00, 0x00];
      const tagged = Uint8Array.from([...frame.subarray(0, 12), ...tag, ...frame.subarray(12)]);
      return { frame: tagged, header: { ...header, csum_start: (header.csum_start ?? 0) + 4 } };
    }
    case 'fragment':
      viewOf(changed).setUint16(14 + 6, 0x2000);
      break;
    case 'udp-lite':
    case 'sctp':
      changed[14 + 9] = PROTOCOL[odd];
      break;
    case 'esp':
      changed[14 + 6] = IPV6_ESP;
      return { frame: changed, header };
    case 'arp':
      viewOf(changed).setUint16(12, ARP);
      return { frame: changed, header };
  }
  viewOf(changed).setUint16(14 + 10, 0);
  viewOf(changed).setUint16(14 + 10, internetChecksum(changed.subarray(14, 34)));
  return { frame: changed, header };
}
