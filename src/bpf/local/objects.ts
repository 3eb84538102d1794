/**
 * Objects that programs allocate: made, counted, and freed with all that they own.
 *
 * An object lies 8 bytes into its block, behind the struct llist_node of the kernel's allocator. A per-CPU object is
 * such a block too, with the per-CPU pointer in it. What is freed waits until 64 others were freed before its
 * memory goes back, which stands for the grace period that RCU readers have. Reference: bpf_obj_new_impl,
 * __bpf_obj_drop_impl, bpf_refcount_acquire_impl in kernel/bpf/helpers.c; bpf_obj_free_fields in
 * kernel/bpf/syscall.c; bpf_obj_init in include/linux/bpf.h; bpf_mem_alloc in kernel/bpf/memalloc.c. Left out:
 * caches per CPU.
 *
 * Usage:
 *   const meta = host.objects.metaOf(host, record);   // what xlated code passes to kernel functions
 *   const object = host.objects.create(host, 48, record);
 *   host.objects.drop(host, object, record);
 */
import { KernelError } from '../../common/errors.js';
import { offsetOfField, ownedRecord, type BtfField, type BtfRecord } from '../btf/record.js';
import type { BpfHost } from '../host.js';
import { releaseKernelObject } from './kernel-objects.js';
import { initList, listDrain } from './list.js';
import { clearNode, RbTree } from './rbtree.js';

/** sizeof(struct llist_node) */
const HEADER = 8;
/** The largest size class of bpf_mem_alloc. */
const MAX_BLOCK = 4096;
/** sizeof(struct btf_struct_meta) */
const META_SIZE = 16;
/** Freed objects whose memory is not used again yet. */
const GRACE = 64;

export class LocalObjects {
  readonly #metas = new Map<BtfRecord, bigint>();
  readonly #records = new Map<bigint, BtfRecord>();
  /** Blocks that were freed, oldest first. */
  readonly #waiting: bigint[] = [];

  /** Address of the `struct btf_struct_meta` that stands for a record. */
  metaOf(host: BpfHost, record: BtfRecord): bigint {
    const known = this.#metas.get(record);
    if (known !== undefined) return known;
    const address = host.kmalloc(META_SIZE);
    this.#metas.set(record, address);
    this.#records.set(address, record);
    return address;
  }

  /** The record behind an address; undefined for 0. */
  recordAt(meta: bigint): BtfRecord | undefined {
    return this.#records.get(meta);
  }

  /** An object's programs and maps are gone: the records of its types are no longer asked for. */
  forget(host: BpfHost, records: Iterable<BtfRecord>): void {
    for (const record of records) {
      const address = this.#metas.get(record);
      if (address === undefined) continue;
      this.#metas.delete(record);
      this.#records.delete(address);
      host.kfree(address);
    }
    this.collect(host, 0);
  }

  /** Address of a new object; 0 when it is too large or there is no memory. */
  create(host: BpfHost, size: number, record: BtfRecord | undefined): bigint {
    const object = this.allocate(host, size);
    if (object === 0n || !record) return object;
    for (const field of record.fields) initField(host, field, object);
    return object;
  }

  /** Address of a word with a per-CPU pointer; 0 when there is no memory. */
  createPerCpu(host: BpfHost, size: number): bigint {
    const object = this.allocate(host, 8);
    if (object === 0n) return 0n;
    try {
      host.memory.write64(object, host.allocPercpu(size));
      return object;
    } catch (error) {
      if (!(error instanceof KernelError)) throw error;
      host.kfree(object - BigInt(HEADER));
      return 0n;
    }
  }

  /** One reference less; the last frees the object and what it owns. */
  drop(host: BpfHost, object: bigint, record: BtfRecord | undefined): void {
    const refcount = offsetOfField(record, 'bpf_refcount');
    if (refcount !== undefined) {
      const at = object + BigInt(refcount);
      const left = host.memory.read32(at) - 1;
      host.memory.write32(at, left);
      if (left !== 0) return;
    }
    if (record) this.freeFields(host, record, object);
    this.free(host, object);
  }

  dropPerCpu(host: BpfHost, object: bigint): void {
    host.freePercpu(host.memory.read64(object));
    this.free(host, object);
  }

  /** One reference more; false when there was none left. */
  acquire({ memory }: BpfHost, object: bigint, record: BtfRecord): boolean {
    const at = object + BigInt(offsetOfField(record, 'bpf_refcount') ?? 0);
    const count = memory.read32(at);
    if (count === 0) return false;
    memory.write32(at, count + 1);
    return true;
  }

  /** Frees what the fields of the object or value at `base` own, and leaves them empty. */
  freeFields(host: BpfHost, record: BtfRecord, base: bigint): void {
    for (const field of record.fields) this.#freeField(host, record, field, base);
  }

  /** A block of `size` bytes as bpf_mem_alloc gives it; 0 when it has none. */
  allocate(host: BpfHost, size: number): bigint {
    if (size === 0 || size + HEADER > MAX_BLOCK) return 0n;
    try {
      return host.kmalloc(size + HEADER) + BigInt(HEADER);
    } catch (error) {
      if (error instanceof KernelError || error instanceof RangeError) return 0n;
      throw error;
    }
  }

  free(host: BpfHost, object: bigint): void {
    this.#waiting.push(object - BigInt(HEADER));
    this.collect(host, GRACE);
  }

  /** Gives memory back until only `left` blocks wait. */
  collect(host: BpfHost, left: number): void {
    const ready = this.#waiting.splice(0, Math.max(0, this.#waiting.length - left));
    for (const block of ready) host.kfree(block);
  }

  #freeField(host: BpfHost, record: BtfRecord, field: BtfField, base: bigint): void {
    const { memory } = host;
    const at = base + BigInt(field.offset);
    switch (field.kind) {
      case 'bpf_timer':
        host.timers.cancel(at);
        break;
      case 'kptr_untrusted':
        memory.write64(at, 0n);
        break;
      case 'kptr':
      case 'percpu_kptr': {
        const object = memory.read64(at);
        memory.write64(at, 0n);
        if (object === 0n) break;
        if (field.kptr?.isKernel) releaseKernelObject(host, field.kptr.struct, object);
        else if (field.kind === 'percpu_kptr') this.dropPerCpu(host, object);
        else this.drop(host, object, ownedRecord(record, field));
        break;
      }
      case 'bpf_list_head':
        this.#dropNodes(host, record, field, listDrain(memory, at));
        break;
      case 'bpf_rb_root':
        this.#dropNodes(host, record, field, new RbTree(memory, at).drain());
        break;
      case 'bpf_spin_lock':
      case 'bpf_wq':
      case 'bpf_list_node':
      case 'bpf_rb_node':
      case 'bpf_refcount':
        break;
    }
  }

  #dropNodes(host: BpfHost, record: BtfRecord, field: BtfField, nodes: Iterable<bigint>): void {
    const owned = ownedRecord(record, field);
    const offset = BigInt(field.graph?.nodeOffset ?? 0);
    for (const node of nodes) this.drop(host, node - offset, owned);
  }
}

/** bpf_obj_init_field */
function initField({ memory }: BpfHost, { kind, offset, size }: BtfField, base: bigint): void {
  const at = base + BigInt(offset);
  memory.writeBytes(at, new Uint8Array(size));
  switch (kind) {
    case 'bpf_refcount':
      memory.write32(at, 1);
      break;
    case 'bpf_rb_node':
      clearNode(memory, at);
      break;
    case 'bpf_list_head':
    case 'bpf_list_node':
      initList(memory, at);
      break;
    default:
  }
}
