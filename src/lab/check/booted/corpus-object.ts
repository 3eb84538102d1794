/**
 * Programs of a corpus as objects that our loader takes: maps in place of descriptors, subprograms apart.
 *
 * The maps and their contents are those that the corpus was made with; an object has only those that its
 * program refers to. Entries of the prog array are programs of the corpus.
 */
import { encodeSlots, type Slot } from '../../../bpf/instruction.js';
import { BPF_MAP_TYPE, type BpfMap, type MapTypeName } from '../../../bpf/maps/map.js';
import type {
  FunctionSpec,
  MapDefinition,
  ObjectSpec,
  Relocation,
} from '../../../bpf/object/spec.js';
import { PSEUDO } from '../../../bpf/opcodes.js';
import { viewOf } from '../../../common/bytes.js';
import { InputError } from '../../../common/errors.js';
import { isMapReference } from './corpus-file.js';

const CALL = 0x85;

interface CorpusMap {
  readonly name: string;
  readonly type: MapTypeName;
  readonly valueSize: number;
  readonly maxEntries: number;
  /** Key and first words of the value. */
  readonly entries: readonly (readonly [key: number, value: readonly bigint[]])[];
}

/** In the order of their indexes (`map_notes`); keys are 4 bytes. */
const CORPUS_MAPS: readonly CorpusMap[] = [
  {
    name: 'array',
    type: 'ARRAY',
    valueSize: 8,
    maxEntries: 4,
    entries: [0, 1, 2, 3].map((i) => [i, [0x1111n * BigInt(i)]]),
  },
  { name: 'hash', type: 'HASH', valueSize: 8, maxEntries: 8, entries: [[1, [0x2222n]]] },
  { name: 'progs', type: 'PROG_ARRAY', valueSize: 4, maxEntries: 4, entries: [] },
  { name: 'percpu', type: 'PERCPU_ARRAY', valueSize: 8, maxEntries: 4, entries: [] },
  {
    name: 'page',
    type: 'ARRAY',
    valueSize: 64,
    maxEntries: 1,
    entries: [[0, Array.from({ length: 8 }, (_, i) => 0x3330n + BigInt(i))]],
  },
];

/** Programs in the slots of the prog array. */
export const TAIL_CALL_TARGETS = ['tail_target', 'tail_target_cs', 'tail_call_loop'] as const;

export function corpusObject(
  name: string,
  kind: 'xdp' | 'socket',
  slots: readonly Slot[],
): ObjectSpec {
  const functions = splitFunctions(slots);
  const used = new Set(
    functions.flatMap(({ relocations }) =>
      relocations.flatMap((each) => ('map' in each ? [each.map] : [])),
    ),
  );
  return {
    name,
    license: 'GPL',
    programs: [
      {
        name,
        section: kind,
        kind,
        frags: false,
        sleepable: false,
        xdpAttach: 'device',
        functionIndex: 0,
      },
    ],
    functions: functions.map((fn, i) => ({ ...fn, name: i === 0 ? name : `${name}_sub_${i}` })),
    maps: CORPUS_MAPS.filter((map) => used.has(map.name)).map(definition),
    externs: [],
    notes: [],
  };
}

function definition({ name, type, valueSize, maxEntries }: CorpusMap): MapDefinition {
  return {
    name,
    type: BPF_MAP_TYPE[type],
    keySize: 4,
    valueSize,
    maxEntries,
    flags: 0,
    keyType: 0,
    valueType: 0,
    initialValues: [],
  };
}

/** Puts in what the corpus was made with. */
export function fillMap(map: BpfMap): void {
  const known = CORPUS_MAPS.find(({ name }) => name === map.spec.name);
  for (const [number, values] of known?.entries ?? []) {
    const key = new Uint8Array(4);
    viewOf(key).setUint32(0, number, true);
    const value = new Uint8Array(8 * values.length);
    values.forEach((word, i) => viewOf(value).setBigUint64(8 * i, word, true));
    const result = map.set(key, value);
    if (result !== 0) throw new InputError(`map ${map.spec.name}: refused with ${result}`);
  }
}

/** Functions by the distances of bpf2bpf calls, in the order of their code. */
function splitFunctions(slots: readonly Slot[]): Omit<FunctionSpec, 'name'>[] {
  const isLocal = ({ code, src }: Slot): boolean => code === CALL && src === PSEUDO.CALL;
  const targets = slots.flatMap((slot, i) => (isLocal(slot) ? [i + 1 + slot.imm] : []));
  const starts = [...new Set([0, ...targets])].sort((a, b) => a - b);
  return starts.map((start, index) => {
    const body = slots.slice(start, starts[index + 1] ?? slots.length);
    return {
      section: '.text',
      offset: 8 * start,
      insns: encodeSlots(body),
      relocations: body.flatMap((slot, at): Relocation[] => {
        if (isLocal(slot)) {
          return [{ kind: 'call', slot: at, callee: starts.indexOf(start + at + 1 + slot.imm) }];
        }
        return isMapReference(body, at) ? [mapRelocation(body, at)] : [];
      }),
      lines: [],
      coreRelocations: [],
      isStatic: true,
      btfId: 0,
    };
  });
}

function mapRelocation(slots: readonly Slot[], at: number): Relocation {
  const [first, second] = [slots[at], slots[at + 1]];
  const map = CORPUS_MAPS[first?.imm ?? -1]?.name;
  if (map === undefined) throw new InputError(`insn ${at}: there is no map ${first?.imm}`);
  if (first?.src === PSEUDO.MAP_FD) return { kind: 'map', slot: at, map };
  return { kind: 'data', slot: at, map, offset: second?.imm ?? 0 };
}
