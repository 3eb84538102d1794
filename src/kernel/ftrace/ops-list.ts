/**
 * ftrace_ops_list: the registered ops, newest first, linked through kernel memory and ended by the static
 * ftrace_list_end.
 *
 * Reference: kernel/trace/ftrace.c: add_ftrace_ops, remove_ftrace_ops.
 */
import type { Memory } from '../../cpu/memory.js';
import { FTRACE_OPS } from '../offsets.js';
import type { FtraceOps } from './ops.js';
import type { StoreObserver } from './store-observer.js';

export class OpsList {
  /** Where `ftrace_ops_list` lies in kernel memory. */
  readonly head: bigint;
  readonly #memory: Memory;
  readonly #end: FtraceOps;
  readonly #opsAt: (address: bigint) => FtraceOps | undefined;
  readonly #stores: StoreObserver;
  /** What memory says, until the list changes. */
  #known: readonly FtraceOps[] | undefined;

  constructor(
    memory: Memory,
    head: bigint,
    end: FtraceOps,
    opsAt: (address: bigint) => FtraceOps | undefined,
    stores: StoreObserver,
  ) {
    this.#stores = stores;
    this.#memory = memory;
    this.head = head;
    this.#end = end;
    this.#opsAt = opsAt;
    this.#storeLink(head, end.address);
  }

  /** Newest first. */
  get ops(): readonly FtraceOps[] {
    this.#known ??= this.#read();
    return this.#known;
  }

  add(ops: FtraceOps): void {
    // whoever walks the list meets ops only once its next is right
    this.#storeLink(ops.address + BigInt(FTRACE_OPS.next), this.#memory.read64(this.head));
    this.#storeLink(this.head, ops.address);
  }

  remove(ops: FtraceOps): void {
    let link = this.head;
    for (;;) {
      const address = this.#memory.read64(link);
      if (address === ops.address) break;
      if (address === this.#end.address) throw new RangeError(`${ops.name} is not in the list`);
      link = address + BigInt(FTRACE_OPS.next);
    }
    // its own next stays: somebody may stand on it
    this.#storeLink(link, ops.next);
  }

  #storeLink(at: bigint, to: bigint): void {
    this.#memory.write64(at, to);
    this.#known = undefined;
    this.#stores.onStore?.({ kind: 'list', address: at, value: to });
  }

  #read(): FtraceOps[] {
    const result: FtraceOps[] = [];
    let address = this.#memory.read64(this.head);
    while (address !== this.#end.address) {
      const ops = this.#opsAt(address);
      if (!ops) throw new RangeError(`0x${address.toString(16)} in ftrace_ops_list is no ops`);
      result.push(ops);
      address = ops.next;
    }
    return result;
  }
}
