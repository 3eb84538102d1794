/**
 * What the verifier needs to know about a program, from the object it is in.
 *
 * Relocations say what each ld_imm64 stands for; BTF says what of the kernel's lies in map values and objects,
 * and what arguments a global function takes.
 *
 * Usage:
 *   verify(verifierInput(object, program, linked, object.maps));
 */
import type { Btf } from '../btf/btf.js';
import { essentialName } from '../btf/core-spec.js';
import { localTypes, type LocalTypes } from '../btf/local-types.js';
import { kernelStructs } from '../kfuncs/kernel-structs.js';
import { SLOT_SIZE, type Slot } from '../instruction.js';
import { describeRelocation, POISON } from '../object/core.js';
import type { LinkedFunction } from '../object/link.js';
import { mapTypeName } from '../object/map-types.js';
import type { LoadTarget } from '../object/load.js';
import type {
  FunctionSpec,
  MapDefinition,
  ObjectSpec,
  ProgramSpec,
  SectionKind,
} from '../object/spec.js';
import { PSEUDO } from '../opcodes.js';
import { InputError, KernelError } from '../../common/errors.js';
import { globalArguments, returnsScalar } from './global-arguments.js';
import type { Reference, VerifierFunction, VerifierInput, VerifierMap } from './input.js';

const BPF_F_RDONLY_PROG = 1 << 7;
const CALL = 0x85;

/** Licenses whose programs may call GPL-only helpers (license_is_gpl_compatible). */
const GPL_LICENSES: readonly string[] = [
  'GPL',
  'GPL v2',
  'GPL and additional rights',
  'Dual BSD/GPL',
  'Dual MIT/GPL',
  'Dual MPL/GPL',
];

/** `maps` are the definitions as they are loaded, which may differ from the object's. */
export function verifierInput(
  object: ObjectSpec,
  program: ProgramSpec,
  linked: readonly LinkedFunction[],
  maps: readonly MapDefinition[],
  {
    deviceBound = false,
    kernelBtf,
    target,
    types = objectTypes(object.btf, kernelBtf),
  }: {
    readonly deviceBound?: boolean;
    readonly kernelBtf?: Btf | undefined;
    readonly target?: LoadTarget | undefined;
    /** Those of `objectTypes`, where they are known. */
    readonly types?: LocalTypes | undefined;
  } = {},
): VerifierInput {
  const known = new Map(maps.map((map) => [map.name, verifierMap(map, types)]));
  const find = (name: string): VerifierMap => {
    const map = known.get(name);
    if (!map) throw new InputError(`there is no map '${name}'`);
    return map;
  };
  return {
    name: program.name,
    kind: program.kind,
    xdpAttach: program.xdpAttach,
    gpl: GPL_LICENSES.includes(object.license),
    deviceBound,
    ...(kernelBtf ? { kernelBtf } : {}),
    ...(types && object.btf ? { types, btf: object.btf } : {}),
    sleepable: program.sleepable,
    ...(target?.kind === 'traced' ? { traced: target.traced } : {}),
    ...(target?.kind === 'traced' && target.resultRange ? { resultRange: target.resultRange } : {}),
    functions: linked.map((each, i) =>
      // what extends a program takes the arguments of the function it replaces
      verifierFunction(object, each, program.kind, i === 0 && target?.kind !== 'replaced', find),
    ),
  };
}

function verifierFunction(
  { btf, externs }: ObjectSpec,
  { spec, slots }: LinkedFunction,
  kind: SectionKind,
  isMain: boolean,
  find: (name: string) => VerifierMap,
): VerifierFunction {
  const references = new Map<number, Reference>();
  const kfuncs = new Map<number, string>();
  const numbered = new Map<number, string>();
  for (const relocation of spec.relocations) {
    if (relocation.kind === 'map') {
      references.set(relocation.slot, { kind: 'map', map: find(relocation.map) });
    } else if (relocation.kind === 'data') {
      const { map, offset } = relocation;
      references.set(relocation.slot, { kind: 'value', map: find(map), offset });
    } else if (relocation.kind === 'extern') {
      const { slot, symbol } = relocation;
      const isKfunc = externs.some((each) => each.name === symbol && each.kind === 'kfunc');
      const isCall = isKfunc && slots[slot]?.code === CALL;
      if (isCall) {
        const calls = slots[slot]?.src === PSEUDO.KFUNC_CALL ? kfuncs : numbered;
        calls.set(slot, essentialName(symbol));
      }
    }
  }
  const isGlobal = !isMain && !spec.isStatic && spec.btfId !== 0 && btf !== undefined;
  const global = isGlobal ? globalArguments(btf, spec.btfId, kind) : undefined;
  return {
    name: spec.name,
    slots,
    lines: spec.lines,
    references,
    kfuncs,
    numbered,
    poisoned: poisonedRelocations(btf, spec, slots),
    ...(global && btf ? { global, returnsScalar: returnsScalar(btf, spec.btfId) } : {}),
  };
}

function poisonedRelocations(
  btf: Btf | undefined,
  { coreRelocations }: FunctionSpec,
  slots: readonly Slot[],
): Map<number, string> {
  const poisoned = new Map<number, string>();
  for (const relocation of btf ? coreRelocations : []) {
    const at = relocation.offset / SLOT_SIZE;
    const slot = slots[at];
    if (btf && slot?.code === CALL && slot.imm === POISON) {
      poisoned.set(at, describeRelocation(relocation, btf));
    }
  }
  return poisoned;
}

export function verifierMap(definition: MapDefinition, types: LocalTypes | undefined): VerifierMap {
  const { name, keySize, valueSize, maxEntries, flags, data, valueType, inner } = definition;
  const record = valueType === 0 ? undefined : types?.valueRecord(valueType, valueSize);
  const frozen = data !== undefined && (flags & BPF_F_RDONLY_PROG) !== 0;
  return {
    name,
    type: mapTypeName(definition.type) ?? `${definition.type}`,
    keySize,
    valueSize,
    maxEntries,
    flags,
    frozen,
    hasBtf: types !== undefined && valueType !== 0,
    ...(data ? { contents: data } : {}),
    ...(record ? { record } : {}),
    ...(inner ? { inner: verifierMap(inner, types) } : {}),
  };
}

/** The types of an object's BTF; undefined where there is none, or the kernel does not take it. */
export function objectTypes(
  btf: Btf | undefined,
  kernelBtf: Btf | undefined,
): LocalTypes | undefined {
  if (!btf) return undefined;
  try {
    return localTypes(btf, kernelStructs(kernelBtf));
  } catch (error) {
    if (error instanceof KernelError) return undefined;
    throw error;
  }
}
