/**
 * Helpers that send data to user space: ring buffer and perf events.
 *
 * Reference: kernel/bpf/ringbuf.c, net/core/filter.c bpf_xdp_event_output, kernel/trace/bpf_trace.c.
 */
import type { BpfHost, RegisterPairs } from '../host.js';
import type { BpfMap } from '../maps/map.js';
import { PerfEventArray } from '../maps/perf-event-array.js';
import { RingBuffer } from '../maps/ringbuf.js';
import { XdpBuff } from '../xdp-buff.js';
import {
  argument,
  argument32,
  fail,
  offsetOf,
  setResult,
  setResult64,
  type Helper,
} from './helper.js';

const BPF_F_INDEX_MASK = 0xffff_ffffn;
/** BPF_F_CURRENT_CPU */
const CURRENT_CPU = 0xffff_ffff;
/** Bytes of context behind the data: flags bits 32..51. */
const BPF_F_CTXLEN_MASK = 0xf_ffffn << 32n;

function ringAt(registers: RegisterPairs, host: BpfHost): RingBuffer | undefined {
  const map = host.mapAt(argument(registers, 1));
  return map instanceof RingBuffer ? map : undefined;
}

function finish(registers: RegisterPairs, host: BpfHost, discard: boolean): void {
  const record = argument(registers, 1);
  RingBuffer.of(host, record).finish(record, discard, argument32(registers, 2));
  setResult(registers, 0);
}

/** Of an XDP program, or of any other that asks for no bytes of its context. */
function perfOutput(registers: RegisterPairs, host: BpfHost): void {
  const { memory } = host;
  const flags = argument(registers, 3);
  if ((flags & ~(BPF_F_INDEX_MASK | BPF_F_CTXLEN_MASK)) !== 0n) {
    fail(registers, 'EINVAL');
    return;
  }
  const packetBytes = Number((flags & BPF_F_CTXLEN_MASK) >> 32n);
  let packet: Uint8Array | undefined;
  if (packetBytes > 0) {
    const xdp = new XdpBuff(memory, argument(registers, 1));
    if (packetBytes > xdp.length) {
      fail(registers, 'EFAULT');
      return;
    }
    packet = xdp.packet().subarray(0, packetBytes);
  }
  const map: BpfMap | undefined = host.mapAt(argument(registers, 2));
  if (!(map instanceof PerfEventArray)) {
    fail(registers, 'EINVAL');
    return;
  }
  const size = argument32(registers, 5) >>> 0;
  const at = size > 0 ? offsetOf(memory, registers, 4, size, 'read') : 0;
  const data = new Uint8Array(size + packetBytes);
  data.set(memory.bytes.subarray(at, at + size));
  if (packet) data.set(packet, size);
  const index = Number(flags & BPF_F_INDEX_MASK);
  setResult(registers, map.output(index === CURRENT_CPU ? host.currentCpu() : index, data));
}

export const RING_HELPERS: readonly Helper[] = [
  {
    id: 25,
    name: 'perf_event_output',
    arguments: ['ctx', 'map', 'anything', 'mem', 'size_or_zero'],
    maps: ['PERF_EVENT_ARRAY'],
    result: 'integer',
    gplOnly: true,
    body: perfOutput,
  },
  {
    id: 130,
    name: 'ringbuf_output',
    arguments: ['map', 'mem', 'size_or_zero', 'anything'],
    maps: ['RINGBUF'],
    result: 'integer',
    body: (registers, host) => {
      const size = argument32(registers, 3) >>> 0;
      const flags = argument(registers, 4);
      const ring = ringAt(registers, host);
      if (!ring || flags > 3n) {
        fail(registers, 'EINVAL');
        return;
      }
      const at = size > 0 ? offsetOf(host.memory, registers, 2, size, 'read') : 0;
      setResult(registers, ring.output(at, size, Number(flags)));
    },
  },
  {
    id: 131,
    name: 'ringbuf_reserve',
    arguments: ['map', 'const_alloc_size', 'anything'],
    maps: ['RINGBUF'],
    result: 'ringbuf_record_or_null',
    body: (registers, host) => {
      const size = argument(registers, 2);
      const refused = argument(registers, 3) !== 0n || size > 0xffff_ffffn;
      const record = refused ? 0n : ringAt(registers, host)?.reserve(Number(size));
      setResult64(registers, record ?? 0n);
    },
  },
  {
    id: 132,
    name: 'ringbuf_submit',
    arguments: ['ringbuf_record', 'anything'],
    result: 'void',
    body: (registers, host) => finish(registers, host, false),
  },
  {
    id: 133,
    name: 'ringbuf_discard',
    arguments: ['ringbuf_record', 'anything'],
    result: 'void',
    body: (registers, host) => finish(registers, host, true),
  },
  {
    id: 134,
    name: 'ringbuf_query',
    arguments: ['map', 'anything'],
    maps: ['RINGBUF'],
    result: 'integer',
    body: (registers, host) => {
      setResult64(registers, ringAt(registers, host)?.query(argument(registers, 2)) ?? 0n);
    },
  },
];
