/** All kernel functions of the stack. `start_xmit` and bpf_warn_invalid_xdp_action are the driver's. */
import { atomic, type KernelFunction } from '../kernel/function.js';
import { ethernetFunctions } from './ethernet.js';
import { genericXdpFunctions } from './generic-xdp.js';
import { consumeSkb, type StackHost } from './host.js';
import { ipFunctions } from './ip.js';
import { ipv6Functions } from './ipv6.js';
import { receiveStackFunctions } from './receive.js';
import { segmentFunctions } from './segment.js';
import { tcpFunctions } from './tcp.js';
import { transmitFunctions } from './transmit.js';
import { tunnelFunctions } from './tunnel.js';
import { udpFunctions } from './udp.js';

export function netStackFunctions(host: StackHost): readonly KernelFunction[] {
  return [
    ...ethernetFunctions,
    ...receiveStackFunctions(host),
    ...genericXdpFunctions(host),
    ...ipFunctions(host),
    ...ipv6Functions(host),
    ...udpFunctions(host),
    ...tcpFunctions(host),
    ...tunnelFunctions,
    ...transmitFunctions(host),
    ...segmentFunctions,
    atomic({
      prototype: 'void kfree_skb_reason(struct sk_buff *skb, int reason)',
      body: (kernel, skb) => consumeSkb(kernel, skb),
    }),
  ];
}
