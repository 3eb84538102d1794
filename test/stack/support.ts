/** A kernel with virtio-net, its network stack and redirect maps; programs are TypeScript that calls helpers. */
import { createMap } from '../../src/bpf/maps/create.js';
import type { BpfMap, MapSpec, MapTypeName } from '../../src/bpf/maps/map.js';
import { setArgument } from '../../src/bpf/helpers/helper.js';
import { installVirtioNet } from '../../src/lab/xdp-traffic.js';
import { bootLab } from '../../src/node/boot.js';
import type { NetStack, XdpEvent } from '../../src/stack/net-stack.js';
import { NET } from '../../src/stack/net.js';
import { createNetwork, type Network } from '../../src/stack/network.js';
import { livePages } from '../../src/stack/pages.js';
import { VethDevice } from '../../src/stack/veth.js';
import type { XdpRunner } from '../../src/stack/xdp-program.js';
import type { VirtioNet, VirtioNetDriver, VirtioNetOptions } from '../../src/virtio/virtio-net.js';
import type { Kernel } from '../../src/kernel/kernel.js';
import { makeFrame, VERDICT } from '../virtio/helpers/programs.js';

export const HELPER = { REDIRECT: 23, REDIRECT_MAP: 51, ADJUST_HEAD: 44, ADJUST_TAIL: 65 } as const;

export class Rig {
  readonly kernel: Kernel;
  readonly driver: VirtioNetDriver;
  readonly stack: NetStack;
  readonly #anchor: VethDevice;
  #network: Network | undefined;

  private constructor(kernel: Kernel, hasNetwork: boolean) {
    this.kernel = kernel;
    this.driver = installVirtioNet(kernel);
    this.stack = this.driver.stack;
    if (hasNetwork) {
      this.#network = createNetwork(kernel);
      this.stack.usePages(kernel.memory.ram.pointer(this.#network.net + NET.offset.pages));
    }
    // a device that stays: the count of pages is there when all others are gone
    this.#anchor = new VethDevice(this.stack, { name: 'anchor', ifindex: 50 });
  }

  /** Page chunks that have references. */
  get livePages(): number {
    return livePages(this.kernel.memory.ram, this.stack.pages);
  }

  /** A network for devices, if it was asked for. */
  get network(): Network {
    if (!this.#network) throw new Error('booted without a network');
    return this.#network;
  }

  close(): void {
    this.#anchor.close();
    this.#network?.close();
    this.kernel.close();
  }

  static async boot(options: { readonly network?: boolean } = {}): Promise<Rig> {
    const kernel = await bootLab({ engine: 'embedded', cpus: 2 });
    return new Rig(kernel, options.network ?? false);
  }

  /** eth0, whose posted buffers all have XDP headroom. */
  probe(options: VirtioNetOptions = {}): VirtioNet {
    const net = this.driver.probe({ queueSize: 64, ...options });
    net.attachXdp({ run: () => VERDICT.DROP });
    for (let i = 0; i < 80; i++) {
      net.receive(makeFrame(60));
      net.poll();
    }
    return net;
  }

  map(type: MapTypeName, entries: Readonly<Record<number, number | readonly number[]>>): BpfMap {
    const name = type.toLowerCase();
    const spec: MapSpec = { name, type, keySize: 4, valueSize: 8, maxEntries: 8, flags: 0 };
    const sized = type === 'XSKMAP' ? { ...spec, valueSize: 4 } : spec;
    const map = createMap(sized, this.kernel.bpf.host);
    for (const [key, value] of Object.entries(entries)) {
      const result = setEntry(map, Number(key), value);
      if (result !== 0) throw new Error(`${name}[${key}]: ${result}`);
    }
    return map;
  }

  /** Calls a helper on the xdp_buff at a physical address: low half of R0, signed. */
  help(id: number, ...args: readonly (bigint | number)[]): number {
    const { host } = this.kernel.bpf;
    const registers = new Int32Array(22);
    args.forEach((value, i) => setArgument(registers, i + 1, BigInt(value)));
    const body = host.helperAt(host.helperAddress(id) ?? 0n);
    if (!body) throw new Error(`no helper ${id}`);
    body(registers, host);
    return registers[0] ?? 0;
  }

  /** A program that redirects to an entry of a map. */
  toMap(map: BpfMap, key = 0, flags = 0): XdpRunner {
    return { run: () => this.help(HELPER.REDIRECT_MAP, map.address, key, flags) };
  }

  toDevice(ifindex: number): XdpRunner {
    return { run: () => this.help(HELPER.REDIRECT, ifindex, 0) };
  }

  /** What the tracepoints say while `act` runs. */
  events(act: () => void): XdpEvent[] {
    const events: XdpEvent[] = [];
    this.stack.events = events;
    act();
    this.stack.events = undefined;
    return events;
  }
}

export function setEntry(map: BpfMap, key: number, value: number | readonly number[]): number {
  const words = typeof value === 'number' ? [value] : value;
  const bytes = new Uint8Array(map.spec.valueSize);
  words.forEach((word, i) => new DataView(bytes.buffer).setUint32(4 * i, word, true));
  return map.set(Uint8Array.of(key, 0, 0, 0), bytes);
}
