/**
 * Runs a loaded XDP program in the interpreter over packets, as BPF_PROG_TEST_RUN does: headroom 256,
 * frames of 4096 bytes, device 1, queue 0.
 */
import { readFileSync } from 'node:fs';
import { helperBodies, type HelperOptions } from '../../src/bpf/helpers/table.js';
import { createInterpreter, describeResult, type Interpreter } from '../../src/bpf/interpreter.js';
import { load, type LoadedObject } from '../../src/bpf/object/load.js';
import { parseObject } from '../../src/bpf/object/parse.js';
import type { Btf } from '../../src/bpf/btf/btf.js';
import type { ObjectSpec } from '../../src/bpf/object/spec.js';
import { PlainHost } from '../../src/bpf/plain-host.js';
import { XDP_PACKET_HEADROOM, XdpBuff } from '../../src/bpf/xdp-buff.js';
import type { Region } from '../../src/cpu/memory.js';

const FRAME_SIZE = 4096;

export interface XdpResult {
  readonly verdict: number;
  readonly packet: Uint8Array;
  /** Bytes between data_meta and data. */
  readonly metadata: Uint8Array;
}

export class XdpRun {
  readonly host: PlainHost;
  readonly object: LoadedObject;
  readonly #xdp: XdpBuff;
  readonly #frame: Region;
  readonly #interpreters = new Map<string, Interpreter>();

  constructor(
    spec: ObjectSpec,
    options: { helpers?: HelperOptions; cpuCount?: number; kernelBtf?: Btf } = {},
  ) {
    this.host = new PlainHost({
      helpers: helperBodies(options.helpers),
      memorySize: 8 << 20,
      cpuCount: options.cpuCount ?? 1,
    });
    this.object = load(spec, this.host, options.kernelBtf ? { kernelBtf: options.kernelBtf } : {});
    this.#xdp = XdpBuff.create(this.host, { ifindex: 1, queueIndex: 0 });
    this.#frame = this.host.allocate('frame', FRAME_SIZE);
  }

  run(program: string, packet: Uint8Array): XdpResult {
    const { memory } = this.host;
    memory.writeBytes(this.#frame.address, new Uint8Array(FRAME_SIZE));
    memory.writeBytes(this.#frame.address + BigInt(XDP_PACKET_HEADROOM), packet);
    this.#xdp.setFrame(this.#frame.address, FRAME_SIZE, XDP_PACKET_HEADROOM, packet.length);
    const result = this.interpreter(program).run(this.#xdp.address);
    if (result.kind !== 'return') throw new Error(describeResult(result));
    const { data, dataMeta } = this.#xdp;
    return {
      verdict: Number(result.r0 & 0xffffffffn),
      packet: this.#xdp.packet(),
      metadata: memory.readBytes(dataMeta, Number(data - dataMeta)),
    };
  }

  interpreter(program: string): Interpreter {
    const known = this.#interpreters.get(program);
    if (known) return known;
    const made = createInterpreter(this.object.program(program).xlated, this.host);
    this.#interpreters.set(program, made);
    return made;
  }

  /** The map called `name`, or the one of that data section. */
  map(name: string) {
    const bySection = this.object.spec.maps.find(({ section }) => section === name);
    const map = this.object.maps.get(bySection?.name ?? name);
    if (!map) throw new Error(`no map ${name}`);
    return map;
  }
}

export function readObject(url: URL): ObjectSpec {
  return parseObject(readFileSync(url), { name: url.pathname });
}
