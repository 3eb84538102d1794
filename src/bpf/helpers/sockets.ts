/**
 * Look-ups of sockets: bpf_sk_lookup_tcp, bpf_sk_lookup_udp, bpf_skc_lookup_tcp, bpf_sk_release.
 *
 * A tuple of 12 bytes is IPv4's, of 36 bytes IPv6's; others find nothing, as do flags. A negative
 * namespace number means the one of the device that the packet came in on. Reference: net/core/filter.c
 * __bpf_skc_lookup, bpf_sk_lookup, bpf_sk_release. What is found: `socket-table.ts`. In an XDP program the
 * namespace number counts with its low 32 bits only. Left out: l3mdev (sdif).
 */
import type { BpfHost, RegisterPairs } from '../host.js';
import { isCounted, isFullSocket, SOCK, type Socket, type SocketAddress } from '../socket.js';
import type { SocketQuery } from '../socket-table.js';
import { XdpBuff } from '../xdp-buff.js';
import { argument, argument32, offsetOf, setResult, setResult64, type Helper } from './helper.js';

/** Bytes of addresses in `struct bpf_sock_tuple`, by its size; source and destination port follow. */
const ADDRESS_SIZES: ReadonlyMap<number, number> = new Map([
  [12, 4],
  [36, 16],
]);

function queryOf(registers: RegisterPairs, host: BpfHost): SocketQuery | undefined {
  const size = argument32(registers, 3) >>> 0;
  const width = ADDRESS_SIZES.get(size);
  if (width === undefined || argument(registers, 5) !== 0n) return undefined;
  const { bytes, view } = host.memory;
  const at = offsetOf(host.memory, registers, 2, size, 'read');
  const end = (from: number, port: number): SocketAddress => ({
    address: bytes.slice(at + from, at + from + width),
    port: view.getUint16(at + port),
  });
  const namespace = argument32(registers, 4);
  return {
    remote: end(0, 2 * width),
    local: end(width, 2 * width + 2),
    ifindex: new XdpBuff(host.memory, argument(registers, 1)).ifindex,
    namespace: namespace < 0 ? undefined : namespace,
  };
}

/** sk_to_full_sk: of a request its listener; of a timewait socket nothing. */
function fullSocket(socket: Socket | undefined): Socket | undefined {
  if (!socket || isFullSocket(socket)) return socket;
  return socket.listener;
}

function changeCount(host: BpfHost, address: bigint, by: number): void {
  const socket = host.network.sockets.at(address);
  if (!socket || !isCounted(socket)) return;
  const at = address + BigInt(SOCK.refcnt);
  host.memory.write32(at, host.memory.read32(at) + by);
}

function lookUp(protocol: Socket['protocol'], full: boolean): Helper['body'] {
  return (registers, host) => {
    const { sockets } = host.network;
    const query = queryOf(registers, host);
    const found = query && sockets.find(protocol, query);
    const socket = full ? fullSocket(found) : found;
    const address = socket ? sockets.addressOf(socket, host) : 0n;
    changeCount(host, address, 1);
    setResult64(registers, address);
  };
}

const ARGUMENTS = ['ctx', 'mem', 'size', 'anything', 'anything'] as const;

export const SOCKET_HELPERS: readonly Helper[] = [
  {
    id: 84,
    name: 'sk_lookup_tcp',
    arguments: ARGUMENTS,
    result: 'socket_or_null',
    body: lookUp('tcp', true),
  },
  {
    id: 85,
    name: 'sk_lookup_udp',
    arguments: ARGUMENTS,
    result: 'socket_or_null',
    body: lookUp('udp', true),
  },
  {
    id: 86,
    name: 'sk_release',
    arguments: ['release_socket'],
    result: 'integer',
    body: (registers, host) => {
      changeCount(host, argument(registers, 1), -1);
      setResult(registers, 0);
    },
  },
  {
    id: 99,
    name: 'skc_lookup_tcp',
    arguments: ARGUMENTS,
    result: 'socket_or_null',
    body: lookUp('tcp', false),
  },
];
