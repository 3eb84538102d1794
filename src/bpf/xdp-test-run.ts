/**
 * The buffers of BPF_PROG_TEST_RUN for XDP: a packet of any size, in one page or in several.
 *
 * Reference: bpf_prog_test_run_xdp in net/bpf/test_run.c. The first buffer is a page with 256 bytes of
 * headroom and room for the shared info: 3520 bytes of packet; the rest goes into fragments of a page
 * each, which may grow to the end of their page. The device is the loopback, ifindex 1, queue 0. All
 * buffers are zeroed before each packet.
 *
 * Usage:
 *   const frame = new XdpTestFrame(host);
 *   frame.place(packet);
 *   interpreter.run(frame.xdp.address);
 *   frame.xdp.packet();
 */
import { InputError } from '../common/errors.js';
import { PAGE_SIZE, type Region } from '../cpu/memory.js';
import type { BpfHost } from './host.js';
import {
  MAX_SKB_FRAGS,
  SKB_SHARED_INFO_SIZE,
  XDP_BUFF,
  XDP_PACKET_HEADROOM,
  XDP_RXQ_INFO,
  XdpBuff,
  type XdpFragment,
} from './xdp-buff.js';

/** Most bytes of a packet in its first buffer. */
export const LINEAR_SIZE = PAGE_SIZE - XDP_PACKET_HEADROOM - SKB_SHARED_INFO_SIZE;

export class XdpTestFrame {
  readonly xdp: XdpBuff;
  readonly #host: BpfHost;
  readonly #pages: Region[] = [];

  constructor(host: BpfHost) {
    this.#host = host;
    this.xdp = XdpBuff.create(host, { ifindex: 1, queueIndex: 0 });
    const rxq = host.memory.read64(this.xdp.address + BigInt(XDP_BUFF.rxq));
    host.memory.write32(rxq + BigInt(XDP_RXQ_INFO.fragSize), PAGE_SIZE);
  }

  /** Puts a packet into the buffers. Throws InputError when it is too short or too long. */
  place(packet: Uint8Array): void {
    const most = LINEAR_SIZE + MAX_SKB_FRAGS * PAGE_SIZE;
    if (packet.length < 14 || packet.length > most) {
      throw new InputError(`a packet of ${packet.length} bytes: XDP takes 14 to ${most}`);
    }
    const { memory } = this.#host;
    const linear = Math.min(packet.length, LINEAR_SIZE);
    const first = this.#page(0);
    memory.bytes.set(packet.subarray(0, linear), first.offset + XDP_PACKET_HEADROOM);
    this.xdp.setFrame(first.address, PAGE_SIZE, XDP_PACKET_HEADROOM, linear);
    const fragments: XdpFragment[] = [];
    for (let at = linear; at < packet.length; at += PAGE_SIZE) {
      const page = this.#page(fragments.length + 1);
      const part = packet.subarray(at, at + PAGE_SIZE);
      memory.bytes.set(part, page.offset);
      fragments.push({ address: page.address, length: part.length });
    }
    if (fragments.length > 0) this.xdp.setFragments(fragments);
  }

  /** Bytes between data_meta and data. */
  metadata(): Uint8Array {
    const { data, dataMeta } = this.xdp;
    if (dataMeta > data) return new Uint8Array(0);
    return this.#host.memory.readBytes(dataMeta, Number(data - dataMeta));
  }

  #page(index: number): Region {
    const page = (this.#pages[index] ??= this.#host.allocate(`xdp page ${index}`, PAGE_SIZE));
    this.#host.memory.bytes.fill(0, page.offset, page.offset + PAGE_SIZE);
    return page;
  }
}
