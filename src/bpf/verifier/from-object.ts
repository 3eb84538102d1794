/**
 * What the verifier needs to know about a program, from the object it is in.
 *
 * Relocations say what each ld_imm64 stands for; BTF says where a map value has a lock or timer, and
 * what arguments a global function takes. Reference: btf_parse_fields in kernel/bpf/btf.c.
 *
 * Usage:
 *   verify(verifierInput(object, program, linked, object.maps));
 */
import type { Btf } from '../btf/btf.js';
import { essentialName } from '../btf/core-spec.js';
import type { LinkedFunction } from '../object/link.js';
import { mapTypeName } from '../object/map-types.js';
import type { LoadTarget } from '../object/load.js';
import type { MapDefinition, ObjectSpec, ProgramSpec, SectionKind } from '../object/spec.js';
import { PSEUDO } from '../opcodes.js';
import { InputError } from '../../common/errors.js';
import { globalArguments, returnsScalar } from './global-arguments.js';
import type { Reference, VerifierFunction, VerifierInput, VerifierMap } from './input.js';

const BPF_F_RDONLY_PROG = 1 << 7;
const CALL = 0x85;

/** Maps whose values programs may read only, whatever their flags (dev_map_init_map). */
const DEVICE_MAPS: readonly string[] = ['DEVMAP', 'DEVMAP_HASH'];

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
  }: {
    readonly deviceBound?: boolean;
    readonly kernelBtf?: Btf | undefined;
    readonly target?: LoadTarget | undefined;
  } = {},
): VerifierInput {
  const known = new Map(maps.map((map) => [map.name, verifierMap(map, object.btf)]));
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
    ...(global && btf ? { global, returnsScalar: returnsScalar(btf, spec.btfId) } : {}),
  };
}

export function verifierMap(definition: MapDefinition, btf: Btf | undefined): VerifierMap {
  const { name, keySize, valueSize, maxEntries, flags, data, valueType, inner } = definition;
  const spinLock = fieldOffset(btf, valueType, 'bpf_spin_lock');
  const timer = fieldOffset(btf, valueType, 'bpf_timer');
  const typeName = mapTypeName(definition.type) ?? `${definition.type}`;
  const frozen = data !== undefined && (flags & BPF_F_RDONLY_PROG) !== 0;
  return {
    name,
    type: typeName,
    keySize,
    valueSize,
    maxEntries,
    flags: DEVICE_MAPS.includes(typeName) ? flags | BPF_F_RDONLY_PROG : flags,
    frozen,
    hasBtf: btf !== undefined && valueType !== 0,
    ...(data ? { contents: data } : {}),
    ...(spinLock === undefined ? {} : { spinLock }),
    ...(timer === undefined ? {} : { timer }),
    ...(inner ? { inner: verifierMap(inner, btf) } : {}),
  };
}

/** Where in a value the first member of `struct name` is, in nested structs too. */
function fieldOffset(
  btf: Btf | undefined,
  type: number,
  name: string,
  depth = 0,
): number | undefined {
  if (!btf || type === 0 || depth > 8) return undefined;
  const value = btf.resolve(type);
  if (value.kind === 'datasec') {
    for (const variable of value.variables) {
      const found = fieldOffset(btf, variable.type, name, depth + 1);
      if (found !== undefined) return variable.offset + found;
    }
    return undefined;
  }
  if (value.kind === 'var') return fieldOffset(btf, value.type, name, depth + 1);
  if (value.kind !== 'struct') return undefined;
  if (value.name === name) return 0;
  for (const member of value.members) {
    const found = fieldOffset(btf, member.type, name, depth + 1);
    if (found !== undefined) return member.bitOffset / 8 + found;
  }
  return undefined;
}
