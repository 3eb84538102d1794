/**
 * One inner packet, TCP 10.0.0.1:10000 > 10.0.0.2:80, in every encapsulation of virtio's list; the outer
 * addresses are 192.0.2.1 > 192.0.2.2. Computed apart from this project's code.
 */
import { hexToBytes } from '../../../src/common/bytes.js';

const MACS = '020000000002020000000001';
const INNER = '4500002800014000400626cd0a0000010a0000022710005000000001000000005002ffff747f0000';
const INNER_FRAME = `0a00000000020a00000000010800${INNER}`;
const ENDS = 'c0000201c0000202';

export interface GoldenFrame {
  readonly name: string;
  /** Where the inner IP header starts. */
  readonly innerAt: number;
  /** VIRTIO_NET_HASH_TUNNEL_TYPE bits by number. */
  readonly bits: readonly number[];
  /** With all types enabled, over the outer headers. */
  readonly outerHash: number;
  readonly bytes: Uint8Array;
}

function golden(
  name: string,
  innerAt: number,
  bits: readonly number[],
  outerHash: number,
  hex: string,
): GoldenFrame {
  return { name, innerAt, bits, outerHash, bytes: hexToBytes(MACS + hex) };
}

/** With the Microsoft key: four fields, and addresses only. */
export const INNER_HASH = 0x68279a62;
export const INNER_ADDRESS_HASH = 0x02b7c9b1;

const V4 = (rest: string, ends = ENDS): string => `08004500${rest}${ends}`;

export const GOLDEN_FRAMES: readonly GoldenFrame[] = [
  golden('IPIP', 34, [7], 0x5ceea90c, `${V4('003c000140004004b6b9')}${INNER}`),
  golden('GRE', 38, [0], 0x5ceea90c, `${V4('004000014000402fb68a')}00000800${INNER}`),
  golden(
    'GRE with key',
    42,
    [1],
    0x5ceea90c,
    `${V4('004400014000402fb686')}2000080000001234${INNER}`,
  ),
  golden(
    'GRE with checksum, key, sequence',
    50,
    [1],
    0x5ceea90c,
    `${V4('004c00014000402fb67e')}b0000800000000000000123400000007${INNER}`,
  ),
  golden(
    'NVGRE',
    56,
    [1, 8],
    0x5ceea90c,
    `${V4('005200014000402fb678')}2000655800123401${INNER_FRAME}`,
  ),
  golden(
    'GRE-in-UDP',
    46,
    [3],
    0x7e4b6faa,
    `${V4('0048000140004011b6a0')}c00012920034000000000800${INNER}`,
  ),
  golden(
    'VXLAN',
    64,
    [4],
    0xd208b456,
    `${V4('005a000140004011b68e')}c00012b5004600000800000000123400${INNER_FRAME}`,
  ),
  golden(
    'VXLAN-GPE',
    50,
    [5],
    0x23319062,
    `${V4('004c000140004011b69c')}c00012b6003800000c00000100123400${INNER}`,
  ),
  golden(
    'GENEVE',
    72,
    [6],
    0x26e1b54a,
    `${V4('0062000140004011b686')}c00017c1004e000002006558001234000102800100000000${INNER_FRAME}`,
  ),
  golden(
    'GRE over IPv6',
    58,
    [2],
    0x829c6d35,
    `86dd60000000002c2f4020010db800000000000000000000000120010db800000000000000000000000200000800${INNER}`,
  ),
];
