/**
 * Which profile of the JIT and of the trampoline generator a booted kernel is compared with.
 *
 * Releases of a profile's own line and near it follow that profile. 6.18 lies between 6.12 and 7.3 and is
 * put together from what had been merged by then: acquire and release, the immediate form of atomic
 * addresses, speculation barriers, 12 arguments; the register of R0, the form of moves and of the argument
 * count are read off the images. Other releases are refused.
 */
import { InputError } from '../../../common/errors.js';
import type { JitProfile, KernelVersion } from '../../../jit/profile.js';
import { nop, ret, SP, stpPreIndex } from '../../../jit/emit.js';
import { moveRegisterWord } from '../../../jit/poke.js';
import { PROFILES } from '../../../jit/profiles.js';
import { TRAMPOLINE_PROFILES, type TrampolineProfile } from '../../../jit/trampoline-profile.js';
import type { ImageTraits } from './traits.js';

export interface BootedKernel {
  /** As the file says it: `7.2`. */
  readonly release: string;
  /** Version of the lab kernel in which its programs run. */
  readonly lab: KernelVersion;
  readonly jit: JitProfile;
  readonly trampoline: TrampolineProfile;
}

type Base = Pick<BootedKernel, 'lab' | 'jit' | 'trampoline'>;

function ofVersion(lab: KernelVersion): Base {
  return { lab, jit: PROFILES[lab], trampoline: TRAMPOLINE_PROFILES[lab] };
}

const LINUX_6_18: Base = {
  lab: '7.3',
  jit: {
    ...PROFILES['6.12'],
    acquireRelease: true,
    atomicAddImmediate: true,
    nospecBarrier: true,
    arenaSignedLoad: true,
  },
  trampoline: {
    ...TRAMPOLINE_PROFILES['6.12'],
    checkArguments: TRAMPOLINE_PROFILES['7.3'].checkArguments,
  },
};

/** By major.minor. */
const RELEASES: Readonly<Record<string, Base>> = {
  '6.1': ofVersion('6.1'),
  '6.12': ofVersion('6.12'),
  '6.18': LINUX_6_18,
  '7.2': ofVersion('7.3'),
  '7.3': ofVersion('7.3'),
};

/** `text` is a release or what uname says. Throws InputError for a release without a profile. */
export function bootedKernel(text: string, traits: Pick<ImageTraits, 'move' | 'r0'>): BootedKernel {
  const release = /(\d+\.\d+)/.exec(text)?.[1] ?? text;
  const base = Object.hasOwn(RELEASES, release) ? RELEASES[release] : undefined;
  if (!base) {
    const known = Object.keys(RELEASES).join(', ');
    throw new InputError(`kernel '${text}': no profile for ${release} (there are: ${known})`);
  }
  if (base !== LINUX_6_18) return { release, ...base };
  const move = traits.move ?? base.jit.move;
  const [r0, ...rest] = base.jit.registers.bpf;
  // BPF_REG_AX is 11, or 12 where 11 stands for stack arguments
  const { ax } = base.jit.registers;
  const registers = { ...base.jit.registers, bpf: [traits.r0 ?? r0 ?? 0, ...rest, ax] };
  return {
    release,
    lab: base.lab,
    jit: { ...base.jit, move, registers },
    trampoline: { ...base.trampoline, move },
  };
}

/** Version of the lab kernel that a release or what uname says is compared with. */
export function labVersion(text: string): KernelVersion {
  return bootedKernel(text, { move: undefined, r0: undefined }).lab;
}

/**
 * The trampoline profile for an image: of a kernel between the profiles, as far as the image shows it. A NOP
 * behind the call of the original is 6.12's, one anywhere else 7.3's; the argument count is put into w10 or
 * x10.
 */
export function trampolineProfile(
  { release, trampoline }: BootedKernel,
  words: readonly number[],
): TrampolineProfile {
  if (RELEASES[release] !== LINUX_6_18) return trampoline;
  const nops = words.flatMap((word, i) => (word === nop() ? [i] : []));
  const afterCall = nops.some((at) => words[at - 2] === ret(10));
  // movz [wx]10, #imm16
  const count = words.find((word) => (word & 0x7fe0001f) >>> 0 === 0x5280000a) ?? 0;
  return {
    ...trampoline,
    nopAfterCall: afterCall || nops.length === 0,
    nopBeforeProgram: !afterCall && nops.length > 0,
    countWidth: count >>> 31 ? 64 : 32,
  };
}

const PUSH_X27_X28 = stpPreIndex(27, 28, SP, -16);

/** The profile's release that a program's first words show; undefined without words. */
export function releaseOfPrologue(image: readonly number[] | undefined): string | undefined {
  if (!image) return undefined;
  if (image.slice(0, 10).includes(PUSH_X27_X28)) return '6.1';
  const isOrr = image.slice(0, 2).includes(moveRegisterWord(9, 30));
  return isOrr ? '7.3' : '6.12';
}
