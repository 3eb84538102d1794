/**
 * Exhibit 44: three mistakes about where an XDP program may move a packet's borders to.
 *
 * Reference: bpf_xdp_adjust_tail and bpf_xdp_frags_increase_tail of net/core/filter.c, netif_receive_generic_xdp
 * of net/core/dev.c; commits "xdp: use modulo operation to calculate XDP frag tailroom", "xdp: bpf_xdp_adjust_tail:
 * remove unnecessary frame_sz check" and "net: fix bpf_xdp_adjust_head regression for generic-XDP". The driver here
 * has neither fragments that share a page nor frames of two pages, so such a frame is laid out by hand.
 */
import { createInterpreter } from '../../bpf/interpreter.js';
import { SKB_FRAG, SKB_SHARED_INFO, XDP_BUFF, XDP_RXQ_INFO, XdpBuff } from '../../bpf/xdp-buff.js';
import type { Kernel } from '../../kernel/kernel.js';
import { parseIpv4 } from '../../net/address.js';
import { createNetwork } from '../../stack/network.js';
import { defineVirtioNet } from '../../virtio/virtio-net.js';
import { PEER_MAC, UDP_PORT, buildFrame, ipv4Header } from '../csum/frames.js';
import { VERDICTS, adjustProgram, labProgram, returnProgram } from '../csum/programs.js';
import { createXdpEngine } from '../xdp-engine.js';
import { withKernel, type Exhibit, type Observation, type Variant } from './exhibit.js';

const ADJUST_HEAD = 44;
const ADJUST_TAIL = 65;
const IPIP = 4;
const PAGE_SIZE = 4096;
const HEADROOM = 256;
/** Two buffers to a page. */
const FRAG_SIZE = 2048;
const FRAG_BYTES = 1500;
/** More than the 548 bytes behind the fragment, and than what is left of its page. */
const GROWN = 1000;

/** Takes an outer IPv4 header of 20 bytes away, the Ethernet header moves behind it. */
const DECAPSULATE = `
  r6 = r1
  r2 = *(u64 *)(r1 + 0)
  r7 = *(u64 *)(r2 + 0)
  r8 = *(u32 *)(r2 + 8)
  r9 = *(u16 *)(r2 + 12)
  r2 = 20
  call ${ADJUST_HEAD}
  r2 = *(u64 *)(r6 + 0)
  *(u64 *)(r2 + 0) = r7
  *(u32 *)(r2 + 8) = r8
  *(u16 *)(r2 + 12) = r9
  r0 = ${VERDICTS.PASS}
  exit`;

/** An outer header taken off by a generic program. */
function movedHead(variant: Variant, kernel: Kernel): Observation {
  const driver = defineVirtioNet(kernel, { resetsNetworkHeader: variant === 'fixed' });
  const network = createNetwork(kernel);
  const net = driver.probe({ network });
  network.addAddress('10.0.0.2');
  network.bindUdp(UDP_PORT);
  const dev = kernel.memory.ram.virtToPhys(net.dev);
  network.addRoute({ to: '10.0.0.0/24', dev, neighbour: PEER_MAC });
  const program = labProgram(kernel, 'decapsulate', DECAPSULATE);
  net.attachGenericXdp(createXdpEngine(kernel, 'interpreter', program).runner);
  const { frame } = buildFrame({ l4: 'udp4', kind: 'U', destination: '10.0.0.2', payload: 12 });
  const inner = frame.subarray(14);
  const [from, to] = [parseIpv4('172.16.0.1'), parseIpv4('172.16.0.2')];
  const outer = ipv4Header(from, to, IPIP, inner.length);
  net.receive(Uint8Array.from([...frame.subarray(0, 14), ...outer, ...inner]));
  net.poll();
  const datagrams = network.received().length;
  return {
    lines: [
      'a generic XDP program takes an outer IP header off and passes the packet',
      `datagrams read: ${datagrams}; IpInHdrErrors ${network.counters().IpInHdrErrors}`,
    ],
    right: datagrams === 1,
  };
}

/** Whether a program's bpf_xdp_adjust_tail by `grown` bytes succeeds. */
function growsTail(kernel: Kernel, xdp: XdpBuff, grown: number): boolean {
  const [pass, drop] = [returnProgram(VERDICTS.PASS), returnProgram(VERDICTS.DROP)];
  const program = labProgram(kernel, 'grow', adjustProgram(ADJUST_TAIL, [grown], pass, drop));
  const interpreter = createInterpreter(program, kernel.bpf.host);
  const result = interpreter.run(xdp.address);
  interpreter.close();
  return result.kind === 'return' && result.r0 === BigInt(VERDICTS.PASS);
}

/** A frame that a driver put into two pages. */
function largeFrame(variant: Variant, kernel: Kernel): Observation {
  const { host } = kernel.bpf;
  host.adjustTailBug = variant === 'broken' ? 'large frames refused' : undefined;
  const xdp = XdpBuff.create(host, { ifindex: 1, queueIndex: 0 });
  const { address } = host.allocate('two pages', 2 * PAGE_SIZE);
  xdp.setFrame(address, 2 * PAGE_SIZE, HEADROOM, 100);
  const grows = growsTail(kernel, xdp, GROWN);
  return {
    lines: [`a packet of 100 bytes in two pages grows by ${GROWN}: ${grows ? 'done' : '-EINVAL'}`],
    right: grows,
  };
}

/** A packet whose last fragment is the second half of a page. */
function sharedPage(variant: Variant, kernel: Kernel): Observation {
  const { host } = kernel.bpf;
  const { memory } = kernel;
  host.adjustTailBug = variant === 'broken' ? 'unsigned tailroom' : undefined;
  const xdp = XdpBuff.create(host, { ifindex: 1, queueIndex: 0 });
  const rxq = memory.read64(xdp.address + BigInt(XDP_BUFF.rxq));
  memory.write32(rxq + BigInt(XDP_RXQ_INFO.fragSize), FRAG_SIZE);
  xdp.setFrame(host.allocate('first buffer', PAGE_SIZE).address, PAGE_SIZE, HEADROOM, 100);
  const page = host.allocate('page, and the next', 2 * PAGE_SIZE).address;
  const behind = page + BigInt(PAGE_SIZE);
  memory.writeBytes(behind, new Uint8Array(PAGE_SIZE).fill(0xaa));
  xdp.setFragments([{ address: page, length: FRAG_BYTES }]);
  const fragment = xdp.sharedInfo + BigInt(SKB_SHARED_INFO.frags);
  memory.write32(fragment + BigInt(SKB_FRAG.offset), FRAG_SIZE);
  const grows = growsTail(kernel, xdp, GROWN);
  const lost = memory.readBytes(behind, PAGE_SIZE).filter((byte) => byte === 0).length;
  return {
    lines: [
      `a fragment of ${FRAG_BYTES} bytes in the second half of a page grows by ${GROWN}: ` +
        (grows ? `done, ${lost} bytes of the next page are overwritten` : '-EINVAL'),
    ],
    right: !grows && lost === 0,
  };
}

export const packetBorders: Exhibit = {
  number: 44,
  name: 'xdp_borders',
  wing: 'network',
  fixedIn: '5.2.9, 6.1.52, 6.1.170',
  story:
    'Generic XDP runs on an skb whose network header is set already; when a program moved the start, that offset ' +
    'stayed where it had been. bpf_xdp_adjust_tail() took a frame larger than a page for the mistake of a driver, and ' +
    'refused to grow it. And the room behind a fragment was counted from the start of its page, not of its part of ' +
    'the page: what came out was negative, taken for unsigned, and any growth was allowed.',
  run: (variant, boot) =>
    withKernel(boot, {}, (kernel) => {
      const parts = [movedHead, largeFrame, sharedPage].map((part) => part(variant, kernel));
      const isRight = ({ right }: Observation): boolean => right;
      return {
        lines: parts.flatMap(({ lines }) => lines),
        right: variant === 'broken' ? parts.some(isRight) : parts.every(isRight),
      };
    }),
};
