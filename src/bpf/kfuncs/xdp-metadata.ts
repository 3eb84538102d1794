/**
 * Metadata of the received packet, for XDP programs that are bound to the device.
 *
 * Reference: net/core/xdp.c (bpf_xdp_metadata_rx_*), kernel/bpf/offload.c bpf_dev_bound_kfunc_check. The
 * hash comes from the driver of the packet's device (`host.network.xdpMetadata`); what no driver knows
 * comes from `host.network.rxMetadata`. What the device does not know is -EOPNOTSUPP, a hash or VLAN tag that
 * this packet does not have -ENODATA.
 */
import { ERRNO } from '../../common/errno.js';
import type { BpfHost, RegisterPairs } from '../host.js';
import { offsetOf, setResult } from '../helpers/helper.js';
import { XDP_BUFF } from '../xdp-buff.js';
import type { KfuncRow } from './kfunc.js';

function timestamp(registers: RegisterPairs, { memory, network }: BpfHost): void {
  const { timestamp: value } = network.rxMetadata;
  if (value !== undefined) {
    memory.view.setBigUint64(offsetOf(memory, registers, 2, 8, 'write'), value, true);
  }
  setResult(registers, value === undefined ? -ERRNO.EOPNOTSUPP : 0);
}

/** R2 where the u32 hash goes, R3 where its type goes. */
function hash(registers: RegisterPairs, { memory, network }: BpfHost): void {
  const { xdpMetadata } = network;
  if (xdpMetadata) {
    const result = xdpMetadata.rxHash(
      offsetOf(memory, registers, 1, XDP_BUFF.size, 'read'),
      offsetOf(memory, registers, 2, 4, 'write'),
      offsetOf(memory, registers, 3, 4, 'write'),
    );
    if (result !== undefined) return setResult(registers, result);
  }
  const { hash: known } = network.rxMetadata;
  if (known) {
    memory.view.setUint32(offsetOf(memory, registers, 2, 4, 'write'), known.value, true);
    memory.view.setUint32(offsetOf(memory, registers, 3, 4, 'write'), known.type, true);
  }
  setResult(registers, known ? 0 : known === null ? -ERRNO.ENODATA : -ERRNO.EOPNOTSUPP);
}

/** R2 where the protocol goes (big-endian), R3 where the tag goes. */
function vlanTag(registers: RegisterPairs, { memory, network }: BpfHost): void {
  const { vlan } = network.rxMetadata;
  if (vlan) {
    memory.view.setUint16(offsetOf(memory, registers, 2, 2, 'write'), vlan.protocol, false);
    memory.view.setUint16(offsetOf(memory, registers, 3, 2, 'write'), vlan.tci, true);
  }
  setResult(registers, vlan ? 0 : vlan === null ? -ERRNO.ENODATA : -ERRNO.EOPNOTSUPP);
}

/** Packets of a device that the program is bound to. */
const METADATA = { flags: ['KF_TRUSTED_ARGS'], kinds: ['xdp'], deviceBound: true } as const;

export const XDP_METADATA_KFUNCS: readonly KfuncRow[] = [
  {
    ...METADATA,
    prototype: 'int bpf_xdp_metadata_rx_timestamp(const struct xdp_md *ctx, u64 *timestamp)',
    body: timestamp,
  },
  {
    ...METADATA,
    prototype:
      'int bpf_xdp_metadata_rx_hash(const struct xdp_md *ctx, u32 *hash, enum xdp_rss_hash_type *rss_type)',
    body: hash,
  },
  {
    ...METADATA,
    prototype:
      'int bpf_xdp_metadata_rx_vlan_tag(const struct xdp_md *ctx, __be16 *vlan_proto, u16 *vlan_tci)',
    body: vlanTag,
  },
];
