/**
 * Which socket a packet belongs to: connected ones by both ends, then listening ones by the best score.
 *
 * Reference: __inet_lookup, inet_lhash2_lookup and compute_score of net/ipv4/inet_hashtables.c, udp_v4 and
 * udp_v6 forms in net/ipv4/udp.c and net/ipv6/udp.c. Among equal scores the one that was added first
 * counts. Left out: SO_REUSEPORT groups, SO_INCOMING_CPU, VRFs, BPF_PROG_TYPE_SK_LOOKUP. None of this was
 * compared with a running kernel.
 *
 * Usage:
 *   const table = new SocketTable();
 *   table.add({ protocol: 'udp', local: { address: new Uint8Array(4), port: 53 } });
 *   table.find('udp', { local, remote, ifindex: 1 });
 */
import type { BpfHost } from './host.js';
import { isFullSocket, placeSocket, stateOf, type Socket, type SocketAddress } from './socket.js';

/** What a look-up goes by: the packet's ends, and the interface it came in on. */
export interface SocketQuery {
  readonly local: SocketAddress;
  readonly remote: SocketAddress;
  readonly ifindex: number;
  /** Default: the namespace that packets come in to. */
  readonly namespace?: number | undefined;
}

/** TCP_SYNCOOKIE_VALID */
const COOKIE_VALID_NS = 120_000_000_000n;

export class SocketTable {
  readonly #sockets = new Set<Socket>();
  readonly #addresses = new Map<Socket, bigint>();
  readonly #byAddress = new Map<bigint, Socket>();
  /** When a listening socket's queue of requests last overflowed. */
  readonly #overflows = new Map<Socket, bigint>();

  /** Adds a socket; a request's listener is added with it. */
  add(socket: Socket): void {
    if (socket.local.address.length !== 4 && socket.local.address.length !== 16) {
      throw new RangeError(`an address of ${socket.local.address.length} bytes`);
    }
    if (socket.remote && socket.remote.address.length !== socket.local.address.length) {
      throw new RangeError('the ends of a socket are of different families');
    }
    if (socket.listener) this.add(socket.listener);
    this.#sockets.add(socket);
  }

  /** Closes a socket: it is not found any more. What programs hold of it stays. */
  remove(socket: Socket): void {
    this.#sockets.delete(socket);
  }

  /** The socket that such a packet is for. */
  find(protocol: Socket['protocol'], query: SocketQuery): Socket | undefined {
    const candidates = [...this.#sockets].filter(
      (socket) =>
        socket.protocol === protocol &&
        socket.namespace === query.namespace &&
        socket.local.port === query.local.port &&
        isOnDevice(socket, query.ifindex),
    );
    if (protocol === 'tcp') {
      const connected = candidates.find((socket) => isConnection(socket, query));
      if (connected) return connected;
    }
    const waiting =
      protocol === 'udp'
        ? candidates
        : candidates.filter((socket) => stateOf(socket) === 'LISTEN' && isFullSocket(socket));
    return (
      best(waiting, query, (socket) => same(socket.local.address, query.local.address)) ??
      best(waiting, query, (socket) => isAnyFor(socket, query))
    );
  }

  /** Where the `struct sock` is; made when it is first asked for. */
  addressOf(socket: Socket, host: BpfHost): bigint {
    let address = this.#addresses.get(socket);
    if (address === undefined) {
      const { memory } = host;
      const allocate = (name: string, size: number): { address: bigint } =>
        host.allocate(name, size);
      address = placeSocket(socket, { memory, allocate });
      this.#addresses.set(socket, address);
      this.#byAddress.set(address, socket);
    }
    return address;
  }

  /** Notes that a listening socket's queue overflows at `now`: from then on answers may bring cookies. */
  noteOverflow(socket: Socket, now: bigint): void {
    this.#overflows.set(socket, now);
  }

  /** tcp_synq_no_recent_overflow, the other way round: cookies of this socket may still be valid. */
  overflowedRecently(socket: Socket, now: bigint): boolean {
    const last = this.#overflows.get(socket);
    return last !== undefined && now - last <= COOKIE_VALID_NS;
  }

  /** The socket whose `struct sock` is at an address. */
  at(address: bigint): Socket | undefined {
    return this.#byAddress.get(address);
  }
}

function same(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
}

function isAny(address: Uint8Array): boolean {
  return address.every((byte) => byte === 0);
}

function isOnDevice({ boundDevice = 0 }: Socket, ifindex: number): boolean {
  return boundDevice === 0 || boundDevice === ifindex;
}

function isConnection({ local, remote }: Socket, query: SocketQuery): boolean {
  return (
    remote !== undefined &&
    remote.port === query.remote.port &&
    same(remote.address, query.remote.address) &&
    same(local.address, query.local.address)
  );
}

/** Bound to any address of the packet's family; one of IPv6 takes IPv4 packets too, unless told not to. */
function isAnyFor({ local, ipv6Only = false }: Socket, query: SocketQuery): boolean {
  if (!isAny(local.address)) return false;
  const width = query.local.address.length;
  return local.address.length === width || (width === 4 && !ipv6Only);
}

function best(
  sockets: readonly Socket[],
  query: SocketQuery,
  matches: (socket: Socket) => boolean,
): Socket | undefined {
  let found: Socket | undefined;
  let most = -1;
  for (const socket of sockets) {
    const score = matches(socket) ? scoreOf(socket, query) : -1;
    if (score <= most) continue;
    found = socket;
    most = score;
  }
  return found;
}

/** compute_score: what is bound closer counts more; -1 for a connected socket of somebody else. */
function scoreOf(socket: Socket, { local, remote }: SocketQuery): number {
  let score = socket.local.address.length === local.address.length ? 1 : 0;
  if (socket.remote) {
    const { address, port } = socket.remote;
    if (port !== remote.port || !same(address, remote.address)) return -1;
    score += 8;
  }
  return score + ((socket.boundDevice ?? 0) === 0 ? 0 : socket.protocol === 'udp' ? 4 : 1);
}
