/**
 * Who may share a site with an ops that changes where the function goes on (IPMODIFY: livepatch).
 *
 * Two IPMODIFY ops never may. A direct call may if it agrees: its ops_func is asked, as SELF when it comes to a
 * site that an IPMODIFY ops has, as PEER when an IPMODIFY ops comes to its sites. A BPF trampoline agrees
 * once its image takes the original from the stack (BPF_TRAMP_F_ORIG_STACK).
 *
 * Reference: kernel/trace/ftrace.c: __ftrace_hash_update_ipmodify,
 * prepare_direct_functions_for_ipmodify, cleanup_direct_functions_after_ipmodify.
 */
import { KernelError } from '../../common/errors.js';
import { FTRACE_OPS_FL, type FtraceOps, type OpsCommand } from './ops.js';
import type { OpsList } from './ops-list.js';
import { FTRACE_FL } from './record.js';
import type { RecordTable } from './record-table.js';

/** Sites that an ops is to get and to lose; for an ops that is registered, all of its filter. */
export interface FilterChange {
  readonly added: Iterable<bigint>;
  readonly removed: Iterable<bigint>;
}

export class IpModify {
  readonly #table: RecordTable;
  readonly #list: OpsList;

  constructor(table: RecordTable, list: OpsList) {
    this.#table = table;
    this.#list = list;
  }

  /** Notes which sites have an IPMODIFY ops. Throws -EBUSY, or what ops_func answers; nothing has changed then. */
  update(ops: FtraceOps, { added, removed }: FilterChange): void {
    const isModifying = ops.has(FTRACE_OPS_FL.IPMODIFY);
    const isDirect = ops.has(FTRACE_OPS_FL.DIRECT);
    if (!isModifying && !isDirect) return;
    if (isModifying && isDirect) {
      throw new KernelError('EINVAL', `ftrace: ${ops.name} is IPMODIFY and DIRECT`);
    }
    const marked: number[] = [];
    try {
      for (const ip of added) {
        const index = this.#table.indexOf(ip);
        if (index < 0 || this.#flags(index) & FTRACE_FL.DISABLED) continue;
        if (this.#flags(index) & FTRACE_FL.IPMODIFY) {
          if (isModifying) throw this.#busy(index, ops, 'has an IPMODIFY ops already');
          this.#ask(ops, 'ENABLE_SHARE_IPMODIFY_SELF', index);
        } else if (isModifying) {
          this.#setFlags(index, this.#flags(index) | FTRACE_FL.IPMODIFY);
          marked.push(index);
        }
      }
    } catch (error) {
      this.#unmark(marked);
      throw error;
    }
    if (isModifying) {
      this.#unmark([...removed].map((ip) => this.#table.indexOf(ip)).filter((index) => index >= 0));
    }
  }

  /** Asks the direct calls at the sites of an IPMODIFY ops that comes; on a refusal none has been asked. */
  askPeers(ops: FtraceOps): void {
    const asked: FtraceOps[] = [];
    for (const ip of ops.filter) {
      const peer = this.#directOpsAt(ip);
      if (!peer) continue;
      try {
        this.#ask(peer, 'ENABLE_SHARE_IPMODIFY_PEER', this.#table.indexOf(ip));
        asked.push(peer);
      } catch (error) {
        for (const each of asked) each.opsFunc?.('DISABLE_SHARE_IPMODIFY_PEER');
        throw error;
      }
    }
  }

  /** The IPMODIFY ops is gone. */
  releasePeers(ops: FtraceOps): void {
    for (const ip of ops.filter) {
      this.#directOpsAt(ip)?.opsFunc?.('DISABLE_SHARE_IPMODIFY_PEER');
    }
  }

  #directOpsAt(ip: bigint): FtraceOps | undefined {
    return this.#list.ops.find((ops) => ops.has(FTRACE_OPS_FL.DIRECT) && ops.covers(ip));
  }

  #ask(ops: FtraceOps, command: OpsCommand, index: number): void {
    if (!ops.opsFunc) throw this.#busy(index, ops, 'cannot be shared with an IPMODIFY ops');
    ops.opsFunc(command);
  }

  #busy(index: number, ops: FtraceOps, why: string): KernelError {
    return new KernelError('EBUSY', `ftrace: ${this.#table.nameOf(index)} ${why} (${ops.name})`);
  }

  #unmark(indices: readonly number[]): void {
    for (const index of indices) this.#setFlags(index, this.#flags(index) & ~FTRACE_FL.IPMODIFY);
  }

  #flags(index: number): number {
    return this.#table.flags[index] as number;
  }

  #setFlags(index: number, flags: number): void {
    this.#table.flags[index] = flags;
  }
}
