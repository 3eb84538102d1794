/**
 * Kernel functions that XDP programs may call by name: metadata of the received packet.
 *
 * Reference: net/core/xdp.c (bpf_xdp_metadata_rx_*). What the device knows comes from
 * `host.network.rxMetadata`; what it does not know is -EOPNOTSUPP, a VLAN tag that the packet does not
 * have -ENODATA. Their numbers are this lab's: an engine reaches them like helpers, by address. Left
 * out: dynptrs.
 */
import { ERRNO } from '../../common/errno.js';
import type { BpfHost, RegisterPairs } from '../host.js';
import { offsetOf, setResult, type Helper } from './helper.js';

/** First number of a kfunc; helpers end at 211. */
const KFUNC_BASE = 1000;

function timestamp(registers: RegisterPairs, { memory, network }: BpfHost): void {
  const { timestamp: value } = network.rxMetadata;
  if (value !== undefined) {
    memory.view.setBigUint64(offsetOf(memory, registers, 2, 8, 'write'), value, true);
  }
  setResult(registers, value === undefined ? -ERRNO.EOPNOTSUPP : 0);
}

/** R2 where the u32 hash goes, R3 where its type goes. */
function hash(registers: RegisterPairs, { memory, network }: BpfHost): void {
  const { hash: known } = network.rxMetadata;
  if (known) {
    memory.view.setUint32(offsetOf(memory, registers, 2, 4, 'write'), known.value, true);
    memory.view.setUint32(offsetOf(memory, registers, 3, 4, 'write'), known.type, true);
  }
  setResult(registers, known ? 0 : -ERRNO.EOPNOTSUPP);
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

/** All kfuncs; `name` is the whole name here. */
export const KFUNCS: readonly Helper[] = [
  {
    id: KFUNC_BASE,
    name: 'bpf_xdp_metadata_rx_timestamp',
    arguments: ['ctx', 'fixed_mem'],
    sizes: { 2: 8 },
    result: 'integer',
    body: timestamp,
  },
  {
    id: KFUNC_BASE + 1,
    name: 'bpf_xdp_metadata_rx_hash',
    arguments: ['ctx', 'fixed_mem', 'fixed_mem'],
    sizes: { 2: 4, 3: 4 },
    result: 'integer',
    body: hash,
  },
  {
    id: KFUNC_BASE + 2,
    name: 'bpf_xdp_metadata_rx_vlan_tag',
    arguments: ['ctx', 'fixed_mem', 'fixed_mem'],
    sizes: { 2: 2, 3: 2 },
    result: 'integer',
    body: vlanTag,
  },
];

/** The kfunc of that name; undefined when it is not modelled. */
export function findKfunc(name: string): Helper | undefined {
  return KFUNCS.find((kfunc) => kfunc.name === name);
}
