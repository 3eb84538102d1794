/**
 * Runs the scenario matrix: a guest per variant and receive mode, a peer behind its wire.
 *
 * The packet enters the guest's device with a virtio_net_hdr that says its kind; the device ignores offload
 * commands, so that partial checksums keep coming. What leaves the guest is completed as its header asks, as
 * a real device would, and enters the peer, another host of the model without XDP: whether its socket gets
 * it is what `delivered` says.
 *
 * Usage:
 *   const lab = new CsumLab(kernel, 'interpreter');
 *   const guest = lab.open('upstream', 'mergeable');
 *   guest.run(row).outcome;      // 'driver drop'
 *   guest.close();
 */
import { bytesToHex } from '../../common/bytes.js';
import type { Kernel } from '../../kernel/kernel.js';
import type { DropReason } from '../../stack/host.js';
import { NET_DEVICE } from '../../stack/net-device.js';
import { createNetwork, type Network } from '../../stack/network.js';
import { readFrame, type DeliveredFrame } from '../../virtio/driver/sink.js';
import { decodeNetHeader, type NetHeader } from '../../virtio/net-header.js';
import { defineVirtioNet, type VirtioNet, type VirtioNetDriver } from '../../virtio/virtio-net.js';
import { RedirectMaps, type RedirectTargets } from '../redirect-maps.js';
import type { RunEngine } from '../run-program.js';
import { createXdpEngine, type XdpEngine } from '../xdp-engine.js';
import { completeAsDevice, fieldIsRight } from './complete.js';
import { HOST_MAC, PEER_MAC, TCP_PORT, UDP_PORT, buildFrame, type CsumFrame } from './frames.js';
import { oddFrame } from './odd-frames.js';
import {
  VERDICTS,
  encapProgram,
  labProgram,
  macSwapProgram,
  natProgram,
  redirectProgram,
  returnProgram,
} from './programs.js';
import {
  driverVariant,
  untouchedTarget,
  type CsumMode,
  type CsumOutcome,
  type CsumProgram,
  type CsumRow,
  type CsumTarget,
  type CsumVariant,
} from './rows.js';

/** What became of one packet. */
export interface CsumResult {
  readonly outcome: CsumOutcome;
  /** The skb at the entry of the stack. */
  readonly skb: DeliveredFrame | undefined;
  /** `TCP_CSUM tcp_v4_rcv`: skbs dropped, here first. */
  readonly drops: readonly string[];
  /** What the packet left with. */
  readonly sentHeader: NetHeader | undefined;
  /** What the program returned; undefined: it did not run. */
  readonly verdict: number | undefined;
}

/** Both hosts are in one kernel, where each device has a number of its own. */
const HOST_IFINDEX = 2;
const PEER_IFINDEX = 3;

const SMALL_PAYLOAD = 12;
/** A packet of two buffers, the first of which holds all headers, tunnels included. */
const LARGE_PAYLOAD = 301;
const FIRST_BUFFER = 160;

const LOCAL = { v4: '10.0.0.2', v6: 'fd00::2' } as const;
const REMOTE = { v4: '10.0.9.2', v6: 'fd09::2' } as const;
const NAT_LOCAL = '10.0.0.9';
const NAT_REMOTE = '10.0.9.9';
const TUNNEL_LOCAL = '172.16.0.2';
const TUNNEL_REMOTE = '172.16.9.2';
const EVERYWHERE = ['0.0.0.0/0', '::/0'] as const;

export class CsumLab {
  readonly #kernel: Kernel;
  readonly #driver: VirtioNetDriver;
  readonly #engine: RunEngine;
  readonly #maps: RedirectMaps;
  readonly #events: Events = { drops: [], entry: undefined, local: undefined };

  /** @param kernel one without a virtio-net driver. */
  constructor(kernel: Kernel, engine: RunEngine = 'interpreter') {
    const { ram } = kernel.memory;
    this.#kernel = kernel;
    this.#engine = engine;
    this.#driver = defineVirtioNet(kernel, {
      bpf: kernel.bpf.host,
      tracepoints: {
        kfreeSkb: (_skb, reason, location) => this.#events.drops.push({ reason, location }),
        napiGroReceiveEntry: (skb) => {
          this.#events.entry ??= readFrame(ram, skb);
        },
        nfLocalIn: (skb) => {
          this.#events.local = readFrame(ram, skb);
        },
      },
    });
    this.#maps = new RedirectMaps(kernel, this.#driver.stack);
  }

  /** @param place default: the addresses and ports of the matrix. */
  open(variant: CsumVariant, mode: CsumMode, place?: CsumPlace): CsumGuest {
    const parts = {
      kernel: this.#kernel,
      driver: this.#driver,
      maps: this.#maps,
      events: this.#events,
    };
    return new CsumGuest({ ...parts, engine: this.#engine, variant, mode, place });
  }
}

/** Whose packets a guest takes, in place of those of the matrix. */
export interface CsumPlace {
  readonly addresses: readonly string[];
  readonly udpPorts: readonly number[];
  readonly tcpPorts: readonly number[];
  /** The addresses are the peer's. */
  readonly forward: boolean;
}

interface Events {
  readonly drops: { readonly reason: DropReason; readonly location: string }[];
  /** The skb when it first entered the stack. */
  entry: DeliveredFrame | undefined;
  /** The skb on its way to a socket; that of a tunnel's inner packet in the end. */
  local: DeliveredFrame | undefined;
}

interface GuestOptions {
  readonly kernel: Kernel;
  readonly driver: VirtioNetDriver;
  readonly maps: RedirectMaps;
  readonly events: Events;
  readonly engine: RunEngine;
  readonly variant: CsumVariant;
  readonly mode: CsumMode;
  readonly place: CsumPlace | undefined;
}

/** A host under test with its peer. */
export class CsumGuest {
  readonly #options: GuestOptions;
  readonly #host: Side;
  readonly #peer: Side;
  readonly #targets: RedirectTargets;
  readonly #engines = new Map<string, XdpEngine>();
  readonly #verdicts: number[] = [];

  /** Use `CsumLab.open`. */
  constructor(options: GuestOptions) {
    const { variant, mode, place } = options;
    const far = place?.forward ?? false;
    this.#options = options;
    this.#host = openSide(options, {
      ifindex: HOST_IFINDEX,
      rx: mode === 'small' || mode === 'big' ? mode : 'mergeable',
      mac: HOST_MAC,
      neighbour: PEER_MAC,
      addresses: far ? [] : (place?.addresses ?? [LOCAL.v4, LOCAL.v6, NAT_LOCAL, TUNNEL_LOCAL]),
      xdpChecksum: driverVariant(variant),
    });
    this.#peer = openSide(options, {
      ifindex: PEER_IFINDEX,
      rx: 'mergeable',
      mac: PEER_MAC,
      neighbour: HOST_MAC,
      addresses: place?.addresses ?? [
        LOCAL.v4,
        LOCAL.v6,
        REMOTE.v4,
        REMOTE.v6,
        NAT_REMOTE,
        TUNNEL_LOCAL,
        TUNNEL_REMOTE,
      ],
      xdpChecksum: 'upstream',
    });
    const { ram } = options.kernel.memory;
    this.#targets = options.maps.join(ram.virtToPhys(this.#host.net.dev));
    if (variant !== 'generic') this.#postXdpBuffers();
  }

  /** The egress device completes checksums, or software does. */
  setTxChecksum(on: boolean): void {
    this.#host.net.setFeature('tx-checksum-ip-generic', on);
  }

  /** Told what an engine of one's own returned. */
  noteVerdict(verdict: number): void {
    this.#verdicts.push(verdict);
  }

  run(row: CsumRow): CsumResult {
    this.setTxChecksum(row.target !== 'fwdSW');
    const { program, target } = row;
    this.#attach(program === undefined ? undefined : programText(program, target, this.#targets));
    return this.send(frameFor(row, this.#options.mode));
  }

  /** Attaches a program of one's own. */
  attach(engine: XdpEngine | undefined): void {
    if (this.#options.variant === 'generic') {
      this.#host.net.attachGenericXdp(engine?.runner);
    } else this.#host.net.attachXdp(engine?.runner);
  }

  /** A packet arrives; where it ends. */
  send({ frame, header }: CsumFrame): CsumResult {
    const { events, mode } = this.#options;
    const { net, network } = this.#host;
    this.#host.takeFrom(frame);
    // packets are looked at one by one: a SYN is no retransmission
    network.expireRequests();
    this.#peer.network.expireRequests();
    events.drops.length = 0;
    events.entry = undefined;
    events.local = undefined;
    this.#verdicts.length = 0;
    const before = net.counters();
    const twoBuffers = mode.startsWith('two-buffers');
    net.receive(frame, { header, ...(twoBuffers ? { bytesPerBuffer: [FIRST_BUFFER, 4096] } : {}) });
    net.poll();
    const received = network.received().length;
    const after = net.counters();
    const change = (name: string): number => (after[name] ?? 0) - (before[name] ?? 0);
    const { entry: skb, local } = events;
    const drops = events.drops.map(({ reason, location }) => `${reason} ${location}`);
    const sent = net.transmitted();
    net.exceptions();
    const [verdict] = this.#verdicts;
    const result = (outcome: CsumOutcome, sentHeader?: NetHeader): CsumResult => ({
      outcome,
      skb,
      drops,
      sentHeader,
      verdict,
    });
    const [taken] = this.#options.maps.received();
    if (taken && bytesToHex(taken) === bytesToHex(frame)) return result('AF_XDP');
    const out = sent.find((each) => !isSynAck(each.frame));
    if (out) {
      const outcome = this.#atPeer(completeAsDevice(out.header, out.frame));
      return result(outcome, decodeNetHeader(out.header));
    }
    // a TCP segment without a connection was verified before it was dropped
    const unconnected = drops.some((drop) => drop.endsWith('tcp_rcv_state_process'));
    if (received > 0 || sent.length > 0 || unconnected) {
      return result(local && fieldIsRight(local) ? 'delivered' : 'delivered wrong');
    }
    if (change('dev_rx_frame_errors') > 0) return result('frame error');
    if (change('rx_xdp_drops') > 0)
      return result(verdict === undefined ? 'driver drop' : 'XDP drop');
    if (drops.some(isChecksumDrop)) return result('L4 drop');
    if (drops.some((drop) => drop.endsWith('do_xdp_generic'))) return result('XDP drop');
    return result('stack drop');
  }

  close(): void {
    this.#options.maps.leave();
    closeSide(this.#host);
    closeSide(this.#peer);
    for (const engine of this.#engines.values()) engine.close();
  }

  #atPeer(frame: Uint8Array): CsumOutcome {
    const { net, network } = this.#peer;
    const { events } = this.#options;
    events.drops.length = 0;
    this.#peer.takeFrom(frame);
    net.receive(frame);
    net.poll();
    const unconnected = events.drops.some(({ location }) => location === 'tcp_rcv_state_process');
    const answered = net.transmitted().length > 0;
    const arrived = network.received().length > 0 || answered || unconnected;
    if (arrived) return 'delivered';
    const csum = events.drops.some(({ reason, location }) =>
      isChecksumDrop(`${reason} ${location}`),
    );
    return csum ? 'peer L4 drop' : 'stack drop';
  }

  #attach(text: string | undefined): void {
    if (text === undefined) {
      this.attach(undefined);
      return;
    }
    // buffers posted without a program have no headroom: post some that do
    if (this.#options.variant !== 'generic') this.#postXdpBuffers();
    this.attach(this.#engineFor(text));
  }

  #engineFor(text: string): XdpEngine {
    const known = this.#engines.get(text);
    if (known) return known;
    const { kernel, engine, mode } = this.#options;
    const made = createXdpEngine(kernel, engine, labProgram(kernel, 'csum', text), {
      hasFrags: mode === 'two-buffers-frags',
      note: (verdict) => this.#verdicts.push(verdict),
    });
    this.#engines.set(text, made);
    return made;
  }

  /** Lets frames be dropped until every buffer was posted with a program attached. */
  #postXdpBuffers(): void {
    const { net } = this.#host;
    const drop = this.#engineFor(returnProgram(VERDICTS.DROP));
    net.attachXdp(drop.runner);
    for (let i = 1; i <= RING + 1; i++) {
      net.receive(FILLER);
      if (i % 8 === 0) net.poll();
    }
    net.poll();
  }
}

interface Side {
  readonly net: VirtioNet;
  readonly network: Network;
  /** The device has the Ethernet address that a frame is sent to, unless that is a group. */
  takeFrom(frame: Uint8Array): void;
}

const RING = 16;
const FILLER = new Uint8Array(60);

interface SideOptions {
  readonly ifindex: number;
  readonly rx: 'small' | 'mergeable' | 'big';
  readonly mac: Uint8Array;
  readonly neighbour: Uint8Array;
  readonly addresses: readonly string[];
  readonly xdpChecksum: ReturnType<typeof driverVariant>;
}

function openSide({ kernel, driver, place }: GuestOptions, options: SideOptions): Side {
  const network = createNetwork(kernel);
  const net = driver.probe({
    ifindex: options.ifindex,
    rx: options.rx,
    // a big buffer has 19 pieces
    queueSize: options.rx === 'big' ? 8 * RING : RING,
    features: ['CSUM', 'GUEST_CSUM', 'CTRL_VQ', 'CTRL_GUEST_OFFLOADS'],
    xdpChecksum: options.xdpChecksum,
    mac: options.mac,
    network,
  });
  const dev = kernel.memory.ram.virtToPhys(net.dev);
  for (const address of options.addresses) network.addAddress(address);
  for (const to of EVERYWHERE) network.addRoute({ to, dev, neighbour: options.neighbour });
  for (const port of place?.udpPorts ?? [UDP_PORT]) network.bindUdp(port);
  for (const port of place?.tcpPorts ?? [TCP_PORT]) network.listenTcp(port);
  network.openTunnel();
  const { bytes } = kernel.memory.ram;
  const takeFrom = (frame: Uint8Array): void => {
    if (((frame[0] ?? 0) & 1) === 0)
      bytes.set(frame.subarray(0, 6), dev + NET_DEVICE.offset.dev_addr);
  };
  return { net, network, takeFrom };
}

function closeSide({ net, network }: Side): void {
  network.received();
  net.close();
  network.close();
}

function frameFor(row: CsumRow, mode: CsumMode): CsumFrame {
  const v6 = row.l4.endsWith('6');
  const forwarded = untouchedTarget(row).startsWith('fwd');
  const place = forwarded ? REMOTE : LOCAL;
  const frame = buildFrame({
    l4: row.l4,
    kind: row.kind,
    destination: v6 ? place.v6 : place.v4,
    payload: mode.startsWith('two-buffers') ? LARGE_PAYLOAD : SMALL_PAYLOAD,
  });
  return row.odd === undefined ? frame : oddFrame(row.odd, frame);
}

function programText(program: CsumProgram, target: CsumTarget, targets: RedirectTargets): string {
  const forwarded = target.startsWith('fwd');
  const source = '172.16.0.1';
  switch (program) {
    case 'pass':
      return returnProgram(VERDICTS.PASS);
    case 'drop':
      return returnProgram(VERDICTS.DROP);
    case 'aborted':
      return returnProgram(VERDICTS.ABORTED);
    case 'tx':
      return macSwapProgram();
    case 'to NIC':
      return macSwapProgram(redirectProgram(targets.devmap, 0));
    case 'to cpumap':
      return redirectProgram(targets.cpumap, 0);
    case 'to AF_XDP':
      return redirectProgram(targets.xskmap, 0);
    case 'encap+TX':
      return encapProgram({
        source,
        destination: TUNNEL_LOCAL,
        nextHop: PEER_MAC,
        end: returnProgram(VERDICTS.TX),
      });
    case 'encap+PASS':
      return encapProgram({
        source,
        destination: forwarded ? TUNNEL_REMOTE : TUNNEL_LOCAL,
        nextHop: HOST_MAC,
        end: returnProgram(VERDICTS.PASS),
      });
    case 'nat-S0':
    case 'nat-S1':
    case 'nat-S2':
    case 'nat-S3':
      return natProgram(
        program.slice(4) as 'S0' | 'S1' | 'S2' | 'S3',
        forwarded ? NAT_REMOTE : NAT_LOCAL,
      );
  }
}

/** A wrong checksum, found when the packet came or when it was read. */
function isChecksumDrop(drop: string): boolean {
  return /^(TCP|UDP)_CSUM|udp_recvmsg$/.test(drop);
}

/** The answer of this host's own listener. */
function isSynAck(frame: Uint8Array): boolean {
  const v6 = frame[12] === 0x86;
  const at = v6 ? 54 : 34;
  return frame[v6 ? 20 : 23] === 6 && frame[at + 13] === 0x12;
}
