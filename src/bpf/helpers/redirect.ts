/**
 * Where a packet goes: redirects, MTU, routes.
 *
 * Reference: net/core/filter.c bpf_xdp_redirect, bpf_xdp_redirect_map, bpf_xdp_check_mtu,
 * bpf_ipv4_fib_lookup, bpf_ipv6_fib_lookup; include/linux/filter.h __bpf_xdp_redirect_map. What the last
 * redirect of a run asked for is left in bpf_redirect_info for who carries it out.
 */
import { ERRNO } from '../../common/errno.js';
import type { BpfHost, RegisterPairs } from '../host.js';
import type { Ram } from '../../cpu/ram.js';
import { BPF_MAP_TYPE, isRedirectMap, type MapTypeName } from '../maps/map.js';
import type { NetDevice, Route } from '../network.js';
import {
  BPF_F_BROADCAST,
  BPF_F_EXCLUDE_INGRESS,
  BPF_REDIRECT_INFO,
  NO_MAP,
} from '../redirect-info.js';
import { XdpBuff } from '../xdp-buff.js';
import { argument, argument32, offsetOf, setResult, type Helper } from './helper.js';

const XDP_ABORTED = 0;
const XDP_REDIRECT = 4;

/** The lower two bits of the flags are the verdict of a miss. */
const MISS_VERDICT = 3;

const TARGETS: readonly MapTypeName[] = ['DEVMAP', 'DEVMAP_HASH', 'CPUMAP', 'XSKMAP'];

const INFO = BPF_REDIRECT_INFO.offset;

function redirect(registers: RegisterPairs, host: BpfHost): void {
  if (registers[4] !== 0 || registers[5] !== 0) {
    setResult(registers, XDP_ABORTED);
    return;
  }
  const { ram } = host.memory;
  const info = host.redirectInfo();
  ram.setWord(info + INFO.tgt_index, argument32(registers, 1));
  setNoMap(ram, info);
  setResult(registers, XDP_REDIRECT);
}

function setNoMap(ram: Ram, info: number): void {
  ram.set32(info + INFO.map_id, NO_MAP);
  ram.set32(info + INFO.map_type, 0);
}

function redirectMap(registers: RegisterPairs, host: BpfHost): void {
  const map = host.mapAt(argument(registers, 1));
  if (!map || !isRedirectMap(map)) {
    setResult(registers, XDP_ABORTED);
    return;
  }
  const flags = registers[6] as number;
  const known = MISS_VERDICT | (map.canBroadcast ? BPF_F_BROADCAST | BPF_F_EXCLUDE_INGRESS : 0);
  if ((flags & ~known) !== 0 || registers[7] !== 0) {
    setResult(registers, XDP_ABORTED);
    return;
  }
  const { ram } = host.memory;
  const info = host.redirectInfo();
  const key = (registers[4] as number) >>> 0;
  const broadcast = (flags & BPF_F_BROADCAST) !== 0;
  const hit = registers[5] === 0 && map.hasTarget(key);
  ram.setPointer(info + INFO.tgt_value, hit ? map.target(key) : 0);
  if (!hit && !broadcast) {
    setNoMap(ram, info);
    setResult(registers, flags & MISS_VERDICT);
    return;
  }
  ram.setWord(info + INFO.tgt_index, key);
  ram.set32(info + INFO.map_id, map.id);
  ram.set32(info + INFO.map_type, BPF_MAP_TYPE[map.spec.type]);
  ram.set64(info + INFO.map, broadcast ? map.address : 0n);
  ram.set32(info + INFO.flags, broadcast ? flags : 0);
  setResult(registers, XDP_REDIRECT);
}

const ETH_HLEN = 14;

/** ctx, ifindex (0: ingress), address of the length (0: the packet's), difference, flags. */
function checkMtu(registers: RegisterPairs, host: BpfHost): void {
  const { view } = host.memory;
  if (argument(registers, 5) !== 0n) {
    setResult(registers, -ERRNO.EINVAL);
    return;
  }
  const xdp = new XdpBuff(host.memory, argument(registers, 1));
  const ifindex = argument32(registers, 2) >>> 0 || xdp.ifindex;
  const device = host.network.device(ifindex);
  if (!device) {
    setResult(registers, -ERRNO.ENODEV);
    return;
  }
  const lengthAt = offsetOf(host.memory, registers, 3, 4, 'write');
  const given = view.getUint32(lengthAt, true);
  const header = device.headerLength ?? ETH_HLEN;
  // a length in the argument is an L3 length
  const length = given !== 0 ? given + header : xdp.length;
  const fits = length + argument32(registers, 4) <= device.mtu + header;
  view.setUint32(lengthAt, device.mtu, true);
  setResult(registers, fits ? 0 : 1);
}

/** Offsets in `struct bpf_fib_lookup`, 64 bytes. */
const FIB = {
  family: 0,
  totLen: 6,
  ifindex: 8,
  metric: 12,
  source: 16,
  destination: 32,
  vlanProto: 48,
  vlanTci: 50,
  smac: 52,
  dmac: 58,
  size: 64,
} as const;

/** BPF_FIB_LOOKUP_*: DIRECT 1, OUTPUT 2, SKIP_NEIGH 4, TBID 8, SRC 16, MARK 32. */
const SKIP_NEIGH = 4;
const SRC = 16;
const FIB_FLAGS = 0x3f;

/** BPF_FIB_LKUP_RET_* */
const FIB_RESULT = {
  SUCCESS: 0,
  BLACKHOLE: 1,
  UNREACHABLE: 2,
  PROHIBIT: 3,
  NOT_FWDED: 4,
  FWD_DISABLED: 5,
  NO_NEIGH: 7,
  FRAG_NEEDED: 8,
  NO_SRC_ADDR: 9,
} as const;

const AF_INET = 2;
const AF_INET6 = 10;

function fibLookup(registers: RegisterPairs, host: BpfHost): void {
  const size = argument32(registers, 3) >>> 0;
  const flags = argument32(registers, 4) >>> 0;
  if (size < FIB.size || (flags & ~FIB_FLAGS) !== 0) {
    setResult(registers, -ERRNO.EINVAL);
    return;
  }
  const at = offsetOf(host.memory, registers, 2, FIB.size, 'write');
  const family = host.memory.bytes[at + FIB.family];
  if (family !== AF_INET && family !== AF_INET6) {
    setResult(registers, -ERRNO.EAFNOSUPPORT);
    return;
  }
  setResult(registers, lookUp(host, at, flags, family === AF_INET ? 4 : 16));
}

function lookUp(host: BpfHost, at: number, flags: number, width: 4 | 16): number {
  const { bytes, view } = host.memory;
  const ingress = host.network.device(view.getUint32(at + FIB.ifindex, true));
  if (!ingress) return -ERRNO.ENODEV;
  if (!(ingress.forwarding ?? false)) return FIB_RESULT.FWD_DISABLED;
  const destination = bytes.slice(at + FIB.destination, at + FIB.destination + width);
  const route = host.network.route(destination);
  if (!route) return FIB_RESULT.NOT_FWDED;
  switch (route.kind ?? 'unicast') {
    case 'blackhole':
      return FIB_RESULT.BLACKHOLE;
    case 'unreachable':
      return FIB_RESULT.UNREACHABLE;
    case 'prohibit':
      return FIB_RESULT.PROHIBIT;
    case 'local':
      return FIB_RESULT.NOT_FWDED;
    case 'unicast':
      break;
  }
  const out = host.network.device(route.ifindex);
  if (!out) return -ERRNO.ENODEV;
  const mtu = route.mtu ?? out.mtu;
  const total = view.getUint16(at + FIB.totLen, true);
  if (total > mtu) {
    view.setUint16(at + FIB.totLen, mtu, true);
    return FIB_RESULT.FRAG_NEEDED;
  }
  return fillIn(host, at, flags, route, out, destination, total > 0 ? mtu : undefined);
}

function fillIn(
  host: BpfHost,
  at: number,
  flags: number,
  route: Route,
  out: NetDevice,
  destination: Uint8Array,
  mtu: number | undefined,
): number {
  const { bytes, view } = host.memory;
  const nextHop = route.gateway ?? destination;
  view.setUint32(at + FIB.ifindex, out.ifindex, true);
  if (mtu !== undefined) view.setUint16(at + FIB.totLen, mtu, true);
  view.setUint32(at + FIB.metric, 0, true);
  if (route.gateway) bytes.set(route.gateway, at + FIB.destination);
  if ((flags & SRC) !== 0) {
    if (!route.source) return FIB_RESULT.NO_SRC_ADDR;
    bytes.set(route.source, at + FIB.source);
  }
  view.setUint32(at + FIB.vlanProto, 0, true);
  if ((flags & SKIP_NEIGH) !== 0) return FIB_RESULT.SUCCESS;
  const neighbour = host.network.neighbour(out.ifindex, nextHop);
  if (!neighbour) return FIB_RESULT.NO_NEIGH;
  bytes.set(neighbour.mac, at + FIB.dmac);
  bytes.set(out.mac, at + FIB.smac);
  return FIB_RESULT.SUCCESS;
}

export const REDIRECT_HELPERS: readonly Helper[] = [
  {
    id: 23,
    name: 'redirect',
    arguments: ['anything', 'anything'],
    result: 'integer',
    body: redirect,
  },
  {
    id: 51,
    name: 'redirect_map',
    arguments: ['map', 'anything', 'anything'],
    maps: TARGETS,
    result: 'integer',
    body: redirectMap,
  },
  {
    id: 69,
    name: 'fib_lookup',
    arguments: ['ctx', 'mem', 'size', 'anything'],
    result: 'integer',
    gplOnly: true,
    body: fibLookup,
  },
  {
    id: 163,
    name: 'check_mtu',
    arguments: ['ctx', 'anything', 'fixed_mem', 'anything', 'anything'],
    sizes: { 3: 4 },
    result: 'integer',
    gplOnly: true,
    body: checkMtu,
  },
];
