/**
 * Records of attach cases, limits, offload states and panics through the model: equal to what the real guest
 * did, skipped with a reason, or different and where.
 *
 * Commands are seen as the measurement saw them, by kprobes on virtnet_set_guest_offloads and on the
 * function that sends commands. A case that depends on what the guest had done before runs that first: each
 * guest went through the cases of its device in one order. Limits are found by the bisection that the guest
 * did, with programs that call the helper.
 *
 * Usage:
 *   const lab = new AttachLab(kernel);       // defines the driver in the kernel: once
 *   lab.attach(record); lab.limit(record); lab.offloadState(record); lab.crash(record);
 */
import { hexToBytes } from '../../../common/bytes.js';
import { KernelError } from '../../../common/errors.js';
import { ERRNO } from '../../../common/errno.js';
import type { Cpu } from '../../../cpu/cpu.js';
import type { Kernel } from '../../../kernel/kernel.js';
import { DRIVER_PROFILES, type VirtioNetVersion } from '../../../virtio/driver/profiles.js';
import { NETDEV_FEATURES, type NetdevFeature } from '../../../virtio/settings.js';
import {
  defineVirtioNet,
  type VirtioNet,
  type VirtioNetDriver,
} from '../../../virtio/virtio-net.js';
import {
  VERDICTS,
  adjustProgram,
  labProgram,
  macSwapProgram,
  returnProgram,
} from '../../csum/programs.js';
import { createXdpEngine, type XdpEngine } from '../../xdp-engine.js';
import {
  type AttachRecord,
  type CrashRecord,
  type LimitRecord,
  type NetlinkResult,
  type OffloadStateRecord,
} from './attach-record.js';
import { guestVersion } from './guest-version.js';
import { RedirectMaps } from '../../redirect-maps.js';
import type { RunEngine } from '../../run-program.js';
import { recordProgram } from './packet-program.js';
import { recordFeatures } from './packet-record.js';

export type RecordResult =
  | { readonly kind: 'equal' }
  | { readonly kind: 'skipped'; readonly why: string }
  | { readonly kind: 'different'; readonly differences: readonly string[] };

/** What came of a case: compared as it stands. */
type Outcome = Readonly<Record<string, unknown>>;

/** Buffers posted without XDP headroom are used up by then. */
const FILLER_FRAMES = 80;
const SHORT_FRAME = 54;
const DEFAULT_MTU = 1500;
const LARGE_MTU = 9000;
const ETHTOOL_GET_OK = 0;

export class AttachLab {
  readonly #kernel: Kernel;
  readonly #engine: RunEngine;
  readonly #driver: VirtioNetDriver;
  #version: VirtioNetVersion = '6.12';
  readonly #maps: RedirectMaps;
  #events: string[] = [];

  /**
   * @param kernel one without a virtio-net driver
   * @param engine runs the programs
   */
  constructor(kernel: Kernel, engine: RunEngine = 'interpreter') {
    this.#engine = engine;
    this.#kernel = kernel;
    this.#driver = defineVirtioNet(kernel, { bpf: kernel.bpf.host });
    this.#maps = new RedirectMaps(kernel, this.#driver.stack);
    const probe = (name: string, pre: (cpu: Cpu) => void): void =>
      kernel.kprobes.register({ name, address: kernel.symbol(name), pre });
    probe('virtnet_set_guest_offloads', (cpu) => {
      this.#events.push(`goff: mask=0x${cpu.getX(1).toString(16)}`);
    });
    const senders = [
      ['virtnet_send_command', 'cvq'],
      ['virtnet_send_command_reply', 'cvqr'],
    ] as const;
    for (const [name, word] of senders) {
      probe(name, (cpu) => {
        if (DRIVER_PROFILES[this.#version].sendCommand !== name) return;
        const [commandClass, command] = [cpu.getX(1), cpu.getX(2)].map((x) => Number(x & 0xffn));
        this.#events.push(`${word}: class=${commandClass} cmd=${command}`);
      });
    }
  }

  attach(record: AttachRecord): RecordResult {
    return this.#with(record, record.features, pairsOf(record), (net, load) => {
      const measured: Record<string, unknown> = { result: measuredResult(record) };
      const own: Record<string, unknown> = { result: this.#runCase(net, load, record) };
      if (record.events) {
        own['events'] = this.#takeEvents();
        measured['events'] = record.events;
      }
      if (record.enabled) {
        own['enabled'] = Array.from({ length: 2 * net.device.activePairs }, (_, i) => i);
        measured['enabled'] = record.enabled;
      }
      if (record.mtu !== undefined) own['mtu'] = record.mtu;
      if (record.mtu !== undefined) measured['mtu'] = record.mtu;
      if (record.dmesg) {
        own['log'] = distinct(this.#kernel.log.filter((line) => line.startsWith('virtio_net')));
        const lines = record.dmesg.map((line) => line.replace(/^\[ *[\d.]+\] /, ''));
        measured['log'] = distinct(lines.filter((line) => line.startsWith('virtio_net')));
      }
      return [own, measured];
    });
  }

  limit(record: LimitRecord): RecordResult {
    const helper = record.what.includes('adjust_tail') ? 65 : 44;
    const features = record.rx_mode === 'small' ? [] : ['MRG_RXBUF'];
    return this.#with(record, ['VERSION_1', ...features], 1, (net, load) => {
      net.attachXdp(load(returnProgram(VERDICTS.DROP)).runner);
      filler(net);
      // the program aborts where the helper accepts
      const [aborted, dropped] = [returnProgram(VERDICTS.ABORTED), returnProgram(VERDICTS.DROP)];
      const accepts = (bytes: number): boolean => {
        const delta = helper === 44 ? -bytes : bytes;
        net.attachXdp(load(adjustProgram(helper, [delta], aborted, dropped)).runner);
        net.receive(plainFrame(record.frame_len));
        net.poll();
        return net.exceptions().length === 1;
      };
      let [low, high] = [0, 4096];
      while (low + 1 < high) {
        const middle = (low + high) >> 1;
        if (accepts(middle)) low = middle;
        else high = middle;
      }
      return [{ value: low }, { value: record.value }];
    });
  }

  offloadState(record: OffloadStateRecord): RecordResult {
    return this.#with(record, record.features, 1, (net, load) => {
      const own: Record<string, unknown> = {};
      const pass = load(returnProgram(VERDICTS.PASS)).runner;
      const measured: Record<string, unknown> = {
        tx_checksum: record.tap.tap_tx_checksum,
        tso: record.tap.tap_tso,
      };
      if (record.attach) measured['attach'] = record.attach.events;
      if (record.detach) measured['detach'] = record.detach;
      switch (record.case) {
        case 'before attach':
          break;
        case 'pass attached (native)':
          net.attachXdp(pass);
          break;
        case 'tx attached (native)':
          net.attachXdp(pass);
          net.attachXdp(load(macSwapProgram()).runner);
          break;
        case 'pass attached (generic)':
          net.attachGenericXdp(pass);
          break;
        case 'detached':
          net.attachXdp(pass);
          this.#takeEvents();
          net.attachXdp(undefined);
          break;
        default:
          throw new UnknownCase(`no offload state ${record.case} is known`);
      }
      if (record.attach) own['attach'] = this.#takeEvents();
      if (record.detach) own['detach'] = this.#takeEvents();
      const bit = (number: bigint): number => Number((net.device.control.offloads >> number) & 1n);
      // TUN_F_CSUM, TUN_F_TSO4
      own['tx_checksum'] = bit(1n);
      own['tso'] = bit(7n);
      return [own, measured];
    });
  }

  crash(record: CrashRecord): RecordResult {
    const features = record.rx_mode === 'small' ? [] : ['MRG_RXBUF'];
    return this.#with(record, ['VERSION_1', ...features], 1, (net, load) => {
      net.attachXdp(load(returnProgram(VERDICTS.DROP)).runner);
      filler(net);
      const targets = this.#maps.join(this.#kernel.memory.ram.virtToPhys(net.dev));
      const text = recordProgram(record.program, targets);
      if (text === undefined) throw new UnknownCase(`no program ${record.program} is known`);
      net.attachXdp(load(text).runner);
      net.device.deliverRaw(hexToBytes(record.injected));
      let panic = 'none';
      try {
        net.poll();
      } catch (error) {
        if (!(error instanceof KernelError)) throw error;
        panic = panicNumbers(error.message);
      }
      const seen = record.console.find((line) => line.includes('skb_over_panic')) ?? '';
      return [{ panic }, { panic: panicNumbers(seen) }];
    });
  }

  /** Makes the guest of a record, runs a case in it, compares its outcome with the measured one. */
  #with(
    record: { readonly kernel_version: string; readonly id?: string },
    features: readonly string[],
    maxQueuePairs: number,
    run: (net: VirtioNet, load: Loader) => readonly [Outcome, Outcome],
  ): RecordResult {
    this.#version = guestVersion(record);
    this.#kernel.log.length = 0;
    const cpus = Number(/c(\d)[-b]/.exec(record.id ?? '')?.[1] ?? 1);
    const net = this.#driver.probe({
      version: this.#version,
      rx: features.includes('MRG_RXBUF') ? 'mergeable' : 'small',
      features: recordFeatures(features),
      legacy: !features.includes('VERSION_1'),
      eventIdx: features.includes('EVENT_IDX'),
      queueSize: 64,
      cpus,
      maxQueuePairs,
      queuePairs: Math.min(maxQueuePairs, cpus),
    });
    this.#events = [];
    const engines: XdpEngine[] = [];
    const load: Loader = (text, hasFrags = false) => {
      const program = labProgram(this.#kernel, 'prog', text);
      const engine = createXdpEngine(this.#kernel, this.#engine, program, { hasFrags });
      engines.push(engine);
      return engine;
    };
    try {
      const [own, measured] = run(net, load);
      const differences = Object.keys(measured)
        .map((key) => [key, JSON.stringify(own[key]), JSON.stringify(measured[key])] as const)
        .filter(([, mine, theirs]) => mine !== theirs)
        .map(([key, mine, theirs]) => `${key}: ${mine}, measured ${theirs}`);
      return differences.length === 0 ? { kind: 'equal' } : { kind: 'different', differences };
    } catch (error) {
      if (error instanceof UnknownCase) return { kind: 'skipped', why: error.message };
      // refused where the guest did it
      if (!(error instanceof KernelError)) throw error;
      return { kind: 'different', differences: [error.message] };
    } finally {
      this.#maps.leave();
      net.close();
      for (const engine of engines) engine.close();
    }
  }

  #takeEvents(): readonly string[] {
    const events = this.#events;
    this.#events = [];
    return events;
  }

  /** Attaches and detaches: what netlink answered, and the commands of both. */
  #attempt(attach: () => void, detach: () => void): NetlinkResult {
    try {
      attach();
    } catch (error) {
      if (!(error instanceof KernelError)) throw error;
      const extack = error.message.replace(`-${error.errno}: `, '');
      const netlink_errno = -ERRNO[error.errno];
      return { netlink_errno, extack, attach_events: null, detach_events: null };
    }
    const attach_events = this.#takeEvents();
    detach();
    const detach_events = this.#takeEvents();
    return { netlink_errno: 0, extack: '', attach_events, detach_events };
  }

  /** What the record calls `result`. */
  #runCase(net: VirtioNet, load: Loader, record: AttachRecord): unknown {
    const pass = load(returnProgram(VERDICTS.PASS), record.frags ?? record.case.includes('=True'));
    const native = (): NetlinkResult =>
      this.#attempt(
        () => net.attachXdp(pass.runner),
        () => net.attachXdp(undefined),
      );
    const generic = (): NetlinkResult =>
      this.#attempt(
        () => net.attachGenericXdp(pass.runner),
        () => net.attachGenericXdp(undefined),
      );
    const bits = (name: NetdevFeature): Outcome => {
      const { available, requested, active } = net.feature(name);
      const i = NETDEV_FEATURES[name];
      return { i, avail: Number(available), req: Number(requested), act: Number(active) };
    };
    const listed = (): Outcome =>
      Object.fromEntries(
        Object.keys(record.result as object).map((name) => [name, bits(name as NetdevFeature)]),
      );
    const switched = (on: boolean): unknown => {
      this.#events = [];
      return [net.setFeature('rx-gro-hw', on), bits('rx-gro-hw')];
    };
    const isGso = record.features.includes('GUEST_TSO4');
    /** What all guests of one pair had done before the program that stays. */
    const before = (): void => {
      const plain = load(returnProgram(VERDICTS.PASS));
      for (const mtu of [DEFAULT_MTU, LARGE_MTU]) {
        net.setMtu(mtu);
        this.#attempt(
          () => net.attachXdp(plain.runner),
          () => net.attachXdp(undefined),
        );
      }
      generic();
      net.setMtu(DEFAULT_MTU);
      this.#events = [];
    };
    const link = (): unknown => {
      net.attachXdp(pass.runner);
      return { rc: 0, events: this.#takeEvents() };
    };

    const name = record.case;
    if (record.mtu !== undefined) {
      net.setMtu(record.mtu);
      return native();
    }
    if (name.endsWith(', drv') || name.startsWith('big mode')) return native();
    if (name.endsWith(', skb') || name === 'mtu 9000 skb mode') return generic();
    if (/^(pass|tx) attach, /.test(name)) return link();
    switch (name) {
      case 'ethtool rx checksum get/set off': {
        const get = (): unknown => [ETHTOOL_GET_OK, Number(net.feature('rx-checksum').active)];
        return { get: get(), set_off: [net.setFeature('rx-checksum', false), 0], get_after: get() };
      }
      case 'netdev feature bits':
        return listed();
      case 'rx-gro-hw off without XDP':
        return switched(false);
      case 'rx-gro-hw on without XDP':
        net.setFeature('rx-gro-hw', false);
        return switched(true);
      case '1 queue pair, 1 cpu: attach':
        before();
        return link();
      case 'raise mtu to 9000 while attached':
        before();
        link();
        net.setMtu(LARGE_MTU);
        return [0, `${LARGE_MTU}\n`];
      case 'rx-gro-hw toggle while XDP attached':
        before();
        link();
        return switched(true);
      case 'feature bits while attached':
        before();
        link();
        if (isGso) switched(true);
        return listed();
      case 'detach':
        if (!record.enabled) before();
        link();
        if (isGso) switched(true);
        this.#events = [];
        net.attachXdp(undefined);
        return this.#takeEvents();
      default:
        throw new UnknownCase(`no attach case ${name} is known`);
    }
  }
}

/** A record of a case that nothing here carries out. */
class UnknownCase extends Error {}

type Loader = (text: string, hasFrags?: boolean) => XdpEngine;

/** The record's result without what the model does not have: what the vhost-user backend was told. */
function measuredResult({ result }: AttachRecord): unknown {
  if (typeof result !== 'object' || result === null || !('vhost' in result)) return result;
  const { vhost: _vhost, ...rest } = result;
  return rest;
}

/** Queue pairs of the device: in the name of a multiqueue experiment. */
function pairsOf(record: AttachRecord): number {
  return Number(/q(\d)c\d/.exec(record.id)?.[1] ?? 1);
}

function distinct(lines: readonly string[]): readonly string[] {
  return [...new Set(lines)];
}

/** `len:1525 put:1525 tail:0x741 end:0x740`. */
function panicNumbers(line: string): string {
  const words = ['len', 'put', 'tail', 'end'];
  return words.map((word) => new RegExp(`${word}:\\w+`).exec(line)?.[0] ?? word).join(' ');
}

function plainFrame(length: number): Uint8Array {
  const frame = new Uint8Array(length);
  frame.set([0x52, 0x54, 0, 0, 0, 2, 0x52, 0x54, 0, 0, 0, 1, 0x88, 0xb5]);
  return frame;
}

function filler(net: VirtioNet): void {
  for (let i = 1; i <= FILLER_FRAMES; i++) {
    net.receive(plainFrame(SHORT_FRAME));
    if (i % 16 === 0) net.poll();
  }
  net.poll();
  net.exceptions();
}
