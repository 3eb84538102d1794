/**
 * Who answers a program that asks for metadata of its packet: the driver of the device it came from.
 *
 * Reference: struct xdp_metadata_ops of include/net/xdp.h. In Linux the call is bound to the driver's function when
 * the program is loaded; here the packet's xdp_rxq_info says whose it is, which for a bound program is the
 * same. A device whose driver has no such function answers -EOPNOTSUPP.
 */
import type { XdpMetadataOps } from '../bpf/network.js';
import { XDP_BUFF, XDP_RXQ_INFO } from '../bpf/xdp-buff.js';
import { ERRNO } from '../common/errno.js';
import { ifindexOf } from './netdev.js';
import type { NetStack } from './net-stack.js';

export function xdpMetadataOf(stack: NetStack): XdpMetadataOps {
  const { kernel, devices } = stack;
  const { ram } = kernel.memory;
  return {
    rxHash: (xdp, hash, rssType) => {
      const dev = ram.pointer(ram.pointer(xdp + XDP_BUFF.rxq) + XDP_RXQ_INFO.dev);
      if (devices.byIndex(ifindexOf(ram, dev)) !== dev) return undefined;
      const { xmo_rx_hash: name } = devices.ops(dev);
      return name === undefined ? -ERRNO.EOPNOTSUPP : kernel.invoke(name, xdp, hash, rssType);
    },
  };
}
