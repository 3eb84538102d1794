/** What a device does to frames for a guest without the offload, and what then reaches the guest. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { checksumHolds, pseudoHeaderSum } from '../../../src/net/checksum.js';
import { ethernet, ipv4, ipv6, tcp, udp } from '../../../src/net/packet.js';
import { applyOffloads } from '../../../src/virtio/device/offload.js';
import { VIRTIO_NET_F, type VirtioNetFeature } from '../../../src/virtio/net-features.js';
import {
  VIRTIO_NET_HDR_F_DATA_VALID,
  VIRTIO_NET_HDR_F_NEEDS_CSUM,
  VIRTIO_NET_HDR_GSO_ECN,
  VIRTIO_NET_HDR_GSO_TCPV4,
  VIRTIO_NET_HDR_GSO_TCPV6,
  VIRTIO_NET_HDR_GSO_UDP_L4,
} from '../../../src/virtio/net-header.js';
import { createVirtioNet } from '../../../src/virtio/virtio-net.js';
import { DirectKernel } from '../helpers/direct-kernel.js';
import { VERDICT, returns } from '../helpers/programs.js';

const V4 = { source: '10.0.0.1', destination: '10.0.0.2' };
const V6 = { source: 'fd00::1', destination: 'fd00::2' };
const mask = (...names: (keyof typeof VIRTIO_NET_F)[]): bigint =>
  names.reduce((bits, name) => bits | (1n << BigInt(VIRTIO_NET_F[name])), 0n);

const HELLO = new TextEncoder().encode('hello virtio');
function partialUdp(): Uint8Array {
  const segment = udp(V4, { sourcePort: 1000, destinationPort: 2000, checksum: 'partial' }, HELLO);
  const mac = { destination: '52:54:00:00:00:02', type: 0x0800 };
  return ethernet(mac, ipv4(V4, { protocol: 17 }, segment));
}
const PARTIAL = { flags: VIRTIO_NET_HDR_F_NEEDS_CSUM, csum_start: 34, csum_offset: 6 };

const field = (frame: Uint8Array, at: number): number =>
  ((frame[at] as number) << 8) | (frame[at + 1] as number);

describe('checksums', () => {
  test('NEEDS_CSUM is completed without GUEST_CSUM, and left with it', () => {
    const frame = partialUdp();
    expect(field(frame, 40)).toBe(0x1428);
    const [done] = applyOffloads(PARTIAL, frame, 0n);
    expect([field(done?.frame ?? frame, 40), done?.header.flags]).toEqual([0x49cc, 0]);
    expect(field(frame, 40)).toBe(0x1428);
    expect(applyOffloads(PARTIAL, frame, mask('GUEST_CSUM'))).toEqual([{ header: PARTIAL, frame }]);
  });

  test('no flag is left without GUEST_CSUM', () => {
    const [done] = applyOffloads({ flags: VIRTIO_NET_HDR_F_DATA_VALID }, partialUdp(), 0n);
    expect(done?.header.flags).toBe(0);
  });

  test('a checksum beyond the frame is not written', () => {
    const header = { ...PARTIAL, csum_start: 1000 };
    const frame = partialUdp();
    expect(applyOffloads(header, frame, 0n)[0]?.frame).toEqual(frame);
  });
});

interface Segmented {
  readonly gsoType: number;
  readonly feature: VirtioNetFeature;
  readonly isIpv4: boolean;
  readonly protocol: number;
}

const KINDS: readonly Segmented[] = [
  { gsoType: VIRTIO_NET_HDR_GSO_TCPV4, feature: 'GUEST_TSO4', isIpv4: true, protocol: 6 },
  { gsoType: VIRTIO_NET_HDR_GSO_TCPV6, feature: 'GUEST_TSO6', isIpv4: false, protocol: 6 },
  { gsoType: VIRTIO_NET_HDR_GSO_UDP_L4, feature: 'GUEST_USO4', isIpv4: true, protocol: 17 },
  { gsoType: VIRTIO_NET_HDR_GSO_UDP_L4, feature: 'GUEST_USO6', isIpv4: false, protocol: 17 },
];

function large({ isIpv4, protocol }: Segmented, payload: Uint8Array): Uint8Array {
  const ends = isIpv4 ? V4 : V6;
  const ports = { sourcePort: 1000, destinationPort: 2000, checksum: 'partial' } as const;
  const segment =
    protocol === 6
      ? tcp(ends, { ...ports, sequence: 7, flags: 0x98 }, payload)
      : udp(ends, ports, payload);
  const packet = isIpv4
    ? ipv4(V4, { protocol, id: 0xfffe }, segment)
    : ipv6(V6, { nextHeader: protocol }, segment);
  return ethernet({ destination: '52:54:00:00:00:02', type: isIpv4 ? 0x0800 : 0x86dd }, packet);
}

describe.each(KINDS)('segmentation $feature', (kind) => {
  const headers = (kind.isIpv4 ? 34 : 54) + (kind.protocol === 6 ? 20 : 8);

  test('each piece is a right packet, and together they are the frame', () => {
    fc.assert(
      fc.property(
        fc.uint8Array({ minLength: 1, maxLength: 9000 }),
        fc.integer({ min: 88, max: 1460 }),
        (payload, size) => {
          const frame = large(kind, payload);
          const header = { ...PARTIAL, gso_type: kind.gsoType, gso_size: size };
          const pieces = applyOffloads(header, frame, 0n);
          expect(pieces).toHaveLength(Math.ceil(payload.length / size));
          let seen = 0;
          for (const piece of pieces) {
            const bytes = piece.frame;
            const l3 = bytes.subarray(14);
            const l4 = bytes.subarray(kind.isIpv4 ? 34 : 54);
            const addresses = kind.isIpv4 ? [12, 16, 20] : [8, 24, 40];
            const [a = 0, b = 0, c = 0] = addresses;
            const pseudo = pseudoHeaderSum(
              l3.subarray(a, b),
              l3.subarray(b, c),
              kind.protocol,
              l4.length,
            );
            expect(checksumHolds(pseudo, l4)).toBe(true);
            if (kind.isIpv4) expect(field(bytes, 16)).toBe(bytes.length - 14);
            if (kind.protocol === 6) expect(field(bytes, headers - 14)).toBe((7 + seen) & 0xffff);
            const data = bytes.subarray(headers);
            expect(data).toEqual(payload.subarray(seen, seen + data.length));
            seen += data.length;
          }
          expect(seen).toBe(payload.length);
        },
      ),
      { numRuns: 20 },
    );
  });

  test('stays whole with the feature, is partial with GUEST_CSUM alone', () => {
    const frame = large(kind, new Uint8Array(3000));
    const header = { ...PARTIAL, gso_type: kind.gsoType, gso_size: 1000 };
    const features = mask('GUEST_CSUM', kind.feature);
    expect(applyOffloads(header, frame, features)).toEqual([{ header, frame }]);
    const pieces = applyOffloads(header, frame, mask('GUEST_CSUM'));
    expect(pieces.map((piece) => piece.header.flags)).toEqual([1, 1, 1]);
  });
});

test('congestion is said once, PSH last', () => {
  const kind = KINDS[0] as Segmented;
  const header = {
    ...PARTIAL,
    gso_type: kind.gsoType | VIRTIO_NET_HDR_GSO_ECN,
    gso_size: 1000,
  };
  const pieces = applyOffloads(header, large(kind, new Uint8Array(3000)), mask('GUEST_TSO4'));
  expect(pieces.map(({ frame }) => frame[47])).toEqual([0x90, 0x10, 0x18]);
});

test.each([
  [true, 0],
  [false, 3],
])('a device that honours offloads (%s): ip_summed %i with a program', (honours, without) => {
  const net = createVirtioNet(new DirectKernel(4 << 20), {
    features: ['CTRL_VQ', 'CTRL_GUEST_OFFLOADS', 'GUEST_CSUM'],
    deviceHonoursOffloads: honours,
    queueSize: 64,
  });
  const summed = (): readonly number[] => {
    net.receive(partialUdp(), { header: PARTIAL });
    net.poll();
    return net.delivered().map((frame) => frame.ipSummed);
  };
  expect(summed()).toEqual([3]);
  net.attachXdp(returns(VERDICT.PASS));
  // upstream drops what is partial
  expect(summed()).toEqual(without === 3 ? [] : [0]);
  net.attachXdp(undefined);
  expect(summed()).toEqual([3]);
});
