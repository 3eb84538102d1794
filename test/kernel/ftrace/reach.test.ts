/** Which address a BL gets, by version: at the ends of its range, in modules, in their init text. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { AARCH64_BREAK_FAULT, branchWord, reachable } from '../../../src/a64/immediates.js';
import {
  REACH_PROFILES,
  inReach,
  reach,
  type FtracePlts,
  type ReachModule,
  type ReachVersion,
} from '../../../src/kernel/ftrace/reach.js';

const MiB = 1n << 20n;
const IP = 0xffff800090000004n;
const NEAR: FtracePlts = { ftrace_caller: IP + 0x1000n, ftrace_regs_caller: IP + 0x2000n };
const FAR: FtracePlts = { ftrace_caller: IP + 512n * MiB, ftrace_regs_caller: IP + 513n * MiB };

const MODULE: ReachModule = {
  name: 'mod',
  plts: { ftrace_caller: IP + 0x100n, ftrace_regs_caller: IP + 0x10cn },
  initPlts: { ftrace_caller: IP + 200n * MiB + 0x100n },
  inInit: (address) => address >= IP + 200n * MiB,
};
const INIT_IP = IP + 200n * MiB;

interface Site {
  readonly ip?: bigint;
  readonly entries: FtracePlts;
  readonly module?: ReachModule;
}

function outcome(
  version: ReachVersion,
  target: bigint,
  { ip = IP, entries, module }: Site,
): string {
  try {
    const profile = REACH_PROFILES[version];
    const address = reach(ip, target, { profile, entries, moduleAt: () => module });
    if (branchWord(ip, address, true) === AARCH64_BREAK_FAULT) return 'brk';
    if (address === target) return 'target';
    if (address === entries.ftrace_caller) return 'ftrace_caller';
    const plts = Object.entries({ ...module?.plts }).find(([, plt]) => plt === address);
    return plts ? `plt of ${plts[0]}` : 'init plt';
  } catch (error) {
    return error instanceof Error ? error.message.replace(/0x[0-9a-f]+/g, 'X') : '';
  }
}

const NO_PLT = '-EINVAL: ftrace: X is out of BL range of X, which is in no module: no PLT';
const NO_MODULE_PLT = '-EINVAL: ftrace: no module PLT for X in mod, called from X';

describe('the ends of the range, at a kernel function', () => {
  // distance from ip          5.19     6.1      6.2      6.4
  it.each<[string, bigint, string, string, string]>([
    ['-128 MiB - 4', -128n * MiB - 4n, NO_PLT, NO_PLT, 'ftrace_caller'],
    ['-128 MiB', -128n * MiB, NO_PLT, 'target', 'target'],
    ['-128 MiB + 4', -128n * MiB + 4n, 'target', 'target', 'target'],
    ['+128 MiB - 4', 128n * MiB - 4n, 'target', 'target', 'target'],
    ['+128 MiB', 128n * MiB, 'brk', NO_PLT, 'ftrace_caller'],
    ['+128 MiB + 4', 128n * MiB + 4n, NO_PLT, NO_PLT, 'ftrace_caller'],
  ])('%s', (_name, distance, in519, in61, in64) => {
    const at = (version: ReachVersion): string =>
      outcome(version, IP + distance, { entries: NEAR });
    expect(at('5.19')).toBe(in519);
    expect([at('6.1'), at('6.2')]).toEqual([in61, in61]);
    expect([at('6.4'), at('6.18')]).toEqual([in64, in64]);
  });
});

describe('a module', () => {
  const { ftrace_caller: caller = 0n, ftrace_regs_caller: regsCaller = 0n } = FAR;
  const trampoline = IP + 300n * MiB;
  it.each<[string, bigint, Record<ReachVersion, string>]>([
    [
      'ftrace_caller, far',
      caller,
      {
        '5.19': 'plt of ftrace_caller',
        '6.1': 'plt of ftrace_caller',
        '6.2': 'plt of ftrace_caller',
        '6.4': 'plt of ftrace_caller',
        '6.18': 'plt of ftrace_caller',
      },
    ],
    [
      'ftrace_regs_caller, far (from 6.2 on there is none)',
      regsCaller,
      {
        '5.19': 'plt of ftrace_regs_caller',
        '6.1': 'plt of ftrace_regs_caller',
        '6.2': NO_MODULE_PLT,
        '6.4': 'plt of ftrace_caller',
        '6.18': 'plt of ftrace_caller',
      },
    ],
    [
      'a trampoline, far as ftrace_caller is',
      trampoline,
      {
        '5.19': NO_MODULE_PLT,
        '6.1': NO_MODULE_PLT,
        '6.2': NO_MODULE_PLT,
        '6.4': 'plt of ftrace_caller',
        '6.18': 'plt of ftrace_caller',
      },
    ],
    [
      'a trampoline, near',
      IP + 0x8000n,
      { '5.19': 'target', '6.1': 'target', '6.2': 'target', '6.4': 'target', '6.18': 'target' },
    ],
  ])('%s', (_name, target, expected) => {
    for (const [version, what] of Object.entries(expected)) {
      expect(outcome(version as ReachVersion, target, { entries: FAR, module: MODULE })).toBe(what);
    }
  });

  it('a trampoline out of range, ftrace_caller near: straight to that since 6.4', () => {
    const site = { entries: NEAR, module: MODULE };
    expect(outcome('6.18', trampoline, site)).toBe('ftrace_caller');
    expect(outcome('6.2', trampoline, site)).toBe(NO_MODULE_PLT);
  });

  it('init text far from the text: a BRK is patched in, until it has an entry of its own', () => {
    const site = { ip: INIT_IP, entries: FAR, module: MODULE };
    for (const version of ['6.1', '6.2', '6.4'] as const) {
      expect(outcome(version, caller, site)).toBe('brk');
    }
    expect(outcome('6.18', caller, site)).toBe('init plt');
  });
});

it('since 6.1 what is in reach is what BL reaches', () => {
  const distance = fc.oneof(
    fc.bigInt({ min: -129n * MiB, max: 129n * MiB }),
    fc
      .constantFrom(-128n, 128n)
      .chain((end) =>
        fc.integer({ min: -3, max: 3 }).map((words) => end * MiB + BigInt(4 * words)),
      ),
  );
  fc.assert(
    fc.property(distance, (raw) => {
      const target = IP + (raw & ~3n);
      expect(inReach(REACH_PROFILES['6.1'], IP, target)).toBe(reachable(IP, target));
    }),
  );
});
