/**
 * The ftrace core: records of all patch sites, registered ops and their filters.
 *
 * Reference: kernel/trace/ftrace.c (ftrace_process_locs, register_ftrace_function, ftrace_startup,
 * ftrace_shutdown, ftrace_hash_move_and_update_ops, ftrace_enable_sysctl). What is patched is in `update.ts`, what a
 * version does its own way in `profile.ts`. Left out: pid filters, instances, subops.
 *
 * Usage:
 *   const ops = ftrace.createOps('mine', kernel.kmalloc(ftrace.profile.ops.size), callback);
 *   ftrace.setFilter(ops, 'bpf_fentry_*');
 *   ftrace.register(ops);
 */
import { hex64 } from '../../common/bytes.js';
import { KernelError } from '../../common/errors.js';
import type { KernelData } from '../data.js';
import type { RcuFlavour } from '../patch-observer.js';
import type { Rcu } from '../rcu.js';
import { DirectFunctions } from './direct-functions.js';
import { parseFilterPattern } from './glob.js';
import { IpModify } from './ipmodify.js';
import { enableRecord, forgetSites } from './module-records.js';
import { FTRACE_OPS_FL, FtraceOps } from './ops.js';
import { OpsList } from './ops-list.js';
import { SitePatcher, type PatcherParts } from './patch.js';
import type { FtraceProfile } from './profile.js';
import { addOps, recordRules, removeOps, type OpsTraits, type OtherOps } from './record.js';
import { RecordTable, type NewRecord } from './record-table.js';
import { adjustMcount } from './site-form.js';
import type { StoreObserver } from './store-observer.js';
import { CodeUpdater, type UpdaterParts } from './update.js';

export interface FtraceParts
  extends
    Omit<PatcherParts, 'idleTarget' | 'stores'>,
    Pick<
      UpdaterParts,
      'ftraceRegsCaller' | 'stub' | 'listFunc' | 'assistFunc' | 'call' | 'ipi' | 'printk'
    > {
  readonly data: KernelData;
  readonly stubDirectTramp: bigint;
  /** What ftrace_nop_ops calls. */
  readonly nopFunc: bigint;
  /** CONFIG_ARM64_BTI_KERNEL. */
  readonly btiKernel: boolean;
  readonly nameOf: (address: bigint) => string;
  readonly rcu: () => Rcu;
}

/** Who has fetched the call or the literal before is done with a DYNAMIC ops after these. */
const UNREGISTER_WAITS: readonly RcuFlavour[] = ['tasks_rude', 'tasks'];

export class Ftrace {
  readonly profile: FtraceProfile;
  readonly patcher: SitePatcher;
  /** Records by site (rec->ip), in address order. */
  readonly records: RecordTable;
  /** Targets of direct calls by site (`direct_functions`). */
  readonly directFunctions = new DirectFunctions();
  readonly nopOps: FtraceOps;
  readonly listOps: FtraceOps;
  /** Told of everything that is stored where other CPUs look. */
  readonly stores: StoreObserver = { onStore: undefined };
  readonly #parts: FtraceParts;
  readonly #list: OpsList;
  readonly #updater: CodeUpdater;
  readonly #ipmodify: IpModify;
  readonly #rules;
  readonly #opsByAddress = new Map<bigint, FtraceOps>();
  /** sysctl kernel.ftrace_enabled. */
  #isOn = true;

  constructor(parts: FtraceParts) {
    const { data, memory, profile } = parts;
    this.#parts = parts;
    this.profile = profile;
    this.#rules = recordRules(profile);
    this.patcher = new SitePatcher({
      ...parts,
      stores: this.stores,
      idleTarget: parts.stubDirectTramp,
    });
    this.records = new RecordTable(parts.base, parts.nameOf);
    this.nopOps = this.#staticOps('ftrace_nop_ops', parts.nopFunc);
    this.listOps = this.#staticOps('ftrace_list_ops', parts.listFunc);
    const listEnd = this.#staticOps('ftrace_list_end', parts.stub);
    this.#list = new OpsList(
      memory,
      data.define('ftrace_ops_list', 8),
      listEnd,
      (address) => this.#opsByAddress.get(address),
      this.stores,
    );
    this.#ipmodify = new IpModify(this.records, this.#list);
    this.#updater = new CodeUpdater({
      ...parts,
      rules: this.#rules,
      table: this.records,
      list: this.#list,
      stores: this.stores,
      patcher: this.patcher,
      direct: this.directFunctions,
      nopOps: this.nopOps,
      listOps: this.listOps,
      listEnd,
    });
  }

  /**
   * ftrace_process_locs: takes mcount entries in and initialises their sites, before anything can run them. Those
   * of a module stay DISABLED until `enableModule`.
   */
  addSites(mcountLocations: readonly bigint[], flags = 0): void {
    const { memory, profile, base, btiKernel, printk } = this.#parts;
    const added: NewRecord[] = [];
    for (const location of mcountLocations) {
      const ip = adjustMcount(location, {
        form: profile.site,
        btiKernel,
        read32: (address) => memory.read32(address),
        warn: printk,
      });
      // entries of discarded and weak functions are zero or lead nowhere
      if (!memory.regionAt(ip)?.permissions.includes('x')) continue;
      added.push({ ip, lead: this.#leadOf(ip), flags });
    }
    this.records.insert(added);
    try {
      for (const { ip, lead } of added) {
        const at = Number(BigInt.asIntN(64, ip - base));
        this.#initSite(at, at - 4 * lead, ip);
      }
    } finally {
      this.patcher.flush();
    }
  }

  #initSite(at: number, entry: number, ip: bigint): void {
    if (this.#updater.bug !== undefined) return;
    try {
      this.patcher.initNop({ at, entry }, this.nopOps.address);
    } catch (error) {
      this.#updater.reportBug(error, this.records.indexOf(ip));
    }
  }

  /** The function begins at the MOV, or at a BTI before it. */
  #leadOf(ip: bigint): number {
    const { nameOf, memory, btiKernel } = this.#parts;
    if (!btiKernel) return 1;
    const first = ip - 8n;
    return memory.regionAt(first) && nameOf(first) !== '' && nameOf(first) === nameOf(ip) ? 2 : 1;
  }

  /** ftrace_module_enable: the sites in [start, end) become what the ops that are registered want. */
  enableModule(start: bigint, end: bigint): void {
    const { flags } = this.records;
    const { first, last } = this.records.range(start, end);
    for (let index = first; index < last; index++) {
      const covering = this.list().filter((ops) => ops.covers(this.records.ip(index)));
      flags[index] = enableRecord(flags[index] as number, covering);
    }
    if (this.#isOn) this.#updater.replaceRange(first, last);
  }

  /** ftrace_release_mod, ftrace_free_mem: the text in [start, end) is about to go away. */
  releaseText(start: bigint, end: bigint): void {
    const gone = this.records.remove(start, end);
    for (const ops of this.#opsByAddress.values()) forgetSites(ops, gone);
  }

  /** The site of the function at `address` (its symbol address), or undefined. */
  location(address: bigint): bigint | undefined {
    const index = this.records.indexOfFunction(address);
    return index < 0 ? undefined : this.records.ip(index);
  }

  /** The refusal for a function that cannot be traced. */
  noSite(name: string): KernelError {
    return new KernelError('EINVAL', `${name} has no patch site (notrace), ftrace cannot attach`);
  }

  /** Names of all functions with a site, in address order: available_filter_functions. */
  available(): string[] {
    return Array.from({ length: this.records.size }, (_, index) => this.records.nameOf(index));
  }

  createOps(name: string, address: bigint, func: bigint): FtraceOps {
    const ops = new FtraceOps(this.#parts.memory, name, address, this.profile.ops);
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
  list(): readonly FtraceOps[] {
    return this.#list.ops;
  }

  /** Where `ftrace_ops_list` lies in kernel memory. */
  get listHead(): bigint {
    return this.#list.head;
  }

  /** The only ops that covers a site; undefined when none or more do. */
  uniqueOps(ip: bigint): FtraceOps | undefined {
    const index = this.records.indexOf(ip);
    return index < 0 ? undefined : this.#updater.uniqueOps(index);
  }

  /** Why ftrace is off for good; undefined while it is not. */
  get bug(): string | undefined {
    return this.#updater.bug;
  }

  /** ftrace_set_filter_ip: `ip` is a site or the first byte of a function. */
  setFilterIp(ops: FtraceOps, ip: bigint, remove: boolean, reset = false): void {
    this.checkAlive();
    const site = this.records.has(ip) ? ip : this.location(ip);
    if (site === undefined) {
      throw new KernelError('EINVAL', `ftrace: ${hex64(ip)} is no patch site`);
    }
    if (remove && !ops.filter.has(site)) {
      throw new KernelError('ENOENT', `ftrace: ${hex64(ip)} is not in the filter of ${ops.name}`);
    }
    const next = new Set(reset ? [] : ops.filter);
    if (remove) next.delete(site);
    else next.add(site);
    this.#setHash(ops, 'filter', next);
  }

  /** ftrace_set_filter, or with `notrace` ftrace_set_notrace. `reset` forgets what was set before. */
  setFilter(
    ops: FtraceOps,
    pattern: string,
    options: { readonly reset?: boolean; readonly notrace?: boolean } = {},
  ): void {
    this.checkAlive();
    const kind = options.notrace ? 'notrace' : 'filter';
    const { negated, matches } = parseFilterPattern(pattern);
    const next = new Set(options.reset ? [] : ops[kind]);
    let found = 0;
    for (let index = 0; index < this.records.size; index++) {
      if (!matches(this.records.nameOf(index))) continue;
      found++;
      if (negated) next.delete(this.records.ip(index));
      else next.add(this.records.ip(index));
    }
    if (found === 0) {
      throw new KernelError('EINVAL', `ftrace: no function with a patch site matches '${pattern}'`);
    }
    this.#setHash(ops, kind, next);
  }

  /** ftrace_free_filter: forgets filter and notrace of an ops that is not registered. */
  freeFilter(ops: FtraceOps): void {
    if (ops.has(FTRACE_OPS_FL.ENABLED)) {
      throw new KernelError('EBUSY', `ftrace: ${ops.name} is registered`);
    }
    ops.filter.clear();
    ops.notrace.clear();
  }

  /** register_ftrace_function. */
  register(ops: FtraceOps): void {
    if (!ops.has(FTRACE_OPS_FL.IPMODIFY)) {
      this.#startup(ops);
      return;
    }
    this.#ipmodify.askPeers(ops);
    try {
      this.#startup(ops);
    } catch (error) {
      this.#ipmodify.releasePeers(ops);
      throw error;
    }
  }

  /** unregister_ftrace_function. */
  unregister(ops: FtraceOps): void {
    this.#shutdown(ops);
    if (ops.has(FTRACE_OPS_FL.IPMODIFY)) this.#ipmodify.releasePeers(ops);
  }

  /**
   * Calls back once nobody can be using an ops any more that has been unregistered: at once for static ones, after
   * RCU-tasks-rude and RCU-tasks grace periods for DYNAMIC ones. In Linux unregister waits for that itself.
   */
  whenUnused(ops: FtraceOps, callback: () => void): void {
    const flavours = ops.has(FTRACE_OPS_FL.DYNAMIC) ? UNREGISTER_WAITS : [];
    this.#parts.rcu().afterSynchronize(flavours, callback);
  }

  /** sysctl kernel.ftrace_enabled. Throws -EBUSY while a PERMANENT ops is registered. */
  setEnabled(on: boolean): void {
    this.checkAlive();
    if (on === this.#isOn) return;
    const permanent = this.list().find((ops) => ops.has(FTRACE_OPS_FL.PERMANENT));
    if (!on && permanent) {
      throw new KernelError('EBUSY', `ftrace: ${permanent.name} is registered and PERMANENT`);
    }
    this.#isOn = on;
    const updater = this.#updater;
    if (on) updater.chooseFunction();
    else updater.stopFunction();
    if (this.list().length === 0) return;
    if (on) updater.restart();
    else updater.disableCalls();
  }

  /** The ops_func of a direct call is asked again, its target changes (see `DirectCallProfile`). */
  recheckIpmodify(ops: FtraceOps): void {
    this.#ipmodify.update(ops, { added: ops.filter, removed: [] });
  }

  checkAlive(): void {
    const { bug } = this.#updater;
    if (bug !== undefined) {
      throw new KernelError('ENODEV', `ftrace is disabled after a bug at ${bug}`);
    }
  }

  #startup(ops: FtraceOps): void {
    this.checkAlive();
    this.#checkRegistration(ops);
    ops.flags |= FTRACE_OPS_FL.INITIALIZED;
    if (!this.#parts.data.contains(ops.address)) ops.flags |= FTRACE_OPS_FL.DYNAMIC;
    this.#list.add(ops);
    ops.savedFunc = ops.func;
    this.#functionMayChange();
    ops.flags |= FTRACE_OPS_FL.ENABLED | FTRACE_OPS_FL.ADDING;
    try {
      this.#ipmodifyEnable(ops);
    } catch (error) {
      this.#takeBack(ops);
      throw error;
    }
    this.#count(ops, 'add');
    this.#run();
    ops.flags &= ~FTRACE_OPS_FL.ADDING;
    if (this.#updater.bug !== undefined) {
      this.#takeBack(ops);
      this.checkAlive();
    }
  }

  #takeBack(ops: FtraceOps): void {
    this.#list.remove(ops);
    this.#functionMayChange();
    ops.flags &= ~(FTRACE_OPS_FL.ENABLED | FTRACE_OPS_FL.ADDING);
  }

  #shutdown(ops: FtraceOps): void {
    this.checkAlive();
    if (!ops.has(FTRACE_OPS_FL.ENABLED)) {
      throw new KernelError('EBUSY', `${ops.name} is not registered`);
    }
    this.#list.remove(ops);
    this.#functionMayChange();
    ops.func = ops.savedFunc;
    this.#ipmodify.update(ops, { added: [], removed: ops.filter });
    this.#count(ops, 'remove');
    ops.flags &= ~FTRACE_OPS_FL.ENABLED;
    ops.flags |= FTRACE_OPS_FL.REMOVING;
    this.#run();
    ops.flags &= ~FTRACE_OPS_FL.REMOVING;
    if (ops.has(FTRACE_OPS_FL.DYNAMIC)) {
      for (const flavour of UNREGISTER_WAITS) this.#parts.rcu().synchronize(flavour);
    }
  }

  #checkRegistration(ops: FtraceOps): void {
    if (ops.has(FTRACE_OPS_FL.DELETED)) throw new KernelError('EINVAL', `${ops.name} is deleted`);
    if (ops.has(FTRACE_OPS_FL.ENABLED)) {
      throw new KernelError('EBUSY', `${ops.name} is registered already`);
    }
    const { frame, version } = this.profile;
    if (frame === 'ftrace_regs' && ops.has(FTRACE_OPS_FL.SAVE_REGS)) {
      if (!ops.has(FTRACE_OPS_FL.SAVE_REGS_IF_SUPPORTED)) {
        throw new KernelError(
          'EINVAL',
          `ftrace: arm64 ${version} has no SAVE_REGS (only saved arguments)`,
        );
      }
      ops.flags &= ~FTRACE_OPS_FL.SAVE_REGS;
    } else if (frame === 'pt_regs' && ops.has(FTRACE_OPS_FL.SAVE_REGS_IF_SUPPORTED)) {
      ops.flags |= FTRACE_OPS_FL.SAVE_REGS;
    }
    if (!this.#isOn && ops.has(FTRACE_OPS_FL.PERMANENT)) {
      throw new KernelError('EBUSY', `ftrace: ${ops.name} is PERMANENT, and ftrace_enabled is 0`);
    }
  }

  #ipmodifyEnable(ops: FtraceOps): void {
    this.#mustHaveFilter(ops, ops.filter);
    this.#ipmodify.update(ops, { added: ops.filter, removed: [] });
  }

  #mustHaveFilter(ops: FtraceOps, filter: ReadonlySet<bigint>): void {
    if (filter.size > 0 || !ops.has(FTRACE_OPS_FL.IPMODIFY | FTRACE_OPS_FL.DIRECT)) return;
    throw new KernelError('EINVAL', `ftrace: ${ops.name} (IPMODIFY or DIRECT) needs a filter`);
  }

  /** ftrace_hash_move_and_update_ops: a registered ops changes at once. */
  #setHash(ops: FtraceOps, kind: 'filter' | 'notrace', next: ReadonlySet<bigint>): void {
    ops.flags |= FTRACE_OPS_FL.INITIALIZED;
    if (!ops.has(FTRACE_OPS_FL.ENABLED)) {
      replace(ops[kind], next);
      return;
    }
    if (kind === 'notrace' && ops.has(FTRACE_OPS_FL.IPMODIFY)) {
      throw new KernelError('EINVAL', `ftrace: ${ops.name} is IPMODIFY and cannot have notrace`);
    }
    if (kind === 'filter') {
      this.#mustHaveFilter(ops, next);
      this.#ipmodify.update(ops, {
        added: [...next].filter((ip) => !ops.filter.has(ip)),
        removed: [...ops.filter].filter((ip) => !next.has(ip)),
      });
    }
    this.#count(ops, 'remove');
    replace(ops[kind], next);
    this.#count(ops, 'add');
    ops.flags |= FTRACE_OPS_FL.MODIFYING;
    this.#run();
    ops.flags &= ~FTRACE_OPS_FL.MODIFYING;
    this.checkAlive();
  }

  #functionMayChange(): void {
    if (this.#isOn) this.#updater.chooseFunction();
  }

  #run(): void {
    if (this.#isOn) this.#updater.run();
  }

  /** __ftrace_hash_rec_update: counts the ops in or out at all sites that it covers. */
  #count(ops: FtraceOps, what: 'add' | 'remove'): void {
    const { records } = this;
    const rules = this.#rules;
    const traits = this.#traits(ops);
    let index = 0;
    const others: OtherOps = {
      wantRegs: () => this.#othersAt(ops, index).some((each) => each.has(FTRACE_OPS_FL.SAVE_REGS)),
      haveTrampoline: () => this.#othersAt(ops, index).some((each) => each.trampoline !== 0n),
    };
    const update = (): void => {
      const flags = records.flags[index] as number;
      records.flags[index] =
        what === 'add' ? addOps(flags, traits, rules) : removeOps(flags, traits, others, rules);
    };
    if (ops.filter.size > 0) {
      for (const ip of ops.filter) {
        index = records.indexOf(ip);
        if (index >= 0 && !ops.notrace.has(ip)) update();
      }
      return;
    }
    const exceptions = ops.notrace.size > 0;
    for (index = 0; index < records.size; index++) {
      if (!exceptions || !ops.notrace.has(records.ip(index))) update();
    }
  }

  #othersAt(ops: FtraceOps, index: number): FtraceOps[] {
    const ip = this.records.ip(index);
    return this.list().filter((each) => each !== ops && each.covers(ip));
  }

  #traits(ops: FtraceOps): OpsTraits {
    return {
      direct: ops.has(FTRACE_OPS_FL.DIRECT),
      ipmodify: ops.has(FTRACE_OPS_FL.IPMODIFY),
      saveRegs: ops.has(FTRACE_OPS_FL.SAVE_REGS),
      hasTrampoline: ops.trampoline !== 0n,
      callable: this.#updater.callableFunc(ops) === ops.func,
    };
  }

  #staticOps(name: string, func: bigint): FtraceOps {
    const { data } = this.#parts;
    const ops = this.createOps(name, data.define(name, this.profile.ops.size), func);
    ops.flags = FTRACE_OPS_FL.STUB;
    return ops;
  }
}

function replace(set: Set<bigint>, next: ReadonlySet<bigint>): void {
  set.clear();
  for (const each of next) set.add(each);
}
