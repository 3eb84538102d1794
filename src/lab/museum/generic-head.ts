/**
 * Exhibit 44: generic XDP moves the data, and the skb's network header stays behind.
 *
 * Reference: netif_receive_generic_xdp of net/core/dev.c; commit "net: fix bpf_xdp_adjust_head regression for
 * generic-XDP". Of this number's other bugs, the ones of adjust_tail were warnings and refusals only.
 */
import { createNetwork } from '../../stack/network.js';
import { PEER_MAC, UDP_PORT, buildFrame, ipv4Header } from '../csum/frames.js';
import { parseIpv4 } from '../../net/address.js';
import { VERDICTS } from '../csum/programs.js';
import { withKernel, type Exhibit } from './exhibit.js';
import { defineVirtioNet } from '../../virtio/virtio-net.js';
import { labProgram } from '../csum/programs.js';
import { createXdpEngine } from '../xdp-engine.js';

const ADJUST_HEAD = 44;
const IPIP = 4;

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

export const staleNetworkHeader: Exhibit = {
  number: 44,
  name: 'generic_adjust_head',
  wing: 'network',
  fixedIn: '5.2.9',
  story:
    "Generic XDP runs on an skb whose network header is set already. When a program moves the packet's start, that " +
    'offset has to follow; for some releases it did not, and IP looked for its header where the old one had been. Now ' +
    'it is set anew behind the program.',
  run: (variant, boot) =>
    withKernel(boot, {}, (kernel) => {
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
      const outer = ipv4Header(
        parseIpv4('172.16.0.1'),
        parseIpv4('172.16.0.2'),
        IPIP,
        inner.length,
      );
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
    }),
};
