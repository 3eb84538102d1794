/**
 * What the verifier inlines: the same results as code on a CPU, as calls in the interpreter and in wasm, and
 * the instructions of each version.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { disassemble } from '../../src/bpf/disassemble.js';
import { encodeSlots, readSlots, type Slot } from '../../src/bpf/instruction.js';
import { BPF_MAP_TYPE, type BpfMap, type MapTypeName } from '../../src/bpf/maps/map.js';
import { load, type LoadedObject } from '../../src/bpf/object/load.js';
import type { MapDefinition, ObjectSpec } from '../../src/bpf/object/spec.js';
import { assemble } from '../../src/bpf/assemble.js';
import { KERNEL_VERSIONS } from '../../src/cli/engine.js';
import { createRunner } from '../../src/lab/run-program.js';
import type { Kernel } from '../../src/kernel/kernel.js';
import { bootLab } from '../../src/node/boot.js';

const KEYS = 6;

function definition(type: MapTypeName, keySize: number, valueSize: number): MapDefinition {
  const common = { flags: 0, keyType: 0, valueType: 0, initialValues: [] };
  return { name: 'm', type: BPF_MAP_TYPE[type], keySize, valueSize, maxEntries: KEYS, ...common };
}

/** r0 = look-up of the key whose first byte is `key`: its value's first byte, which goes up by 1; 99 for NULL. */
function lookup(key: number): Slot[] {
  const text = `
    r2 = 0
    *(u64 *)(r10 - 8) = r2
    *(u64 *)(r10 - 16) = r2
    r2 = ${key}
    *(u8 *)(r10 - 16) = r2
    r2 = r10
    r2 += -16
    r1 = 0 ll
    call 1
    if r0 == 0 goto +6
    r1 = r0
    r0 = *(u8 *)(r1 + 0)
    r2 = r0
    r2 += 1
    *(u8 *)(r1 + 0) = r2
    exit
    r0 = 99
    exit`;
  return readSlots(assemble(text));
}

function objectOf(map: MapDefinition, slots: readonly Slot[]): ObjectSpec {
  const at = slots.findIndex(({ code }) => code === 0x18);
  return {
    name: 'p',
    license: 'GPL',
    programs: [
      {
        name: 'p',
        section: 'xdp',
        kind: 'xdp',
        frags: false,
        sleepable: false,
        xdpAttach: 'device',
        functionIndex: 0,
      },
    ],
    functions: [
      {
        name: 'p',
        section: 'xdp',
        offset: 0,
        insns: encodeSlots(slots),
        relocations: [{ kind: 'map', slot: at, map: map.name }],
        lines: [],
        coreRelocations: [],
        isStatic: true,
        btfId: 0,
      },
    ],
    maps: [map],
    externs: [],
    notes: [],
  };
}

function fill(map: BpfMap): void {
  const { keySize, valueSize } = map.spec;
  for (let i = 1; i < KEYS; i++) {
    const key = new Uint8Array(keySize);
    key[0] = i;
    map.set(key, new Uint8Array(valueSize).fill(10 * i));
  }
}

type Row = readonly [type: MapTypeName, keySize: number, valueSize: number];

const ARRAY: Row = ['ARRAY', 4, 24];
const TYPES: readonly Row[] = [
  ARRAY,
  ['ARRAY', 4, 8],
  ['PERCPU_ARRAY', 4, 20],
  ['HASH', 5, 12],
  ['LRU_HASH', 16, 8],
  ['PERCPU_HASH', 8, 4],
  ['LRU_PERCPU_HASH', 4, 8],
];

describe.each(KERNEL_VERSIONS)('%s', (version) => {
  let kernel: Kernel;
  beforeAll(async () => {
    kernel = await bootLab({ version, cpus: 2 });
  });
  afterAll(() => kernel.close());

  const withObject = <T>(
    [type, keySize, valueSize]: Row,
    key: number,
    use: (object: LoadedObject) => T,
  ): T => {
    const spec = objectOf(definition(type, keySize, valueSize), lookup(key));
    const object = load(spec, kernel.bpf.host);
    try {
      for (const map of object.maps.values()) fill(map);
      return use(object);
    } finally {
      object.free();
    }
  };

  it.each(TYPES)('%s, key of %i, value of %i: the same on all engines', (...row) => {
    for (const key of [0, 1, 5, 200]) {
      const [expected, ...others] = (['interpreter', 'wasm', 'jit'] as const).map((engine) =>
        withObject(row, key, (object) => {
          const runner = createRunner(kernel, engine, object.program('p').xlated);
          const ends = [1, 2].map(() => runner.run(0n));
          runner.close();
          return { ends, entries: [...(object.maps.get('m')?.entries() ?? [])] };
        }),
      );
      const first = { 0: row[0].includes('ARRAY') ? 0n : 99n, 1: 10n, 5: 50n, 200: 99n }[key];
      expect(expected?.ends[0]).toMatchObject({ kind: 'return', r0: first });
      for (const each of others) expect(each).toEqual(expected);
    }
  });

  it('has the instructions of the version', () => {
    const code = (row: Row): string[] =>
      withObject(row, 1, (object) =>
        disassemble(object.program('p').xlated.functions[0].insns)
          .map(({ text }) => text.replace(/helper#.*/, 'HELPER'))
          .slice(8, -9),
      );
    const { ptrs } = kernel.bpf.profile.offsets;
    expect(code(ARRAY)).toEqual([
      `(07) r1 += ${ptrs}`,
      '(61) r0 = *(u32 *)(r2 +0)',
      '(35) if r0 >= 0x6 goto pc+3',
      '(27) r0 *= 24',
      '(0f) r0 += r1',
      '(05) goto pc+1',
      '(b7) r0 = 0',
    ]);
    expect(code(['LRU_HASH', 16, 8])).toEqual([
      '(85) call HELPER',
      '(15) if r0 == 0x0 goto pc+4',
      '(71) r1 = *(u8 *)(r0 +35)',
      '(55) if r1 != 0x0 goto pc+1',
      '(72) *(u8 *)(r0 +35) = 1',
      '(07) r0 += 64',
    ]);
    const percpu = [
      '(07) r0 += 56',
      '(79) r0 = *(u64 *)(r0 +0)',
      '(bf) r0 = &(void __percpu *)(r0)',
    ];
    expect(code(['PERCPU_HASH', 8, 4])).toEqual([
      '(85) call HELPER',
      ...(version === '6.1' ? [] : ['(15) if r0 == 0x0 goto pc+3', ...percpu]),
    ]);
  });
});
