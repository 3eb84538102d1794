/** A `packet` record of the virtio measurements: one packet that a real guest received. */
import { parseFeature, type VirtioNetFeature } from '../../../virtio/net-features.js';

/** The features of a record, by the names used here. */
export function recordFeatures(names: readonly string[]): readonly VirtioNetFeature[] {
  return names.map((name) => (name === 'INDIRECT' ? 'INDIRECT_DESC' : parseFeature(name)));
}

export interface SentRecord {
  readonly queue: number;
  /** virtio_net_hdr, hex. */
  readonly vnet: string;
  readonly frame: string;
}

export interface PacketRecord {
  readonly id: string;
  readonly type: string;
  readonly kernel_version: string;
  readonly backend: string;
  readonly rx_mode: string;
  readonly features: readonly string[];
  readonly xdp: string;
  readonly program: string;
  readonly frags_prog: boolean;
  readonly rx_buffers: string;
  /** What attaching said, what it sent over the control queue, and what the backend was told. */
  readonly attach?: {
    readonly rc: number;
    readonly events: readonly string[];
    readonly vhost?: readonly (readonly [string, number, number])[];
  } | null;
  readonly kind: string;
  /** local, fwdHW, fwdSW, tx. */
  readonly target: string;
  readonly note: string;
  readonly injected: string;
  readonly rx_segments: {
    readonly segs?: readonly { readonly buf: number; readonly used: number }[];
  };
  readonly at_stack: Readonly<Record<string, number | string>> | null;
  readonly drop_reasons: readonly string[];
  /** Of each datagram the length and the first 64 bytes. */
  readonly received: readonly { readonly len: number; readonly data: string }[];
  readonly counters: Readonly<Record<string, number>>;
  readonly trace: readonly string[];
  readonly out: readonly SentRecord[];
}
