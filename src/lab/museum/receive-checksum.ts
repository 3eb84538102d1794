/**
 * Exhibits 33, 34 and 42: what the device says of a packet's checksum, believed or lost at the wrong time.
 *
 * Reference: receive_buf, receive_mergeable of drivers/net/virtio_net.c; virtio_net_hdr_to_skb of
 * include/linux/virtio_net.h; "Device Requirements: Processing of Incoming Packets" of virtio 1.4.
 */
import { CHECKSUM_UNNECESSARY } from '../../stack/skb.js';
import { VIRTIO_NET_HDR_F_NEEDS_CSUM } from '../../virtio/net-header.js';
import { buildFrame } from '../csum/frames.js';
import { CsumLab } from '../csum/matrix.js';
import { CSUM_ROWS, type CsumVariant } from '../csum/rows.js';
import { withKernel, type Exhibit } from './exhibit.js';
import { testFrame, withNet } from './net-lab.js';

/** `CHECKSUM_*` by their numbers. */
const IP_SUMMED = ['NONE', 'UNNECESSARY', 'COMPLETE', 'PARTIAL'] as const;

const passedRow = (kind: 'P' | 'V') => {
  const row = CSUM_ROWS.find(
    (each) => each.kind === kind && each.program === 'pass' && each.target === 'local',
  );
  if (!row) throw new RangeError(`no row ${kind}`);
  return row;
};

export const partialBeforeXdp: Exhibit = {
  number: 33,
  name: 'partial_checksum_and_xdp',
  wing: 'network',
  fixedIn: '6.1.98, 6.10',
  story:
    'A packet with NEEDS_CSUM, whose checksum nobody has completed, was given to XDP programs, whose helpers take ' +
    'checksums for complete; behind the program nothing was known of it, and UDP dropped it. DATA_VALID was lost the ' +
    'same way. Now a partial packet is dropped in front of the program, and DATA_VALID survives it.',
  run: (variant, boot) =>
    withKernel(boot, {}, (kernel) => {
      const way: CsumVariant = variant === 'broken' ? 'base' : 'upstream';
      const guest = new CsumLab(kernel).open(way, 'mergeable');
      const partial = guest.run(passedRow('P'));
      const valid = guest.run(passedRow('V'));
      guest.close();
      const ran = partial.verdict !== undefined;
      const summed = valid.skb?.ipSummed ?? 0;
      return {
        lines: [
          `NEEDS_CSUM, a program that passes: it ${ran ? 'saw the packet' : 'was not run'}; ${partial.outcome}`,
          `DATA_VALID, the same program: CHECKSUM_${IP_SUMMED[summed]}; ${valid.outcome}`,
        ],
        right: !ran && summed === CHECKSUM_UNNECESSARY,
      };
    }),
};

export const flagsOfThePage: Exhibit = {
  number: 34,
  name: 'flags_in_big_mode',
  wing: 'network',
  fixedIn: '6.12.63',
  story:
    "The flags of a packet's header are saved before a program may overwrite it. In big mode the buffer is named by its " +
    'page object, and the flags were read from there: what the device had verified was verified once more, or the ' +
    'other way round, as the bits of the page would have it. Now they are read from the page itself.',
  run: (variant, boot) => {
    const bugs = variant === 'broken' ? (['flags of the page'] as const) : [];
    return withNet(boot, { device: { rx: 'big', bugs } }, ({ net }) => {
      const packet = buildFrame({ l4: 'udp4', kind: 'V', destination: '10.0.0.2', payload: 12 });
      net.receive(packet.frame, { header: packet.header });
      net.poll();
      const summed = net.delivered()[0]?.ipSummed ?? 0;
      return {
        lines: [`a packet with DATA_VALID in a big buffer: CHECKSUM_${IP_SUMMED[summed]}`],
        right: summed === CHECKSUM_UNNECESSARY,
      };
    });
  },
};

export const smallCsumStart: Exhibit = {
  number: 42,
  name: 'csum_start_too_small',
  wing: 'network',
  fixedIn: '6.11.4',
  story:
    'csum_start of a virtio_net_hdr says where the checksummed part begins, and with it where the transport header ' +
    'is. Any number was taken, also one within the Ethernet header; who later looked for an IP header in front of it ' +
    'found none. Now it has to leave room for one. The broken run is the 6.1 driver as guests showed it.',
  run: (variant, boot) => {
    const version = variant === 'broken' ? '6.1' : '6.12';
    return withNet(boot, { device: { version } }, ({ net }) => {
      const header = { flags: VIRTIO_NET_HDR_F_NEEDS_CSUM, csum_start: 13, csum_offset: 6 };
      net.receive(testFrame(100), { header });
      net.poll();
      const [skb] = net.delivered();
      // the Ethernet header is in front of skb->data by now
      const start = skb && skb.csumStart - skb.headroom + 14;
      return {
        lines: [
          'NEEDS_CSUM with csum_start 13',
          skb
            ? `taken: CHECKSUM_${IP_SUMMED[skb.ipSummed]} from byte ${start} of the frame`
            : `refused: rx_frame_errors ${net.counters()['dev_rx_frame_errors']}`,
        ],
        right: skb === undefined,
      };
    });
  },
};
