/**
 * A case of the trampoline fuzzer: a function's model, what is attached to it, and the call.
 *
 * The function is a kernel function, or a function of a BPF program; everything attached is a tracing
 * program that reports what it saw and returns what the case says.
 */
import type { Random } from '../../common/random.js';
import type { KernelVersion } from '../../jit/profile.js';

/** fsession is one program at entry and at exit (7.3). */
export type FuzzLinkKind = 'fentry' | 'fmod_ret' | 'fexit' | 'fsession';

export interface FuzzLink {
  readonly kind: FuzzLinkKind;
  readonly sleepable: boolean;
  /** It asks for the function's address. */
  readonly ip: boolean;
  readonly cookie: bigint;
  /** What it returns; counts for fmod_ret alone. */
  readonly result: bigint;
}

export interface FuzzArgument {
  /** Bytes. */
  readonly size: number;
  readonly struct: boolean;
}

export interface TrampolineCase {
  readonly target: 'function' | 'program';
  readonly arguments: readonly FuzzArgument[];
  /** Every 8 bytes that the caller passes, in registers first; enough for all arguments. */
  readonly values: readonly bigint[];
  /** What the original returns. */
  readonly result: bigint;
  /** In the order in which they are attached. */
  readonly links: readonly FuzzLink[];
}

/** Programs of each kind (sleepable or not, asking for the address or not) that a case may use. */
export const PROGRAMS_PER_KIND = 4;
/** Arguments that a BPF function takes. */
export const PROGRAM_ARGUMENTS = 5;
const MOST_ARGUMENTS = 13;

/** 8-byte slots of an argument. */
export function slotsOf({ size }: FuzzArgument): number {
  return Math.ceil(size / 8);
}

const COOKIES = [0n, 1n, 0xffffn, 0x1_0000n, 0xffff_ffffn, 0xffff_ffff_ffff_ffffn, 1n << 52n];

function value(random: Random): bigint {
  return random.below(6) === 0 ? random.pick(COOKIES) : random.u64();
}

function argument(random: Random, target: TrampolineCase['target']): FuzzArgument {
  if (target === 'program') return { size: 8, struct: false };
  if (random.below(4) > 0) return { size: random.pick([1, 2, 4, 8, 8, 8]), struct: false };
  return { size: 1 + random.below(random.below(12) === 0 ? 20 : 16), struct: true };
}

export function generateTrampoline(random: Random, version: KernelVersion): TrampolineCase {
  const target = version === '6.1' || random.below(4) === 0 ? 'program' : 'function';
  const most = target === 'program' ? PROGRAM_ARGUMENTS : random.pick([4, 8, MOST_ARGUMENTS]);
  const args = Array.from({ length: random.below(most + 1) }, () => argument(random, target));
  const slots = args.reduce((sum, each) => sum + slotsOf(each), 0);
  const kinds: FuzzLinkKind[] =
    target === 'program' ? ['fentry', 'fexit'] : ['fentry', 'fentry', 'fmod_ret', 'fexit'];
  if (version === '7.3') kinds.push('fsession');
  // now and then only one kind: nothing else then hides what it does
  const only = random.below(3) === 0 ? random.pick(kinds) : undefined;
  const count = 1 + random.below(random.below(4) === 0 ? 9 : 3);
  const free = new Map<number, number>();
  const links = Array.from({ length: count }, (): FuzzLink => {
    const kind = only ?? random.pick(kinds);
    // a value that lets the original run is the usual one
    const result = random.below(4) === 0 ? value(random) : 0n;
    return {
      kind,
      // who traces a program may not sleep
      sleepable: random.below(3) === 0 && target === 'function',
      ip: random.below(3) === 0,
      cookie: random.below(2) === 0 ? 0n : value(random),
      result,
    };
  }).filter((link) => {
    const group = groupOf(link);
    const used = free.get(group) ?? 0;
    free.set(group, used + 1);
    return used < PROGRAMS_PER_KIND;
  });
  // two more than fit, for arguments that leave a register unused
  const values = Array.from({ length: slots + 9 }, () => value(random));
  return { target, arguments: args, values, result: value(random), links };
}

/** Which programs may stand for a link. */
export function groupOf({ sleepable, ip }: Pick<FuzzLink, 'sleepable' | 'ip'>): number {
  return (sleepable ? 1 : 0) | (ip ? 2 : 0);
}
