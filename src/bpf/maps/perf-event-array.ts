/**
 * BPF_MAP_TYPE_PERF_EVENT_ARRAY: per-CPU buffers of raw samples.
 *
 * Reference: kernel/bpf/arraymap.c (perf_event_fd_array_*), kernel/trace/bpf_trace.c
 * (__bpf_perf_event_output). A slot is empty until a reader opens its event. Buffers are lists, not
 * mapped pages; what counts is their room. Left out: hardware counters (bpf_perf_event_read).
 *
 * Usage:
 *   map.openAll();
 *   for (const { cpu, data } of map.drain()) ...
 */
import { ERRNO } from '../../common/errno.js';
import { alignUp } from '../../common/bytes.js';
import { KernelError } from '../../common/errors.js';
import { PAGE_SIZE, type Region } from '../../cpu/memory.js';
import type { BpfHost } from '../host.js';
import { MapBase, type MapEntry } from './base.js';
import type { MapSpec } from './map.js';

export interface PerfSample {
  readonly cpu: number;
  /** What the program gave, without padding. */
  readonly data: Uint8Array;
}

interface PerfEvent {
  readonly cpu: number;
  readonly capacity: number;
  used: number;
}

/** Room of an event when the reader asks for none: 64 pages. */
const DEFAULT_CAPACITY = 64 * PAGE_SIZE;
/** struct perf_event_header, and the size of the raw data. */
const SAMPLE_HEADER = 8 + 4;

export class PerfEventArray extends MapBase {
  protected readonly cpuCount = 1;
  readonly #events: (PerfEvent | undefined)[];
  #samples: PerfSample[] = [];
  #lost = 0;

  constructor(spec: MapSpec, host: BpfHost) {
    super(spec, host);
    this.#events = Array.from({ length: spec.maxEntries }, () => undefined);
  }

  get valueAddress(): bigint {
    return 0n;
  }

  /** Samples that found no room since the last `drain`. */
  get lost(): number {
    return this.#lost;
  }

  valueRegion(): Region {
    throw new KernelError('ENOTSUPP', `map ${this.spec.name}: a perf event array has no values`);
  }

  locate(): number {
    return -1;
  }

  /** Opens the event of `cpu` in slot `index`, with `capacity` bytes; 0 or a negative errno. */
  open(index: number, cpu: number, capacity = DEFAULT_CAPACITY): number {
    if (index >= this.spec.maxEntries) return -ERRNO.E2BIG;
    if (cpu < 0 || cpu >= this.host.cpuCount) return -ERRNO.ENODEV;
    this.#events[index] = { cpu, capacity, used: 0 };
    return 0;
  }

  /** Opens one event per CPU, as a perf buffer of libbpf does. */
  openAll(capacity = DEFAULT_CAPACITY): void {
    const count = Math.min(this.spec.maxEntries, this.host.cpuCount);
    for (let cpu = 0; cpu < count; cpu++) this.open(cpu, cpu, capacity);
  }

  /** A sample for the event in slot `index`; 0 or a negative errno. */
  output(index: number, data: Uint8Array): number {
    if (index >= this.spec.maxEntries) return -ERRNO.E2BIG;
    const event = this.#events[index];
    if (!event) return -ERRNO.ENOENT;
    if (event.cpu !== this.host.currentCpu()) return -ERRNO.EOPNOTSUPP;
    const size = alignUp(SAMPLE_HEADER + data.length, 8);
    if (event.used + size > event.capacity) {
      this.#lost++;
      return -ERRNO.ENOSPC;
    }
    event.used += size;
    this.#samples.push({ cpu: event.cpu, data });
    return 0;
  }

  /** The reader: takes all samples, in order. */
  drain(): PerfSample[] {
    const samples = this.#samples;
    this.#samples = [];
    this.#lost = 0;
    for (const event of this.#events) if (event) event.used = 0;
    return samples;
  }

  /** A value names a file descriptor; there are none here: `open` instead. */
  protected store(): number {
    return -ERRNO.EBADF;
  }

  protected erase(key: number): number {
    const index = this.memory.view.getUint32(key, true);
    if (index >= this.spec.maxEntries) return -ERRNO.E2BIG;
    if (!this.#events[index]) return -ERRNO.ENOENT;
    this.#events[index] = undefined;
    return 0;
  }

  /** Nothing: events are no values. */
  *entries(): Iterable<MapEntry> {}
}
