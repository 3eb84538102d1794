/**
 * Images of a booted kernel from its own xlated instructions: each word has to be ours.
 *
 * Taken out of the image beforehand, because the dump does not have it: addresses of maps, where the
 * ld_imm64 is, and the size of the stack, from the prologue. The call base is that of the whole file:
 * a call's target less its immediate, the same for all calls.
 */
import { encodeSlots, type Slot } from '../../../bpf/instruction.js';
import { high32, low32 } from '../../../common/bytes.js';
import { compile, type JitProgram } from '../../../jit/program.js';
import { compareWords } from '../../../jit/vectors/compare.js';
import { isMapReference } from './corpus-file.js';
import type { StructOffsets } from '../../../jit/profile.js';
import { branchTarget, bits, constantAt, constantBefore } from './image.js';
import type { BootedKernel } from './kernel.js';
import type { ImageTraits } from './traits.js';

const CALL = 0x85;
const TAIL_CALL = 0xf5;
const BLR_X10 = 0xd63f0140;

/** A program as a booted kernel dumped it. */
export interface DumpedProgram {
  readonly name: string;
  readonly functions: readonly (readonly Slot[])[];
  readonly images: readonly (readonly number[])[];
  readonly addresses: readonly bigint[];
}

export interface ImageSetting {
  readonly kernel: BootedKernel;
  readonly traits: ImageTraits;
  readonly offsets: StructOffsets;
  readonly callBase: bigint;
  /** Address of arch_bpf_timed_may_goto. Default: there is none. */
  readonly timedMayGoto?: bigint | undefined;
}

/** Bytes of stack: `sub sp, sp, #imm12`, 1101000100 imm12 11111 11111; 0 when there is none. */
export function stackOf(image: readonly number[]): number {
  const word = image.find((each) => (each & 0xffc003ff) >>> 0 === 0xd10003ff);
  return word === undefined ? 0 : bits(word, 10, 12);
}

/** Targets of calls in an image, in order: BL, or BLR of the address put into x10. */
function callTargets(image: readonly number[], base: bigint): bigint[] {
  return image.flatMap((word, i) => {
    const target =
      word === BLR_X10 ? constantBefore(image, i) : branchTarget(word, base + BigInt(4 * i), true);
    return target === undefined ? [] : [target];
  });
}

/** __bpf_call_base, as the first program shows it that has nothing but helper calls. */
export function findCallBase(programs: readonly DumpedProgram[]): bigint | undefined {
  for (const { functions, images, addresses } of programs) {
    for (const [i, slots] of functions.entries()) {
      const calls = slots.filter(({ code, src }) => code === CALL && src === 0);
      const targets = callTargets(images[i] ?? [], addresses[i] ?? 0n);
      const [call] = calls;
      const [target] = targets;
      // one that the JIT makes code of is no call in the image
      if (!call || target === undefined || calls.length !== targets.length) continue;
      if (slots.some(({ code, src }) => code === TAIL_CALL || (code === CALL && src !== 0)))
        continue;
      return BigInt.asUintN(64, target - BigInt(call.imm));
    }
  }
  return undefined;
}

/** The first difference, in one line. Throws KernelError for what our JIT refuses. */
export function compareImages(program: DumpedProgram, setting: ImageSetting): string | undefined {
  const { functions } = compileDumped(program, setting);
  if (functions.length !== program.images.length) {
    return `${program.images.length} images, ours ${functions.length}`;
  }
  for (const [i, image] of functions.entries()) {
    const difference = compareWords(program.images[i] ?? [], image.words, image.base);
    if (difference === undefined) continue;
    return functions.length === 1 ? difference.text : `function ${i}: ${difference.text}`;
  }
  return undefined;
}

/** Our images of a dumped program, at the addresses of theirs. */
export function compileDumped(program: DumpedProgram, setting: ImageSetting): JitProgram {
  const functions = program.functions.map((slots) => [...slots]);
  const build = (): JitProgram => compileFunctions(program, functions, setting);
  for (const [i, slots] of functions.entries()) {
    for (const at of slots.keys()) {
      if (!isMapReference(slots, at)) continue;
      // what stands before the reference is known by now, so its place is
      const offset = build().functions[i]?.insnOffsets[at] ?? 0;
      setConstant(slots, at, constantAt(program.images[i] ?? [], offset / 4) ?? 0n);
    }
  }
  return build();
}

function setConstant(slots: Slot[], at: number, value: bigint): void {
  const [first, second] = [slots[at], slots[at + 1]];
  if (!first || !second) return;
  slots[at] = { ...first, src: 0, imm: low32(value) };
  slots[at + 1] = { ...second, imm: high32(value) };
}

function compileFunctions(
  { name, images, addresses }: DumpedProgram,
  functions: readonly (readonly Slot[])[],
  { kernel, traits, offsets, callBase, timedMayGoto }: ImageSetting,
): JitProgram {
  const inputs = functions.map((slots, i) => ({
    name: `${name}[${i}]`,
    insns: encodeSlots(slots),
    stackDepth: stackOf(images[i] ?? []),
  }));
  return compile(
    { functions: inputs },
    {
      kernel: kernel.lab,
      profile: kernel.jit,
      cpu: traits.cpu,
      config: traits.config,
      offsets,
      callBase,
      // behind the words, where the dump ends
      dummyTramp: 0n,
      ...(timedMayGoto === undefined ? {} : { timedMayGoto }),
      place: (index) => addresses[index] ?? 0n,
    },
  );
}
