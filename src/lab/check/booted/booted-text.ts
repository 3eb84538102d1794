/**
 * A lab kernel with the text of a booted one: functions that are traced have the code that its compiler made of them
 * (static.json beside the file), BPF code is generated for its CPU and configuration, and its linear map
 * begins where the booted one's did, so that addresses take as many instructions.
 */
import { hexToBytes, viewOf } from '../../../common/bytes.js';
import { ret } from '../../../jit/emit.js';
import type { FunctionBodies } from '../../../kernel/assembler.js';
import { trampolineProfile } from './kernel.js';
import type { ImageSetting } from './corpus-images.js';
import type { BootSetting } from './options.js';
import type { Scenario } from './scenario-file.js';

const RET = ret(30);
/** Words of a patch site. */
const SITE = 2;
const TRACED = /^bpf_(fentry|modify_return)_test\d*$/;
/** PAGE_OFFSET of 52-bit addresses; that of 48-bit ones is the lab's own. */
const PAGE_OFFSET_52 = 0xfff0_0000_0000_0000n;

export function bootSettingOf(
  scenario: Scenario,
  { kernel, traits }: ImageSetting,
  far: boolean,
  code: Readonly<Record<string, unknown>> | undefined,
): BootSetting {
  const bodies = bodiesOf(code ?? {});
  const images = scenario.states.flatMap(({ trampolines }) => trampolines);
  const shown = images.find(({ words }) => words.includes(NOP)) ?? images[0];
  return {
    far,
    bodies,
    codegen: {
      cpu: traits.cpu,
      config: traits.config,
      jit: kernel.jit,
      trampoline: trampolineProfile(kernel, shown?.words ?? []),
    },
    ...(usesLargeAddresses(scenario) ? { pageOffset: PAGE_OFFSET_52 } : {}),
  };
}

const NOP = 0xd503201f;

/** Whether objects of the heap have addresses below those of 48 bits. */
function usesLargeAddresses({ traces }: Scenario): boolean {
  return traces.some(({ registers }) => registers.some((value) => value >> 48n === 0xfff0n));
}

function bodiesOf(code: Readonly<Record<string, unknown>>): FunctionBodies {
  const bodies = new Map<string, readonly number[]>();
  for (const [name, value] of Object.entries(code)) {
    const hex = (value as { readonly code?: unknown }).code;
    if (!TRACED.test(name) || typeof hex !== 'string') continue;
    const view = viewOf(hexToBytes(hex));
    const words = Array.from({ length: view.byteLength >> 2 }, (_, i) =>
      view.getUint32(4 * i, true),
    );
    bodies.set(name, words.slice(SITE, words.lastIndexOf(RET) + 1));
  }
  return bodies;
}
