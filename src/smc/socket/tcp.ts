/**
 * The TCP sockets under SMC (clcsock): connecting, an ordered stream of bytes each way, FIN and RST.
 *
 * What BPF programs look at, `struct tcp_sock` with addresses and syn_smc, is in kernel memory; segments, timers
 * and congestion are left out: a connection is set up at once and a byte that is sent has arrived. The SMC
 * option of SYN and SYN-ACK (kind 254, length 6, magic e2d4c3d9) is a flag of both.
 *
 * Usage:
 *   const peer = tcp.connect({ from, to, smcOption: true });
 *   peer.send(bytes); peer.read(100); peer.close();
 */
import { ERRNO } from '../../common/errno.js';
import { AF_INET, SOCK } from '../../bpf/socket.js';
import type { KernelContext } from '../../kernel/function.js';
import { RCV_SHUTDOWN, SEND_SHUTDOWN, SHUTDOWN_MASK } from '../constants.js';
import { SOCKET, TCP_SOCK } from '../structs.js';

/** An IPv4 address as a number, and a port. */
export interface Endpoint {
  readonly address: number;
  readonly port: number;
}

/** Bytes that may lie unread at the receiver. */
const BUFFER = 1 << 20;
const FIRST_EPHEMERAL_PORT = 32768;
/** The middle values of net.ipv4.tcp_rmem and tcp_wmem; buffers do not grow here. */
const TCP_RMEM_DEFAULT = 131072;
const TCP_WMEM_DEFAULT = 16384;

export class TcpSocket {
  /** Physical addresses of the tcp_sock, and of its struct socket. */
  readonly address: number;
  readonly socket: number;
  local: Endpoint = { address: 0, port: 0 };
  remote: Endpoint | undefined;
  peer: TcpSocket | undefined;
  /** sk_shutdown */
  shutdown = 0;
  /** sk_err */
  error = 0;
  /** Called when something arrived or the state changed. */
  onEvent: (() => void) | undefined;
  /** Listening: called with the server's end of each new connection. */
  onConnection: ((socket: TcpSocket) => void) | undefined;
  readonly #chunks: Uint8Array[] = [];
  #unread = 0;
  #finReceived = false;
  #closed = false;

  constructor(address: number, socket: number) {
    this.address = address;
    this.socket = socket;
  }

  get unread(): number {
    return this.#unread;
  }

  /** No more will come: FIN or RST. */
  get ended(): boolean {
    return this.#finReceived || this.error !== 0;
  }

  get finReceived(): boolean {
    return this.#finReceived;
  }

  get closed(): boolean {
    return this.#closed;
  }

  /** Room at the receiver. */
  get sendSpace(): number {
    return this.peer ? BUFFER - this.peer.#unread : 0;
  }

  /** The number of bytes that were taken, or a negative errno. */
  send(bytes: Uint8Array): number {
    if (this.error !== 0) return -ERRNO.ECONNRESET;
    // a socket that was never connected is no different from one whose pipe is broken
    if (!this.peer) return -ERRNO.EPIPE;
    if ((this.shutdown & SEND_SHUTDOWN) !== 0 || this.peer.#closed) return -ERRNO.EPIPE;
    const size = Math.min(bytes.length, this.sendSpace);
    if (size === 0 && bytes.length > 0) return -ERRNO.EAGAIN;
    this.peer.#chunks.push(bytes.slice(0, size));
    this.peer.#unread += size;
    this.peer.onEvent?.();
    return size;
  }

  /** Up to `size` bytes that have arrived. */
  read(size: number, peek = false): Uint8Array {
    const out = new Uint8Array(Math.min(size, this.#unread));
    let done = 0;
    for (let i = 0; done < out.length; i++) {
      const chunk = this.#chunks[i] ?? new Uint8Array(0);
      out.set(chunk.subarray(0, out.length - done), done);
      done += Math.min(chunk.length, out.length - done);
    }
    if (!peek) this.#drop(out.length);
    return out;
  }

  #drop(size: number): void {
    this.#unread -= size;
    let left = size;
    while (left > 0) {
      const chunk = this.#chunks[0] ?? new Uint8Array(0);
      if (chunk.length <= left) this.#chunks.shift();
      else this.#chunks[0] = chunk.subarray(left);
      left -= Math.min(left, chunk.length);
    }
    this.peer?.onEvent?.();
  }

  /** sock_error */
  takeError(): number {
    const { error } = this;
    this.error = 0;
    return error;
  }

  /** kernel_sock_shutdown: `how` as of shutdown(2). */
  shut(how: number): number {
    const bits = how + 1;
    if (!this.peer) return -ERRNO.ENOTCONN;
    const isNew = (bits & SEND_SHUTDOWN & ~this.shutdown) !== 0;
    this.shutdown |= bits;
    if (isNew) this.#sendFin();
    return 0;
  }

  #sendFin(): void {
    const { peer } = this;
    if (!peer || peer.#closed) return;
    peer.#finReceived = true;
    peer.shutdown |= RCV_SHUTDOWN;
    peer.onEvent?.();
  }

  /** FIN, or RST when there is something unread. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.onConnection = undefined;
    if (this.#unread > 0) {
      this.#sendReset(ERRNO.ECONNRESET);
    } else if ((this.shutdown & SEND_SHUTDOWN) === 0) {
      this.#sendFin();
    }
    this.shutdown = SHUTDOWN_MASK;
  }

  /** tcp_abort: RST to the peer. */
  abort(error: number): void {
    this.error = error;
    this.#sendReset(ERRNO.ECONNRESET);
    this.shutdown = SHUTDOWN_MASK;
    this.onEvent?.();
  }

  #sendReset(error: number): void {
    const { peer } = this;
    if (!peer || peer.#closed) return;
    peer.error = error;
    peer.shutdown = SHUTDOWN_MASK;
    peer.onEvent?.();
  }
}

export interface ConnectOptions {
  readonly from?: Endpoint;
  readonly to: Endpoint;
  /** The SYN has the SMC option. */
  readonly smcOption: boolean;
}

export class TcpStack {
  readonly #kernel: KernelContext;
  readonly #listeners = new Map<number, TcpSocket[]>();
  readonly #sockets = new Map<number, TcpSocket>();
  /** Does the listener's SYN-ACK have the SMC option? Asked when the SYN has it. */
  synackOption: (listener: TcpSocket, from: Endpoint, to: Endpoint) => boolean = () => false;
  #nextPort = FIRST_EPHEMERAL_PORT;

  constructor(kernel: KernelContext) {
    this.#kernel = kernel;
  }

  create(): TcpSocket {
    const { physical, memory } = this.#kernel;
    const address = physical.alloc(TCP_SOCK.size);
    const at = physical.alloc(SOCKET.size);
    const { ram } = memory;
    ram.setPointer(at + SOCKET.offset.sk, address);
    ram.setPointer(address + TCP_SOCK.offset.sk_socket, at);
    ram.set32(address + TCP_SOCK.offset.sk_rcvbuf, TCP_RMEM_DEFAULT);
    ram.set32(address + TCP_SOCK.offset.sk_sndbuf, TCP_WMEM_DEFAULT);
    const socket = new TcpSocket(address, at);
    this.#sockets.set(at, socket);
    return socket;
  }

  /** @param at of its struct socket */
  of(at: number): TcpSocket {
    const socket = this.#sockets.get(at);
    if (!socket) throw new RangeError(`no TCP socket at ${at}`);
    return socket;
  }

  /** @param address of its tcp_sock */
  ofSock(address: number): TcpSocket {
    return this.of(this.#kernel.memory.ram.pointer(address + TCP_SOCK.offset.sk_socket));
  }

  /** Closes a socket and frees its memory. */
  release(socket: TcpSocket): void {
    const { port } = socket.local;
    const others = this.#listeners.get(port)?.filter((each) => each !== socket);
    if (others) this.#listeners.set(port, others);
    socket.close();
    socket.onEvent = undefined;
    if (!this.#sockets.delete(socket.socket)) return;
    this.#kernel.physical.free(socket.address);
    this.#kernel.physical.free(socket.socket);
  }

  /** 0, or -EADDRINUSE. */
  bind(socket: TcpSocket, local: Endpoint): number {
    const isTaken = (this.#listeners.get(local.port) ?? []).some(
      (each) => each.local.address === local.address,
    );
    if (local.port !== 0 && isTaken) return -ERRNO.EADDRINUSE;
    socket.local = local;
    this.#store(socket);
    return 0;
  }

  listen(socket: TcpSocket, onConnection: (socket: TcpSocket) => void): void {
    if (socket.local.port === 0) socket.local = { ...socket.local, port: this.ephemeralPort() };
    socket.onConnection = onConnection;
    const others = this.#listeners.get(socket.local.port) ?? [];
    this.#listeners.set(socket.local.port, [...others, socket]);
    this.#store(socket);
  }

  /** Sets a socket's addresses before its SYN is made. */
  prepare(socket: TcpSocket, to: Endpoint): void {
    const { local } = socket;
    socket.local = {
      address: local.address === 0 ? to.address : local.address,
      port: local.port === 0 ? this.ephemeralPort() : local.port,
    };
    socket.remote = to;
    this.#store(socket);
  }

  /** 0 with syn_smc told in both sockets, or -ECONNREFUSED. */
  connect(socket: TcpSocket, smcOption: boolean): number {
    const { local, remote } = socket;
    const listener = remote && this.#listenerFor(remote);
    if (!remote || !listener?.onConnection) return -ERRNO.ECONNREFUSED;
    const server = this.create();
    server.local = remote;
    server.remote = local;
    server.peer = socket;
    socket.peer = server;
    this.#inherit(server, listener);
    this.#store(server);
    const isAnswered = smcOption && this.synackOption(listener, local, remote);
    this.setSynSmc(socket, isAnswered);
    this.setSynSmc(server, isAnswered);
    listener.onConnection(server);
    return 0;
  }

  /** A peer that is no socket of this kernel: what a test speaks through. Undefined: refused. */
  connectRaw({ from, to, smcOption }: ConnectOptions): TcpSocket | undefined {
    const socket = this.create();
    if (from) socket.local = from;
    this.prepare(socket, to);
    if (this.connect(socket, smcOption) === 0) return socket;
    this.release(socket);
    return undefined;
  }

  setSynSmc({ address }: TcpSocket, on: boolean): void {
    this.#kernel.memory.ram.set8(address + TCP_SOCK.offset.syn_smc, on ? 1 : 0);
  }

  synSmc({ address }: TcpSocket): boolean {
    return this.#kernel.memory.ram.u8(address + TCP_SOCK.offset.syn_smc) !== 0;
  }

  ephemeralPort(): number {
    return this.#nextPort++;
  }

  #listenerFor(to: Endpoint): TcpSocket | undefined {
    const all = this.#listeners.get(to.port) ?? [];
    return (
      all.find(({ local }) => local.address === to.address) ??
      all.find(({ local }) => local.address === 0)
    );
  }

  /** What a connection has from the socket that listened for it. */
  #inherit(child: TcpSocket, listener: TcpSocket): void {
    const { ram } = this.#kernel.memory;
    const T = TCP_SOCK.offset;
    ram.set8(child.address + T.sk_flags, ram.u8(listener.address + T.sk_flags));
    for (const at of [T.nonagle, T.sk_rcvbuf, T.sk_sndbuf]) {
      ram.set32(child.address + at, ram.u32(listener.address + at));
    }
  }

  #store({ address, local, remote }: TcpSocket): void {
    storeAddresses(this.#kernel, address, local, remote);
  }
}

/** Writes what sock_common has of addresses. */
export function storeAddresses(
  { memory: { ram } }: KernelContext,
  at: number,
  local: Endpoint,
  remote: Endpoint | undefined,
): void {
  ram.view.setUint32(at + SOCK.rcvSaddr, local.address);
  ram.set16(at + SOCK.num, local.port);
  ram.set16(at + SOCK.family, AF_INET);
  if (!remote) return;
  ram.view.setUint32(at + SOCK.daddr, remote.address);
  ram.view.setUint16(at + SOCK.dport, remote.port);
}
