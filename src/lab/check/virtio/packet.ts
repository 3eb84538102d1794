/**
 * A `packet` record through the model: equal to what the real guest did, skipped with a reason, or
 * different and where.
 *
 * `packet-guest.ts` makes the record's guest, `packet-program.ts` its program, `packet-compare.ts` compares. What
 * a guest took from memory has to be given back when it is gone.
 *
 * Usage:
 *   const lab = new PacketLab(kernel);       // defines the driver in the kernel: once
 *   lab.check(record);
 *   lab.check(record, { ring: 'packed' });   // another device than the measured one, the same outcome
 */
import { hexToBytes } from '../../../common/bytes.js';
import { KernelError } from '../../../common/errors.js';
import type { Kernel } from '../../../kernel/kernel.js';
import { createNetwork, type Network } from '../../../stack/network.js';
import { SK_BUFF, skbHeadroom, skbShinfo, SKB_SHARED_INFO } from '../../../stack/skb.js';
import type { DeliverResult } from '../../../virtio/device/net-device.js';
import { readFrame, type DeliveredFrame } from '../../../virtio/driver/sink.js';
import { VIRTIO_NET_HDR_F_DATA_VALID } from '../../../virtio/net-header.js';
import {
  defineVirtioNet,
  type VirtioNet,
  type VirtioNetDriver,
  type VirtioNetOptions,
} from '../../../virtio/virtio-net.js';
import { VERDICTS, labProgram, returnProgram } from '../../csum/programs.js';
import { RedirectMaps } from '../../redirect-maps.js';
import type { RunEngine } from '../../run-program.js';
import { createXdpEngine, type XdpEngine } from '../../xdp-engine.js';
import { compareWithRecord } from './packet-compare.js';
import {
  attachAsRecorded,
  configureGuest,
  earlierArrivals,
  findBuffers,
  guestOptions,
  isTap,
  type Attached,
} from './packet-guest.js';
import { guestVersion } from './guest-version.js';
import { recordProgram } from './packet-program.js';
import type { PacketRecord } from './packet-record.js';

export type PacketResult =
  | { readonly kind: 'equal' }
  | { readonly kind: 'skipped'; readonly why: string }
  | { readonly kind: 'different'; readonly differences: readonly string[] };

/** What tracepoints said about one packet. */
interface Events {
  entry: DeliveredFrame | undefined;
  readonly drops: string[];
  readonly xmits: string[];
}

export class PacketLab {
  readonly #kernel: Kernel;
  readonly #engine: RunEngine;
  readonly #driver: VirtioNetDriver;
  readonly #maps: RedirectMaps;
  #events: Events = { entry: undefined, drops: [], xmits: [] };

  /**
   * @param kernel one without a virtio-net driver
   * @param engine runs the programs
   */
  constructor(kernel: Kernel, engine: RunEngine = 'interpreter') {
    this.#engine = engine;
    const { ram } = kernel.memory;
    this.#kernel = kernel;
    this.#driver = defineVirtioNet(kernel, {
      bpf: kernel.bpf.host,
      tracepoints: {
        kfreeSkb: (_skb, reason, location) => this.#events.drops.push(`${reason} ${location}`),
        napiGroReceiveEntry: (skb) => {
          this.#events.entry ??= readFrame(ram, skb);
        },
        netDevStartXmit: (skb) => {
          const S = SK_BUFF.offset;
          const offset = ram.u16(skb + S.transport_header) - skbHeadroom(ram, skb);
          const gso = ram.u16(skbShinfo(ram, skb) + SKB_SHARED_INFO.offset.gso_size);
          const summed = ram.u8(skb + S.ip_summed);
          this.#events.xmits.push(
            `xmit ip_summed=${summed} len=${ram.u32(skb + S.len)} transport_offset=${offset} gso_size=${gso}`,
          );
        },
      },
    });
    this.#maps = new RedirectMaps(kernel, this.#driver.stack);
  }

  /** @param device what the device has that the measured one had not. */
  check(record: PacketRecord, device: VirtioNetOptions = {}): PacketResult {
    const kernel = this.#kernel;
    const { liveBytes } = kernel.linear;
    const tasks = kernel.tasks.length;
    const network = createNetwork(kernel, { outTransmits: guestVersion(record) !== '6.1' });
    const net = this.#driver.probe({ ...guestOptions(record, network), ...device });
    const engines: XdpEngine[] = [];
    const load = (text: string, hasFrags = false): XdpEngine['runner'] => {
      const program = labProgram(kernel, 'prog', text);
      const engine = createXdpEngine(kernel, this.#engine, program, { hasFrags });
      engines.push(engine);
      return engine.runner;
    };
    let differences: readonly string[];
    try {
      configureGuest(kernel, network, net, record);
      const targets = this.#maps.join(kernel.memory.ram.virtToPhys(net.dev));
      const text = record.xdp === 'none' ? undefined : recordProgram(record.program, targets);
      if (record.xdp !== 'none' && text === undefined) {
        return { kind: 'skipped', why: `no program ${record.program} is known` };
      }
      const attached = attachAsRecorded(net, record, {
        own: text === undefined ? undefined : load(text, record.frags_prog),
        pass: load(returnProgram(VERDICTS.PASS)),
        drop: load(returnProgram(VERDICTS.DROP)),
      });
      differences = this.#receive(record, net, network, attached);
    } catch (error) {
      // a panic of the guest
      if (!(error instanceof KernelError)) throw error;
      differences = [error.message];
    } finally {
      this.#maps.leave();
      network.received();
      net.close();
      network.close();
      for (const engine of engines) engine.close();
    }
    const left = kernel.linear.liveBytes - liveBytes;
    // a task that the first call made stays
    if (left !== 0 && kernel.tasks.length === tasks)
      differences = [...differences, `${left} bytes of memory stay behind`];
    return differences.length === 0 ? { kind: 'equal' } : { kind: 'different', differences };
  }

  /** The packet arrives. */
  #receive(
    record: PacketRecord,
    net: VirtioNet,
    network: Network,
    attached: Attached,
  ): readonly string[] {
    const segments = record.rx_segments.segs ?? [];
    const amiss = findBuffers(
      this.#kernel,
      net,
      segments.map(({ buf }) => buf),
    );
    const bytes = hexToBytes(record.injected);
    // the packet socket that fed the tap takes no DATA_VALID
    if (isTap(record)) bytes[0] = (bytes[0] ?? 0) & ~VIRTIO_NET_HDR_F_DATA_VALID;
    const bytesPerBuffer = segments.map(({ used }) => used);
    const deliver = (): DeliverResult => {
      const result = net.device.deliverRaw(bytes, { bytesPerBuffer });
      net.poll();
      return result;
    };
    for (let i = earlierArrivals(record); i > 0; i--) deliver();
    net.transmitted();
    network.received();
    const before = { ...net.counters(), ...network.counters() };
    this.#events = { entry: undefined, drops: [], xmits: [] };
    const result = deliver();
    const received = network.received();
    const observed = {
      ...this.#events,
      attached,
      before,
      after: { ...net.counters(), ...network.counters() },
      received,
      sent: net.transmitted(),
      exceptions: net.exceptions().length,
    };
    return [
      ...amiss,
      ...(result === 'delivered' ? [] : [`delivery: ${result}`]),
      ...compareWithRecord(record, observed),
    ];
  }
}
