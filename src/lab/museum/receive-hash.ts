/**
 * Exhibits 38 to 41: bugs of virtio-net's receive-side scaling, in the driver and in the standard.
 *
 * Reference: drivers/net/virtio_net.c (virtnet_probe, virtnet_set_rxfh, virtnet_commit_rss_command); virtio
 * 1.3 "Inner header hash". The broken driver is the lab's with `rssFaults`; what the bug does then is what driver
 * and device make of it.
 */
import { bytesToHex } from '../../common/bytes.js';
import type { Kernel } from '../../kernel/kernel.js';
import { gre } from '../../net/encapsulate.js';
import { ETHERTYPE, IPPROTO, ethernet, ipv4, tcp } from '../../net/packet.js';
import { VIRTIO_NET_HASH_TUNNEL_TYPE } from '../../net/rss/types.js';
import type { RssFault } from '../../virtio/driver/rss-faults.js';
import {
  defineVirtioNet,
  type VirtioNet,
  type VirtioNetDriver,
  type VirtioNetOptions,
} from '../../virtio/virtio-net.js';
import { refusalOf, withKernel, type Exhibit, type Observation, type Variant } from './exhibit.js';

const QUEUES = 8;
const RSS = ['CTRL_VQ', 'RSS', 'HASH_REPORT'] as const;

/** A device, as the broken driver or the fixed one sees it. */
function probe(
  driver: VirtioNetDriver,
  variant: Variant,
  faults: readonly RssFault[],
  options: VirtioNetOptions,
): VirtioNet {
  const rssFaults = variant === 'broken' ? faults : [];
  return driver.probe({ version: '6.18', cpus: QUEUES, queueSize: 16, rssFaults, ...options });
}

/** An observation on a kernel with as many CPUs as the device has queues. */
function withDriver(
  boot: Parameters<Exhibit['run']>[1],
  look: (driver: VirtioNetDriver, kernel: Kernel) => Observation,
): Promise<Observation> {
  return withKernel(boot, { cpus: QUEUES }, (kernel) =>
    look(defineVirtioNet(kernel, { cpus: QUEUES }), kernel),
  );
}

/** Bytes of a slab object like the one that the settings are in. */
const BLOCK = 512;
const NEIGHBOUR = 0x5a;

/** Objects of other owners between free places: whoever takes one has a neighbour. */
function neighbours({ physical, memory: { ram } }: Kernel): readonly number[] {
  const blocks = Array.from({ length: 64 }, () => physical.alloc(BLOCK));
  const taken = blocks.filter((_, i) => i % 2 === 1);
  for (const at of taken) ram.bytes.fill(NEIGHBOUR, at, at + BLOCK);
  for (const at of blocks.filter((_, i) => i % 2 === 0)) physical.free(at);
  return taken;
}

export const hashKeySize: Exhibit = {
  number: 38,
  name: 'hash_key_size',
  wing: 'network',
  fixedIn: '6.1.119',
  story:
    'The driver took rss_max_key_size from the device and filled a key of that length in; there was room for 40 ' +
    'bytes. Everything behind was overwritten. Now a device with longer keys is refused (CVE-2024-53082). Later ' +
    'kernels take 40 bytes of it, as the standard means it: 40 is the least a device must take.',
  run: (variant, boot) =>
    withDriver(boot, (driver, kernel) => {
      const others = neighbours(kernel);
      const refusal = refusalOf(() =>
        probe(driver, variant, ['unchecked-key-size'], {
          features: RSS,
          config: { rssMaxKeySize: 255 },
        }),
      );
      const { ram } = kernel.memory;
      const changed = others.reduce(
        (sum, at) => sum + ram.slice(at, BLOCK).filter((byte) => byte !== NEIGHBOUR).length,
        0,
      );
      return {
        lines: [
          `probe of a device with keys of up to 255 bytes: ${refusal ?? 'done'}`,
          `bytes changed in objects of others: ${changed}`,
        ],
        right: changed === 0,
      };
    }),
};

export const rssWithoutFeature: Exhibit = {
  number: 39,
  name: 'rss_without_feature',
  wing: 'network',
  fixedIn: '6.1.90',
  story:
    'ethtool -X sent its command to any device. Without RSS the key has no bytes, and the last piece of the command ' +
    'none: QEMU takes that for an error of the driver and stops, and the driver waits for the answer for ever. Now ' +
    'the command is sent only if there is something to set and the device has the feature.',
  run: (variant, boot) =>
    withDriver(boot, (driver) => {
      const net = probe(driver, variant, ['commit-without-rss'], {
        version: '6.1',
        features: ['CTRL_VQ'],
      });
      net.controlLog();
      const refusal = refusalOf(() => net.setRss({}));
      const { error } = net.device;
      return {
        lines: [
          `ethtool -X eth0 hfunc toeplitz, a device without RSS: ${refusal ?? 'done'}`,
          `the device: ${error ?? 'works'}, commands: ${net.controlLog().length}`,
        ],
        right: refusal === undefined && error === undefined,
      };
    }),
};

/** What was meant to reach the device, and what did. */
type Layout = readonly [what: string, meant: string, came: string];

function tableSize(driver: VirtioNetDriver, variant: Variant): Layout {
  const net = probe(driver, variant, ['fixed-table'], {
    features: RSS,
    queuePairs: 4,
    config: { rssMaxIndirectionTableLength: 256 },
  });
  const { table } = net.device.control.rss.config;
  net.close();
  const wrong = table.findIndex((queue, i) => queue !== i % 4);
  const came = wrong < 0 ? 'all' : `all up to ${wrong}`;
  return ['entries of a table of 256', 'all', came];
}

function byteOrder(driver: VirtioNetDriver, variant: Variant): Layout {
  const net = probe(driver, variant, ['big-endian'], { features: RSS, queuePairs: 4 });
  const answers = net.controlLog().flatMap(({ why }) => why ?? []);
  net.close();
  return ['a big-endian kernel', 'accepted', answers[0] ?? 'accepted'];
}

function reserved(driver: VirtioNetDriver, variant: Variant): Layout {
  const net = probe(driver, variant, ['max-tx-vq-in-hash-config'], {
    features: ['CTRL_VQ', 'HASH_REPORT'],
    queuePairs: 4,
  });
  const command = net.controlLog().find(({ request: [of, cmd] }) => of === 4 && cmd === 2);
  net.close();
  const came = bytesToHex(command?.request.slice(6, 14) ?? new Uint8Array(0));
  return ['reserved bytes of HASH_CONFIG', '0000000000000000', came];
}

function maxTxVq(driver: VirtioNetDriver, variant: Variant): Layout {
  const net = probe(driver, variant, ['stale-max-tx-vq'], {
    features: RSS,
    queuePairs: 1,
    maxQueuePairs: 4,
  });
  const table = (pairs: number): number[] => Array.from({ length: 128 }, (_, i) => i % pairs);
  net.setRss({ table: table(1) });
  net.setQueuePairs(4);
  net.setRss({ table: table(4) });
  const { queuePairs } = net.device.control.rss;
  net.close();
  return ['queue pairs after ethtool -L combined 4 and ethtool -X', '4', `${queuePairs}`];
}

function keyPlace(driver: VirtioNetDriver, variant: Variant): Layout {
  const net = probe(driver, variant, ['late-key'], { features: RSS, queuePairs: 4 });
  const hex = (bytes?: Uint8Array): string => bytesToHex(bytes?.slice(0, 4) ?? new Uint8Array(0));
  const layout: Layout = [
    'first bytes of the key',
    hex(net.rss()?.key),
    hex(net.device.control.rss.config.key),
  ];
  net.close();
  return layout;
}

export const rssLayout: Exhibit = {
  number: 40,
  name: 'rss_layout',
  wing: 'network',
  fixedIn: '6.12.115',
  story:
    'struct virtio_net_ctrl_rss, five times wrong: a table of 128 entries for any device, fields in the order of the ' +
    'CPU, max_tx_vq where HASH_CONFIG has reserved bytes, max_tx_vq not told of new queue pairs, and, by the fix of the ' +
    'byte order, a byte of padding in front of the key (CVE-2026-23143).',
  run: (variant, boot) =>
    withDriver(boot, (driver) => {
      const layouts = [tableSize, byteOrder, reserved, maxTxVq, keyPlace].map((look) =>
        look(driver, variant),
      );
      const wrong = layouts.filter(([, meant, came]) => meant !== came).length;
      return {
        lines: layouts.map(([what, meant, came]) => `${what}: ${meant}, the device: ${came}`),
        // a broken run shows all five
        right: variant === 'broken' ? wrong < layouts.length : wrong === 0,
      };
    }),
};

/** Flows through one GRE tunnel. */
const FLOWS = 64;

function tunnelled(flow: number): Uint8Array {
  const inner = { source: '10.0.0.1', destination: '10.0.0.2' };
  const outer = { source: '192.0.2.1', destination: '192.0.2.2' };
  const segment = tcp(inner, { sourcePort: 10_000 + 37 * flow, destinationPort: 443 }, NO_BYTES);
  const packet = ipv4(inner, { protocol: IPPROTO.TCP }, segment);
  const payload = ipv4(outer, { protocol: IPPROTO.GRE }, gre({ type: ETHERTYPE.IPV4 }, packet));
  return ethernet({ type: ETHERTYPE.IPV4, destination: '52:54:00:00:00:02' }, payload);
}

const NO_BYTES = new Uint8Array(0);

export const innerHash: Exhibit = {
  number: 41,
  name: 'inner_hash',
  wing: 'network',
  fixedIn: 'virtio 1.3',
  story:
    'Two gaps of the standard. The header that HASH_REPORT makes 20 bytes long was described as 12 in places, and a ' +
    'driver that believed it took the hash for the first bytes of the packet. And a hash over the outer header is the ' +
    'same for all flows of a tunnel, which therefore all went to one queue: HASH_TUNNEL hashes the inner one.',
  run: (variant, boot) =>
    withDriver(boot, (driver) => {
      const net = probe(driver, variant, ['short-header'], {
        features: variant === 'broken' ? RSS : [...RSS, 'HASH_TUNNEL'],
        queuePairs: QUEUES,
        queueSize: 128,
      });
      if (variant === 'fixed') net.setHashTunnel(VIRTIO_NET_HASH_TUNNEL_TYPE.GRE_2784);
      const queues = new Set<number>();
      let whole = 0;
      for (let flow = 0; flow < FLOWS; flow++) {
        const frame = tunnelled(flow);
        net.receive(frame);
        net.poll();
        const [seen] = net.delivered();
        if (!seen) continue;
        queues.add(seen.queue);
        if (bytesToHex(seen.frame) === bytesToHex(frame)) whole++;
      }
      return {
        lines: [
          `${FLOWS} flows in one GRE tunnel: ${whole} frames arrive as they were sent`,
          `on ${queues.size} of ${QUEUES} queues`,
        ],
        right:
          variant === 'broken'
            ? whole > 0 || queues.size > 1
            : whole === FLOWS && queues.size === QUEUES,
      };
    }),
};
