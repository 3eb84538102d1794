/**
 * What became of a packet in the model beside what the record of a real guest says: texts of what differs.
 *
 * Compared are the counters of device, driver and SNMP, the skb at the entry of the stack, drop reasons,
 * datagrams read, skbs handed to the driver, frames that left the guest with their headers, XDP exceptions, and what
 * attaching said and sent. `observed` and `spec` are derived from these, and not read.
 */
import { bytesToHex, hexToBytes } from '../../../common/bytes.js';
import { IPPROTO } from '../../../stack/headers.js';
import { MIB_NAMES } from '../../../stack/net.js';
import type { DeliveredFrame } from '../../../virtio/driver/sink.js';
import type { TransmittedFrame } from '../../../virtio/net-handle.js';
import type { Attached } from './packet-guest.js';
import { guestVersion } from './guest-version.js';
import type { PacketRecord } from './packet-record.js';

export type Counters = Readonly<Record<string, number>>;

/** What happened in the model. */
export interface Observed {
  readonly attached: Attached;
  /** All counters, before and behind the packet. */
  readonly before: Counters;
  readonly after: Counters;
  /** The skb when it first entered GRO. */
  readonly entry: DeliveredFrame | undefined;
  /** `UDP_CSUM udp_queue_rcv_one_skb`. */
  readonly drops: readonly string[];
  /** As the tracepoint net_dev_start_xmit prints them. */
  readonly xmits: readonly string[];
  readonly received: readonly Uint8Array[];
  readonly sent: readonly TransmittedFrame[];
  readonly exceptions: number;
}

const DEVICE_COUNTERS = ['rx_packets', 'rx_dropped', 'rx_length_errors', 'rx_frame_errors'];

/** Fields of the skb, by the names of the record and of `DeliveredFrame`. */
const SKB_FIELDS = [
  ['ip_summed', 'ipSummed'],
  ['hash', 'skbHash'],
  ['len', 'len'],
  ['data_len', 'dataLen'],
  ['truesize', 'truesize'],
  ['nr_frags', 'nrFrags'],
  ['gso_size', 'gsoSize'],
  ['gso_type', 'gsoType'],
  ['protocol', 'protocol'],
  ['headroom', 'headroom'],
  ['csum_start', 'csumStart'],
  ['csum_offset', 'csumOffset'],
] as const;

/** Multicast reports of the guest's own are no answer to the packet. */
const REPORT = 'transport_offset=62';
const REPORT_BYTES = 90;
const SEEN_BYTES = 64;
/** Of an skb with a short frame's copy: 1024 bytes of head and the sk_buff, or less. */
const COPIED_TRUESIZE = 1280;

/** Each line says what the model has and what was measured. */
export function compareWithRecord(record: PacketRecord, observed: Observed): readonly string[] {
  return [
    ...attachDifferences(record, observed.attached),
    ...counterDifferences(record, observed),
    ...stackDifferences(record, observed.entry),
    ...dropDifferences(record, observed.drops),
    ...receivedDifferences(record, observed.received),
    ...xmitDifferences(record, observed.xmits),
    ...sentDifferences(record, observed.sent),
    ...exceptionDifferences(record, observed.exceptions),
  ];
}

function unequal(what: string, own: string, measured: string): readonly string[] {
  return own === measured ? [] : [`${what} ${own}, measured ${measured}`];
}

function attachDifferences(record: PacketRecord, attached: Attached): readonly string[] {
  if (!record.attach) return [];
  const { rc, events, vhost = [] } = record.attach;
  // which of the driver's functions sends a command is compared in records of attaching
  const measured = events.map((event) => event.replace(/^cvqr?: /, ''));
  const enabled = vhost.filter(([what, , on]) => what === 'enable' && on === 1);
  return [
    ...unequal('attach', String(attached.rc), String(-Math.abs(rc))),
    ...unequal('attach sent', attached.events.join(', '), measured.join(', ')),
    ...unequal('queues', attached.enabled.join(), enabled.map(([, queue]) => queue).join()),
  ];
}

function counterDifferences(record: PacketRecord, { before, after }: Observed): readonly string[] {
  const short = guestVersion(record) !== '6.1';
  const own = new Map<string, number>();
  for (const [name, value] of Object.entries(after)) {
    const measuredAs = measuredName(name, short);
    if (measuredAs !== undefined) own.set(measuredAs, value - (before[name] ?? 0));
  }
  const names = new Set([...own.keys(), ...Object.keys(record.counters)]);
  return [...names].flatMap((name) => {
    const [ours, measured] = [own.get(name), record.counters[name] ?? 0];
    if (isUndecided(name)) return [];
    // the guest sends reports of itself, too
    if (name.endsWith('_kicks') && ours !== undefined && ours <= measured) return [];
    const reports = reportsOn(name, own, record.counters);
    if (reports > 0 && ours !== undefined) {
      const each = name.endsWith('_bytes') ? REPORT_BYTES : 1;
      return unequal(`${name}:`, String(ours), String(measured - reports * each));
    }
    return unequal(`${name}:`, String(ours ?? 'unknown'), String(measured));
  });
}

/** How many packets of the guest's own a send queue counted beside those of the model; 0: another counter. */
function reportsOn(
  name: string,
  own: ReadonlyMap<string, number>,
  measured: Readonly<Record<string, number>>,
): number {
  const [, queue] = /^(ethtool\.tx_queue_\d+)_(?:packets|bytes)$/.exec(name) ?? [];
  if (queue === undefined) return 0;
  return (measured[`${queue}_packets`] ?? 0) - (own.get(`${queue}_packets`) ?? 0);
}

/** Receive kicks go by how much of the ring had been filled before: the packet does not decide them. */
function isUndecided(name: string): boolean {
  return /^ethtool\.rx.*_kicks$/.test(name);
}

/** What a record calls a counter of the model; undefined: the measurement did not read it. */
function measuredName(name: string, short: boolean): string | undefined {
  if ((MIB_NAMES as readonly string[]).includes(name)) {
    return name.startsWith('IpExt') ? undefined : name;
  }
  const device = /^dev_(.*)$/.exec(name)?.[1];
  if (device !== undefined) return DEVICE_COUNTERS.includes(device) ? `dev.${device}` : undefined;
  // 6.12 shows bytes and packets elsewhere, 6.1 shows no totals
  if (/_(stop|wake)$/.test(name)) return undefined;
  const shown = short
    ? !/_(packets|bytes)$/.test(name) || name.includes('xdp')
    : name.includes('_queue_');
  return shown ? `ethtool.${name}` : undefined;
}

function stackDifferences(
  record: PacketRecord,
  entry: DeliveredFrame | undefined,
): readonly string[] {
  if ((entry === undefined) !== (record.at_stack === null)) {
    return [entry ? 'reached the stack' : 'did not reach the stack'];
  }
  if (!entry || !record.at_stack) return [];
  const { at_stack: measured } = record;
  return SKB_FIELDS.flatMap(([field, own]) => {
    const value = measured[field];
    if (value === undefined) return [];
    // the tracepoint has 16 bits of gso_type
    const ours = own === 'gsoType' ? entry[own] & 0xffff : entry[own];
    return unequal(`skb ${field}:`, String(ours), String(Number(value)));
  });
}

/**
 * Before 6.12 the location was not read, and 6.1 names no reason where the checksum is found wrong only as
 * the datagram is read: behind 76 bytes.
 */
function dropDifferences(record: PacketRecord, drops: readonly string[]): readonly string[] {
  const located = guestVersion(record) !== '6.1';
  const own = drops.map((drop) => (located ? drop : (drop.split(' ')[0] ?? '')));
  return unequal('dropped:', own.join(), record.drop_reasons.join());
}

function receivedDifferences(
  record: PacketRecord,
  received: readonly Uint8Array[],
): readonly string[] {
  const show = (len: number, data: string): string => `${len}:${data}`;
  const own = received.map((data) => show(data.length, bytesToHex(data.subarray(0, SEEN_BYTES))));
  const measured = record.received.map(({ len, data }) => show(len, data));
  return unequal('received', own.join(), measured.join());
}

function xmitDifferences(record: PacketRecord, xmits: readonly string[]): readonly string[] {
  const measured = record.trace.filter((line) => line.startsWith('xmit') && !line.includes(REPORT));
  return unequal('handed to the driver:', xmits.join(), measured.join());
}

function exceptionDifferences(record: PacketRecord, raised: number): readonly string[] {
  const measured = record.trace.filter((line) => line.startsWith('xdp_exception'));
  return unequal('xdp_exception:', String(raised), String(measured.length));
}

function sentDifferences(
  record: PacketRecord,
  sent: readonly TransmittedFrame[],
): readonly string[] {
  const count = unequal('sent', String(sent.length), String(record.out.length));
  const frames = sent.flatMap((frame, i) => {
    const measured = record.out[i];
    if (!measured) return [];
    return [
      ...unequal('sent on', String(frame.queue), String(measured.queue)),
      ...unequal(
        'header',
        sentHeader(record, frame.header),
        sentHeader(record, hexToBytes(measured.vnet)),
      ),
      ...unequal(
        'sent',
        sentFrame(record, frame.frame),
        sentFrame(record, hexToBytes(measured.frame)),
      ),
    ];
  });
  return [...count, ...frames];
}

/** Without mergeable buffers Linux may leave num_buffers as it finds it; it means nothing then. */
function sentHeader(record: PacketRecord, header: Uint8Array): string {
  const mergeable = record.features.includes('MRG_RXBUF');
  return bytesToHex(mergeable ? header : header.subarray(0, 10));
}

/**
 * The frame without what depends on chance: a SYN-ACK's own sequence number, and the id that an outer
 * header takes over from memory nobody wrote, with its checksum, where the frame was copied into a new skb.
 */
function sentFrame(record: PacketRecord, frame: Uint8Array): string {
  const bytes = frame.slice();
  if (frame[23] === IPPROTO.TCP && frame[47] === 0x12) bytes.fill(0, 38, 42);
  const copied = Number(record.at_stack?.['truesize'] ?? Infinity) <= COPIED_TRUESIZE;
  if (frame[23] === IPPROTO.IPIP && copied) bytes.fill(0, 18, 20).fill(0, 24, 26);
  return bytesToHex(bytes);
}
