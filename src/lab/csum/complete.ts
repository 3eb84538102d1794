/**
 * The checksum of a frame as its receiver sees it.
 *
 * `completeAsDevice` is what a virtio device does with NEEDS_CSUM when the frame goes out on a wire (virtio,
 * "Packet Transmission"). `fieldIsRight` tells whether an skb that was accepted is right: complete, or, if it
 * is PARTIAL, right once it is completed. IPIP packets are judged by the inner packet.
 */
import { viewOf } from '../../common/bytes.js';
import { checksumHolds, fold, pseudoHeaderSum, sumWords } from '../../net/checksum.js';
import { CHECKSUM_PARTIAL } from '../../stack/skb.js';
import type { DeliveredFrame } from '../../virtio/driver/sink.js';
import {
  VIRTIO_NET_HDR_F_NEEDS_CSUM,
  decodeNetHeader,
  encodeNetHeader,
} from '../../virtio/net-header.js';

/** The frame with its checksum completed, if the header asks for it. */
export function completeAsDevice(header: Uint8Array, frame: Uint8Array): Uint8Array {
  const { flags, csum_start, csum_offset } = decodeNetHeader(header);
  if ((flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) === 0) return frame;
  const done = frame.slice();
  const sum = ~fold(sumWords(done.subarray(csum_start))) & 0xffff;
  viewOf(done).setUint16(csum_start + csum_offset, sum === 0 ? 0xffff : sum);
  return done;
}

/** Whether the TCP or UDP checksum of an IPv4 or IPv6 packet is right; undefined: it has none. */
function l4IsRight(packet: Uint8Array): boolean | undefined {
  const v6 = (packet[0] ?? 0) >> 4 === 6;
  const header = v6 ? 40 : ((packet[0] ?? 0) & 15) * 4;
  const protocol = packet[v6 ? 6 : 9] ?? 0;
  const view = viewOf(packet);
  if (packet.length < header + 8) return undefined;
  const total = v6 ? 40 + view.getUint16(4) : view.getUint16(2);
  const segment = packet.subarray(header, total);
  if (protocol === 4) return l4IsRight(segment);
  if (protocol !== 6 && protocol !== 17) return undefined;
  if (protocol === 17 && !v6 && viewOf(segment).getUint16(6) === 0) return true;
  const source = v6 ? packet.subarray(8, 24) : packet.subarray(12, 16);
  const destination = v6 ? packet.subarray(24, 40) : packet.subarray(16, 20);
  const pseudo = pseudoHeaderSum(source, destination, protocol, segment.length);
  return checksumHolds(pseudo, segment);
}

/** Whether an skb on its way to a socket has a right checksum, or will have. */
export function fieldIsRight(skb: DeliveredFrame): boolean {
  const packet = skb.frame.subarray(14);
  if (skb.ipSummed !== CHECKSUM_PARTIAL) return l4IsRight(packet) !== false;
  const header = encodeNetHeader({
    flags: VIRTIO_NET_HDR_F_NEEDS_CSUM,
    csum_start: skb.csumStart - skb.headroom,
    csum_offset: skb.csumOffset,
  });
  return l4IsRight(completeAsDevice(header, packet)) !== false;
}
