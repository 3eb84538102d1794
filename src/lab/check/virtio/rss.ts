/**
 * Records of what real guests received with receive-side scaling: hash, kind of hash, queue.
 *
 * A record has the key and table that were set with ethtool and one frame. The model goes the whole
 * way: the driver of the record's kernel builds its command, a device as QEMU's parses it, hashes and
 * steers the frame. After XDP was attached the driver had sent VQ_PAIRS_SET, so there is no
 * hash, and which queue the host picks by itself is not compared.
 */
import type { VectorRecord } from '../record.js';
import { concatBytes } from '../../../net/packet.js';
import {
  applyRssCommand,
  buildVqPairsSet,
  resetRssState,
  VIRTIO_NET_CTRL_MQ,
  VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET,
  type RssDevice,
  type RssState,
} from '../../../net/rss/config.js';
import { ReceiveHasher } from '../../../net/rss/receive-hash.js';
import { defaultTable, Steering } from '../../../net/rss/steering.js';
import { ALL_HASH_TYPES } from '../../../net/rss/types.js';
import {
  buildRssCommand,
  defaultRssSettings,
  skbHashType,
  type RssDriverVersion,
} from '../../../virtio/driver/rss.js';

export type RssCheck =
  | { readonly kind: 'equal' }
  | { readonly kind: 'skipped'; readonly why: string }
  | { readonly kind: 'different'; readonly differences: readonly string[] };

/** Queue pairs of the device that was measured. */
const QUEUE_PAIRS = 4;
const TABLE_LENGTH = 128;

const DRIVERS: readonly (readonly [prefix: string, RssDriverVersion])[] = [
  ['6.1.', '6.1'],
  ['6.12.107', '6.12.107'],
  ['6.18.', '6.18'],
];

/** Entries of the tables that were set, by the formula that names them. */
const TABLES: Readonly<Record<string, (i: number) => number>> = {
  'i%4': (i) => i % 4,
  '(i*7+(i>>3))%3': (i) => (i * 7 + (i >> 3)) % 3,
};

export function isRssRecord(record: VectorRecord): boolean {
  const { type } = record.fields;
  return type === 'rss' || type === 'rss-default';
}

export function checkRssRecord(record: VectorRecord): RssCheck {
  return record.text('type') === 'rss' ? checkFrame(record) : checkDefaults(record);
}

function deviceOf(hashReport: boolean): RssDevice {
  return {
    maxQueuePairs: QUEUE_PAIRS,
    maxKeySize: 40,
    maxTableLength: TABLE_LENGTH,
    supportedHashTypes: ALL_HASH_TYPES,
    supportedTunnelTypes: 0,
    negotiated: { mq: true, rss: true, hashReport, hashTunnel: false },
    qemuDisableOnError: true,
  };
}

/** What ethtool shows before anything is set. The key is random. */
function checkDefaults(record: VectorRecord): RssCheck {
  const key = record.bytes('key') ?? new Uint8Array(0);
  const hashReport = record.texts('features').includes('HASH_REPORT');
  const { table } = defaultRssSettings(deviceOf(hashReport), QUEUE_PAIRS, key);
  return verdict([
    ['indir_size', record.number('indir_size'), TABLE_LENGTH],
    ['key_size', record.number('key_size'), 40],
    ['bytes of key', key.length, 40],
    ['table', record.numbers('table').join(' '), table.join(' ')],
  ]);
}

function checkFrame(record: VectorRecord): RssCheck {
  if (!record.has('skb_hash')) return { kind: 'skipped', why: 'the frame did not arrive' };
  const kernel = record.text('kernel_version');
  const [, driver] = DRIVERS.find(([prefix]) => kernel.startsWith(prefix)) ?? [];
  if (driver === undefined) return { kind: 'skipped', why: `driver of ${kernel} is not modelled` };
  const entry = TABLES[record.text('table')];
  if (!entry) return { kind: 'skipped', why: `table ${record.text('table')} is not known` };
  const hashReport = record.text('device').includes('hash=on');
  const state = configuredState(record, driver, deviceOf(hashReport), entry);
  const frame = record.bytes('frame') ?? new Uint8Array(0);
  const hasher = new ReceiveHasher({
    key: state.config.key,
    hashTypes: state.config.hashTypes,
    qemuIpv6ExQuirk: true,
    qemuAtomicFragments: true,
  });
  const result = hasher.compute(frame);
  const { hash, report } = hashReport ? result : { hash: 0, report: 0 };
  const l4 = skbHashType(report) === 'PKT_HASH_TYPE_L4' ? 1 : 0;
  const expected: Comparison[] = [
    ['skb_hash', record.text('skb_hash'), `0x${hash.toString(16).padStart(8, '0')}`],
    ['l4_hash', record.text('l4_hash'), String(l4)],
  ];
  if (state.mode === 'rss') {
    const queue = new Steering(state).queueOf(result);
    expected.push(['queue_mapping', record.text('queue_mapping'), String(queue + 1)]);
    const [seen] = record.numbers('rx_queue');
    if (seen !== undefined) expected.push(['rx_queue', seen, queue]);
  }
  return verdict(expected);
}

/** The device after the driver set key and table, and after the commands of an XDP attach or detach. */
function configuredState(
  record: VectorRecord,
  driver: RssDriverVersion,
  device: RssDevice,
  entry: (i: number) => number,
): RssState {
  const key = record.bytes('key') ?? new Uint8Array(0);
  const settings = {
    ...defaultRssSettings(device, QUEUE_PAIRS, key),
    table: defaultTable(TABLE_LENGTH, QUEUE_PAIRS).map((_, i) => entry(i)),
  };
  const { command, buffers } = buildRssCommand(driver, settings);
  const bytes = concatBytes(...buffers);
  const { state } = applyRssCommand(resetRssState(), VIRTIO_NET_CTRL_MQ, command, bytes, device);
  if (!sentQueuePairs(record)) return state;
  return applyRssCommand(
    state,
    VIRTIO_NET_CTRL_MQ,
    VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET,
    buildVqPairsSet(QUEUE_PAIRS),
    device,
  ).state;
}

/** Did attaching or detaching send VQ_PAIRS_SET? */
function sentQueuePairs(record: VectorRecord): boolean {
  const attached = record.has('attach') ? record.entries('attach') : [];
  const events = attached.find(([name]) => name === 'events')?.[1];
  const seen = [...(Array.isArray(events) ? events.map(String) : []), ...record.texts('detach')];
  return seen.some((event) => event.endsWith('class=4 cmd=0'));
}

type Comparison = readonly [what: string, recorded: string | number, computed: string | number];

function verdict(comparisons: readonly Comparison[]): RssCheck {
  const differences = comparisons
    .filter(([, recorded, computed]) => recorded !== computed)
    .map(([what, recorded, computed]) => `${what} ${recorded}, computed ${computed}`);
  return differences.length === 0 ? { kind: 'equal' } : { kind: 'different', differences };
}
