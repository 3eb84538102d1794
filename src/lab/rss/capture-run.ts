/**
 * A capture through a receiver with and without inner hash, side by side.
 *
 * Usage:
 *   const run = new CaptureRun(settings);
 *   for (const packet of reader.packets()) run.add(packet);
 *   run.report().inner.entropy;
 */
import type { CapturedPacket } from '../../net/capture.js';
import { bitNames, reportName, VIRTIO_NET_HASH_TUNNEL_TYPE } from '../../net/rss/types.js';
import { FlowReader } from './flow-key.js';
import { FlowSpread, type FlowSpreadReport } from './flow-spread.js';
import { RssReceiver, type RssSettings } from './receiver.js';

export interface CaptureRunReport {
  readonly packets: number;
  /** Packets of each kind of tunnel. A packet may be of two kinds. */
  readonly tunnels: ReadonlyMap<string, number>;
  /** Packets by report value, as the device with inner hash reports them. */
  readonly reports: ReadonlyMap<string, number>;
  /** Packets whose queue the inner hash changed. */
  readonly moved: number;
  readonly outer: FlowSpreadReport;
  readonly inner: FlowSpreadReport;
}

export class CaptureRun {
  readonly #outer: RssReceiver;
  readonly #inner: RssReceiver;
  readonly #flows: FlowReader;
  readonly #outerSpread: FlowSpread;
  readonly #innerSpread: FlowSpread;
  /** By mask of tunnel types. */
  readonly #tunnels = new Map<number, number>();
  readonly #reports = new Map<number, number>();
  #start: bigint | undefined;
  #packets = 0;
  #moved = 0;

  /** @param packetTime as of `FlowSpread`. */
  constructor(settings: RssSettings, packetTime?: number) {
    this.#outer = new RssReceiver({ ...settings, tunnelTypes: 0 });
    this.#inner = new RssReceiver(settings);
    this.#flows = new FlowReader(settings.ports);
    this.#outerSpread = new FlowSpread(settings.queues, packetTime);
    this.#innerSpread = new FlowSpread(settings.queues, packetTime);
  }

  get packets(): number {
    return this.#packets;
  }

  /** Steers a packet; gives its queue, with inner hash. */
  add(packet: CapturedPacket): number {
    const { bytes } = packet;
    this.#start ??= packet.time;
    const time = Number((packet.time ?? 0n) - (this.#start ?? 0n));
    const flow = this.#flows.keyOf(bytes);
    const { tunnels } = this.#flows;
    if (tunnels !== 0) count(this.#tunnels, tunnels);
    const outer = this.#outer.queueOf(bytes);
    const inner = this.#inner.queueOf(bytes);
    count(this.#reports, this.#inner.result.report);
    this.#packets++;
    if (outer !== inner) this.#moved++;
    this.#outerSpread.add(outer, flow, time);
    this.#innerSpread.add(inner, flow, time);
    return inner;
  }

  report(): CaptureRunReport {
    const tunnels = new Map<string, number>();
    for (const name of Object.keys(VIRTIO_NET_HASH_TUNNEL_TYPE)) {
      const packets = [...this.#tunnels]
        .filter(([mask]) => bitNames(mask, VIRTIO_NET_HASH_TUNNEL_TYPE).includes(name))
        .reduce((sum, [, each]) => sum + each, 0);
      if (packets > 0) tunnels.set(name, packets);
    }
    const reports = new Map(
      [...this.#reports]
        .sort(([a], [b]) => a - b)
        .map(([report, packets]) => [reportName(report), packets]),
    );
    return {
      packets: this.#packets,
      tunnels,
      reports,
      moved: this.#moved,
      outer: this.#outerSpread.report(),
      inner: this.#innerSpread.report(),
    };
  }
}

function count(counts: Map<number, number>, key: number): void {
  counts.set(key, (counts.get(key) ?? 0) + 1);
}
