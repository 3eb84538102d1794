/**
 * What the files of a scenario say about its kernel: version, CPU, configuration, and whether trampolines are out of
 * reach of the functions that they are attached to.
 */
import { inBranchRange } from '../../../jit/calls.js';
import { VECTOR_OFFSETS } from '../../../jit/vectors/harness.js';
import { VectorRecord } from '../record.js';
import { findCallBase, type ImageSetting } from './corpus-images.js';
import { bootedKernel, releaseOfPrologue, type BootedKernel } from './kernel.js';
import type { BootedOptions } from './options.js';
import type { Scenario } from './scenario-file.js';
import { readTraits } from './traits.js';

/** `fallback`: the release where facts.json is not beside the file. */
export function settingOf(
  { record, programs }: Scenario,
  { readSibling }: Pick<BootedOptions, 'readSibling'>,
  fallback?: string,
): ImageSetting {
  const images = programs.flatMap((program) => program.images);
  const traits = readTraits(images);
  const facts = readSibling('facts.json');
  const uname = facts && new VectorRecord(`${record.origin} facts.json`, facts).text('uname');
  // a file without programs says nothing that depends on the version
  const release = uname ?? fallback ?? releaseOfPrologue(images[0]) ?? '6.12';
  const kernel: BootedKernel = bootedKernel(release, traits);
  return {
    kernel,
    traits,
    offsets: { ...VECTOR_OFFSETS[kernel.lab], ...traits.offsets },
    callBase: findCallBase(programs) ?? 0n,
  };
}

/** Is a trampoline out of reach of the function that it is attached to? */
export function isFar({ states }: Scenario): boolean {
  return states.some(({ address, literal }) => {
    const image = literal?.directCall ?? 0n;
    return image !== 0n && !inBranchRange(address + 4n, image);
  });
}
