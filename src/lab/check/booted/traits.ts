/**
 * What the images of a booted kernel say about it: CPU features and configuration that its JIT saw, and
 * offsets of kernel structs that are baked into code.
 *
 *   ldxr, stxr              no LSE atomics (the JIT uses one kind or the other)
 *   mrs xN, tpidr_el2       the kernel runs at EL2 (VHE)
 *   sb                      ARM64_HAS_SB
 *   paciasp; bti jc         CONFIG_ARM64_PTR_AUTH_KERNEL; CONFIG_ARM64_BTI_KERNEL
 *   mov x0, R0; ret         which register R0 is, and in which form registers are moved
 *
 * Offsets stand in tail calls and in the inlined bpf_get_smp_processor_id. What no image shows is left
 * undefined; nothing follows from names of folders or CPUs.
 */
import { decode } from '../../../a64/codec.js';
import { addImmediate, autiasp, bti, loadRegister, mrs, paciasp, ret } from '../../../jit/emit.js';
import type { JitConfig, JitCpu, StructOffsets } from '../../../jit/profile.js';
import { bits, constantBefore } from './image.js';

export interface ImageTraits {
  readonly cpu: JitCpu;
  readonly config: JitConfig;
  /** How registers are moved, and where BPF's R0 is; undefined when no image ends as programs do. */
  readonly move: 'add' | 'orr' | undefined;
  readonly r0: number | undefined;
  readonly offsets: Partial<StructOffsets>;
}

const PACIASP = paciasp();
const AUTIASP = autiasp();
const RET = ret(30);
const BTI_JC = bti('jc');
const MRS_SP_EL0 = mrs('sp_el0', 10);
/** Of a tail call: ldr w10, [x1, x10]; add x10, x1, x10; ldr x10, [x11, x10]. */
const LOAD_MAX_ENTRIES = loadRegister(2, false, 10, 1, 10);
const ADD_PTRS = 0x8b0a002a;
const LSL_INDEX = 0xd37df04b;
const LOAD_BPF_FUNC = loadRegister(3, false, 10, 11, 10);

export function readTraits(images: readonly (readonly number[])[]): ImageTraits {
  const words = new Set(images.flat());
  const names = new Set([...words].map((word) => decode(word)?.row.name));
  const onlyExclusives = names.has('LDXR') || names.has('STXR') || names.has('STLXR');
  return {
    cpu: {
      lse: !onlyExclusives,
      vhe: [...words].some((word) => (word & ~0x1f) >>> 0 === mrs('tpidr_el2', 0)),
      sb: names.has('SB'),
    },
    config: {
      pac: words.has(PACIASP),
      bti: images.some((image) => image[0] === BTI_JC),
    },
    ...readReturn(images),
    offsets: Object.assign({}, ...images.map(readOffsets)) as Partial<StructOffsets>,
  };
}

/** `mov x0, R0; [autiasp;] ret` is how programs end. */
function readReturn(images: readonly (readonly number[])[]): Pick<ImageTraits, 'move' | 'r0'> {
  for (const image of images) {
    const end = image.lastIndexOf(RET);
    const move = image[end - (image[end - 1] === AUTIASP ? 2 : 1)] ?? 0;
    // add x0, xN, #0, or orr x0, xzr, xN
    const rn = bits(move, 5, 5);
    if (move === addImmediate(1, 0, rn, 0)) return { move: 'add', r0: rn };
    if ((move & ~(0x1f << 16)) >>> 0 === 0xaa0003e0) {
      return { move: 'orr', r0: bits(move, 16, 5) };
    }
  }
  return { move: undefined, r0: undefined };
}

function readOffsets(image: readonly number[]): Partial<StructOffsets> {
  const offsets: { -readonly [name in keyof StructOffsets]?: number } = {};
  const note = (name: keyof StructOffsets, value: bigint | undefined): void => {
    if (value !== undefined) offsets[name] = Number(value);
  };
  for (const [i, word] of image.entries()) {
    const next = image[i + 1] ?? 0;
    if (word === LOAD_MAX_ENTRIES) note('maxEntries', constantBefore(image, i));
    else if (word === ADD_PTRS && next === LSL_INDEX) note('ptrs', constantBefore(image, i));
    else if (word === LOAD_BPF_FUNC) note('bpfFunc', constantBefore(image, i));
    // ldr wN, [x10, #imm12 * 4]
    else if (
      word === MRS_SP_EL0 &&
      bits(next, 22, 10) === 0b1011100101 &&
      bits(next, 5, 5) === 10
    ) {
      offsets.threadInfoCpu = 4 * bits(next, 10, 12);
    }
  }
  return offsets;
}
