/**
 * BPF_MAP_TYPE_RINGBUF: records of any size for one reader, in the order of their reservation.
 *
 * Reference: kernel/bpf/ringbuf.c. In memory as in the kernel: `struct bpf_ringbuf`, the consumer's
 * page, the producer's page, then the data twice as large as max_entries: the kernel maps its data
 * twice so that a record that wraps is contiguous; here such a record simply runs on into the second
 * half. A record has 8 bytes in front: u32 length with BUSY (bit 31) and DISCARD (bit 30), u32 page
 * number of the record in the area, by which submit finds the ring. Left out: the waiting reader.
 *
 * Usage:
 *   const address = ring.reserve(16);   // 0n: no room
 *   RingBuffer.commit(host, address, false, 0);
 *   for (const bytes of ring.drain()) ...
 */
import { alignUp } from '../../common/bytes.js';
import { ERRNO } from '../../common/errno.js';
import { MemoryAccessError } from '../../cpu/fault.js';
import { PAGE_SIZE, type Region } from '../../cpu/memory.js';
import type { BpfHost } from '../host.js';
import { KeylessMap } from './keyless.js';
import type { MapSpec } from './map.js';

/** BPF_RB_NO_WAKEUP and BPF_RB_FORCE_WAKEUP */
const NO_WAKEUP = 1;
const FORCE_WAKEUP = 2;
const WAKEUP_FLAGS = NO_WAKEUP | FORCE_WAKEUP;

const BUSY = 0x8000_0000;
const DISCARD = 0x4000_0000;
const HEADER = 8;
/** RINGBUF_MAX_RECORD_SZ: UINT_MAX / 4 */
const MAX_RECORD = 0x3fff_ffff;

/** Pages of the area: the ring itself, consumer position, producer position; then the data. */
const CONSUMER = PAGE_SIZE;
const PRODUCER = 2 * PAGE_SIZE;
const DATA = 3 * PAGE_SIZE;
/** Where this model keeps the address of the map, in the ring's first page. */
const MAP_POINTER = 0;

export class RingBuffer extends KeylessMap {
  protected readonly refusal = 'ENOTSUPP';
  /** How often a reader that sleeps would have been woken. */
  wakeups = 0;
  readonly #area: Region;
  readonly #mask: number;
  /** Positions grow without end: u64 in the kernel, exact to 2^53 here. */
  #producer = 0;
  #consumer = 0;
  /** Position of the oldest record that is not committed. */
  #pending = 0;

  constructor(spec: MapSpec, host: BpfHost) {
    super(spec, host);
    this.#mask = spec.maxEntries - 1;
    this.#area = this.allocate('ringbuf of', DATA + 2 * spec.maxEntries);
    this.memory.write64(this.#area.address + BigInt(MAP_POINTER), this.address);
  }

  /** Bytes between consumer and producer, headers included. */
  get available(): number {
    return this.#producer - this.#consumer;
  }

  get producerPosition(): number {
    return this.#producer;
  }

  get consumerPosition(): number {
    return this.#consumer;
  }

  /** Address of `size` bytes for a new record, or 0. */
  reserve(size: number): bigint {
    if (size > MAX_RECORD) return 0n;
    const length = alignUp(size + HEADER, 8);
    if (length > this.spec.maxEntries) return 0n;
    this.#skipCommitted();
    const end = this.#producer + length;
    if (end - this.#consumer > this.#mask || end - this.#pending > this.#mask) return 0n;
    const at = DATA + (this.#producer % this.spec.maxEntries);
    const header = this.#area.offset + at;
    this.memory.view.setUint32(header, (size | BUSY) >>> 0, true);
    this.memory.view.setUint32(header + 4, Math.floor(at / PAGE_SIZE), true);
    this.#producer = end;
    this.#publish();
    return this.#area.address + BigInt(at + HEADER);
  }

  /** bpf_ringbuf_output: 0 or a negative errno. `data` is an offset in the backing store. */
  output(data: number, size: number, flags: number): number {
    if ((flags & ~WAKEUP_FLAGS) !== 0) return -ERRNO.EINVAL;
    const record = this.reserve(size);
    if (record === 0n) return -ERRNO.EAGAIN;
    const to = this.#area.offset + Number(record - this.#area.address);
    this.memory.bytes.copyWithin(to, data, data + size);
    this.finish(record, false, flags);
    return 0;
  }

  /** Submits or discards the record at `address` of this ring. */
  finish(address: bigint, discard: boolean, flags: number): void {
    const at = Number(address - this.#area.address) - HEADER;
    const header = this.#area.offset + at;
    const length = (this.memory.view.getUint32(header, true) & ~BUSY) | (discard ? DISCARD : 0);
    this.memory.view.setUint32(header, length >>> 0, true);
    // a reader that is in step waits for this very record
    const isNext = this.#consumer % this.spec.maxEntries === at - DATA;
    if (flags & FORCE_WAKEUP || (isNext && !(flags & NO_WAKEUP))) this.wakeups++;
  }

  /** bpf_ringbuf_query */
  query(what: bigint): bigint {
    switch (what) {
      case 0n:
        return BigInt(this.available);
      case 1n:
        return BigInt(this.spec.maxEntries);
      case 2n:
        return BigInt(this.#consumer);
      case 3n:
        return BigInt(this.#producer);
      default:
        return 0n;
    }
  }

  /** The reader: takes all committed records, up to the first that is still being written. */
  drain(): Uint8Array[] {
    const { bytes, view } = this.memory;
    const records: Uint8Array[] = [];
    while (this.#consumer < this.#producer) {
      const header = this.#area.offset + DATA + (this.#consumer % this.spec.maxEntries);
      const length = view.getUint32(header, true);
      if (length & BUSY) break;
      const size = length & ~DISCARD;
      if ((length & DISCARD) === 0) {
        records.push(bytes.slice(header + HEADER, header + HEADER + size));
      }
      this.#consumer += alignUp(size + HEADER, 8);
    }
    this.#publish();
    return records;
  }

  /** The ring that holds the record at `address`: submit and discard know no more. */
  static of(host: BpfHost, address: bigint): RingBuffer {
    const header = address - BigInt(HEADER);
    const page = BigInt(host.memory.read32(header + 4n));
    const size = BigInt(PAGE_SIZE);
    const area = (header / size) * size - page * size;
    const map = host.mapAt(host.memory.read64(area + BigInt(MAP_POINTER)));
    if (map instanceof RingBuffer) return map;
    throw new MemoryAccessError({ access: 'read', address: area, size: 8, reason: 'unmapped' });
  }

  #skipCommitted(): void {
    this.#pending = Math.max(this.#pending, this.#consumer);
    while (this.#pending < this.#producer) {
      const header = this.#area.offset + DATA + (this.#pending % this.spec.maxEntries);
      const length = this.memory.view.getUint32(header, true);
      if (length & BUSY) return;
      this.#pending += alignUp((length & ~DISCARD) + HEADER, 8);
    }
  }

  /** The positions where a reader of the mapped pages looks for them. */
  #publish(): void {
    const { view } = this.memory;
    view.setBigUint64(this.#area.offset + CONSUMER, BigInt(this.#consumer), true);
    view.setBigUint64(this.#area.offset + PRODUCER, BigInt(this.#producer), true);
  }
}
