/**
 * The ftrace core: records of all patch sites, the list of ops, and the command that brings every site
 * to what its ops want.
 *
 * Reference: kernel/trace/ftrace.c (ftrace_process_locs, __register_ftrace_function,
 * ftrace_startup, ftrace_shutdown, __ftrace_replace_code; 6.12 with CALL_OPS and DIRECT_CALLS).
 * A failing patch is an "ftrace bug" and disables ftrace for good. Left out: pid filters, instances,
 * graph tracer; IPMODIFY beside direct calls is refused (nothing here can share the ip).
 */
import { KernelError } from '../../common/errors.js';
import type { KernelData } from '../data.js';
import { FTRACE_OPS } from '../offsets.js';
import type { RcuFlavour } from '../patch-observer.js';
import { FTRACE_OPS_FL, FtraceOps } from './ops.js';
import { SitePatcher, type PatcherParts } from './patch.js';
import {
  FTRACE_FL,
  addOps,
  countOf,
  removeOps,
  updateRecord,
  type DynFtrace,
  type OpsTraits,
} from './record.js';

export interface FtraceParts extends PatcherParts {
  readonly data: KernelData;
  /** Addresses of the functions that stand in ops->func. */
  readonly stub: bigint;
  readonly listFunc: bigint;
  readonly assistFunc: bigint;
  readonly nameOf: (address: bigint) => string;
  readonly synchronize: (flavour: RcuFlavour) => void;
}

export class Ftrace {
  readonly patcher: SitePatcher;
  /** Records by site (rec->ip), in address order per `addSites` call. */
  readonly records = new Map<bigint, DynFtrace>();
  /** Targets of direct calls by site (`direct_functions`). */
  readonly directFunctions = new Map<bigint, bigint>();
  readonly nopOps: FtraceOps;
  readonly listOps: FtraceOps;
  /** Where `ftrace_ops_list` lies in kernel memory; newest ops first. */
  readonly listHead: bigint;
  readonly #parts: FtraceParts;
  readonly #opsByAddress = new Map<bigint, FtraceOps>();
  #disabledBy: string | undefined;

  constructor(parts: FtraceParts) {
    this.#parts = parts;
    this.patcher = new SitePatcher(parts);
    const { data, memory } = parts;
    this.nopOps = new FtraceOps(
      memory,
      'ftrace_nop_ops',
      data.define('ftrace_nop_ops', FTRACE_OPS.size),
    );
    this.listOps = new FtraceOps(
      memory,
      'ftrace_list_ops',
      data.define('ftrace_list_ops', FTRACE_OPS.size),
    );
    this.nopOps.func = parts.stub;
    this.nopOps.flags = FTRACE_OPS_FL.STUB;
    this.listOps.func = parts.listFunc;
    this.listOps.flags = FTRACE_OPS_FL.STUB;
    this.listHead = data.define('ftrace_ops_list', 8);
  }

  /** Takes mcount entries (F-8) in and initialises their sites; before anything can trace them. */
  addSites(mcountLocations: readonly bigint[]): void {
    for (const location of [...mcountLocations].sort((a, b) => (a < b ? -1 : 1))) {
      const ip = location + 12n;
      this.patcher.initNop(ip, this.nopOps.address);
      this.records.set(ip, { ip, name: this.#parts.nameOf(location + 8n), flags: 0 });
    }
  }

  /** The site of the function at `address` (its symbol address), or undefined. */
  location(address: bigint): bigint | undefined {
    const ip = address + 4n;
    return this.records.has(ip) ? ip : undefined;
  }

  /** The refusal for a function that cannot be traced. */
  noSite(name: string): KernelError {
    return new KernelError('EINVAL', `${name} has no patch site (notrace), ftrace cannot attach`);
  }

  /** Names of all sites, in address order. */
  available(): string[] {
    return [...this.records.values()].map((record) => record.name);
  }

  createOps(name: string, address: bigint, func: bigint): FtraceOps {
    const ops = new FtraceOps(this.#parts.memory, name, address);
    ops.func = func;
    this.#opsByAddress.set(address, ops);
    return ops;
  }

  /** The memory of `ops` goes to other uses; it must not be registered. */
  forgetOps(ops: FtraceOps): void {
    this.#opsByAddress.delete(ops.address);
  }

  opsAt(address: bigint): FtraceOps | undefined {
    return this.#opsByAddress.get(address);
  }

  /** The registered ops, newest first. */
  list(): FtraceOps[] {
    const result: FtraceOps[] = [];
    let address = this.#parts.memory.read64(this.listHead);
    while (address !== 0n) {
      const ops = this.#opsByAddress.get(address);
      if (!ops) throw new RangeError(`0x${address.toString(16)} in ftrace_ops_list is no ops`);
      result.push(ops);
      address = ops.next;
    }
    return result;
  }

  /** ftrace_set_filter_ip. */
  setFilterIp(ops: FtraceOps, ip: bigint, remove: boolean): void {
    if (!this.records.has(ip)) {
      throw new KernelError('EINVAL', `ftrace: 0x${ip.toString(16)} is no patch site`);
    }
    ops.flags |= FTRACE_OPS_FL.INITIALIZED;
    if (remove) ops.filter.delete(ip);
    else ops.filter.add(ip);
  }

  /** register_ftrace_function. */
  register(ops: FtraceOps): void {
    this.#checkAlive();
    if (ops.has(FTRACE_OPS_FL.DELETED)) throw new KernelError('EINVAL', `${ops.name} is deleted`);
    if (ops.has(FTRACE_OPS_FL.ENABLED)) {
      throw new KernelError('EBUSY', `${ops.name} is registered already`);
    }
    if (ops.has(FTRACE_OPS_FL.SAVE_REGS) && !ops.has(FTRACE_OPS_FL.SAVE_REGS_IF_SUPPORTED)) {
      throw new KernelError('EINVAL', 'ftrace: arm64 6.12 has no SAVE_REGS (only saved arguments)');
    }
    this.#checkIpmodify(ops);
    if (!this.#parts.data.contains(ops.address)) ops.flags |= FTRACE_OPS_FL.DYNAMIC;
    ops.next = this.#parts.memory.read64(this.listHead);
    this.#parts.memory.write64(this.listHead, ops.address);
    ops.savedFunc = ops.func;
    ops.flags |= FTRACE_OPS_FL.ENABLED | FTRACE_OPS_FL.ADDING;
    for (const record of this.#covered(ops)) addOps(record, this.#traits(ops));
    this.#replaceCode();
    ops.flags &= ~FTRACE_OPS_FL.ADDING;
  }

  /** unregister_ftrace_function. */
  unregister(ops: FtraceOps): void {
    this.#checkAlive();
    if (!ops.has(FTRACE_OPS_FL.ENABLED)) {
      throw new KernelError('EBUSY', `${ops.name} is not registered`);
    }
    this.#unlink(ops);
    ops.func = ops.savedFunc;
    ops.flags &= ~FTRACE_OPS_FL.ENABLED;
    ops.flags |= FTRACE_OPS_FL.REMOVING;
    const remaining = this.list();
    for (const record of this.#covered(ops)) {
      const others = remaining.filter((each) => each.covers(record.ip));
      removeOps(record, this.#traits(ops), {
        wantRegs: others.some((each) => each.has(FTRACE_OPS_FL.SAVE_REGS)),
        haveTrampoline: others.some((each) => each.trampoline !== 0n),
      });
    }
    this.#replaceCode();
    ops.flags &= ~FTRACE_OPS_FL.REMOVING;
    // who has fetched the call or the literal before is done with the ops after these
    if (ops.has(FTRACE_OPS_FL.DYNAMIC)) {
      this.#parts.synchronize('tasks_rude');
      this.#parts.synchronize('tasks');
    }
  }

  /** ftrace_ops_get_func: the function to call for a single ops. */
  callableFunc(ops: FtraceOps): bigint {
    const assisted = ops.has(FTRACE_OPS_FL.RECURSION | FTRACE_OPS_FL.RCU);
    return assisted ? this.#parts.assistFunc : ops.func;
  }

  #traits(ops: FtraceOps): OpsTraits {
    return {
      direct: ops.has(FTRACE_OPS_FL.DIRECT),
      ipmodify: ops.has(FTRACE_OPS_FL.IPMODIFY),
      saveRegs: ops.has(FTRACE_OPS_FL.SAVE_REGS),
      hasTrampoline: ops.trampoline !== 0n,
      callable: this.callableFunc(ops) === ops.func,
    };
  }

  #covered(ops: FtraceOps): DynFtrace[] {
    if (ops.filter.size > 0) {
      return [...ops.filter].flatMap((ip) => {
        const record = this.records.get(ip);
        return record && ops.covers(ip) ? [record] : [];
      });
    }
    return [...this.records.values()].filter((record) => ops.covers(record.ip));
  }

  /** __ftrace_replace_code for every record. */
  #replaceCode(): void {
    for (const record of this.records.values()) {
      const to = this.#newAddress(record);
      const from = this.#currentAddress(record);
      const transition = updateRecord(record, true);
      if (transition === 'ignore') continue;
      try {
        switch (transition) {
          case 'make_call':
            this.patcher.writeLiteral(record.ip, this.#literal(record));
            this.patcher.makeCall(record.ip, to);
            break;
          case 'modify_call':
            this.patcher.writeLiteral(record.ip, this.#literal(record));
            this.patcher.modifyCall(record.ip, from, to);
            break;
          case 'make_nop':
            this.patcher.writeLiteral(record.ip, this.nopOps.address);
            this.patcher.makeNop(record.ip, from);
            break;
        }
      } catch (error) {
        this.#disabledBy = `${record.name}: ${error instanceof Error ? error.message : String(error)}`;
        throw error;
      }
    }
  }

  /** The ops that ftrace_caller shall read at this site: the only one, or the list. */
  #literal(record: DynFtrace): bigint {
    if (!(record.flags & FTRACE_FL.CALL_OPS_EN)) return this.listOps.address;
    const covering = this.list().filter((ops) => ops.covers(record.ip));
    return covering.length === 1 ? (covering[0] as FtraceOps).address : this.listOps.address;
  }

  #newAddress(record: DynFtrace): bigint {
    if (record.flags & FTRACE_FL.DIRECT && countOf(record) === 1) {
      return this.#directTarget(record);
    }
    return this.#parts.ftraceCaller;
  }

  #currentAddress(record: DynFtrace): bigint {
    if (record.flags & FTRACE_FL.DIRECT_EN) return this.#directTarget(record);
    return this.#parts.ftraceCaller;
  }

  #directTarget(record: DynFtrace): bigint {
    const target = this.directFunctions.get(record.ip);
    if (target === undefined) throw new RangeError(`${record.name}: DIRECT without a target`);
    return target;
  }

  #checkAlive(): void {
    if (this.#disabledBy !== undefined) {
      throw new KernelError('ENODEV', `ftrace is disabled after a bug at ${this.#disabledBy}`);
    }
  }

  #checkIpmodify(ops: FtraceOps): void {
    if (!ops.has(FTRACE_OPS_FL.IPMODIFY)) {
      if (!ops.has(FTRACE_OPS_FL.DIRECT)) return;
    } else if (ops.filter.size === 0) {
      throw new KernelError('EINVAL', `${ops.name}: IPMODIFY needs a filter`);
    }
    for (const other of this.list()) {
      const clashes = ops.has(FTRACE_OPS_FL.IPMODIFY)
        ? other.has(FTRACE_OPS_FL.IPMODIFY | FTRACE_OPS_FL.DIRECT)
        : other.has(FTRACE_OPS_FL.IPMODIFY);
      const shared = clashes && [...ops.filter].find((ip) => other.covers(ip));
      if (shared) {
        const name = this.records.get(shared)?.name ?? '';
        throw new KernelError('EBUSY', `${name}: ${other.name} cannot share the site`);
      }
    }
  }

  #unlink(ops: FtraceOps): void {
    const { memory } = this.#parts;
    let link = this.listHead;
    for (;;) {
      const address = memory.read64(link);
      if (address === ops.address) break;
      link = address + BigInt(FTRACE_OPS.next);
    }
    // ops.next stays: a CPU that is at the ops goes on from it
    memory.write64(link, ops.next);
  }
}
