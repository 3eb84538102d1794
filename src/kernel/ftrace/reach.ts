/**
 * Which address the BL of a patch site has to have to get to a target: the target itself, ftrace_caller that
 * knows where to go on, or a PLT entry of the site's module.
 *
 * Reference: arch/arm64/kernel/ftrace.c: ftrace_find_callable_addr, get_ftrace_plt (before 6.1: inside
 * ftrace_make_call). As there, nobody looks whether the PLT entry itself is in range: where it is not, the
 * branch generator gives AARCH64_BREAK_FAULT, which is then patched in. That happened to `.init.text` of
 * modules from 6.5 on, until it got an entry of its own (a7ed7b9d0ebb).
 *
 * | Linux | target out of range                       | PLT entries of a module           |
 * | ----- | ----------------------------------------- | --------------------------------- |
 * | 5.19  | PLT entry for it, else -EINVAL            | ftrace_caller, ftrace_regs_caller |
 * | 6.1   | the same                                  | the same                          |
 * | 6.2   | the same                                  | ftrace_caller                     |
 * | 6.4   | ftrace_caller instead, if need be its PLT | ftrace_caller                     |
 * | 6.18  | the same                                  | ftrace_caller, one more for init  |
 *
 * Left out: mcount sites, kernels without modules.
 *
 * Usage:
 *   const word = branchWord(ip, reach(ip, target, { profile: REACH_PROFILES['6.18'], entries, moduleAt }), true);
 */
import { KernelError } from '../../common/errors.js';
import { s64 } from '../../common/bytes.js';

/** Text that ordinary ops are called through. */
export type FtraceEntry = 'ftrace_caller' | 'ftrace_regs_caller';

export interface ReachProfile {
  /**
   * What is compared with [-128 MiB, 128 MiB). Up to 6.0 it was `ip - target`, whose ends are the wrong way
   * round: -128 MiB is refused though BL has it, and +128 MiB passes and becomes a BRK.
   */
  readonly rangeTest: 'target - ip' | 'ip - target';
  /** A trampoline that is out of range is reached through ftrace_caller (since 6.4). */
  readonly farThroughCaller: boolean;
  /** What each module has PLT entries for, in their order (NR_FTRACE_PLTS). */
  readonly modulePlts: readonly FtraceEntry[];
  /** `.init.text` of a module has entries of its own. */
  readonly initPlt: boolean;
}

export type ReachVersion = '5.19' | '6.1' | '6.2' | '6.4' | '6.18';

const LINUX_6_1: ReachProfile = {
  rangeTest: 'target - ip',
  farThroughCaller: false,
  modulePlts: ['ftrace_caller', 'ftrace_regs_caller'],
  initPlt: false,
};
const LINUX_6_2: ReachProfile = { ...LINUX_6_1, modulePlts: ['ftrace_caller'] };
const LINUX_6_4: ReachProfile = { ...LINUX_6_2, farThroughCaller: true };

/** By the first version that does so. */
export const REACH_PROFILES: Readonly<Record<ReachVersion, ReachProfile>> = {
  '5.19': { ...LINUX_6_1, rangeTest: 'ip - target' },
  '6.1': LINUX_6_1,
  '6.2': LINUX_6_2,
  '6.4': LINUX_6_4,
  '6.18': { ...LINUX_6_4, initPlt: true },
};

/** PLT entries by what they go to. */
export type FtracePlts = Readonly<Partial<Record<FtraceEntry, bigint>>>;

/** What reach() asks of the module that a site lies in. */
export interface ReachModule {
  readonly name: string;
  readonly plts: FtracePlts;
  /** Entries for sites in its `.init.text`, where the version has some. */
  readonly initPlts: FtracePlts | undefined;
  /** Is the address in its `.init.text`? */
  inInit(address: bigint): boolean;
}

export interface ReachParts {
  readonly profile: ReachProfile;
  /** Addresses of the kernel's own entries. */
  readonly entries: FtracePlts;
  /** __module_text_address. */
  readonly moduleAt: (address: bigint) => ReachModule | undefined;
}

const SZ_128M = 0x800_0000n;

/** Does the version's ftrace code think that a BL at `ip` gets to `target`? */
export function inReach(profile: ReachProfile, ip: bigint, target: bigint): boolean {
  const distance = s64(profile.rangeTest === 'target - ip' ? target - ip : ip - target);
  return distance >= -SZ_128M && distance < SZ_128M;
}

/** Throws KernelError -EINVAL: ftrace then reports a bug and stays disabled. */
export function reach(ip: bigint, target: bigint, parts: ReachParts): bigint {
  const { profile, entries } = parts;
  const caller = entries.ftrace_caller;
  let wanted = target;
  if (profile.farThroughCaller && caller !== undefined && !inReach(profile, ip, target)) {
    wanted = caller;
  }
  if (inReach(profile, ip, wanted)) return wanted;

  const where = `0x${ip.toString(16)}`;
  const module = parts.moduleAt(ip);
  if (!module) {
    const what = `0x${wanted.toString(16)} is out of BL range of ${where}`;
    throw new KernelError('EINVAL', `ftrace: ${what}, which is in no module: no PLT`);
  }
  const entry = profile.modulePlts.find((each) => entries[each] === wanted);
  const plts = profile.initPlt && module.inInit(ip) ? module.initPlts : module.plts;
  const plt = entry && plts?.[entry];
  if (plt === undefined) {
    const what = `no module PLT for 0x${wanted.toString(16)}`;
    throw new KernelError('EINVAL', `ftrace: ${what} in ${module.name}, called from ${where}`);
  }
  return plt;
}
