/**
 * The text of a BPF program that others are attached to, in one state of a booted kernel: its images with
 * the word that bpf_arch_text_poke writes at the entry of a function, a BL to a trampoline or (freplace) a
 * B to another program.
 *
 * The state gives the words of all its functions, one after another. What is attached where is read off the
 * poke sites; that the branch goes to an image or a program which the file has, and which word that
 * makes, is compared.
 */
import { planTextPoke, pokeOffset, type PokeType } from '../../../jit/poke.js';
import { nop } from '../../../jit/emit.js';
import { compareWords } from '../../../jit/vectors/compare.js';
import { compileDumped, type ImageSetting } from './corpus-images.js';
import { branchTarget } from './image.js';
import type { Scenario, ScenarioProgram, ScenarioState } from './scenario-file.js';

/** The program whose text a state shows. */
export function shownProgram(
  { programs }: Scenario,
  { fn, address }: ScenarioState,
): ScenarioProgram | undefined {
  if (!fn.startsWith('bpf ')) return undefined;
  return programs.find(({ addresses }) => addresses[0] === address);
}

/** The first difference, in one line. */
export function comparePokedProgram(
  program: ScenarioProgram,
  state: ScenarioState,
  scenario: Scenario,
  setting: ImageSetting,
): string | undefined {
  const { bti } = setting.traits.config;
  const expected: number[] = [];
  for (const { base, words, jitedLength } of compileDumped(program, setting).functions) {
    const site = pokeOffset(bti);
    const theirs = state.words[expected.length + site] ?? 0;
    const image = { base, jitedLength };
    const poked = [...words];
    if (theirs !== nop()) {
      const plans = candidates(state, scenario).map(([type, newAddress]) => {
        const request = { ip: base, type, oldAddress: 0n, newAddress, image, bti, dummyTramp: 0n };
        return planTextPoke({ ...request, read: () => nop() });
      });
      const plan = plans.find(({ patch }) => patch?.word === theirs);
      if (!plan?.patch) {
        const link = branchTarget(theirs, base + BigInt(4 * site), true) !== undefined;
        return `the ${link ? 'call' : 'branch'} at 0x${base.toString(16)} goes to nothing known`;
      }
      poked[site] = plan.patch.word;
    }
    expected.push(...poked);
  }
  return compareWords(state.words, expected, state.address)?.text;
}

/** What a poke site may go to: trampolines that are live, or the other programs. */
function candidates(
  { trampolines }: ScenarioState,
  { programs }: Scenario,
): (readonly [PokeType, bigint])[] {
  return [
    ...trampolines.map(({ base }) => ['call', base] as const),
    ...programs.map(({ addresses }) => ['jump', addresses[0] ?? 0n] as const),
  ];
}
