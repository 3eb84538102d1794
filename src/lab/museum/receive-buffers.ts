/**
 * Exhibits 31, 32 and 35: receive buffers of virtio-net that end elsewhere than the driver thinks.
 *
 * Reference: page_to_skb, xdp_linearize_page and receive_big of drivers/net/virtio_net.c. 31 shows on the 6.1
 * driver, which still makes skbs of XDP frames with page_to_skb.
 */
import { XDP_BUFF } from '../../bpf/xdp-buff.js';
import type { DriverBug } from '../../virtio/driver/bugs.js';
import type { VirtioNetOptions } from '../../virtio/virtio-net.js';
import { VERDICTS, adjustProgram, returnProgram } from '../csum/programs.js';
import { postedBuffers } from '../posted-buffers.js';
import { refusalOf, type Exhibit, type Variant } from './exhibit.js';
import { claimLength, postXdpBuffers, testFrame, withNet, type NetLab } from './net-lab.js';

const RING = 16;
const PAGE_SIZE = 4096;
const XDP_HEADROOM = 256;
const ADJUST_HEAD = 44;

function bugs(bug: DriverBug, variant: Variant): Pick<VirtioNetOptions, 'bugs'> {
  return variant === 'broken' ? { bugs: [bug] } : {};
}

export const postedHeadroom: Exhibit = {
  number: 31,
  name: 'xdp_skb_headroom',
  wing: 'network',
  fixedIn: '5.17.6',
  story:
    'page_to_skb() was told that 256 bytes lie in front of a frame that a program passed, also after ' +
    'bpf_xdp_adjust_head() had used some of them. The skb then began that much below its buffer, in whatever is ' +
    'there, and what freed it freed the wrong page. Now the headroom is taken from where the data is.',
  run: (variant, boot) => {
    const device = {
      version: '6.1',
      queueSize: RING,
      ...bugs('posted headroom', variant),
    } as const;
    return withNet(boot, { device }, (lab) => {
      const { kernel, net, program, heads } = lab;
      postXdpBuffers(net, RING);
      const [pass, drop] = [returnProgram(VERDICTS.PASS), returnProgram(VERDICTS.DROP)];
      net.attachXdp(program(adjustProgram(ADJUST_HEAD, [-20], pass, drop)));
      const [buffer] = postedBuffers(kernel.memory, net, 1);
      net.receive(testFrame(300));
      net.poll();
      const start = kernel.memory.ram.virtToPhys(buffer?.address ?? 0n) - XDP_HEADROOM;
      const below = start - (heads[0] ?? 0);
      return {
        lines: [
          'a program takes 20 of the 256 bytes in front of a frame, and passes it',
          `skb->head is ${below === 0 ? 'the start of its buffer' : `${below} bytes below its buffer`}`,
        ],
        right: below === 0,
      };
    });
  },
};

export const linearizeOverflow: Exhibit = {
  number: 32,
  name: 'xdp_linearize_overflow',
  wing: 'network',
  fixedIn: '6.1.27',
  story:
    'A frame in a buffer without headroom is copied to byte 256 of a fresh page before a program sees it. Whether ' +
    'the page can hold it, with the skb_shared_info behind, was asked for all buffers of the frame but the first. ' +
    'A first buffer of up to a page was copied over the end.',
  run: (variant, boot) => {
    const device = { queueSize: RING, ...bugs('first copy unchecked', variant) };
    return withNet(boot, { device }, ({ net }) => {
      // buffers posted before a program is attached: a page each, as a frame may have 64 KiB
      const frame = testFrame(4000);
      let written = 0;
      net.attachXdp({
        run: ({ memory: { ram } }, xdp) => {
          const end = ram.pointer(xdp + XDP_BUFF.dataHardStart) + PAGE_SIZE;
          const behind = ram.slice(end, PAGE_SIZE);
          const tail = frame.subarray(frame.length - (ram.pointer(xdp + XDP_BUFF.dataEnd) - end));
          written = tail.every((byte, i) => byte === behind[i]) ? tail.length : 0;
          return VERDICTS.DROP;
        },
      });
      net.receive(frame);
      net.poll();
      const { rx_xdp_packets: ran = 0, rx_xdp_drops: drops = 0 } = net.counters();
      return {
        lines: [
          `a frame of ${frame.length} bytes in one buffer: seen by the program ${ran}, dropped ${drops}`,
          `bytes of it in the page behind the page it was copied to: ${written}`,
        ],
        right: written === 0 && drops === 1,
      };
    });
  },
};

const SECRET = 'what lay behind the buffer';

/** A frame in two buffers of 1536 bytes, of which the second is said to have 2400. */
function leak(lab: NetLab): string {
  const { kernel, net, program } = lab;
  net.attachXdp(program(returnProgram(VERDICTS.PASS)));
  const behind = postedBuffers(kernel.memory, net, 2)[1];
  const end = (behind?.address ?? 0n) + BigInt(behind?.length ?? 0);
  kernel.memory.writeBytes(end, new TextEncoder().encode(SECRET));
  net.receive(testFrame(800), { bytesPerBuffer: [500, PAGE_SIZE] });
  claimLength(lab, 2400);
  net.poll();
  const [skb] = net.delivered();
  if (!skb) return 'dropped';
  const shows = new TextDecoder('latin1').decode(skb.frame).includes(SECRET);
  return `a packet of ${skb.frame.length} bytes${shows ? `, with "${SECRET}" in it` : ''}`;
}

/** A frame in a big buffer of two pages, said to have 20000 bytes. */
function overrun(lab: NetLab): string {
  lab.net.receive(testFrame(1000));
  claimLength(lab, 20_000);
  const refusal = refusalOf(() => lab.net.poll());
  return refusal ?? `rx_length_errors ${lab.net.counters()['dev_rx_length_errors']}`;
}

export const trustedLength: Exhibit = {
  number: 35,
  name: 'trusted_length',
  wing: 'network',
  fixedIn: '6.1.147, 6.1.159',
  story:
    'The length of a used buffer comes from the device, which may be hostile. xdp_linearize_page() copied as much as ' +
    'it said, also from behind the buffer; with big buffers that an MTU had made smaller than 17 pages, ' +
    'page_to_skb() walked past the last page. Now lengths are compared with what was posted.',
  run: (variant, boot) => {
    const bug = bugs('lengths trusted', variant);
    return withNet(boot, { device: { queueSize: 64, ...bug } }, (lab) => {
      const leaked = leak(lab);
      const big = lab.driver.probe({
        ...bug,
        name: 'eth1',
        ifindex: 3,
        rx: 'small',
        features: ['MTU'],
        config: { mtu: 3000 },
      });
      const overran = overrun({ ...lab, net: big });
      return {
        lines: [
          `a frame in two buffers, the second with 2400 of 1536 bytes by the device's word: ${leaked}`,
          `one in a big buffer of 2 pages, with 20000 bytes by the device's word: ${overran}`,
        ],
        right: leaked === 'dropped' && !overran.startsWith('-EFAULT'),
      };
    });
  },
};
