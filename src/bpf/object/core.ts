/**
 * Applies CO-RE relocations: adapts instructions to the structs of the kernel that the program is
 * loaded into.
 *
 * Reference: bpf_core_calc_relo_insn and bpf_core_patch_insn in tools/lib/bpf/relo_core.c. What cannot
 * be found in the target, but must be, becomes a call of helper POISON, which no kernel has: the
 * program is refused if that call can be reached. Candidates that disagree are an error.
 *
 *   ALU with immediate   imm                LDX, ST, STX   off, and the size where the field's differs
 *   ld_imm64             both imm
 */
import { high32, low32 } from '../../common/bytes.js';
import { InputError, KernelError } from '../../common/errors.js';
import type { Btf } from '../btf/btf.js';
import type { CoreRelocation } from '../btf/ext.js';
import { matchCore, type CoreTarget } from '../btf/core-match.js';
import {
  CORE_KIND,
  CORE_SUBJECTS,
  describeCoreSpec,
  parseCoreAccess,
  type CoreSpec,
} from '../btf/core-spec.js';
import { coreValue, type CoreValue } from '../btf/core-values.js';
import { imm64, makeSlot, SLOT_SIZE, type Slot } from '../instruction.js';
import { CLASS } from '../opcodes.js';

/** 0xbad2310, "bad relo": the helper number that libbpf puts where a relocation failed. */
export const POISON = 195896080;

/** What a relocation comes to. */
interface Resolution {
  readonly local: CoreValue;
  /** Undefined: poisoned. */
  readonly target: CoreValue | undefined;
  readonly targetSpec: CoreSpec | undefined;
}

/** Changes `slots` of one function. Throws when types are ambiguous or an instruction does not fit. */
export function relocateCore(
  slots: Slot[],
  relocations: readonly CoreRelocation[],
  local: Btf,
  kernelTypes: () => CoreTarget,
  describe: (slot: number) => string,
): void {
  for (const relocation of relocations) {
    const at = relocation.offset / SLOT_SIZE;
    const first = slots[at];
    if (!first) {
      throw new InputError(`CO-RE relocation at byte ${relocation.offset}, no instruction there`);
    }
    try {
      const spec = specOf(relocation, local);
      patch(slots, at, first, resolve(relocation.kind, spec, kernelTypes), spec);
    } catch (error) {
      if (!(error instanceof InputError)) throw error;
      throw new KernelError('EINVAL', `${describe(at)}: ${error.message}`);
    }
  }
}

/** What a relocation asks for, as libbpf writes it. */
export function describeRelocation(relocation: CoreRelocation, local: Btf): string {
  return describeCoreSpec(specOf(relocation, local));
}

function specOf({ kind, type, access }: CoreRelocation, local: Btf): CoreSpec {
  const subject = CORE_SUBJECTS[kind];
  if (subject === undefined) throw new InputError(`CO-RE relocation of unknown kind ${kind}`);
  return parseCoreAccess(local, type, access, subject);
}

function resolve(kind: number, spec: CoreSpec, kernelTypes: () => CoreTarget): Resolution {
  const local = coreValue(kind, spec);
  if (!local) throw new InputError(`CO-RE relocation of ${describeCoreSpec(spec)} has no value`);
  // asks nothing of the kernel
  if (kind === CORE_KIND.TYPE_ID_LOCAL) return { local, target: local, targetSpec: undefined };
  const root = spec.btf.at(spec.root);
  if (!('name' in root) || root.name === '') {
    throw new InputError(`CO-RE relocation of an anonymous ${root.kind} has no counterpart`);
  }
  const target = kernelTypes();
  const subject = CORE_SUBJECTS[kind] ?? 'field';
  const how = kind === CORE_KIND.TYPE_MATCHES ? 'match' : subject;
  let found: Resolution | undefined;
  for (const id of target.candidates(spec)) {
    const targetSpec = matchCore(spec, how, target.btf, id);
    if (!targetSpec) continue;
    const next: Resolution = { local, target: coreValue(kind, targetSpec), targetSpec };
    const agrees =
      !found ||
      (found.targetSpec?.bitOffset === targetSpec.bitOffset &&
        found.target?.value === next.target?.value);
    if (!agrees) {
      throw new InputError(
        `CO-RE relocation of ${describeCoreSpec(spec)} is ambiguous: BTF types ${found?.targetSpec?.root} and ${id} of the kernel give ${found?.target?.value} and ${next.target?.value}`,
      );
    }
    found ??= next;
  }
  return found ?? { local, target: coreValue(kind, undefined), targetSpec: undefined };
}

function patch(
  slots: Slot[],
  at: number,
  first: Slot,
  { local, target, targetSpec }: Resolution,
  spec: CoreSpec,
): void {
  const { value: expected, validate } = local;
  const second = slots[at + 1];
  const isWide = first.code === 0x18;
  if (!target) {
    const poison = makeSlot(0x85, { imm: POISON });
    slots[at] = poison;
    if (isWide) slots[at + 1] = poison;
    return;
  }
  const check = (there: bigint): void => {
    if (validate && BigInt.asUintN(64, there) !== BigInt.asUintN(64, expected)) {
      throw new InputError(
        `CO-RE relocation of ${describeCoreSpec(spec)}: the instruction holds ${there}, not ${expected}`,
      );
    }
  };
  const { value } = target;
  switch (first.code & 7) {
    case CLASS.ALU:
    case CLASS.ALU64:
      if ((first.code & 8) !== 0) throw unfit(first);
      if (validate && first.imm !== low32(expected)) check(BigInt(first.imm));
      slots[at] = { ...first, imm: low32(value) };
      break;
    case CLASS.LDX:
    case CLASS.ST:
    case CLASS.STX:
      check(BigInt(first.off));
      if (value > 0x7fffn) {
        throw new InputError(
          `CO-RE relocation of ${describeCoreSpec(spec)}: offset ${value} does not fit 16 bits`,
        );
      }
      slots[at] = {
        ...first,
        code: resized(first, local, target, spec, targetSpec),
        off: Number(value),
      };
      break;
    case CLASS.LD:
      if (!isWide || !second || first.src !== 0) throw unfit(first);
      check(imm64(first, second));
      slots[at] = { ...first, imm: low32(value) };
      slots[at + 1] = { ...second, imm: high32(value) };
      break;
    default:
      throw unfit(first);
  }
}

function unfit({ code }: Slot): InputError {
  return new InputError(
    `CO-RE relocation of opcode 0x${code.toString(16).padStart(2, '0')}, which has nothing to relocate`,
  );
}

/** Size bits of loads and stores by bytes: W 0x00, H 0x08, B 0x10, DW 0x18. */
const SIZE_BITS: ReadonlyMap<number, number> = new Map([
  [4, 0x00],
  [2, 0x08],
  [1, 0x10],
  [8, 0x18],
]);

/** The opcode for the target's field size. Only pointers and unsigned numbers may change theirs. */
function resized(
  slot: Slot,
  local: CoreValue,
  target: CoreValue,
  spec: CoreSpec,
  targetSpec: CoreSpec | undefined,
): number {
  const [ours, theirs] = [local.field, target.field];
  if (!ours || !theirs || !targetSpec || ours.size === theirs.size) return slot.code;
  const [from, to] = [spec.btf.resolve(ours.type), targetSpec.btf.resolve(theirs.type)];
  const unsigned = from.kind === 'int' && to.kind === 'int' && !from.signed && !to.signed;
  const bits = SIZE_BITS.get(theirs.size);
  if (!(unsigned || (from.kind === 'ptr' && to.kind === 'ptr')) || bits === undefined) {
    throw new InputError(
      `CO-RE relocation of ${describeCoreSpec(spec)}: ${ours.size} bytes here, ${theirs.size} in the kernel, and not both unsigned`,
    );
  }
  if ((slot.code & 0x18) !== SIZE_BITS.get(ours.size)) {
    throw new InputError(
      `CO-RE relocation of ${describeCoreSpec(spec)}: the instruction does not access ${ours.size} bytes`,
    );
  }
  return (slot.code & ~0x18) | bits;
}
