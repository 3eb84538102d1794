/**
 * A booted kernel's trampoline against ours of the same attachments: order, arguments, flags, enter and exit
 * functions follow from attaching in the lab; only addresses are the booted kernel's.
 */
import { branchWord } from '../../../a64/immediates.js';
import { compareValues, compareWords } from '../../../jit/vectors/compare.js';
import { compileTrampoline } from '../../../jit/trampoline.js';
import type { JitConfig } from '../../../jit/profile.js';
import { enterName, exitName } from '../../../kernel/bpf/enter-exit.js';
import type { Kernel } from '../../../kernel/kernel.js';
import type { ScenarioAttachment } from './scenario-attach.js';
import type { ScenarioTrampoline } from './scenario-file.js';
import type { ImageReading } from './scenario-image.js';
import { trampolineProfile, type BootedKernel } from './kernel.js';

export interface TrampolineSetting {
  readonly booted: BootedKernel;
  readonly config: JitConfig;
  /** Address of the traced function there. */
  readonly functionAddress: bigint;
}

/** The first difference, in one line. */
export function compareTrampoline(
  kernel: Kernel,
  { last: { trampoline } }: ScenarioAttachment,
  theirs: ScenarioTrampoline,
  reading: ImageReading,
  { booted, config, functionAddress }: TrampolineSetting,
): string | undefined {
  const request = trampoline.image?.request;
  if (!request) return 'ours has no image';
  const programs = request.links.map((link) =>
    trampoline.links.find(({ program }) => program.address === link.program),
  );
  const calls = Math.max(programs.length, reading.calls.length);
  const difference = compareValues(
    Array.from({ length: calls }, (_, i) => i).flatMap((i) => {
      const [call, program] = [reading.calls[i], programs[i]?.program];
      return [
        [`program ${i}`, call?.name ?? 'none', program?.name ?? 'none'] as const,
        [`enter of ${i}`, call?.enter.symbol, program && enterName(program.enterExit)] as const,
        [`exit of ${i}`, call?.exit.symbol, program && exitName(program.enterExit)] as const,
      ];
    }),
  );
  if (difference !== undefined) return difference;
  const links = request.links.map((link, i) => {
    const call = reading.calls[i];
    if (!call) return link;
    const { program, entry, enter, exit } = call;
    return { ...link, program, entry, enter: enter.address, exit: exit.address };
  });
  const code = compileTrampoline(request.model, request.flags, links, {
    kernel: booted.lab,
    profile: trampolineProfile(booted, theirs.words),
    config,
    offsets: kernel.bpf.profile.offsets,
    functionAddress,
    im: reading.im,
    enter: reading.trampEnter,
    exit: reading.trampExit,
    place: () => theirs.base,
  });
  const { ipAfterCall, ipEpilogue } = code;
  const words = [...code.words];
  if (ipAfterCall !== undefined && ipEpilogue !== undefined) {
    // of an image that is going away, bpf_tramp_image_put has made the NOP a branch
    const skip = branchWord(0n, BigInt(ipEpilogue - ipAfterCall), false);
    if (theirs.words[ipAfterCall / 4] === skip) words[ipAfterCall / 4] = skip;
  }
  const different = compareWords(theirs.words, words, theirs.base);
  if (!different) return undefined;
  const { index, text } = different;
  const part = code.listing.find(({ start, end }) => start <= index && index < end);
  return `${text}, in '${part?.text ?? 'nothing'}'`;
}
