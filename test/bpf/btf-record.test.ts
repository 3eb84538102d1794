/** The kernel's fields in types of a program, and the maps that may have them; errno values are those of a 6.18. */
import { describe, expect, it } from 'vitest';
import { Btf } from '../../src/bpf/btf/btf.js';
import { localTypes } from '../../src/bpf/btf/local-types.js';
import { parseRecord, VALUE_FIELDS } from '../../src/bpf/btf/record-parse.js';
import { findField, plainRecord, touchedField, type FieldKind } from '../../src/bpf/btf/record.js';
import type { BtfType } from '../../src/bpf/btf/types.js';
import { kernelStructs } from '../../src/bpf/kfuncs/kernel-structs.js';
import { createMap } from '../../src/bpf/maps/create.js';
import type { MapTypeName } from '../../src/bpf/maps/map.js';
import { PlainHost } from '../../src/bpf/plain-host.js';
import { KernelError } from '../../src/common/errors.js';
import { specOf } from './maps/support.js';

const int = (size: number): BtfType => ({
  kind: 'int',
  name: `u${8 * size}`,
  size,
  bits: 8 * size,
  signed: false,
  char: false,
  bool: false,
});

const struct = (
  name: string,
  size: number,
  ...members: [name: string, type: number, at: number][]
): BtfType => ({
  kind: 'struct',
  name,
  size,
  members: members.map(([each, type, at]) => ({ name: each, type, bitOffset: 8 * at, bitSize: 0 })),
});

const array = (type: number, count: number): BtfType => ({
  kind: 'array',
  type,
  indexType: 1,
  count,
});
const pointer = (type: number): BtfType => ({ kind: 'ptr', type });
const tag = (name: string, type: number): BtfType => ({ kind: 'type_tag', name, type });
const contains = (type: number, componentIndex: number, what: string): BtfType => ({
  kind: 'decl_tag',
  name: `contains:${what}`,
  type,
  componentIndex,
});

const LOCK = 2;
const HEAD = 3;
const NODE = 4;
const ITEM = 5;
const KPTR = 7;
/** What tests add begins here. */
const FIRST = 8;

/** Types that all tests have, and `more`, whose ids begin at FIRST. */
function btfOf(...more: BtfType[]): Btf {
  const types: BtfType[] = [
    { kind: 'void' },
    int(8),
    struct('bpf_spin_lock', 4),
    struct('bpf_list_head', 16),
    struct('bpf_list_node', 24),
    struct('item', 32, ['key', 1, 0], ['link', NODE, 8]),
    tag('kptr', ITEM),
    pointer(6),
    ...more,
  ];
  return new Btf(types, () => '');
}

/** The fields of a value of type FIRST as text, or the errno. */
function fieldsOf(...more: BtfType[]): string {
  const btf = btfOf(...more);
  const [value] = more;
  const context = { btf, kernelStruct: kernelStructs(undefined), recordOf: () => undefined };
  try {
    const size = value?.kind === 'struct' ? value.size : 0;
    const record = parseRecord(context, FIRST, VALUE_FIELDS, size);
    return (record?.fields ?? []).map(({ kind, offset }) => `${kind}@${offset}`).join(' ');
  } catch (error) {
    if (error instanceof KernelError) return error.errno;
    throw error;
  }
}

const WITH_LIST: [string, number, number][] = [
  ['lock', LOCK, 0],
  ['list', HEAD, 8],
];

describe('fields of a value', () => {
  it.each<[what: string, types: BtfType[], expected: string]>([
    ['none', [struct('v', 8, ['a', 1, 0])], ''],
    [
      'a list beside its lock',
      [struct('v', 24, ...WITH_LIST), contains(FIRST, 1, 'item:link')],
      'bpf_spin_lock@0 bpf_list_head@8',
    ],
    ['a list without tag', [struct('v', 24, ...WITH_LIST)], 'EINVAL'],
    [
      'of a struct that is not there',
      [struct('v', 24, ...WITH_LIST), contains(FIRST, 1, 'no:link')],
      'ENOENT',
    ],
    [
      'of a member that is not there',
      [struct('v', 24, ...WITH_LIST), contains(FIRST, 1, 'item:no')],
      'ENOENT',
    ],
    [
      'of a member that is no node',
      [struct('v', 24, ...WITH_LIST), contains(FIRST, 1, 'item:key')],
      'EINVAL',
    ],
    [
      'a list without lock',
      [struct('v', 16, ['list', HEAD, 0]), contains(FIRST, 0, 'item:link')],
      'EINVAL',
    ],
    ['two locks', [struct('v', 8, ['a', LOCK, 0], ['b', LOCK, 4])], 'E2BIG'],
    ['an array of locks', [struct('v', 8, ['a', FIRST + 1, 0]), array(LOCK, 2)], 'EINVAL'],
    ['a lock between words', [struct('v', 8, ['a', LOCK, 2])], ''],
    [
      'a lock in a struct',
      [struct('v', 16, ['in', FIRST + 1, 8]), struct('in', 8, ['a', LOCK, 4])],
      'bpf_spin_lock@12',
    ],
    ['kptrs in an array', [struct('v', 16, ['a', FIRST + 1, 0]), array(KPTR, 2)], 'kptr@0 kptr@8'],
    [
      'eleven kptrs',
      [struct('v', 88, ['a', FIRST + 1, 0]), array(KPTR, 11)],
      Array.from({ length: 11 }, (_, i) => `kptr@${8 * i}`).join(' '),
    ],
    ['twelve kptrs', [struct('v', 96, ['a', FIRST + 1, 0]), array(KPTR, 12)], 'E2BIG'],
    [
      'another tag',
      [struct('v', 8, ['a', FIRST + 1, 0]), pointer(FIRST + 2), tag('hello', ITEM)],
      'EINVAL',
    ],
    [
      'two tags',
      [struct('v', 8, ['a', FIRST + 1, 0]), pointer(FIRST + 2), tag('kptr', 6)],
      'EINVAL',
    ],
    [
      'a kptr to a number',
      [struct('v', 8, ['a', FIRST + 1, 0]), pointer(FIRST + 2), tag('kptr', 1)],
      'EINVAL',
    ],
    [
      'a kptr to what nothing releases',
      [
        struct('v', 8, ['a', FIRST + 1, 0]),
        pointer(FIRST + 2),
        tag('kptr', FIRST + 3),
        struct('cpumask', 64),
      ],
      'ENOENT',
    ],
    [
      'an untrusted one to it',
      [
        struct('v', 8, ['a', FIRST + 1, 0]),
        pointer(FIRST + 2),
        tag('kptr_untrusted', FIRST + 3),
        struct('cpumask', 64),
      ],
      'kptr_untrusted@0',
    ],
  ])('%s', (_, types, expected) => {
    expect(fieldsOf(...types)).toBe(expected);
  });
});

describe('objects of a program', () => {
  const node = (name: string, of: string): BtfType[] => [
    struct(name, 48, ['link', NODE, 0], ['lock', LOCK, 24], ['list', HEAD, 32]),
    { kind: 'decl_tag', name: `contains:${of}:link`, type: 0, componentIndex: 2 },
  ];
  const placed = (types: BtfType[]): BtfType[] =>
    types.map((type, i) => (type.kind === 'decl_tag' ? { ...type, type: FIRST + i - 1 } : type));
  const types = (...more: BtfType[]) =>
    localTypes(btfOf(...placed(more)), kernelStructs(undefined));

  it('own others once', () => {
    const known = types(...node('outer', 'item'));
    expect(known.recordOf(FIRST)?.fields.map(({ kind }) => kind)).toEqual([
      'bpf_list_node',
      'bpf_spin_lock',
      'bpf_list_head',
    ]);
    expect(findField(known.recordOf(FIRST), 32, 'bpf_list_head')?.graph).toMatchObject({
      typeId: ITEM,
      nodeOffset: 8,
    });
    expect(touchedField(known.recordOf(FIRST), 28, 32)).toBeUndefined();
    expect(known.recordOf(1)).toBeUndefined();
  });

  it.each([
    ['themselves', node('outer', 'outer')],
    ['what owns others', [...node('outer', 'inner'), ...node('inner', 'item')]],
  ])('that are owned do not own %s', (_, more) => {
    expect(() => types(...more)).toThrow(/^-ELOOP/);
  });
});

describe('map types', () => {
  const create = (kind: FieldKind, type: MapTypeName, flags = 0): string => {
    const host = new PlainHost();
    const record = plainRecord({ [kind]: 0 });
    try {
      createMap(
        specOf({ type, valueSize: 32, flags, record, keySize: type === 'LPM_TRIE' ? 8 : 4 }),
        host,
      ).free();
      return 'made';
    } catch (error) {
      if (error instanceof KernelError) return error.errno;
      throw error;
    }
  };

  it.each<[FieldKind, MapTypeName, string]>([
    ['bpf_spin_lock', 'HASH', 'made'],
    ['bpf_spin_lock', 'LRU_HASH', 'EOPNOTSUPP'],
    ['bpf_spin_lock', 'PERCPU_ARRAY', 'EOPNOTSUPP'],
    ['bpf_timer', 'LRU_HASH', 'made'],
    ['bpf_timer', 'PERCPU_HASH', 'EOPNOTSUPP'],
    ['bpf_list_head', 'ARRAY', 'made'],
    ['bpf_rb_root', 'PERCPU_ARRAY', 'EOPNOTSUPP'],
    ['kptr', 'PERCPU_HASH', 'made'],
    ['percpu_kptr', 'LRU_PERCPU_HASH', 'made'],
    ['kptr', 'QUEUE', 'EINVAL'],
  ])('%s in %s: %s', (kind, type, expected) => {
    expect(create(kind, type)).toBe(expected);
  });

  it('read-only values have none', () => {
    expect(create('kptr', 'HASH', 1 << 7)).toBe('EACCES');
  });
});
