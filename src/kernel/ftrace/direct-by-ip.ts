/**
 * The direct-call API by ip, which all versions before 6.4 had beside the other: one shared ops,
 * `direct_ops`, whose filter holds every site, and a target per site.
 *
 * Reference: kernel/trace/ftrace.c (5.19): register_ftrace_direct(ip, addr), unregister_ftrace_direct,
 * modify_ftrace_direct(ip, old, new), ftrace_modify_direct_caller.
 */
import { hex64 } from '../../common/bytes.js';
import { KernelError } from '../../common/errors.js';
import type { Ftrace } from './ftrace.js';
import { FTRACE_OPS_FL, type FtraceOps } from './ops.js';

export interface DirectByIpParts {
  readonly ftrace: Ftrace;
  readonly callDirectFuncs: bigint;
  readonly ftraceRegsCaller: bigint;
  /** `direct_ops` and `stub_ops`. */
  readonly directOps: FtraceOps;
  readonly stubOps: FtraceOps;
}

export class DirectCallsByIp {
  readonly #parts: DirectByIpParts;

  constructor(parts: DirectByIpParts) {
    this.#parts = parts;
    const { directOps, stubOps, callDirectFuncs, ftraceRegsCaller } = parts;
    directOps.func = callDirectFuncs;
    directOps.flags = FTRACE_OPS_FL.DIRECT | FTRACE_OPS_FL.SAVE_REGS | FTRACE_OPS_FL.PERMANENT;
    directOps.trampoline = ftraceRegsCaller;
    stubOps.flags = FTRACE_OPS_FL.STUB;
  }

  /** `ip` is a site or the first byte of a function. */
  register(ip: bigint, target: bigint): void {
    const { ftrace, directOps } = this.#parts;
    const site = this.#site(ip);
    if (ftrace.directFunctions.has(site)) {
      throw new KernelError('EBUSY', `${this.#name(site)} has a direct call already`);
    }
    ftrace.directFunctions.set(site, target);
    try {
      ftrace.setFilterIp(directOps, site, false);
      if (!directOps.has(FTRACE_OPS_FL.ENABLED)) this.#registerOps(site);
    } catch (error) {
      ftrace.directFunctions.delete(site);
      throw error;
    }
  }

  unregister(ip: bigint): void {
    const { ftrace, directOps } = this.#parts;
    const site = this.#directSite(ip);
    if (directOps.filter.size === 1) ftrace.unregister(directOps);
    ftrace.setFilterIp(directOps, site, true);
    ftrace.directFunctions.delete(site);
  }

  modify(ip: bigint, from: bigint, to: bigint): void {
    const { ftrace, stubOps } = this.#parts;
    const site = this.#directSite(ip);
    if (ftrace.directFunctions.get(site) !== from) {
      throw new KernelError('EINVAL', `${this.#name(site)} has no direct call of ${hex64(from)}`);
    }
    if (ftrace.uniqueOps(site) === undefined) {
      // other ops are called there too: the target is looked up at each call
      ftrace.directFunctions.set(site, to);
      return;
    }
    ftrace.setFilterIp(stubOps, site, false);
    ftrace.register(stubOps);
    ftrace.directFunctions.set(site, to);
    ftrace.unregister(stubOps);
    ftrace.setFilterIp(stubOps, site, true);
  }

  #registerOps(site: bigint): void {
    const { ftrace, directOps } = this.#parts;
    try {
      ftrace.register(directOps);
    } catch (error) {
      directOps.filter.delete(site);
      throw error;
    }
  }

  #site(ip: bigint): bigint {
    const { ftrace } = this.#parts;
    if (!ftrace.profile.direct?.byIp) {
      throw new KernelError(
        'ENODEV',
        `ftrace: arm64 ${ftrace.profile.version} has no register_ftrace_direct(ip, addr)`,
      );
    }
    const site = ftrace.records.has(ip) ? ip : ftrace.location(ip);
    if (site === undefined) {
      throw new KernelError('ENODEV', `ftrace: ${hex64(ip)} is no patch site`);
    }
    return site;
  }

  #directSite(ip: bigint): bigint {
    const site = this.#site(ip);
    if (this.#parts.ftrace.directFunctions.has(site)) return site;
    throw new KernelError('ENODEV', `${this.#name(site)} has no direct call`);
  }

  #name(site: bigint): string {
    return this.#parts.ftrace.records.get(site)?.name ?? hex64(site);
  }
}
