/**
 * An SMC socket for programs in TypeScript: the system calls of AF_SMC.
 *
 * Each call comes in two forms. `...Now` is the non-blocking one: it gives what the kernel function gives, a
 * count or a negative errno. The other waits, as a promise, until the call can do something, makes it once,
 * and throws KernelError for an errno; like Linux, `send` may take less than all. The user's bytes stay
 * outside the kernel's memory until the kernel copies them.
 *
 * Usage:
 *   const sent = await socket.send(bytes);
 *   const data = await socket.recv(4096); // empty: the peer has closed
 *   await socket.close();
 */
import { ERRNO, errnoName } from '../../common/errno.js';
import { KernelError } from '../../common/errors.js';
import { parseIpv4 } from '../../net/address.js';
import {
  MSG,
  POLL,
  RCV_SHUTDOWN,
  SEND_SHUTDOWN,
  SMC_MAX_STREAM_WAIT_TIMEOUT,
  SMC_STATE,
  SOCK_MIN_RCVBUF,
  SOCK_MIN_SNDBUF,
  TCP_NAGLE_CORK,
  TCP_NAGLE_OFF,
} from '../constants.js';
import type { Smc } from '../smc.js';
import { preparedSends } from '../core/cdc.js';
import {
  C,
  S,
  clearBits,
  connOf,
  hasBits,
  rxedAnyClose,
  setBits,
  skState,
} from '../core/fields.js';
import { CONNECT_FASTOPEN, O_NONBLOCK } from '../handshake/client.js';
import { count } from '../core/statistics.js';
import { noteNoSpace } from '../core/tx.js';
import {
  FILE,
  MSGHDR,
  SOCKADDR_IN,
  SOCKET,
  SOCK_RCVBUF_LOCK,
  SOCK_SNDBUF_LOCK,
  SOCK_URGINLINE,
  TCP_SOCK,
} from '../structs.js';
import { storeAddresses, type Endpoint } from './tcp.js';

export interface SocketAddress {
  /** IPv4. */
  readonly address: string;
  readonly port: number;
}

export type ShutdownHow = 'rd' | 'wr' | 'rdwr';
const SHUT: Readonly<Record<ShutdownHow, number>> = { rd: 0, wr: 1, rdwr: 2 };

export interface SmcConnectOptions {
  /** TCP_FASTOPEN_CONNECT: SMC is not possible. Default false. */
  readonly fastopen?: boolean;
}

/** Options of a socket by their names. */
export interface SocketOptions {
  rcvbuf: number;
  sndbuf: number;
  /** TCP_CORK */
  cork: boolean;
  /** TCP_NODELAY */
  nodelay: boolean;
  /** SO_OOBINLINE */
  oobInline: boolean;
}

type OptionOffsets = Readonly<Record<'sk_rcvbuf' | 'sk_sndbuf' | 'nonagle' | 'sk_flags', number>>;

const NOT_CONNECTED: ReadonlySet<number> = new Set([
  SMC_STATE.INIT,
  SMC_STATE.LISTEN,
  SMC_STATE.CLOSED,
]);

export function toEndpoint({ address, port }: SocketAddress): Endpoint {
  const [a = 0, b = 0, c = 0, d = 0] = parseIpv4(address);
  return { address: ((a << 24) | (b << 16) | (c << 8) | d) >>> 0, port };
}

/** `value` unless it is a negative errno. */
export function checkResult(value: number, what: string): number {
  if (value >= 0) return value;
  throw new KernelError(errnoName(value) ?? 'EIO', what);
}

export class SmcSocket {
  readonly family: number;
  readonly protocol: number;
  readonly #smc: Smc;
  /** Physical addresses of struct file, socket, msghdr, sockaddr_in. */
  readonly #file: number;
  readonly #socket: number;
  readonly #msg: number;
  readonly #sockaddr: number;
  #sock: number;
  /** SO_LINGER in milliseconds. Default: none. */
  linger: number | undefined;
  /** SO_SNDTIMEO and SO_RCVTIMEO in milliseconds of the lab's clock: then EAGAIN. Default: none. */
  sndtimeo: number | undefined;
  rcvtimeo: number | undefined;

  /** Use `smc.socket()`. */
  constructor(smc: Smc, sock: number, family: number, protocol: number) {
    this.#smc = smc;
    this.#sock = sock;
    this.family = family;
    this.protocol = protocol;
    this.#file = smc.kernel.physical.alloc(FILE.size);
    this.#socket = smc.kernel.physical.alloc(SOCKET.size);
    smc.ram.setPointer(this.#socket + SOCKET.offset.file, this.#file);
    smc.ram.setPointer(this.#file + FILE.offset.private_data, this.#socket);
    this.#msg = smc.kernel.physical.alloc(MSGHDR.size);
    this.#sockaddr = smc.kernel.physical.alloc(SOCKADDR_IN.size);
    if (sock !== 0) this.#attach(sock);
  }

  #attach(sock: number): void {
    const { ram } = this.#smc;
    this.#sock = sock;
    ram.setPointer(this.#socket + SOCKET.offset.sk, sock);
    ram.setPointer(sock + S.sk_socket, this.#socket);
  }

  /** sock_from_file: the socket whose calls these are, its own or the TCP socket under it. */
  get #target(): number {
    return this.#smc.ram.pointer(this.#file + FILE.offset.private_data);
  }

  /** The file has changed hands: SMC is not asked any more. */
  get #isTcp(): boolean {
    return this.#target !== this.#socket;
  }

  /** The tcp_sock of a file that has changed hands. */
  get #tcpSock(): number {
    return this.#smc.ram.pointer(this.#target + SOCKET.offset.sk);
  }

  /** Physical address of the smc_sock; 0 when it is closed. */
  get sock(): number {
    return this.#sock;
  }

  get state(): number {
    return this.#sock === 0 ? SMC_STATE.CLOSED : skState(this.#smc.ram, this.#sock);
  }

  get isFallback(): boolean {
    return this.#smc.ram.u8(this.#open() + S.use_fallback) !== 0;
  }

  get fallbackReason(): number {
    return this.#smc.ram.u32(this.#open() + S.fallback_rsn);
  }

  get peerDiagnosis(): number {
    return this.#smc.ram.u32(this.#open() + S.peer_diagnosis);
  }

  get local(): Endpoint {
    return this.#smc.tcp.of(this.#smc.ram.pointer(this.#open() + S.clcsock)).local;
  }

  bind(at: SocketAddress): void {
    const { tcp, ram, kernel } = this.#smc;
    const sock = this.#open();
    const clcsock = tcp.of(ram.pointer(sock + S.clcsock));
    checkResult(tcp.bind(clcsock, toEndpoint(at)), `bind ${at.address}:${at.port}`);
    storeAddresses(kernel, sock, clcsock.local, undefined);
  }

  listen(at?: SocketAddress): void {
    if (at) this.bind(at);
    checkResult(this.#smc.kernel.invoke('smc_listen', this.#socketOpen(), 128), 'listen');
  }

  /** Waits for the handshake. The result is SMC or TCP: see `isFallback`. */
  async connect(to: SocketAddress, options: SmcConnectOptions = {}): Promise<void> {
    const task = this.#startConnect(to, options.fastopen === true ? CONNECT_FASTOPEN : 0);
    while (task.state !== 'done') await this.#smc.nextWake(this.#sock);
    const result = Number(BigInt.asIntN(32, task.result));
    checkResult(result, `connect ${to.address}:${to.port}`);
  }

  /** Starts the handshake: -EINPROGRESS; how it ended tells `takeError`. */
  connectNow(to: SocketAddress, options: SmcConnectOptions = {}): number {
    const fastopen = options.fastopen === true ? CONNECT_FASTOPEN : 0;
    this.#startConnect(to, O_NONBLOCK | fastopen);
    return -ERRNO.EINPROGRESS;
  }

  #startConnect(
    to: SocketAddress,
    flags: number,
  ): { readonly state: string; readonly result: bigint } {
    const { ram } = this.#smc;
    const { address, port } = toEndpoint(to);
    const socket = this.#socketOpen();
    const A = SOCKADDR_IN.offset;
    ram.view.setUint32(this.#sockaddr + A.sin_addr, address);
    ram.view.setUint16(this.#sockaddr + A.sin_port, port);
    if (this.#isTcp) {
      const { size } = SOCKADDR_IN;
      const { kernel } = this.#smc;
      const rc = kernel.invoke('inet_stream_connect', this.#target, this.#sockaddr, size, flags);
      this.#smc.settle();
      return { state: 'done', result: BigInt(rc) };
    }
    const pointers = [ram.physToVirt(socket), ram.physToVirt(this.#sockaddr)];
    const task = this.#smc.start(
      'smc_connect',
      ...pointers,
      BigInt(SOCKADDR_IN.size),
      BigInt(flags),
    );
    this.#smc.settle();
    return task;
  }

  /** The next connection, or undefined when there is none (-EAGAIN). Throws its error. */
  acceptNow(): SmcSocket | undefined {
    const { kernel, ram } = this.#smc;
    const child = new SmcSocket(this.#smc, 0, this.family, this.protocol);
    const rc = kernel.invoke('smc_accept', this.#socketOpen(), child.#socket, 0);
    this.#smc.settle();
    this.#smc.collect();
    if (rc < 0) {
      child.#free();
      if (rc === -ERRNO.EAGAIN) return undefined;
      checkResult(rc, 'accept');
    }
    child.#sock = ram.pointer(child.#socket + SOCKET.offset.sk);
    return child;
  }

  async accept(): Promise<SmcSocket> {
    const end = this.#deadline(this.rcvtimeo);
    for (;;) {
      const child = this.acceptNow();
      if (child) return child;
      if (!(await this.#sleep(end))) checkResult(-ERRNO.EAGAIN, 'accept');
    }
  }

  #deadline(timeout: number | undefined): number {
    return timeout === undefined ? Infinity : this.#smc.now() + timeout;
  }

  /** Until somebody wakes the socket; false when the time was over before. */
  async #sleep(end: number): Promise<boolean> {
    const smc = this.#smc;
    const sock = this.#open();
    if (smc.now() >= end) return false;
    const cancel = end === Infinity ? undefined : smc.after(end - smc.now(), () => smc.wake(sock));
    await smc.nextWake(sock);
    cancel?.();
    return true;
  }

  /** Bytes taken, or a negative errno. */
  sendNow(bytes: Uint8Array, flags = 0): number {
    const smc = this.#smc;
    if (this.#sock === 0) return -ERRNO.EBADF;
    this.#header(flags | MSG.DONTWAIT);
    smc.user = bytes;
    const call = this.#isTcp ? 'inet_sendmsg' : 'smc_sendmsg';
    const sent = smc.kernel.invoke(call, this.#target, this.#msg, bytes.length);
    smc.settle();
    return sent;
  }

  /** Waits until something can be sent; the bytes taken, which may be less than all. */
  async send(bytes: Uint8Array, flags = 0): Promise<number> {
    const end = this.#deadline(this.sndtimeo);
    for (;;) {
      const sent = this.#canSend() ? this.sendNow(bytes, flags) : -ERRNO.EAGAIN;
      if (sent === -ERRNO.EAGAIN && !this.#isTcp) noteNoSpace(this.#smc, this.#sock);
      const isOver = sent === -ERRNO.EAGAIN && !(await this.#sleep(end));
      if (sent !== -ERRNO.EAGAIN || isOver) return checkResult(sent, 'send');
    }
  }

  /** Sends all, in as many calls as it takes. */
  async sendAll(bytes: Uint8Array): Promise<void> {
    let done = 0;
    while (done < bytes.length) done += await this.send(bytes.subarray(done));
  }

  #canSend(): boolean {
    const { ram } = this.#smc;
    const sock = this.#sock;
    if (sock === 0 || this.isFallback || this.state === SMC_STATE.INIT) return true;
    const conn = connOf(sock);
    const isBlocked = ram.u32(conn + C.sndbuf_space) === 0 || ram.u8(conn + C.urg_tx_pend) !== 0;
    return (
      !isBlocked ||
      ram.u32(sock + S.sk_err) !== 0 ||
      hasBits(ram, sock + S.sk_shutdown, SEND_SHUTDOWN) ||
      ram.u8(conn + C.killed) !== 0 ||
      rxedAnyClose(ram, conn)
    );
  }

  /** Bytes put into `buffer`, 0 at the end of the stream, or a negative errno. */
  recvNow(buffer: Uint8Array, flags = 0): number {
    const smc = this.#smc;
    if (this.#sock === 0) return -ERRNO.EBADF;
    this.#header(flags | MSG.DONTWAIT);
    smc.user = buffer;
    const length = buffer.length;
    const got = smc.kernel.invoke(
      this.#isTcp ? 'inet_recvmsg' : 'smc_recvmsg',
      this.#target,
      this.#msg,
      length,
      flags | MSG.DONTWAIT,
    );
    smc.settle();
    return got;
  }

  /** Waits for data; up to `size` bytes, none at the end of the stream. MSG.WAITALL waits for all. */
  async recv(size: number, flags = 0): Promise<Uint8Array> {
    const buffer = new Uint8Array(size);
    const end = this.#deadline(this.rcvtimeo);
    let done = 0;
    for (;;) {
      const got = this.#mayRecv(flags) ? this.recvNow(buffer.subarray(done), flags) : -ERRNO.EAGAIN;
      if (got !== -ERRNO.EAGAIN) {
        if (got < 0 && done === 0) checkResult(got, 'recv');
        done += Math.max(got, 0);
        const isFull = done === size || (flags & MSG.WAITALL) === 0;
        if (got <= 0 || isFull) return buffer.subarray(0, done);
        continue;
      }
      if (await this.#sleep(end)) continue;
      if (done === 0) checkResult(got, 'recv');
      return buffer.subarray(0, done);
    }
  }

  /** Asks `smc_rx_wait` where Linux would go to sleep. */
  #mayRecv(flags: number): boolean {
    const { ram, kernel } = this.#smc;
    const sock = this.#sock;
    if (sock === 0 || this.isFallback || (flags & MSG.OOB) !== 0) return true;
    const { state } = this;
    const isWaiting = state !== SMC_STATE.INIT && state !== SMC_STATE.CLOSED;
    if (!isWaiting || ram.u32(connOf(sock) + C.bytes_to_rcv) > 0) return true;
    return kernel.invoke('smc_rx_wait', sock, connOf(sock) + C.scratch_timeo, 0, 0) !== 0;
  }

  /** 0 or a negative errno. */
  shutdownNow(how: ShutdownHow | number): number {
    if (this.#sock === 0) return -ERRNO.EBADF;
    const number = typeof how === 'number' ? how : SHUT[how];
    const call = this.#isTcp ? 'inet_shutdown' : 'smc_shutdown';
    const rc = this.#smc.kernel.invoke(call, this.#target, number);
    this.#smc.settle();
    return rc;
  }

  /** Waits for unsent data as close does. */
  async shutdown(how: ShutdownHow): Promise<void> {
    if (how !== 'rd') await this.#streamWait();
    checkResult(this.shutdownNow(how), `shutdown ${how}`);
  }

  /** Closes after unsent data has gone, at most two seconds of the lab's clock (or `linger`) later. */
  async close(): Promise<void> {
    await this.#streamWait();
    this.closeNow();
  }

  /** As when the process ends: nothing is waited for. */
  closeNow(): void {
    if (this.#sock === 0) return;
    const { kernel, ram } = this.#smc;
    const sock = this.#sock;
    kernel.invoke('smc_release', this.#socket);
    this.#sock = 0;
    this.#smc.wake(sock);
    ram.setPointer(this.#socket + SOCKET.offset.sk, 0);
    this.#smc.settle();
    this.#smc.collect();
    this.#free();
  }

  /** smc_close_stream_wait */
  async #streamWait(): Promise<void> {
    const smc = this.#smc;
    const { state } = this;
    const mayHaveData = state === SMC_STATE.ACTIVE || state === SMC_STATE.APPCLOSEWAIT1;
    if (this.#sock === 0 || this.isFallback || !mayHaveData) return;
    const sock = this.#sock;
    const conn = connOf(sock);
    const end = smc.now() + (this.linger ?? SMC_MAX_STREAM_WAIT_TIMEOUT);
    const isDone = (): boolean =>
      preparedSends(smc, conn) === 0 ||
      rxedAnyClose(smc.ram, conn) ||
      smc.ram.u8(conn + C.killed) !== 0 ||
      smc.now() >= end;
    while (!isDone()) {
      const cancel = smc.after(end - smc.now(), () => smc.wake(sock));
      await smc.nextWake(sock);
      cancel();
    }
  }

  /** Bits of poll(2). */
  poll(): number {
    if (this.#sock === 0) return POLL.HUP;
    const call = this.#isTcp ? 'tcp_poll' : 'smc_poll';
    return this.#smc.kernel.invoke(call, this.#file, this.#target, 0);
  }

  /** SO_ERROR: reading it clears it. */
  takeError(): number {
    const { ram, tcp } = this.#smc;
    const sock = this.#open();
    if (this.#isTcp) return tcp.of(this.#target).takeError();
    const error = ram.u32(sock + S.sk_err);
    ram.set32(sock + S.sk_err, 0);
    return error;
  }

  getOption<Name extends keyof SocketOptions>(name: Name): SocketOptions[Name];
  getOption(name: keyof SocketOptions): number | boolean {
    const { ram } = this.#smc;
    const [sock, at] = this.#optionsAt();
    switch (name) {
      case 'rcvbuf':
        return ram.u32(sock + at.sk_rcvbuf);
      case 'sndbuf':
        return ram.u32(sock + at.sk_sndbuf);
      case 'cork':
        return (ram.u32(sock + at.nonagle) & TCP_NAGLE_CORK) !== 0;
      case 'nodelay':
        return (ram.u32(sock + at.nonagle) & TCP_NAGLE_OFF) !== 0;
      case 'oobInline':
        return hasBits(ram, sock + at.sk_flags, SOCK_URGINLINE);
    }
  }

  setOption<Name extends keyof SocketOptions>(name: Name, value: SocketOptions[Name]): void {
    const { ram, memMax } = this.#smc;
    const [sock, at] = this.#optionsAt();
    const doubled = (min: number): number => Math.max(2 * Math.min(Number(value), memMax), min);
    switch (name) {
      case 'rcvbuf':
        ram.set32(sock + at.sk_rcvbuf, doubled(SOCK_MIN_RCVBUF));
        if (!this.#isTcp) setBits(ram, sock + S.sk_userlocks, SOCK_RCVBUF_LOCK);
        break;
      case 'sndbuf':
        ram.set32(sock + at.sk_sndbuf, doubled(SOCK_MIN_SNDBUF));
        if (!this.#isTcp) setBits(ram, sock + S.sk_userlocks, SOCK_SNDBUF_LOCK);
        break;
      case 'cork':
        this.#setNagle(TCP_NAGLE_CORK, value === true);
        if (value !== true) this.#sendPending('cork_cnt');
        break;
      case 'nodelay':
        this.#setNagle(TCP_NAGLE_OFF, value === true);
        if (value === true) this.#sendPending('ndly_cnt');
        break;
      case 'oobInline':
        if (value === true) setBits(ram, sock + at.sk_flags, SOCK_URGINLINE);
        else clearBits(ram, sock + at.sk_flags, SOCK_URGINLINE);
    }
  }

  /** Where the options of this file lie: in the smc_sock, or in the tcp_sock. */
  #optionsAt(): readonly [sock: number, at: OptionOffsets] {
    const sock = this.#open();
    return this.#isTcp ? [this.#tcpSock, TCP_SOCK.offset] : [sock, S];
  }

  #setNagle(bit: number, on: boolean): void {
    const { ram } = this.#smc;
    const [sock, at] = this.#optionsAt();
    const before = ram.u32(sock + at.nonagle);
    ram.set32(sock + at.nonagle, on ? before | bit : before & ~bit);
  }

  /** smc_setsockopt of TCP_NODELAY and TCP_CORK: what was held back goes out. */
  #sendPending(counter: 'cork_cnt' | 'ndly_cnt'): void {
    if (this.#isTcp || NOT_CONNECTED.has(this.state)) return;
    count(this.#smc, counter);
    this.#smc.kernel.invoke('smc_tx_pending', connOf(this.#open()));
    this.#smc.settle();
  }

  /** sk_shutdown says that nothing more will come. */
  get isReadShut(): boolean {
    const { ram, tcp } = this.#smc;
    const sock = this.#open();
    if (this.#isTcp) return (tcp.of(this.#target).shutdown & RCV_SHUTDOWN) !== 0;
    return hasBits(ram, sock + S.sk_shutdown, RCV_SHUTDOWN);
  }

  #header(flags: number): void {
    const { ram } = this.#smc;
    ram.set32(this.#msg + MSGHDR.offset.msg_flags, flags);
    ram.set32(this.#msg + MSGHDR.offset.iov_offset, 0);
  }

  #open(): number {
    if (this.#sock === 0) throw new KernelError('EBADF', 'the socket is closed');
    return this.#sock;
  }

  #socketOpen(): number {
    this.#open();
    return this.#socket;
  }

  #free(): void {
    const { physical } = this.#smc.kernel;
    physical.free(this.#file);
    physical.free(this.#socket);
    physical.free(this.#msg);
    physical.free(this.#sockaddr);
  }
}
