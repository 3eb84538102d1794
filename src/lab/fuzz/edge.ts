/**
 * Images where BL ends: 128 MiB in front of the helpers, so that a call is just within reach, or just not.
 */
import { readSlots } from '../../bpf/instruction.js';
import type { XlatedProgram } from '../../bpf/program.js';
import type { JitOptions, JitProgram } from '../../jit/program.js';
import type { ImageArea } from './image-area.js';
import { MIX_HELPERS } from './helpers.js';
import type { KernelWorkbench } from './kernel-workbench.js';

/** The first distance that BL does not reach. */
const REACH = 128n << 20n;
const CALL = 0x85;

/** About where images have to be. */
export function edgeOf({ kernel }: KernelWorkbench): bigint {
  return kernel.symbol(`lab_mix_${MIX_HELPERS[0]}`) - REACH;
}

/**
 * Compiles twice: to learn where the first call of a helper is, then with that at a distance of BL's reach, or
 * a word more or less, which changes from program to program.
 */
export function compileAtEdge(
  program: XlatedProgram,
  area: ImageArea,
  callBase: bigint,
  compileAt: (place: JitOptions['place']) => JitProgram,
): JitProgram {
  const slots = readSlots(program.functions[0].insns);
  const index = slots.findIndex(({ code, src }) => code === CALL && src === 0);
  const target = callBase + BigInt(slots[index]?.imm ?? 0);
  let next = target - REACH;
  const trial = compileAt((_index, size) => {
    next += BigInt(size + 16) & ~15n;
    return next;
  });
  const offset = trial.functions[0]?.insnOffsets[index];
  const words = BigInt(slots.length % 3) - 1n;
  return compileAt((number, size) => {
    if (number > 0 || offset === undefined) return area.take(size);
    const base = target - REACH - BigInt(offset) + 4n * words;
    return area.takeAt(base, size) ?? area.take(size);
  });
}
