/**
 * A capture and a program of one's own through the checksum variants: where each packet ends, and why.
 *
 * The host takes every address and port of the capture as its own, or with `forward` routes all packets on to
 * a peer that does. How the device hands a packet over follows from its checksum field: one that holds
 * the pseudo-header's sum was left to the device (kind P), others are U, or V where the device verified
 * them. Frames that are no TCP or UDP over IP are U.
 *
 * Usage:
 *   const runs = runCsumCapture(lab, { packets, variants: ['base', 'upstream'], mode: 'mergeable' });
 */
import { viewOf } from '../../common/bytes.js';
import { formatIpv4, formatIpv6 } from '../../net/address.js';
import { partialChecksum, pseudoHeaderSum } from '../../net/checksum.js';
import type { XdpEngine } from '../xdp-engine.js';
import { headerOf, type CsumFrame, type CsumKind } from './frames.js';
import type { CsumLab, CsumResult } from './matrix.js';
import type { CsumMode, CsumVariant } from './rows.js';

/** What a packet is addressed to, and where its L4 header lies. */
interface Addressing {
  readonly destination: string;
  readonly protocol: number;
  readonly port: number;
  readonly l4: number;
  readonly partial: boolean;
}

export interface CaptureOptions {
  readonly packets: readonly Uint8Array[];
  readonly variants: readonly CsumVariant[];
  readonly mode: CsumMode;
  /** Packets are routed on. Default false. */
  readonly forward?: boolean;
  /** The egress completes checksums in software. Default false. */
  readonly softwareChecksum?: boolean;
  /** The device says of complete packets that it verified them. Default false. */
  readonly verified?: boolean;
  /** Makes the program for a guest; default: none is attached. */
  readonly program?: (note: (verdict: number) => void) => XdpEngine;
}

export interface CsumCaptureRun {
  readonly kind: CsumKind;
  /** By variant, in the order asked for. */
  readonly results: ReadonlyMap<CsumVariant, CsumResult>;
}

export function runCsumCapture(lab: CsumLab, options: CaptureOptions): readonly CsumCaptureRun[] {
  const { packets, verified } = options;
  const read = packets.map(addressing);
  const known = read.filter((each) => each !== undefined);
  const place = {
    addresses: [...new Set(known.map(({ destination }) => destination))],
    udpPorts: ports(known, UDP),
    tcpPorts: ports(known, TCP),
    forward: options.forward ?? false,
  };
  const kinds = read.map((each): CsumKind => {
    if (each?.partial) return 'P';
    return each && verified ? 'V' : 'U';
  });
  const runs = packets.map((_, i) => ({
    kind: kinds[i] as CsumKind,
    results: new Map<CsumVariant, CsumResult>(),
  }));
  for (const variant of options.variants) {
    const guest = lab.open(variant, options.mode, place);
    const engine = options.program?.((verdict) => guest.noteVerdict(verdict));
    try {
      guest.setTxChecksum(!options.softwareChecksum);
      if (engine) guest.attach(engine);
      for (const [i, packet] of packets.entries()) {
        runs[i]?.results.set(variant, guest.send(asHanded(packet, kinds[i] as CsumKind, read[i])));
      }
    } finally {
      guest.close();
      engine?.close();
    }
  }
  return runs;
}

const TCP = 6;
const UDP = 17;
const ETHERTYPE = { IPV4: 0x0800, IPV6: 0x86dd } as const;

function ports(packets: readonly Addressing[], protocol: number): number[] {
  const own = packets.filter((each) => each.protocol === protocol);
  return [...new Set(own.map(({ port }) => port))];
}

function asHanded(frame: Uint8Array, kind: CsumKind, at: Addressing | undefined): CsumFrame {
  if (!at) return { frame, header: {} };
  return { frame, header: headerOf(kind, at.l4, at.protocol === TCP ? 16 : 6) };
}

/** Undefined: no TCP or UDP over IP that is whole. */
function addressing(frame: Uint8Array): Addressing | undefined {
  if (frame.length < 34) return undefined;
  const view = viewOf(frame);
  const ethertype = view.getUint16(12);
  const v6 = ethertype === ETHERTYPE.IPV6;
  if (!v6 && ethertype !== ETHERTYPE.IPV4) return undefined;
  const l4 = 14 + (v6 ? 40 : ((frame[14] ?? 0) & 15) * 4);
  const protocol = frame[v6 ? 20 : 23] ?? 0;
  const least = protocol === TCP ? 20 : 8;
  if ((protocol !== TCP && protocol !== UDP) || frame.length < l4 + least) return undefined;
  const source = v6 ? frame.subarray(22, 38) : frame.subarray(26, 30);
  const destination = v6 ? frame.subarray(38, 54) : frame.subarray(30, 34);
  const length = v6 ? view.getUint16(18) : view.getUint16(16) - (l4 - 14);
  const field = view.getUint16(l4 + (protocol === TCP ? 16 : 6));
  const pseudo = partialChecksum(pseudoHeaderSum(source, destination, protocol, length));
  return {
    destination: v6 ? formatIpv6(destination) : formatIpv4(destination),
    protocol,
    port: view.getUint16(l4 + 2),
    l4,
    partial: field === pseudo,
  };
}
