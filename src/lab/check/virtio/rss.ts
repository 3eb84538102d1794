/**
 * Records of what real guests received with receive-side scaling: hash, kind of hash, queue.
 *
 * A record has the key and table that were set with ethtool and one frame. It goes the whole way: the
 * driver of the record's kernel sends its commands over the control queue, a device that hashes as QEMU does
 * writes the frame and its header into the ring, and what the skb says is compared. After XDP was attached the
 * driver had sent VQ_PAIRS_SET, so there is no hash, and which queue the host picks by itself is not
 * compared; the commands are.
 *
 * Usage:
 *   const lab = new RssLab(kernel);          // defines the driver in the kernel: once
 *   lab.check(record);
 */
import type { VectorRecord } from '../record.js';
import { modelledVersion } from './guest-version.js';
import type { StackKernel } from '../../../stack/net-stack.js';
import { XDP_PASS } from '../../../stack/xdp-verdict.js';
import type { VirtioNetFeature } from '../../../virtio/net-features.js';
import {
  defineVirtioNet,
  type VirtioNet,
  type VirtioNetDriver,
} from '../../../virtio/virtio-net.js';

export type RssCheck =
  | { readonly kind: 'equal' }
  | { readonly kind: 'skipped'; readonly why: string }
  | { readonly kind: 'different'; readonly differences: readonly string[] };

/** Queue pairs of the device that was measured. */
const QUEUE_PAIRS = 4;

const FEATURES: readonly VirtioNetFeature[] = [
  'CTRL_VQ',
  'CTRL_RX',
  'CTRL_VLAN',
  'CTRL_MAC_ADDR',
  'CTRL_GUEST_OFFLOADS',
  'GUEST_CSUM',
  'MQ',
  'RSS',
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

export class RssLab {
  readonly #driver: VirtioNetDriver;

  /** @param kernel one without a virtio-net driver. */
  constructor(kernel: StackKernel) {
    this.#driver = defineVirtioNet(kernel, { cpus: QUEUE_PAIRS });
  }

  check(record: VectorRecord): RssCheck {
    const kernel = record.text('kernel_version');
    const version = modelledVersion(kernel);
    if (version === undefined) {
      return { kind: 'skipped', why: `the driver of ${kernel} is not modelled` };
    }
    const isFrame = record.text('type') === 'rss';
    const entry = isFrame ? TABLES[record.text('table')] : () => 0;
    if (!entry) return { kind: 'skipped', why: `table ${record.text('table')} is not known` };
    const hashReport = record.text('device').includes('hash=on');
    const net = this.#driver.probe({
      version,
      qemuHashing: true,
      cpus: QUEUE_PAIRS,
      queuePairs: QUEUE_PAIRS,
      queueSize: 16,
      features: hashReport ? [...FEATURES, 'HASH_REPORT'] : FEATURES,
    });
    try {
      return verdict(isFrame ? frameOf(net, record, entry) : defaultsOf(net, record));
    } finally {
      net.close();
    }
  }
}

type Comparison = readonly [what: string, recorded: string | number, computed: string | number];

/** What ethtool shows before anything is set. The key is random. */
function defaultsOf(net: VirtioNet, record: VectorRecord): Comparison[] {
  const { table = [], key = new Uint8Array(0) } = net.rss() ?? {};
  return [
    ['indir_size', record.number('indir_size'), table.length],
    ['key_size', record.number('key_size'), key.length],
    ['bytes of key', record.bytes('key')?.length ?? 0, key.length],
    ['table', record.numbers('table').join(' '), table.join(' ')],
  ];
}

function frameOf(net: VirtioNet, record: VectorRecord, entry: (i: number) => number): Comparison[] {
  const { table } = net.rss() ?? { table: [] };
  net.setRss({
    key: record.bytes('key') ?? new Uint8Array(0),
    table: Array.from(table, (_, i) => entry(i)),
  });
  net.setFeature('rx-hashing', true);
  const expected = attachAsRecorded(net, record);
  net.receive(record.bytes('frame') ?? new Uint8Array(0));
  net.poll();
  const [seen] = net.delivered();
  expected.push(['arrived', String(record.has('skb_hash')), String(seen !== undefined)]);
  if (!seen || !record.has('skb_hash')) return expected;
  const hash = `0x${seen.skbHash.toString(16).padStart(8, '0')}`;
  expected.push(['skb_hash', record.text('skb_hash'), hash]);
  expected.push(['l4_hash', record.text('l4_hash'), seen.l4Hash ? '1' : '0']);
  if (net.device.control.rss.mode === 'rss') {
    expected.push(['queue_mapping', record.text('queue_mapping'), String(seen.queue + 1)]);
    const [queue] = record.numbers('rx_queue');
    if (queue !== undefined) expected.push(['rx_queue', queue, seen.queue]);
  }
  return expected;
}

/** Attaches and detaches a program where the guest had; compared are the commands of the recorded step. */
function attachAsRecorded(net: VirtioNet, record: VectorRecord): Comparison[] {
  const xdp = record.has('xdp') ? record.text('xdp') : 'none';
  if (xdp !== 'drv' && xdp !== 'after detach') return [];
  net.controlLog();
  net.attachXdp({ run: () => XDP_PASS });
  const attached = record.has('attach') ? record.entries('attach') : [];
  const events = attached.find(([name]) => name === 'events')?.[1];
  let recorded = Array.isArray(events) ? events.map(String) : [];
  if (xdp === 'after detach') {
    net.controlLog();
    net.attachXdp(undefined);
    recorded = [...record.texts('detach')];
  }
  const commands = net.controlLog().map(({ request: [of, cmd] }) => `class=${of} cmd=${cmd}`);
  const seen = recorded.flatMap((event) => /class=\d+ cmd=\d+/.exec(event)?.[0] ?? []);
  return [['commands', seen.join(', '), commands.join(', ')]];
}

function verdict(comparisons: readonly Comparison[]): RssCheck {
  const differences = comparisons
    .filter(([, recorded, computed]) => recorded !== computed)
    .map(([what, recorded, computed]) => `${what} ${recorded}, computed ${computed}`);
  return differences.length === 0 ? { kind: 'equal' } : { kind: 'different', differences };
}
